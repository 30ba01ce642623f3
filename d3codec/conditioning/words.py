"""Conditioning by token ids: kind `words` of the format (spec sections 3.3 and 5).

A row, of a class or a source image, is one 16-bit token id a slot. What a token means is the generator's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

MAX_ID = 65_535


def encode(ids: ArrayLike) -> bytes:
    """Token ids, integers [rows, slots] from 0 to 65,535, as little-endian 16-bit rows.

    Raises ValueError for another number of axes, other dtypes and, naming the row, ids out of range.
    """
    values = np.asarray(ids)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(f"token ids are integers [rows, slots], not {values.dtype} {list(values.shape)}")
    beyond = ((values < 0) | (values > MAX_ID)).any(axis=1)
    if beyond.any():
        raise ValueError(f"row {int(beyond.argmax())}: token ids outside 0 to {MAX_ID}")
    return values.astype("<u2").tobytes()


def decode(data: bytes, rows: int, slots: int) -> NDArray[np.int64]:
    """Token ids of a section, int64 [rows, slots]. Raises SectionError for a wrong length."""
    if len(data) != 2 * rows * slots:
        raise SectionError("E_SECTION_SIZE", field="wrd", found=len(data), expected=2 * rows * slots)
    return np.frombuffer(data, "<u2").reshape(rows, slots).astype(np.int64)
