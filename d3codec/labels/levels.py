"""Frequency tables as half-byte levels: how a label stream states its statistics (spec/labels.md section 3).

A level n stands for a probability proportional to 2^(-n/2), 15 for a symbol that never occurs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.entropy import Tables, frequencies
from d3codec.errors import SectionError

NEVER = 15
WEIGHTS = np.array([4096, 2896, 2048, 1448, 1024, 724, 512, 362, 256, 181, 128, 91, 64, 45, 32, 0], np.int64)
"""Weight of a level: 2^(12 - n/2), rounded to the nearest integer, 0 for NEVER."""


def choose(counts: ArrayLike) -> NDArray[np.uint8]:
    """Levels [T, S] for counts of symbols [T, S]; all 0 (uniform) for a row without any."""
    table = np.asarray(counts, np.float64)
    largest = table.max(axis=1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(2 * np.log2(largest / table))
    levels = np.where(table > 0, np.clip(np.nan_to_num(steps, posinf=0), 0, NEVER - 1), NEVER)
    return np.where(largest > 0, levels, 0).astype(np.uint8)


def tables(levels: NDArray[np.uint8]) -> Tables:
    """Tables of levels [T, S]."""
    return Tables(frequencies(WEIGHTS[levels]))


def bits(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cost of every symbol in bits, [T, S], infinite where it never occurs."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log2(tables(levels).frequencies / 4096))


def pack(levels: NDArray[np.uint8]) -> bytes:
    """Two levels a byte, the lower half first, the last byte filled with 0."""
    flat = np.append(levels.reshape(-1), np.zeros(levels.size % 2, np.uint8))
    return (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()


def packed_bytes(rows: int, symbols: int) -> int:
    """Bytes that `pack` needs."""
    return (rows * symbols + 1) // 2


def unpack(data: bytes, rows: int, symbols: int) -> NDArray[np.uint8]:
    """The reverse of `pack`. Raises SectionError (`E_SECTION_VALUE`) for a row in which no symbol can occur."""
    packed = np.frombuffer(data, np.uint8)
    flat = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    levels = flat[: rows * symbols].reshape(rows, symbols)
    if flat[rows * symbols :].any() or (levels == NEVER).all(axis=1).any():
        raise SectionError("E_SECTION_VALUE", "has a table of levels that allows no symbol", field="lab")
    return levels
