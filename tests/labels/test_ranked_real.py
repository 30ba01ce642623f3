"""The bar on a real teacher's logits, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from d3codec import labels
from d3codec.labels import topk
from d3codec.labels.corrections import divergences

DATA = Path(os.environ.get("D3CODEC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


def test_real_labels_at_seven_and_a_half_bytes_are_closer_than_top_10_at_forty() -> None:
    path = DATA / "imagenet_patch_logits_eval.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} under {DATA} (D3CODEC_TEST_DATA names another place)")
    with np.load(path) as arrays:
        z, classes = arrays["logits"][:1000].astype(np.float32), arrays["label"][:1000].astype(np.int64)
    data = labels.encode_logits(z, classes=classes, bytes_per_label=7.5)
    assert len(data) <= 7.5 * len(z)
    found = labels.decode_logits(data, classes=classes)
    np.testing.assert_array_equal(found.argmax(axis=1), z.argmax(axis=1))
    rows = topk.encode(z, 10)
    assert len(rows) == 40 * len(z)
    ratios = divergences(z, found) / divergences(z, topk.decode(rows, 1000, 1000, 10))
    assert (ratios <= 1).all(), ratios
