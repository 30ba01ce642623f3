"""The best path through the trellis: squared error plus bits, by dynamic programming (Viterbi 1967)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3codec import entropy
from d3codec.conditioning.transform_tables import ESCAPE, NEXT, QUANTIZER, STATES, UNITS_A_STEP, Symbols

STRENGTH = 0.3
"""Squared steps that a bit is worth."""

_CELLS = 1 << 26  # of the trellis that are searched at once, at most, to bound the memory,
_IMAGES = 128  # and images, so that a step of all stays in the processor's cache
_MOST_ABOVE = entropy.TOTAL // 2  # of a magnitude above its table's largest

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def _branches() -> tuple[_Ints, _Ints]:
    """Of each state its two predecessors, and the kinds of branch 2 * quantizer + parity that lead here, [2, 256]."""
    state = np.arange(STATES)
    before = np.stack([state >> 1, (state >> 1) + STATES // 2])
    parity = np.where(NEXT[before, 0] == state, 0, 1)
    return before, 2 * QUANTIZER[before] + parity


_BEFORE, _KIND = _branches()


@dataclass(frozen=True)
class Quantized:
    """Magnitudes, int64 [n, K], rows of the tables they are coded by, [n, K], and what they cost in all, in bits."""

    magnitudes: _Ints
    rows: _Ints
    bits: float


def quantize(values: _Floats, buckets: _Ints, symbols: Symbols, strength: float = STRENGTH) -> Quantized:
    """Amounts of coefficients, float [n, K] >= 0 in steps, components in order of coding, with their buckets [K]."""
    bits = _bits(symbols)
    images = max(1, min(_IMAGES, _CELLS // max(1, STATES * values.shape[1])))
    parts = [
        _paths(values[first : first + images], buckets, symbols, bits, strength)
        for first in range(0, len(values), images)
    ]
    magnitudes = np.concatenate([part[0] for part in parts] or [np.zeros(values.shape, np.int64)])
    rows = np.concatenate([part[1] for part in parts] or [np.zeros(values.shape, np.int64)])
    return Quantized(magnitudes, rows, float(bits[rows, np.minimum(magnitudes, bits.shape[1] - 1)].sum(dtype=float)))


def _bits(symbols: Symbols) -> NDArray[np.float32]:
    """Cost of every magnitude of every row, signs included; beyond a row's largest, that of an escape."""
    used = symbols.tables.frequencies[:, 0::2].astype(np.float64)
    above = np.arange(used.shape[1] + 1) > symbols.largest[:, None]
    padded = np.concatenate([used, np.ones((len(used), 1))], axis=1)
    escape = entropy.PRECISION - np.log2(symbols.tables.frequencies[:, ESCAPE] / entropy.TOTAL)
    plain = -np.log2(np.where(above, 1, padded) / entropy.TOTAL)
    return np.where(above, escape[:, None], plain).astype(np.float32)


def _paths(
    values: _Floats, buckets: _Ints, symbols: Symbols, bits: NDArray[np.float32], strength: float
) -> tuple[_Ints, _Ints]:
    """Magnitudes and rows, [n, K]."""
    count, size = values.shape
    costs, candidates = _candidates(np.ascontiguousarray(values.T), buckets, symbols, bits, strength)
    least = np.full((STATES, count), np.inf, np.float32)
    least[0] = 0
    later = np.empty((size, STATES, count), bool)  # whether the second predecessor is the better one
    half = STATES // 2
    for place in range(size):
        ways = costs[place][_KIND]
        ways[0] += np.repeat(least[:half], 2, axis=0)
        ways[1] += np.repeat(least[half:], 2, axis=0)
        np.less(ways[1], ways[0], out=later[place])
        least = np.minimum(ways[0], ways[1])
    state, images = least.argmin(axis=0), np.arange(count)
    magnitudes, rows = np.empty((2, size, count), np.int64)
    for place in reversed(range(size)):
        which = later[place, state, images].astype(np.int64)
        kind = _KIND[which, state]
        magnitudes[place] = candidates[place, kind, images]
        rows[place] = 2 * buckets[place] + (kind >> 1)
        state = _BEFORE[which, state]
    return magnitudes.T, rows.T


def _candidates(
    values: _Floats, buckets: _Ints, symbols: Symbols, bits: NDArray[np.float32], strength: float
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Of every value [K, n] and each kind of branch the best magnitude of that parity, and its cost, [K, 4, n]."""
    costs = np.full((len(values), 4, values.shape[1]), np.inf, np.float32)
    best = np.zeros(costs.shape, np.int16)
    for quantizer in range(2):
        rows = (2 * buckets + quantizer)[:, None]
        most = symbols.largest[rows] + _MOST_ABOVE
        nearest = np.minimum((values + quantizer + 1) / 2, most).astype(np.int64)
        for magnitude in (nearest + 1, nearest, nearest - 1, nearest - 2, np.zeros_like(nearest)):
            magnitude = np.clip(magnitude, 0, most)
            position = symbols.positions(rows, magnitude) / UNITS_A_STEP
            cost = (values - position) ** 2 + strength * bits[rows, np.minimum(magnitude, bits.shape[1] - 1)]
            for parity in range(2):
                kind = 2 * quantizer + parity
                better = ((magnitude & 1) == parity) & (cost < costs[:, kind])
                np.copyto(costs[:, kind], cost, where=better, casting="same_kind")
                np.copyto(best[:, kind], magnitude, where=better, casting="same_kind")
    return costs, best
