"""Labels: teacher logits of patches to bytes and back, one file a codec."""
