"""Transform-coded latents: what encoders and readers of files use. The format is specified in spec/latents.md."""

from d3codec.conditioning.transform_encoder import encode, encode_at
from d3codec.conditioning.transform_stream import decode, select

__all__ = ["decode", "encode", "encode_at", "select"]
