"""Labels as int8: error bound, idempotence, refusals, exact decoding, literal vectors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d3codec.errors import SectionError
from d3codec.labels import quantized

SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 12))
LOGITS = arrays.arrays(np.float64, SHAPES, elements=st.floats(-20, 20))


def exact_mean_free(logits: np.ndarray) -> list[list[Fraction]]:
    rows = [[Fraction(value) for value in row] for row in logits.tolist()]
    return [[value - sum(row) / len(row) for value in row] for row in rows]


def test_a_known_row() -> None:
    # mean 1; with 128/256 nat a step the rest is -2, -0.5, 2.5 nat = -4, -1, 5 steps
    data = quantized.encode([[-1.0, 0.5, 3.5]], 128)
    assert data == bytes([0xFC, 0xFF, 0x05])
    assert quantized.decode(data, 1, 3, 128).tolist() == [[-2.0, -0.5, 2.5]]


def test_halves_round_to_the_even_step() -> None:
    halves = np.array([[0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 126.5, -126.5]]) / 256
    assert np.frombuffer(quantized.encode(halves, 1), np.int8).tolist() == [0, 0, 2, -2, 2, -2, 126, -126]


def test_rows_lie_one_after_the_other() -> None:
    assert quantized.encode([[1.0, -1.0], [-2.0, 2.0]], 256) == bytes([1, 255, 254, 2])


@settings(deadline=None)
@given(LOGITS)
def test_the_error_is_at_most_half_a_step(logits: np.ndarray) -> None:
    step = quantized.choose_step(logits)
    decoded = quantized.decode(quantized.encode(logits, step), *logits.shape, step)
    # beyond the half step: the mean, the difference and the quotient are each rounded once (values below 40)
    bound = Fraction(step, 512) + Fraction(40 * 4, 2**53)
    for row, exact in zip(decoded.tolist(), exact_mean_free(logits), strict=True):
        assert all(abs(Fraction(value) - true) <= bound for value, true in zip(row, exact, strict=True))


@settings(deadline=None)
@given(LOGITS, st.integers(0, 300))
def test_encoding_what_was_decoded_changes_nothing(logits: np.ndarray, more: int) -> None:
    step = quantized.choose_step(logits) + more
    data = quantized.encode(logits, step)
    assert quantized.encode(quantized.decode(data, *logits.shape, step), step) == data


def test_idempotence_at_its_worst() -> None:
    """All values are ties that round the same way: the decoded row has a mean of half a step."""
    data = quantized.encode(np.array([[1.5, -0.5, -0.5, -0.5]]) / 256, 1)
    assert data == bytes([2, 0, 0, 0])
    assert quantized.encode(quantized.decode(data, 1, 4, 1), 1) == data


@settings(deadline=None)
@given(arrays.arrays(np.int16, (3, 8), elements=st.integers(-1280, 1280)), st.integers(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(sixtyfourths: np.ndarray, shift: int) -> None:
    logits = sixtyfourths / 64  # with these and 8 columns every mean and difference is exact
    step = quantized.choose_step(logits)
    assert quantized.choose_step(logits + shift) == step
    assert quantized.encode(logits + shift, step) == quantized.encode(logits, step)


@settings(deadline=None)
@given(st.integers(1, 10), st.floats(-1e6, 1e6))
def test_constant_rows_become_zeros(width: int, value: float) -> None:
    assert quantized.encode(np.full((2, width), value), 1) == bytes(2 * width)


def test_one_class_and_no_rows() -> None:
    assert quantized.encode([[7.0], [-3.0]], 5) == bytes(2)
    assert quantized.encode(np.zeros((0, 10)), 5) == b""
    assert quantized.decode(b"", 0, 10, 5).shape == (0, 10)
    assert quantized.choose_step(np.zeros((0, 10))) == 1


@settings(deadline=None)
@given(st.binary(min_size=12, max_size=12), st.integers(1, 65535))
# Shows D3M-092.
def test_decoding_is_exact(data: bytes, step: int) -> None:
    found = quantized.decode(data, 3, 4, step)
    expected = [Fraction((byte + 128) % 256 - 128) * step / 256 for byte in data]
    assert [Fraction(value) for value in found.reshape(-1).tolist()] == expected
    assert found.dtype == np.float64


@settings(deadline=None)
@given(LOGITS)
def test_chosen_step_is_the_smallest_that_fits(logits: np.ndarray) -> None:
    step = quantized.choose_step(logits)
    quantized.encode(logits, step)
    if step > 1:
        with pytest.raises(ValueError, match="int8 holds"):
            quantized.encode(logits, step - 1)


@pytest.mark.parametrize(
    ("top", "bottom", "step"),
    [(127, -127, 1), (127.25, -127.25, 1), (127.5, -127.5, 2), (128, -128, 2), (-128.5, 128.5, 2), (255, -255, 3)],
)
def test_chosen_step_at_the_edge_of_int8(top: float, bottom: float, step: int) -> None:
    assert quantized.choose_step(np.array([[top, bottom]]) / 256) == step


def test_minus_128_is_used() -> None:
    row = np.array([[-128.5, 64.25, 64.25]]) / 256
    assert quantized.choose_step(row) == 1
    assert quantized.encode(row, 1) == bytes([128, 64, 64])


def test_values_beyond_int8_name_their_row() -> None:
    with pytest.raises(ValueError, match=r"^row 1: logits need -200 to 200 steps of 1/256 nat"):
        quantized.encode(np.array([[0.1, -0.1], [200, -200], [300, -300]]) / 256, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_row(bad: float) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = bad
    for call in (lambda: quantized.encode(logits, 1), lambda: quantized.choose_step(logits)):
        with pytest.raises(ValueError, match=r"^row 2: logits that are not finite"):
            call()


def test_logits_beyond_any_step_are_refused() -> None:
    assert quantized.choose_step([[32000.0, -32000.0]]) <= 65535
    with pytest.raises(ValueError, match="do not fit int8 with any step"):
        quantized.choose_step([[40000.0, -40000.0]])


@pytest.mark.parametrize("step", [0, -1, 65536])
def test_steps_out_of_range_are_refused(step: int) -> None:
    with pytest.raises(ValueError, match="outside 1 to 65535"):
        quantized.encode([[1.0, -1.0]], step)
    with pytest.raises(ValueError, match="outside 1 to 65535"):
        quantized.decode(bytes(2), 1, 2, step)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="with a width of at least 1"):
        quantized.encode(np.zeros(shape), 1)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_section_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(SectionError) as caught:
        quantized.decode(bytes(length), 3, 4, 1)
    assert caught.value.code == "E_SECTION_SIZE"


def test_float32_logits_are_taken_as_they_are() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (6, 10)).astype(np.float32)
    assert quantized.encode(logits, 20) == quantized.encode(logits.astype(np.float64), 20)
