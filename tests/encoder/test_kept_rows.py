"""Coded sections of some of their rows: the same values, also across the blocks that are coded together."""

from __future__ import annotations

import numpy as np
import pytest

from d3codec.conditioning import coded, transform
from d3codec.labels import adaptive, ranked_encoder, ranked_head
from d3codec.labels.stream import BLOCK

RNG = np.random.default_rng(3)


def chosen(rows: int) -> np.ndarray:
    return np.sort(RNG.permutation(rows)[: rows // 2])


@pytest.mark.parametrize(
    ("rows", "size", "spread"),  # of many rows there are two blocks; with a spread every row has a scale
    [(1, 9, None), (1, 9, 0.5), (2, 4, None), (20, 4_000, 0.5)],
)
def test_coded_rows(rows, size, spread):
    values = RNG.normal(size=(rows, size))
    data = coded._quantize(values, 0.25, coded._Setting(True, spread, 0.0)).written(coded.Layout(rows, size))
    some = chosen(rows) if rows > 1 else np.array([0])
    part = coded.select(data, rows, size, "emb", some)
    assert np.array_equal(coded.decode(part, len(some), size, "emb"), coded.decode(data, rows, size, "emb")[some])
    assert coded.select(data, rows, size, "emb", np.arange(rows)) == data
    assert coded.select(data, rows, size, "emb", np.zeros(0, np.int64)) == b""


@pytest.mark.parametrize(("count", "shape"), [(1, (4, 2, 3)), (300, (4, 4, 4))])  # two blocks
def test_transform_coded_latents(count, shape):
    values = RNG.normal(size=(count, *shape)) * 5
    values[0] *= 50  # beyond the tables: escapes
    data = transform.encode_at(values, 0.25)
    some = chosen(count) if count > 1 else np.array([0])
    some = np.append(0, some[some > 0])
    part = transform.select(data, count, shape, "lat", some)
    decoded = transform.decode(data, count, shape, "lat")
    assert np.array_equal(transform.decode(part, len(some), shape, "lat"), decoded[some])
    assert transform.select(data, count, shape, "lat", np.arange(count)) == data
    last_block = np.arange(count - count // 10, count)
    if len(last_block):
        part = transform.select(data, count, shape, "lat", last_block)
        assert np.array_equal(transform.decode(part, len(last_block), shape, "lat"), decoded[last_block])


def test_adaptive_labels():
    count, width = 4_200, 2  # two blocks
    classes = np.arange(count) % width
    data = adaptive.encode(RNG.normal(scale=3, size=(count, width)), classes, step=64)
    some = chosen(count)
    part = adaptive.select(data, classes, width, some)
    assert np.array_equal(adaptive.decode(part, classes[some], width), adaptive.decode(data, classes, width)[some])
    assert adaptive.select(data, classes, width, np.arange(count)) == data


def test_ranked_head_labels():
    count, width = BLOCK + 80, 6
    classes = np.arange(count) % width
    data = ranked_encoder.encode(RNG.normal(scale=3, size=(count, width)), classes, 3.0, "none")
    some = chosen(count)
    part = ranked_head.select(data, count, width, some)
    assert np.array_equal(
        ranked_head.decode(part, classes[some], width), ranked_head.decode(data, classes, width)[some]
    )
    assert ranked_head.select(data, count, width, np.arange(count)) == data
