"""Corrections of exact files: layout in literal bytes, round trips, and the same judgement as the container's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec import corrections
from d3codec.errors import SectionError
from d3codec.format.sections import check_corrections

PLACES = st.integers(0, 2**63 - 1) | st.integers(0, 300)
ENTRIES = st.dictionaries(PLACES, st.integers(0, 255), max_size=12).map(lambda entries: sorted(entries.items()))


def arrays(entries: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([place for place, _ in entries], np.int64), np.array([level for _, level in entries], np.uint8)


def test_an_entry_is_a_distance_and_a_value() -> None:
    entries = [(0, 7), (1, 255), (128, 0), (300, 9), (2**63 - 1, 1)]
    data = corrections.encode(*arrays(entries))
    last = 2**63 - 1 - 300
    groups = [last >> 7 * index & 0x7F for index in range(9)]
    end = bytes([group | 0x80 for group in groups[:-1]] + groups[-1:]) + b"\x01"
    assert data == bytes.fromhex("00 07  01 ff  7f 00  ac01 09") + end


@settings(deadline=None)
@given(ENTRIES)
def test_decoding_undoes_encoding(entries: list[tuple[int, int]]) -> None:
    data = corrections.encode(*arrays(entries))
    places, levels = corrections.decode(data)
    assert (places.dtype, levels.dtype) == (np.int64, np.uint8)
    assert list(zip(places.tolist(), levels.tolist(), strict=True)) == entries
    check_corrections(data, len(entries), 2**63)


@settings(deadline=None, max_examples=300)
@given(ENTRIES, st.binary(max_size=12), st.integers(0, 60))
def test_any_bytes_are_judged_as_by_the_container(entries: list[tuple[int, int]], other: bytes, at: int) -> None:
    data = bytearray(corrections.encode(*arrays(entries)))
    data[at : at + len(other)] = other
    try:
        places, levels = corrections.decode(bytes(data))
    except SectionError:
        # the container knows the number of entries: of whatever number these could be, they are refused
        for count in range(len(data) + 1):
            with pytest.raises(SectionError, match="E_SECTION_VALUE"):
                check_corrections(bytes(data), count, 2**63)
    else:
        check_corrections(bytes(data), len(places), 2**63)
        assert corrections.encode(places, levels) == bytes(data)


@pytest.mark.parametrize(
    ("places", "levels"),
    [
        ([1, 1], [0, 0]),
        ([2, 1], [0, 0]),
        ([-1], [0]),
        ([2**63], [0]),
        ([1], [256]),
        ([1], [-1]),
        ([1], [0, 1]),
        ([[1]], [[0]]),
        ([1.0], [0]),
        ([True], [0]),
    ],
)
def test_other_arrays_are_refused(places: list, levels: list) -> None:
    with pytest.raises(ValueError, match=r"integers \[n\]|outside 0 to 255|strictly ascending"):
        corrections.encode(places, levels)


@pytest.mark.parametrize(
    "data", ["80", "00", "8000 01", "00 01 00 01", "ffffffffffffffffff01 00", "7f 01 ffffffffffffffff7f 01"]
)
# Shows D3M-080, D3M-081.
def test_impossible_entries_are_named(data: str) -> None:
    with pytest.raises(SectionError, match=r"^fix entry [01]: E_SECTION_VALUE"):
        corrections.decode(bytes.fromhex(data))
