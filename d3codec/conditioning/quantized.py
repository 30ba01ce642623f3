"""Rows of quantized numbers, which the sections `emb` and `lat` are made of (spec section 5).

A block is a float16 scale, then `bits` bits a number, from the least significant bit of each byte upward, the last
byte padded with zero bits. A code stands for (code - (2^bits - 1) / 2) * scale: 2^bits levels, symmetric around
zero, which is not one of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

MAX_BITS = 8
ZERO_ROW_SCALE = 2.0**-14
"""Scale of a row of zeros, for which any is as good: the smallest normal float16, about 6e-5."""

_SMALLEST, _LARGEST = 2.0**-24, 65504.0  # positive float16
_SCALE_BYTES = 2


def row_bytes(size: int, bits: int) -> int:
    """Bytes of a block of `size` numbers. Raises ValueError for bits outside 1 to 8."""
    return _SCALE_BYTES + -(-size * _checked_bits(bits) // 8)


def encode(values: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Quantize numbers, float [rows, size], to blocks, uint8 [rows, row_bytes].

    Each row gets the scale with the least squared error that a search over its whole useful range finds (a
    few percent above the least possible at worst). Numbers that came from `decode`, of whatever valid
    bytes, are kept exactly. A row of zeros gets ZERO_ROW_SCALE and decodes to half of it.
    Raises ValueError for bits outside 1 to 8, another number of axes, and, naming the row, numbers that are
    not finite or beyond 32,752 (half the largest float16, so that the best scale exists).
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise ValueError(f"numbers are [rows, size], not {list(table.shape)}")
    size = row_bytes(table.shape[1], bits)
    blocks = b"".join(_encode_row(number, row, bits) for number, row in enumerate(table))
    return np.frombuffer(blocks, np.uint8).reshape(len(table), size)


def decode(blocks: NDArray[np.uint8], size: int, bits: int, section: str) -> NDArray[np.float64]:
    """The numbers of blocks, uint8 [rows, row_bytes]: float64 [rows, size], exact.

    Raises SectionError (`E_SECTION_VALUE`), naming section and row, for a scale that is not finite and positive or
    padding bits that are not zero. ValueError for bits outside 1 to 8.
    """
    scales = blocks[:, :_SCALE_BYTES].copy().view("<f2").astype(np.float64)
    planes = np.unpackbits(blocks[:, _SCALE_BYTES:], axis=1, bitorder="little")
    used = size * _checked_bits(bits)
    good = (scales[:, 0] > 0) & np.isfinite(scales[:, 0])
    _refuse_row(~good, section, "a scale that is not finite and positive")
    _refuse_row(planes[:, used:].max(axis=1, initial=0) > 0, section, "padding bits that are not zero")
    codes = planes[:, :used].reshape(len(blocks), size, bits) @ (1 << np.arange(bits))
    return (codes - _middle(bits)) * scales  # 9 bits times 11 bits: no rounding


def table(data: bytes, rows: int, size: int, section: str) -> NDArray[np.uint8]:
    """A section as uint8 [rows, size]. Raises SectionError (`E_SECTION_SIZE`) for another length."""
    if len(data) != rows * size:
        raise SectionError("E_SECTION_SIZE", field=section, found=len(data), expected=rows * size)
    return np.frombuffer(data, np.uint8).reshape(rows, size)


def _encode_row(number: int, row: NDArray[np.float64], bits: int) -> bytes:
    largest = float(np.abs(row).max(initial=0.0))
    if not largest <= _LARGEST / 2:  # also catches NaN
        raise ValueError(f"row {number}: numbers that are not finite or beyond {_LARGEST / 2:.0f}")
    scale = _best_scale(row, bits) if largest else ZERO_ROW_SCALE
    planes = (_codes(row, scale, bits)[:, None] >> np.arange(bits)) & 1
    packed = np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little")
    return np.array([scale], "<f2").tobytes() + packed.tobytes()


def _best_scale(row: NDArray[np.float64], bits: int) -> float:
    """The float16 scale of least squared error, the largest of equally good ones.

    With c a code's distance from the middle, the best scale for given codes is sum(|d| c) / sum(c c). The
    best codes grow with |d| and 1/2 <= c <= middle, so the best scale lies between mean |d| / middle (by
    Chebyshev's sum inequality) and 2 max |d|. Guesses half of 1 / 2^bits apart find all codes of a row
    that lies on a grid already; the formula then gives the grid's scale exactly.
    """
    size, middle = np.abs(row), _middle(bits)
    low = max(float(size.mean()) / middle, _SMALLEST)
    high = max(2 * float(size.max()), low)
    guesses = np.geomspace(low, high, 2 + math.ceil(math.log(high / low) * 2 ** (bits + 1)))
    refits = [_refit(size, some, bits) for some in np.array_split(guesses, 32)]  # split to bound the memory
    scales = np.unique(np.concatenate(refits))[::-1]
    errors = [float(np.sum((_distances(size, scale, bits) * scale - size) ** 2)) for scale in scales]
    return float(scales[int(np.argmin(errors))])


def _refit(size: NDArray[np.float64], guesses: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Best scales, rounded to float16, for the codes that the guesses [G] give to |d| [n]."""
    distances = _distances(size, guesses[:, None], bits)
    scales: NDArray[np.float64] = (distances @ size) / (distances * distances).sum(axis=1)
    return np.clip(scales, _SMALLEST, _LARGEST).astype(np.float16).astype(np.float64)


def _distances(size: NDArray[np.float64], scale: NDArray[np.float64] | float, bits: int) -> NDArray[np.float64]:
    """Distances from the middle of the codes nearest to |d|: 1/2, 3/2, ... up to the middle."""
    return np.asarray(np.minimum(np.floor(size / scale) + 0.5, _middle(bits)))


def _codes(row: NDArray[np.float64], scale: float, bits: int) -> NDArray[np.int64]:
    """Nearest codes; a value half-way between two levels, zero too, takes the upper one."""
    codes: NDArray[np.int64] = np.floor(row / scale).astype(np.int64) + 2 ** (bits - 1)
    return codes.clip(0, 2**bits - 1)


def _middle(bits: int) -> float:
    return float(2**bits - 1) / 2


def _refuse_row(bad: NDArray[np.bool_], section: str, what: str) -> None:
    if bad.any():
        raise SectionError("E_SECTION_VALUE", f"row {int(bad.argmax())} has {what}", field=section)


def _checked_bits(bits: int) -> int:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"{bits} bits a value are outside 1 to {MAX_BITS}")
    return bits
