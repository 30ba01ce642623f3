"""Quantizers and symbols of transform-coded latents (spec/latents.md, sections 3 and 4).

Trellis-coded quantization with two quantizers and a state machine of 256 states (Ungerboeck 1982; Marcellin and
Fischer 1990), with quantizers that both know zero, as in JPEG 2000 and VVC.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d3codec import entropy
from d3codec.conditioning.coded import POWERS

BUCKETS = 28
"""Ranges of log2(scale / step) that have tables of their own, a quarter octave each, from -1 on."""
STEPS_AN_OCTAVE = 128
MIDDLE_STEP = 32 * STEPS_AN_OCTAVE
"""The exponent that stands for step 1."""
SCALE_UNIT = 4
"""Of stated scales: 1/32 octave, in 1/128 octave."""
UNITS_A_STEP = 32
"""Positions are counted in 1/32 step."""
STATES = 256
ESCAPE = 1
"""The symbol of a magnitude beyond its table: 0 is zero, 2 m and 2 m + 1 are +m and -m."""
ESCAPES = entropy.Tables(np.ones((1, entropy.TOTAL), np.int64))
"""An escape's magnitude above the table's largest, less one, times two, plus one if negative: all equally likely."""

_OUTPUT, _FEEDBACK = 0x79, 0xA6
_LOWEST_BUCKET = -1 * STEPS_AN_OCTAVE
_WIDTH = STEPS_AN_OCTAVE // 4

_Ints = NDArray[np.int64]


def _parities(mask: int) -> _Ints:
    """Of each state, whether the number of its bits that are in the mask is odd, [256]."""
    return np.array([(state & mask).bit_count() & 1 for state in range(STATES)], np.int64)


QUANTIZER: _Ints = _parities(_OUTPUT)
"""Quantizer of each state, 0 or 1, [256]."""
NEXT: _Ints = (2 * np.arange(STATES)[:, None] + (_parities(_FEEDBACK)[:, None] ^ np.arange(2))) % STATES
"""State after each state, by the parity of the magnitude, [256, 2]."""


def _power(i: int) -> int:
    """The largest n with n^128 <= 2^(1280 + i); binary64 may be one off."""
    n = int(2.0 ** (10 + i / STEPS_AN_OCTAVE)) + 1
    while n**STEPS_AN_OCTAVE > 1 << (10 * STEPS_AN_OCTAVE + i):
        n -= 1
    return n


MANTISSAS: _Ints = np.array([_power(i) for i in range(STEPS_AN_OCTAVE)], np.int64)
"""2^(10 + i / 128), rounded down."""


def buckets(scales: _Ints, exponent: int) -> _Ints:
    """Buckets of components of some scales (in 1/128 octave) at a step; those below 0 are not coded."""
    return np.asarray(np.minimum((scales - (exponent - MIDDLE_STEP) - _LOWEST_BUCKET) // _WIDTH, BUCKETS - 1))


def deviations(scales: _Ints) -> NDArray[np.float64]:
    """Standard deviations of components of some scales."""
    return np.asarray(2.0 ** (scales / STEPS_AN_OCTAVE))


def costs_to_weights(costs: _Ints) -> _Ints:
    """Costs in 1/16 bit, 0 to 255, to weights of tables."""
    return np.asarray(np.array(POWERS, np.int64)[costs % 16] >> (costs // 16))


@dataclass(frozen=True)
class Symbols:
    """What is known of magnitudes, by row 2 * bucket + quantizer.

    `costs`: tuple of rows int64 [M + 1], the costs of magnitudes 0 .. M in 1/16 bit, of a sign each from 1 on;
    `shifts`: int64 [rows, 2], what is added to the positions of magnitude 1 and of larger ones, in 1/32 step.
    """

    costs: tuple[_Ints, ...]
    shifts: _Ints

    @cached_property
    def largest(self) -> _Ints:
        """Largest magnitude of each row that has a symbol, [rows]."""
        return np.array([len(row) - 1 for row in self.costs], np.int64)

    @cached_property
    def tables(self) -> entropy.Tables:
        """Frequencies of the symbols of each row."""
        weights = np.zeros((len(self.costs), 2 * int(self.largest.max()) + 2), np.int64)
        for row, costs in enumerate(self.costs):
            weights[row, : 2 * len(costs)] = np.repeat(costs_to_weights(costs), 2)
        weights[:, ESCAPE] = 1
        return entropy.Tables(entropy.frequencies(weights))

    @cached_property
    def values(self) -> _Ints:
        """Where the value of each symbol lies, in 1/32 step, [rows, symbols]; of those that a row does not have, 0."""
        symbols = np.arange(self.tables.frequencies.shape[1])
        rows = np.arange(len(self.costs))[:, None]
        amounts = self.positions(rows, symbols[None] >> 1)
        return np.where((symbols >> 1 > self.largest[:, None]) | (symbols == ESCAPE), 0, amounts * _signs(symbols))

    def positions(self, rows: _Ints, magnitudes: _Ints) -> _Ints:
        """Where values of some magnitudes lie, in 1/32 step; arrays of one shape, or shapes that broadcast."""
        whole = UNITS_A_STEP * (2 * magnitudes - (rows & 1))
        return np.asarray(np.where(magnitudes > 0, whole + self.shifts[rows, np.minimum(magnitudes, 2) - 1], 0))


def _signs(symbols: _Ints) -> _Ints:
    return np.asarray(1 - 2 * (symbols & 1))
