"""Sequences of token ids of their own length, and class ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.conditioning import class_ids, tokens
from d3codec.errors import SectionError

ROWS = st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=20), max_size=6)


def test_a_row_is_its_length_and_its_ids() -> None:
    data = tokens.encode([[49406, 320, 49407], [7]])
    assert data == bytes.fromhex("0300 fec0 4001 ffc0 0100 0700")
    assert [row.tolist() for row in tokens.decode(data, 2)] == [[49406, 320, 49407], [7]]


@settings(deadline=None)
@given(ROWS)
def test_decoding_undoes_encoding(rows: list[list[int]]) -> None:
    found = tokens.decode(tokens.encode(rows), len(rows))
    assert [row.tolist() for row in found] == rows
    assert all(row.dtype == np.int64 for row in found)


@pytest.mark.parametrize("bad", [[], [1] * 1_025, [-1], [65_536], [1.5], [[1]], [True]])
def test_rows_that_cannot_be_stored_are_named(bad: list) -> None:
    with pytest.raises(ValueError, match=r"^row 1: "):
        tokens.encode([[1], bad])


@settings(deadline=None)
@given(ROWS, st.binary(max_size=30), st.integers(0, 6))
def test_any_bytes_are_read_as_they_are_or_refused(rows: list[list[int]], tail: bytes, count: int) -> None:
    data = tokens.encode(rows) + tail
    refused = False
    found: list[np.ndarray] = []
    try:
        found = tokens.decode(data, count)
    except SectionError as error:
        refused = error.code == "E_SECTION_VALUE"
        assert refused
    if not refused:
        assert tokens.encode([row.tolist() for row in found]) == data


# Shows D3M-084.
def test_impossible_lengths_name_their_row() -> None:
    for data in ("0100 0700 0000", "0100 0700 0200 0100", "0100 0700", "0100 0700 0104" + "0000" * 1_025):
        with pytest.raises(SectionError, match="row 1 has an impossible length"):
            tokens.decode(bytes.fromhex(data), 2)
    for data in ("0100 0700 00", "0100 0700 0100 0700"):
        with pytest.raises(SectionError, match="bytes after the last row"):
            tokens.decode(bytes.fromhex(data), 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), max_size=9))
def test_class_ids_round_trip(ids: list[int]) -> None:
    data = class_ids.encode(np.array(ids, np.int64))
    assert data == b"".join(number.to_bytes(4, "little") for number in ids)
    found = class_ids.decode(data, len(ids))
    assert found.tolist() == ids
    assert found.dtype == np.int64


# Shows D3M-085.
def test_class_ids_are_bounded() -> None:
    for bad in ([[1]], [0.5], [True]):
        with pytest.raises(ValueError, match=r"class ids are integers \[rows\]"):
            class_ids.encode(bad)
    for number in (-1, 2**31):
        with pytest.raises(ValueError, match=r"^row 1: class ids outside"):
            class_ids.encode([0, number])
    for length in (0, 7, 9):
        with pytest.raises(SectionError, match="E_SECTION_SIZE"):
            class_ids.decode(bytes(length), 2)
    with pytest.raises(SectionError, match=r"E_SECTION_VALUE.*row 1 has an id above"):
        class_ids.decode(bytes.fromhex("ffffff7f 00000080"), 2)
