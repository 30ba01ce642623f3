"""The k largest logits, the rest shared: bytes, what they mean, what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.errors import SectionError
from d3codec.labels import topk


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def test_a_row_is_columns_and_heights_above_the_rest() -> None:
    """Logarithms of 4, 2 and 1, 1: the two last share their mean, 1."""
    logits = np.log([[1.0, 4.0, 1.0, 2.0]])
    data = topk.encode(logits, 2)
    assert data == struct.pack("<2H2e", 1, 3, np.log(4), np.log(2))
    decoded = topk.decode(data, 1, 4, 2)
    assert decoded.tolist() == [[0, np.float16(np.log(4)), 0, np.float16(np.log(2))]]
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(softmax(decoded)[0], [0.125, 0.5, 0.125, 0.25], atol=3e-4)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0.1, 12))
def test_the_largest_keep_their_probabilities(width: int, k: int, seed: int, scale: float) -> None:
    k = min(k, width)
    logits = np.random.default_rng(seed).normal(scale=scale, size=(5, width)) + 100
    decoded = topk.decode(topk.encode(logits, k), 5, width, k)
    teacher, stored = softmax(logits), softmax(decoded)
    order = np.argsort(-logits, axis=1, kind="stable")
    top = np.take_along_axis(teacher, order[:, :k], 1)
    # a float16 is off by up to 2^-11 of a logit of up to 100
    np.testing.assert_allclose(np.take_along_axis(stored, order[:, :k], 1), top, rtol=2 * 2**-11 * 8 * scale + 1e-3)
    if k < width:
        rest = np.take_along_axis(stored, order[:, k:], 1)
        assert (rest == rest[:, :1]).all()
        assert (rest <= np.take_along_axis(stored, order[:, k - 1 : k], 1)).all()
    assert (decoded.max(1) == decoded[np.arange(5), order[:, 0]]).all()  # float16 may make the second as large


def test_all_of_them_are_logits_above_the_smallest() -> None:
    decoded = topk.decode(topk.encode([[3.0, -1.0, 0.5]], 3), 1, 3, 3)
    assert decoded.tolist() == [[4.0, 0.0, 1.5]]
    assert topk.decode(topk.encode([[7.0]], 1), 1, 1, 1).tolist() == [[0.0]]


def test_of_equal_logits_the_lower_columns_are_kept() -> None:
    columns, above = topk.pairs(topk.encode([[1.0, 2.0, 2.0, 2.0, 1.0]], 2), 1, 5, 2)
    assert columns.tolist() == [[1, 2]]
    assert above[0, 0] == above[0, 1]


@pytest.mark.parametrize(
    ("width", "k", "size"), [(1, 1, 4), (10, 3, 12), (1_000, 10, 40), (65_536, 2, 8), (65_537, 2, 12)]
)
def test_widths(width: int, k: int, size: int) -> None:
    assert topk.row_bytes(width, k) == size
    logits = np.random.default_rng(width).normal(size=(2, width))
    logits[0, -1] = 50 if width > 1 else 0
    data = topk.encode(logits, k)
    assert len(data) == 2 * size
    columns, above = topk.pairs(data, 2, width, k)
    assert columns[0, 0] == width - 1
    np.testing.assert_array_equal(columns, np.argsort(-logits, axis=1, kind="stable")[:, :k])
    assert (topk.decode(data, 2, width, k) > 0).sum() == (above > 0).sum()
    assert topk.encode(logits[:0], k) == b""
    assert topk.decode(b"", 0, width, k).shape == (0, width)


def test_many_rows_are_the_same_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(1).normal(size=(50, 30))
    whole = topk.encode(logits, 4)
    assert whole == b"".join(topk.encode(row[None], 4) for row in logits)
    monkeypatch.setattr(topk, "_ROWS_AT_ONCE", 200)
    assert topk.encode(logits, 4) == whole


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, 2.0, float("nan")], "row 1: logits that are not finite"),
        ([1.0, 2.0, float("-inf")], "row 1: logits that are not finite"),
        ([3.0, 3.0, 3.0], "row 1: .*constant row"),
        ([0.0, 0.0, 1e5], "row 1: a logit more than 65504 nats above the rest"),
    ],
)
def test_rows_that_are_no_labels_are_named(row: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topk.encode([[0.0, 1.0, 2.0], row], 2)


def test_k_is_bounded() -> None:
    for width, k in ((3, 0), (3, 4), (5_000, 1_025), (3, -1)):
        with pytest.raises(ValueError, match="logits of"):
            topk.row_bytes(width, k)
        with pytest.raises(ValueError, match="logits of"):
            topk.decode(b"", 0, width, k)


GOOD = struct.pack("<2H2e", 1, 3, 2.0, 0.5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (struct.pack("<2H2e", 1, 4, 2.0, 0.5), "a column outside the width"),
        (struct.pack("<2H2e", 1, 1, 2.0, 0.5), "a column twice"),
        (struct.pack("<2H2e", 1, 3, 0.5, 2.0), "logits that do not descend"),
        (struct.pack("<2H2e", 1, 3, 2.0, -0.5), "not finite or below 0"),
        (struct.pack("<2H2e", 1, 3, 2.0, -0.0), "not finite or below 0"),
        (struct.pack("<2H2e", 1, 3, float("inf"), 0.5), "not finite or below 0"),
        (struct.pack("<2H2e", 1, 3, float("nan"), 0.5), "not finite or below 0"),
    ],
)
# Shows D3M-094.
def test_impossible_rows_are_named(row: bytes, message: str) -> None:
    with pytest.raises(SectionError, match=f"E_SECTION_VALUE: .*row 2 has .*{message}"):
        topk.decode(GOOD + GOOD + row + GOOD, 4, 4, 2)
    assert topk.decode(GOOD, 1, 4, 2).tolist() == [[0, 2, 0, 0.5]]
    with pytest.raises(SectionError, match="E_SECTION_SIZE"):
        topk.decode(GOOD[:-1], 1, 4, 2)


@given(st.binary(min_size=16, max_size=16))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        decoded = topk.decode(data, 2, 5, 2)
    except SectionError as error:
        assert error.code == "E_SECTION_VALUE"  # noqa: PT017  # both ends are right
        return
    assert np.isfinite(decoded).all()
    assert (decoded >= 0).all()
