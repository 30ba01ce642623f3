"""Chosen candidates: section `cnd` of the format (spec sections 3.2 and 5).

A row is a class: for each of its sources a choice of 1 to 16 bits, packed from the least significant bit of each byte
upward, the last byte padded with zero bits. The noise of source s is that of candidate s * 2^bits + choice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

MOST_BITS = 16


def pack(choices: ArrayLike, bits: int) -> bytes:
    """Choices, integers [classes, sources] from 0 to 2^bits - 1, as rows of ceil(sources * bits / 8) bytes.

    Raises ValueError for other bits than 1 to 16, another number of axes or dtype and, naming the class, choices out of
    range.
    """
    values = np.asarray(choices)
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"a choice has 1 to {MOST_BITS} bits, not {bits}")
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(f"choices are integers [classes, sources], not {values.dtype} {list(values.shape)}")
    beyond = ((values < 0) | (values >= 1 << bits)).any(axis=1)
    if beyond.any():
        raise ValueError(f"class {int(beyond.argmax())}: choices outside 0 to {(1 << bits) - 1}")
    single = (values[:, :, None] >> np.arange(bits)) & 1
    return np.packbits(single.astype(np.uint8).reshape(len(values), -1), axis=1, bitorder="little").tobytes()


def unpack(data: bytes, classes: int, sources: int, bits: int) -> NDArray[np.int64]:
    """The choices of a section, int64 [classes, sources].

    Raises SectionError: `E_SECTION_SIZE` for a wrong length, `E_SECTION_VALUE`, naming the row, for padding bits that
    are not zero.
    """
    row_bytes, used = -(-sources * bits // 8), sources * bits
    if len(data) != classes * row_bytes:
        raise SectionError("E_SECTION_SIZE", field="cnd", found=len(data), expected=classes * row_bytes)
    single = np.unpackbits(np.frombuffer(data, np.uint8).reshape(classes, row_bytes), axis=1, bitorder="little")
    padded = single[:, used:].any(axis=1)
    if padded.any():
        raise SectionError("E_SECTION_VALUE", "padding bits that are not zero", field=f"cnd row {int(padded.argmax())}")
    weights = np.int64(1) << np.arange(bits, dtype=np.int64)
    choices: NDArray[np.int64] = single[:, :used].reshape(classes, sources, bits).astype(np.int64) @ weights
    return choices
