"""Conditioning by whole sequences of token ids: kind `tokens` of the format (spec sections 3.3 and 5).

A row, of a class or a source image, is the number of its ids and the ids, 16 bit each, begin and end included. What
a token means is the generator's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import SectionError

MAX_ID = 65_535
MAX_LENGTH = 1_024


def encode(rows: Sequence[Sequence[int]]) -> bytes:
    """Sequences of token ids, each 1 to 1,024 integers from 0 to 65,535, as little-endian 16-bit numbers.

    Raises ValueError, naming the row, for sequences of another length, other dtypes and ids out of range.
    """
    return b"".join(_encode_row(number, row) for number, row in enumerate(rows))


def decode(data: bytes, rows: int) -> list[NDArray[np.int64]]:
    """The sequences of a section, int64 arrays of their own length.

    Raises SectionError (`E_SECTION_VALUE`), naming the row, for an impossible length, and for bytes after the last.
    """
    words = np.frombuffer(data, "<u2", count=len(data) // 2).astype(np.int64)
    found: list[NDArray[np.int64]] = []
    at = 0
    for number in range(rows):
        length = int(words[at]) if at < len(words) else 0
        if not 1 <= length <= MAX_LENGTH or at + 1 + length > len(words):
            raise SectionError("E_SECTION_VALUE", f"row {number} has an impossible length", field="tok", found=length)
        found.append(words[at + 1 : at + 1 + length])
        at += 1 + length
    if 2 * at != len(data):
        raise SectionError("E_SECTION_VALUE", "bytes after the last row", field="tok", found=len(data), expected=2 * at)
    return found


def _encode_row(number: int, row: Sequence[int]) -> bytes:
    ids = np.asarray(row)
    if ids.ndim != 1 or not 1 <= len(ids) <= MAX_LENGTH or ids.dtype.kind not in "iu":
        raise ValueError(f"row {number}: not 1 to {MAX_LENGTH} integers but {ids.dtype} {list(ids.shape)}")
    if ((ids < 0) | (ids > MAX_ID)).any():
        raise ValueError(f"row {number}: token ids outside 0 to {MAX_ID}")
    return np.concatenate([[len(ids)], ids]).astype("<u2").tobytes()
