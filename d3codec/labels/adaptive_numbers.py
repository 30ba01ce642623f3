"""One number of an adaptive label as symbols: a logistic distribution around a centre (spec/labels.md section 8.4).

Centres are in 1/16 of a number. A spread is the number of bits of a squared variance in the same unit, so four of them
are an octave.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from itertools import pairwise

from d3codec.entropy_adaptive import TOTAL, Reader, Writer

SYMBOLS = 33
_MIDDLE, _LAST = SYMBOLS // 2, SYMBOLS - 1  # the cell that holds the centre; the last: it and all beyond it
_LENGTH_BITS = 5
_WIDEST = 24  # larger spreads have cells of 2, 4, .. numbers

_SCALE = (811, 682, 574, 482)  # 16 * 50.7 * 2^(-i/4): deviations of 0.9 times what the spread says
_POWERS = (  # 2^(24 - i/16)
    *(16777216, 16065917, 15384774, 14732510, 14107900, 13509772, 12937002, 12388515),
    *(11863283, 11360318, 10878678, 10417458, 9975792, 9552851, 9147841, 8760003),
)


@cache
def cells(spread: int, part: int) -> tuple[int, ...]:
    """First slots of the 33 symbols, then 4096; spread 1 to 24, centre `part` (0 to 15) sixteenths above the lower end
    of the middle cell."""
    free = TOTAL - SYMBOLS
    inner = (s + (free * _below(16 * (s - _MIDDLE) - part, spread) >> 24) for s in range(1, SYMBOLS))
    return (0, *inner, TOTAL)


def _below(distance: int, spread: int) -> int:
    """Probability, in 2^-24, of what lies below a place at this distance from the centre."""
    octaves = abs(distance) * _SCALE[spread % 4] >> (4 + spread // 4)  # in 1/16
    tail = (1 << 48) // ((1 << 24) + (_POWERS[octaves % 16] >> (octaves // 16)))
    return tail if distance >= 0 else (1 << 24) - tail


def write(writer: Writer, number: int, centre: int, spread: int) -> None:
    """Code a number; |number - centre / 16| is below 2^31."""
    below, middle, part, spread = _around(centre, spread)
    firsts, (symbol, beyond) = cells(spread, part), _symbol((number >> below) - middle)
    writer.put(firsts[symbol], firsts[symbol + 1] - firsts[symbol])
    if beyond >= 0:
        bits = (beyond + 1).bit_length() - 1
        writer.put_bits(bits, _LENGTH_BITS)
        writer.put_bits(beyond + 1 - (1 << bits), bits)
    writer.put_bits(number & ((1 << below) - 1), below)


def read(reader: Reader, centre: int, spread: int) -> int:
    """The reverse of `write`."""
    below, middle, part, spread = _around(centre, spread)
    firsts = cells(spread, part)
    symbol = bisect_right(firsts, reader.slot) - 1
    reader.take(firsts[symbol], firsts[symbol + 1] - firsts[symbol])
    cell = middle + symbol - _MIDDLE
    if symbol in (0, _LAST):
        bits = reader.take_bits(_LENGTH_BITS)
        beyond = (1 << bits) + reader.take_bits(bits) - 1
        cell += beyond if symbol else -beyond
    return (cell << below) + reader.take_bits(below)


def cost(number: int, centre: int, spread: int) -> float:
    """Bits that `write` needs."""
    below, middle, part, spread = _around(centre, spread)
    symbol, beyond = _symbol((number >> below) - middle)
    extra = _LENGTH_BITS + (beyond + 1).bit_length() - 1 if beyond >= 0 else 0
    return _symbol_bits(spread, part)[symbol] + extra + below


@cache
def _symbol_bits(spread: int, part: int) -> tuple[float, ...]:
    return tuple(math.log2(TOTAL / (end - first)) for first, end in pairwise(cells(spread, part)))


def _around(centre: int, spread: int) -> tuple[int, int, int, int]:
    """Bits of a number below its cell, the cell that holds the centre, the centre's place in it in sixteenths, and
    the spread in cells."""
    below = max(0, (spread - _WIDEST + 3) >> 2)
    place = centre + 8
    return below, place >> (4 + below), (place >> below) & 15, spread - 4 * below


def _symbol(cell: int) -> tuple[int, int]:
    """Symbol of a cell, counted from the middle one, and how far it lies beyond the first or the last one, -1 or less
    if it is neither."""
    symbol = cell + _MIDDLE
    return min(max(symbol, 0), _LAST), max(-symbol, symbol - _LAST)
