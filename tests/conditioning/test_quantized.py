"""Quantized numbers: layout in literal bytes, exact round trips, the search for the scale, refusals."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d3codec.conditioning import quantized
from d3codec.errors import SectionError

BITS = st.integers(1, 8)
SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 60))
NUMBERS = arrays.arrays(np.float64, SHAPES, elements=st.floats(-4, 4, width=32))
EVERY_BITS = pytest.mark.parametrize("bits", range(1, 9))


def half(value: float) -> bytes:
    return np.array([value], "<f2").tobytes()


def encoded(values: np.ndarray, bits: int) -> bytes:
    return quantized.encode(values, bits).tobytes()


def decoded(data: bytes, rows: int, size: int, bits: int) -> np.ndarray:
    return quantized.decode(quantized.table(data, rows, quantized.row_bytes(size, bits), "emb"), size, bits, "emb")


@st.composite
def sections(draw: st.DrawFn) -> tuple[bytes, tuple[int, int], int]:
    """Valid bytes of the format: any positive finite scale, any codes, padding of zeros."""
    (rows, size), bits = draw(SHAPES), draw(BITS)
    used = size * bits
    parts = []
    for _ in range(rows):
        scale = draw(st.integers(1, 0x7BFF)).to_bytes(2, "little")
        codes = draw(st.integers(0, 2**used - 1)).to_bytes(-(-used // 8), "little")
        parts.append(scale + codes)
    return b"".join(parts), (rows, size), bits


def least_error(row: np.ndarray, bits: int) -> float:
    """The least squared error that any float16 scale gives: every one of them tried."""
    scales = np.arange(1, 0x7C00, dtype="<u2").view("<f2").astype(np.float64)
    scales = scales[(scales > np.abs(row).max() / 600) & (scales < 2.1 * np.abs(row).max())]
    levels = np.arange(2**bits) - (2**bits - 1) / 2
    best = np.inf
    for scale in scales:
        grid = levels * scale
        places = np.clip(np.searchsorted(grid, row), 1, len(grid) - 1)
        errors = np.minimum((row - grid[places]) ** 2, (row - grid[places - 1]) ** 2)
        best = min(best, float(errors.sum()))
    return best


def test_layout_of_three_bits() -> None:
    # scale 0.5; codes 0, 7, 4, 3, 1 stand for -1.75, 1.75, 0.25, -0.25, -1.25
    values = np.array([[-1.75, 1.75, 0.25, -0.25, -1.25]])
    packed = 0 | 7 << 3 | 4 << 6 | 3 << 9 | 1 << 12
    expected = half(0.5) + packed.to_bytes(2, "little")
    assert expected == bytes.fromhex("0038 3817")
    assert encoded(values, 3) == expected
    assert decoded(expected, 1, 5, 3).tolist() == values.tolist()


def test_layout_of_two_bits_in_two_rows() -> None:
    data = bytes.fromhex("003c 1b0040 e4")
    assert decoded(data, 2, 4, 2).tolist() == [[1.5, 0.5, -0.5, -1.5], [-3, -1, 1, 3]]
    assert encoded(decoded(data, 2, 4, 2), 2) == data


@settings(deadline=None, max_examples=50)
@given(sections())
# Shows D3M-074.
def test_decoding_is_exact(section: tuple[bytes, tuple[int, int], int]) -> None:
    data, (rows, numbers), bits = section
    found = decoded(data, rows, numbers, bits)
    size = quantized.row_bytes(numbers, bits)
    for number, row in enumerate(found.tolist()):
        raw = data[number * size : (number + 1) * size]
        scale = Fraction(float(np.frombuffer(raw[:2], "<f2")[0]))
        packed = int.from_bytes(raw[2:], "little")
        codes = [packed >> place * bits & (2**bits - 1) for place in range(numbers)]
        middle = Fraction(2**bits - 1, 2)
        assert [Fraction(value) for value in row] == [(code - middle) * scale for code in codes]


@settings(deadline=None, max_examples=50)
@given(sections())
def test_values_on_a_grid_are_kept_exactly(section: tuple[bytes, tuple[int, int], int]) -> None:
    data, shape, bits = section
    values = decoded(data, *shape, bits)
    if np.abs(values).max(initial=0) <= 32752:
        assert (decoded(encoded(values, bits), *shape, bits) == values).all()


@settings(deadline=None, max_examples=50)
@given(NUMBERS, BITS)
def test_encoding_again_gives_the_same_values(values: np.ndarray, bits: int) -> None:
    once = decoded(encoded(values, bits), *values.shape, bits)
    assert (decoded(encoded(once, bits), *values.shape, bits) == once).all()


@EVERY_BITS
def test_learned_numbers_round_trip_in_every_bit(bits: int) -> None:
    values = np.random.default_rng(bits).normal(0, 0.02, (4, 192))
    data = encoded(values, bits)
    assert len(data) == 4 * quantized.row_bytes(192, bits) == 4 * (2 + 24 * bits)
    assert encoded(decoded(data, 4, 192, bits), bits) == data


@settings(deadline=None, max_examples=50)
@given(NUMBERS, BITS)
def test_padding_is_zero_and_scales_are_sound(values: np.ndarray, bits: int) -> None:
    rows, numbers = values.shape
    data, size = encoded(values, bits), quantized.row_bytes(numbers, bits)
    assert len(data) == rows * size
    for start in range(0, len(data), size):
        assert int.from_bytes(data[start + 2 : start + size], "little") >> numbers * bits == 0
        scale = float(np.frombuffer(data[start : start + 2], "<f2")[0])
        assert 0 < scale < np.inf


@settings(deadline=None, max_examples=50)
@given(NUMBERS, BITS)
def test_every_value_takes_its_nearest_level(values: np.ndarray, bits: int) -> None:
    rows, numbers = values.shape
    data = encoded(values, bits)
    found = decoded(data, rows, numbers, bits)
    size = quantized.row_bytes(numbers, bits)
    scales = np.frombuffer(data, np.uint8).reshape(rows, size)[:, :2].copy().view("<f2").astype(np.float64)
    levels = (np.arange(2**bits) - (2**bits - 1) / 2) * scales[:, :, None]
    nearest = np.abs(values[..., None] - levels).min(axis=-1)
    assert (np.abs(found - values) <= nearest * (1 + 1e-12)).all()


@EVERY_BITS
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform", "spike", "cauchy"])
def test_the_scale_is_nearly_the_best_of_all(bits: int, kind: str) -> None:
    rng = np.random.default_rng(bits)
    draw = {
        "normal": rng.normal,
        "laplace": rng.laplace,
        "uniform": lambda size: rng.uniform(-1, 1, size),
        "spike": lambda size: np.where(np.arange(size) == 3, 1.0, rng.normal(size=size) * 1e-2),
        "cauchy": lambda size: np.clip(rng.standard_cauchy(size), -50, 50),
    }[kind]
    row = draw(size=96)
    found = decoded(encoded(row.reshape(1, 96), bits), 1, 96, bits).reshape(-1)
    assert ((found - row) ** 2).sum() <= 1.05 * least_error(row, bits)


def test_error_falls_with_every_bit() -> None:
    values = np.random.default_rng(5).normal(0, 0.02, (3, 192))
    errors = [
        float(((decoded(encoded(values, bits), 3, 192, bits) - values) ** 2).sum(axis=1).max()) for bits in range(1, 9)
    ]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))
    # two bits on normal numbers: Max's uniform quantizer has a distortion of 0.1188 (1960, table II)
    assert errors[1] / 192 / 0.02**2 == pytest.approx(0.1188, rel=0.1)


@EVERY_BITS
def test_rows_of_zeros_get_the_smallest_normal_scale(bits: int) -> None:
    data = encoded(np.zeros((2, 5)), bits)
    assert data[:2] == half(2.0**-14)
    found = decoded(data, 2, 5, bits)
    assert (found == 2.0**-15).all()
    assert (decoded(encoded(found, bits), 2, 5, bits) == found).all()


@EVERY_BITS
@pytest.mark.parametrize("value", [5e-324, 1e-12, 2.0**-24, 32752.0])
def test_extreme_rows_are_taken(bits: int, value: float) -> None:
    found = decoded(encoded(np.array([[value, -value]]), bits), 1, 2, bits)
    assert np.abs(found - [value, -value]).max() <= max(2.0**-25, value * 2.0**-11)
    assert (np.sign(found) == [[1, -1]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -32753.0])
def test_values_that_cannot_be_stored_name_their_row(bad: float) -> None:
    values = np.ones((3, 4))
    values[1, 2] = bad
    with pytest.raises(ValueError, match=r"^row 1: numbers that are not finite or beyond 32752"):
        encoded(values, 2)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="outside 1 to 8"):
        encoded(np.ones((1, 4)), bits)
    with pytest.raises(ValueError, match="outside 1 to 8"):
        decoded(b"", 0, 4, bits)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"are \[rows, size\]"):
        encoded(np.ones((1, 4, 1)), 2)


@pytest.mark.parametrize("length", [0, 5, 7])
def test_a_section_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(SectionError) as caught:
        decoded(bytes(length), 2, 4, 2)
    assert caught.value.code == "E_SECTION_SIZE"


@pytest.mark.parametrize("scale", [0.0, -0.0, -1.0, float("inf"), float("nan")])
def test_impossible_scales_are_refused(scale: float) -> None:
    good = half(1.0) + bytes([0b11011])
    with pytest.raises(SectionError, match="row 1 has a scale") as caught:
        decoded(good + half(scale) + good[2:], 2, 5, 1)
    assert caught.value.code == "E_SECTION_VALUE"


@pytest.mark.parametrize("bit", [5, 6, 7])
def test_padding_that_is_not_zero_is_refused(bit: int) -> None:
    good = half(1.0) + bytes([0b11011])
    with pytest.raises(SectionError, match="row 0 has padding") as caught:
        decoded(half(1.0) + bytes([1 << bit]) + good, 2, 5, 1)
    assert caught.value.code == "E_SECTION_VALUE"
