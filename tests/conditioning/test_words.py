"""Token ids as 16-bit rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d3codec.conditioning import words
from d3codec.errors import SectionError

SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 5))


def test_ids_are_little_endian_row_by_row() -> None:
    assert words.encode([[1, 258], [65535, 49407]]) == bytes.fromhex("0100 0201 ffff ffc0")


@settings(deadline=None)
@given(arrays.arrays(np.int64, SHAPES, elements=st.integers(0, 65535)))
def test_decoding_undoes_encoding(ids: np.ndarray) -> None:
    found = words.decode(words.encode(ids), *ids.shape)
    assert (found == ids).all()
    assert found.shape == ids.shape
    assert found.dtype == np.int64


@pytest.mark.parametrize("bad", [-1, 65536])
def test_ids_out_of_range_name_their_row(bad: int) -> None:
    with pytest.raises(ValueError, match=r"^row 1: token ids outside 0 to 65535"):
        words.encode([[0, 1], [2, bad]])


@pytest.mark.parametrize("ids", [[[0.0, 1.0]], [1, 2], [[[1]]], [[True]]])
def test_other_arrays_are_refused(ids: list) -> None:
    with pytest.raises(ValueError, match="token ids are integers"):
        words.encode(ids)


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_section_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(SectionError) as caught:
        words.decode(bytes(length), 2, 2)
    assert caught.value.code == "E_SECTION_SIZE"
