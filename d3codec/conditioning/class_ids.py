"""Conditioning by class ids of the denoiser: kind `class-id` of the format (spec sections 3.3 and 5).

A row is one class: its id, 32 bit. What an id means is the generator's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

MAX_ID = 2**31 - 1


def encode(ids: ArrayLike) -> bytes:
    """Class ids, integers [rows] from 0 to 2^31 - 1, as little-endian 32-bit numbers.

    Raises ValueError for another number of axes, other dtypes and, naming the row, ids out of range.
    """
    values = np.asarray(ids)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"class ids are integers [rows], not {values.dtype} {list(values.shape)}")
    beyond = (values < 0) | (values > MAX_ID)
    if beyond.any():
        raise ValueError(f"row {int(beyond.argmax())}: class ids outside 0 to {MAX_ID}")
    return values.astype("<u4").tobytes()


def decode(data: bytes, rows: int) -> NDArray[np.int64]:
    """Class ids of a section, int64 [rows].

    Raises SectionError: `E_SECTION_SIZE` for a wrong length, `E_SECTION_VALUE`, naming the row, for an id above
    2^31 - 1.
    """
    if len(data) != 4 * rows:
        raise SectionError("E_SECTION_SIZE", field="ids", found=len(data), expected=4 * rows)
    ids = np.frombuffer(data, "<u4").astype(np.int64)
    beyond = ids > MAX_ID
    if beyond.any():
        raise SectionError("E_SECTION_VALUE", f"row {int(beyond.argmax())} has an id above {MAX_ID}", field="ids")
    return ids
