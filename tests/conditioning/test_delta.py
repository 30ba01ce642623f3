"""Quantized differences of one and of two text encoders; vectors and latents, which are quantized alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d3codec.conditioning import delta, latents, vectors
from d3codec.errors import SectionError

BITS = st.integers(1, 8)
HALVES = st.integers(-40, 40).map(lambda number: number / 2)


@st.composite
def encoders(draw: st.DrawFn) -> list[np.ndarray]:
    """Differences of one or two encoders with the same rows and slots."""
    rows, slots = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=2))
    return [draw(arrays.arrays(np.float64, (rows, slots, width), elements=HALVES)) for width in widths]


def test_layout_of_two_rows_and_slots() -> None:
    data = bytes.fromhex("003c 1b0040 e4")
    (found,) = delta.decode(data, 2, 2, (2,), 2)
    assert found.tolist() == [[[1.5, 0.5], [-0.5, -1.5]], [[-3, -1], [1, 3]]]
    assert delta.encode(found, 2) == data


# Shows D3M-082.
def test_layout_of_two_encoders() -> None:
    # row by row: scale 1 and codes 3, 2 for the first encoder, scale 2 and codes 0, 1, 3 for the second
    data = bytes.fromhex("003c 0b 0040 34 003c 0b 0040 34")
    first, second = delta.decode(data, 2, 1, (2, 3), 2)
    assert first.tolist() == [[[1.5, 0.5]]] * 2
    assert second.tolist() == [[[-3.0, -1.0, 3.0]]] * 2
    assert delta.encode(first, 2, second) == data
    assert delta.row_bytes(1, (2, 3), 2) == 6


@settings(deadline=None, max_examples=50)
@given(encoders(), BITS)
def test_decoded_differences_round_trip(deltas: list[np.ndarray], bits: int) -> None:
    (rows, slots, _), widths = deltas[0].shape, [values.shape[2] for values in deltas]
    data = delta.encode(deltas[0], bits, *deltas[1:])
    assert len(data) == rows * delta.row_bytes(slots, widths, bits)
    found = delta.decode(data, rows, slots, widths, bits)
    assert [values.shape for values in found] == [values.shape for values in deltas]
    again = delta.decode(delta.encode(found[0], bits, *found[1:]), rows, slots, widths, bits)
    assert all((one == two).all() for one, two in zip(found, again, strict=True))


@settings(deadline=None, max_examples=50)
@given(encoders(), BITS)
def test_a_second_encoder_changes_nothing_for_the_first(deltas: list[np.ndarray], bits: int) -> None:
    first, widths = deltas[0], [values.shape[2] for values in deltas]
    rows, slots, width = first.shape
    (alone,) = delta.decode(delta.encode(first, bits), rows, slots, (width,), bits)
    both = delta.decode(delta.encode(first, bits, *deltas[1:]), rows, slots, widths, bits)
    assert (both[0] == alone).all()


def test_other_shapes_are_refused() -> None:
    for first, second in (
        (np.ones((1, 4)), None),
        (np.ones((1, 1, 4)), np.ones((1, 4))),
        (np.ones((1, 1, 4)), np.ones((2, 1, 4))),
        (np.ones((1, 1, 4)), np.ones((1, 2, 4))),
    ):
        with pytest.raises(ValueError, match=r"are \[rows, slots, width\]"):
            delta.encode(first, 2, second)
    with pytest.raises(ValueError, match=r"are \[rows, slots, width\]"):
        vectors.encode(np.ones((1, 4)), 2)
    with pytest.raises(ValueError, match=r"are \[rows, channels, height, width\]"):
        latents.encode(np.ones((1, 4, 4)), 2)


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float64, st.tuples(*[st.integers(1, 4)] * 3), elements=HALVES), BITS)
def test_vectors_are_one_block_a_row(values: np.ndarray, bits: int) -> None:
    data = vectors.encode(values, bits)
    assert data == delta.encode(values, bits)
    found = vectors.decode(data, *values.shape, bits)
    assert found.shape == values.shape
    assert (found == delta.decode(data, *values.shape[:2], values.shape[2:], bits)[0]).all()


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float64, st.tuples(*[st.integers(1, 4)] * 4), elements=HALVES), BITS)
# Shows D3M-087.
def test_latents_are_one_block_a_row(values: np.ndarray, bits: int) -> None:
    data = latents.encode(values, bits)
    flat = values.reshape(len(values), 1, -1)
    assert data == delta.encode(flat, bits)
    found = latents.decode(data, len(values), values.shape[1:], bits)
    assert found.shape == values.shape
    assert (latents.decode(latents.encode(found, bits), len(values), values.shape[1:], bits) == found).all()


def test_wrong_lengths_and_scales_name_the_section() -> None:
    for decode in (
        lambda data: delta.decode(data, 2, 1, (2, 2), 2),
        lambda data: vectors.decode(data, 4, 1, 2, 2),
        lambda data: latents.decode(data, 4, (1, 1, 2), 2),
    ):
        assert len(decode(bytes.fromhex("003c 03") * 4)) in (2, 4)
        for length in (0, 11, 13):
            with pytest.raises(SectionError, match=r"^(emb|lat): E_SECTION_SIZE"):
                decode(bytes(length))
        with pytest.raises(SectionError, match=r"^(emb|lat): E_SECTION_VALUE.*row [12] has a scale"):
            decode(bytes.fromhex("003c 03  003c 03  0000 03  003c 03"))
