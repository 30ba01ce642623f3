"""Labels as float16, and labels that are the class alone."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d3codec.errors import SectionError
from d3codec.labels import hard, raw16

HALVES = arrays(np.float16, st.tuples(st.integers(0, 5), st.integers(2, 9)), elements=st.floats(-6e4, 6e4, width=16))


# Shows D3M-093.
def test_rows_are_little_endian_float16() -> None:
    assert raw16.encode([[1.0, -2.5], [0.0, 65_504.0]]) == struct.pack("<4e", 1.0, -2.5, 0.0, 65_504.0)
    assert raw16.decode(struct.pack("<2e", 0.5, -0.25), 1, 2).tolist() == [[0.5, -0.25]]
    assert raw16.decode(struct.pack("<2e", 0.5, -0.25), 1, 2).dtype == np.float32


def test_rounding_is_to_the_nearest_half_to_even() -> None:
    assert raw16.decode(raw16.encode([[2049.0, 2051.0, 1.0 + 2**-11]]), 1, 3).tolist() == [[2048.0, 2052.0, 1.0]]


@given(HALVES)
def test_what_came_from_decode_is_kept(stored: np.ndarray) -> None:
    data = stored.astype("<f2").tobytes()
    decoded = raw16.decode(data, *stored.shape)
    np.testing.assert_array_equal(decoded, stored.astype(np.float32))
    if not any(len(set(row)) == 1 for row in decoded.tolist()):
        assert raw16.encode(decoded) == data


@pytest.mark.parametrize("width", [1, 10, 100, 1_000, 21_841])
def test_widths(width: int) -> None:
    logits = np.random.default_rng(width).normal(size=(3, width))
    np.testing.assert_array_equal(raw16.decode(raw16.encode(logits), 3, width), logits.astype(np.float16))
    assert raw16.encode(logits[:0]) == b""
    assert raw16.decode(b"", 0, width).shape == (0, width)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, float("nan")], "row 1: logits that are not finite"),
        ([1.0, float("-inf")], "row 1: logits that are not finite"),
        ([3.0, 3.0], "row 1: one logit for all classes, a constant row"),
        ([1.0, 65_520.0], "row 1: logits beyond 65504, the largest float16"),
        ([1.0, -1e300], "row 1: logits beyond 65504, the largest float16"),
    ],
)
def test_rows_that_are_no_labels_are_named(row: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        raw16.encode([[0.0, 1.0], row])


def test_shapes_that_are_no_rows() -> None:
    for shape in ((3,), (2, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="logits are"):
            raw16.encode(np.zeros(shape))
    for length in (0, 11, 13):
        with pytest.raises(SectionError, match="E_SECTION_SIZE"):
            raw16.decode(bytes(length), 2, 3)
    for bad in (b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"):
        with pytest.raises(SectionError, match=r"E_SECTION_VALUE: .*row 1 has a logit that is not finite"):
            raw16.decode(bytes(6) + bad + bytes(4), 2, 3)


def test_hard_labels() -> None:
    assert hard.one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert hard.one_hot(np.zeros(0, np.int64), 3).shape == (0, 3)
    assert hard.one_hot([0], 1).tolist() == [[1]]
    with pytest.raises(ValueError, match="row 1: class 3 outside 0 to 2"):
        hard.one_hot([0, 3], 3)
    with pytest.raises(ValueError, match="row 0: class -1"):
        hard.one_hot([-1], 3)
    with pytest.raises(ValueError, match="classes are integers"):
        hard.one_hot([0.5], 3)
