"""Rows of real numbers, entropy coded: learned embeddings and stored latents (spec/entropy.md, section 5).

A number is one of at most 255 levels, evenly spaced and symmetric around zero, times a float16 scale, one for each row
or one for all. The levels go through `entropy` with one table, of a family with two parameters that reaches from two
peaks over a flat top and a normal distribution to Laplace's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec import entropy
from d3codec.errors import SectionError

MAX_LEVELS = 255
BLOCK_VALUES = 2**16
VALUES_A_LANE = 2**12
ZERO_SCALE = 2.0**-14
"""Scale of rows of zeros, for which any is as good: the smallest normal float16."""
# fmt: off
POWERS = (  # floor(2^(24 - i / 16)), i = 0 .. 15
    16777216, 16065917, 15384774, 14732510, 14107900, 13509772, 12937002, 12388515,
    11863283, 11360318, 10878678, 10417458, 9975792, 9552851, 9147841, 8760003,
)
# fmt: on

_SHAPE_BYTES = 3
_HEAD = _SHAPE_BYTES + 2  # the least that a section has before its streams
_SMALLEST, _LARGEST = 2.0**-24, 65504.0  # positive float16
_UNIT = np.log(2) / 4  # unit of a shape's parameters, in nats
_RIDGE = 1e-4  # keeps them finite where a likelihood has no maximum
_STATES = 3  # bytes that a lane usually takes above the ideal code length
_SAMPLE = 2**16  # numbers that the settings of a larger array are chosen by
_STRENGTHS = (0.1, 0.0, 0.05, 0.15, 0.2)  # the first chooses the others
_SPREADS = (None, 0.0, 0.5, 1.0)
_PASSES, _NEWTON_STEPS, _BISECTIONS = 2, 20, 12

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """A table: the number of levels, 1 to 255, and two parameters in 1/4 bit, -128 to 127 (spec/entropy.md, 5.2).

    The distance of a level from zero is counted in half steps: even numbers up to levels - 1 if that is even, else odd
    ones.
    """

    levels: int
    linear: int
    square: int

    def weights(self, distances: _Ints) -> _Ints:
        """Of levels at some distances."""
        far = max(self.levels - 1, 1)
        cost = 4 * (self.linear * distances * far + self.square * distances * distances) // far**2
        cost -= cost.min()
        return np.asarray(np.maximum(np.array(POWERS, np.int64)[cost % 16] >> (cost // 16), 1))

    def frequencies(self) -> _Ints:
        """Of all levels from the lowest up, int64 [1, levels]."""
        return entropy.frequencies(self.weights(np.abs(self.positions()))[None])

    def positions(self) -> _Ints:
        """Of all levels from the lowest up, in half steps."""
        return np.arange(1 - self.levels, self.levels, 2)


def decode(
    data: bytes, rows: int, size: int, section: str, *, first: int = 0, count: int | None = None
) -> NDArray[np.float64]:
    """The numbers of a section of `rows` rows, or of `count` of them from `first` on: float64 [count, size], exact.

    Only the blocks of these rows are decoded. Raises SectionError, naming the section: `E_SECTION_SIZE` for bytes
    that end before the streams, `E_SECTION_VALUE` for a shape, scale (naming the row), length or stream that is
    impossible. ValueError for rows that there are not.
    """
    last = rows if count is None else first + count
    if not 0 <= first <= last <= rows:
        raise ValueError(f"rows {first} to {last - 1} of {rows}")
    layout = Layout(rows, size)
    if not rows * size:
        if data:
            raise SectionError("E_SECTION_SIZE", field=section, found=len(data), expected=0)
        return np.zeros((last - first, size))
    shape, scales, bounds = _parse(data, layout, section)
    blocks = slice(first // layout.rows_a_block, -(-last // layout.rows_a_block))
    levels = _levels([data[start:end] for start, end in bounds[blocks]], shape, layout, blocks, section)
    start = blocks.start * layout.rows_a_block
    values = (shape.positions() / 2)[levels].reshape(-1, size)[first - start : last - start]
    return values * scales[first:last]  # 8 bits times 11 bits: no rounding


def select(data: bytes, rows: int, size: int, section: str, chosen: _Ints) -> bytes:
    """The section of some of its rows, int64 [n] ascending: the same numbers, by the same table. Raises as `decode`."""
    layout = Layout(rows, size)
    if not rows * size or not len(chosen):
        return b""
    shape, scales, bounds = _parse(data, layout, section)
    levels = _levels([data[start:end] for start, end in bounds], shape, layout, slice(None), section)
    positions = shape.positions()[levels].reshape(rows, size)[chosen]
    one = data[_HEAD - 1] >= 0x80
    kept = scales[:1, 0] if one else scales[chosen, 0]
    return _Quantized(positions, kept, shape).written(Layout(len(chosen), size))


@dataclass(frozen=True)
class Layout:
    """How rows are cut into blocks, and a block's stream into lanes."""

    rows: int
    size: int

    @property
    def rows_a_block(self) -> int:
        return max(1, BLOCK_VALUES // max(1, self.size))

    @property
    def counts(self) -> _Ints:
        """Numbers in each block."""
        starts = np.arange(0, self.rows, self.rows_a_block)
        return np.minimum(self.rows - starts, self.rows_a_block) * self.size

    @property
    def lanes(self) -> int:
        return min(max(1, min(self.rows, self.rows_a_block) * self.size // VALUES_A_LANE), entropy.MAX_LANES)


def _levels(streams: list[bytes], shape: Shape, layout: Layout, blocks: slice, section: str) -> NDArray[np.int32]:
    """The levels of some blocks, from their streams."""
    reader = entropy.Reader(streams, layout.lanes, field=section)
    levels = reader.take(entropy.Tables(shape.frequencies()), 0, layout.counts[blocks])
    reader.finish()
    return levels


def _parse(data: bytes, layout: Layout, section: str) -> tuple[Shape, _Floats, list[tuple[int, int]]]:
    """The shape, the scales [rows, 1] and where the streams of the blocks begin and end."""
    one = len(data) >= _HEAD and data[_HEAD - 1] >= 0x80  # the sign of the first scale
    scales, blocks = 1 if one else layout.rows, len(layout.counts)
    lengths = _SHAPE_BYTES + 2 * scales
    head = lengths + 4 * (blocks - 1)
    if len(data) < head:
        raise SectionError("E_SECTION_SIZE", "it ends early", field=section, found=len(data), expected=f">= {head}")
    shape = Shape(data[0], *np.frombuffer(data, np.int8, 2, 1).tolist())
    if shape.levels == 0 or (shape.levels == 1 and (shape.linear or shape.square)):
        raise SectionError("E_SECTION_VALUE", "an impossible shape", field=section)
    raw = np.frombuffer(data, "<u2", scales, _SHAPE_BYTES) ^ (0x8000 if one else 0)
    good = (raw > 0) & (raw < 0x7C00)  # positive and finite; told from the bits, since some NaNs make numpy warn
    if not good.all():
        row = int(good.argmin())
        raise SectionError("E_SECTION_VALUE", f"row {row} has a scale that is not finite and positive", field=section)
    values = raw.view(np.float16).astype(np.float64)
    ends = head + np.cumsum(np.frombuffer(data, "<u4", blocks - 1, lengths).astype(np.int64))
    if len(ends) and ends[-1] > len(data):
        raise SectionError("E_SECTION_VALUE", "its streams are longer than the section", field=section)
    return shape, np.broadcast_to(values, layout.rows)[:, None], list(pairwise([head, *ends.tolist(), len(data)]))


# -------------------------------------------------------------------------------------------------------- encoder


def encode(values: ArrayLike, bits_per_value: float) -> bytes:
    """Numbers, float [rows, size], in at most rows * size * bits_per_value / 8 bytes, all counted.

    Searches steps, strengths of rate-distortion optimised rounding, and one scale or many, for the least squared
    error. Bits beyond what 255 levels need (about 7) stay unused.
    Raises ValueError for another number of axes, a rate that leaves no room for the shortest section and, naming the
    row, numbers that are not finite or beyond 32,752.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise ValueError(f"numbers are [rows, size], not {list(table.shape)}")
    good = (np.abs(table) <= _LARGEST / 2).all(axis=1)  # False for NaN too
    if not good.all():
        raise ValueError(f"row {int(good.argmin())}: numbers that are not finite or beyond {_LARGEST / 2:.0f}")
    if not table.size:
        return b""
    layout = Layout(*table.shape)
    budget = int(bits_per_value * table.size / 8)
    zeros = _Quantized(np.zeros(table.shape, np.int64), np.full(1, ZERO_SCALE), Shape(1, 0, 0))
    best, least = zeros.written(layout), zeros.error(table)
    if len(best) > budget:
        raise ValueError(f"{bits_per_value} bits a number are {budget} bytes, the shortest section has {len(best)}")
    for setting, step in _settings(table, budget, layout) if least else ():
        for factor in np.geomspace(0.98, 1.2, 40):  # the size is an estimate, and not quite monotonic
            quantized = _quantize(table, step * factor, setting)
            error = quantized.error(table)
            if error >= least:
                break
            near = quantized.estimated(layout) <= budget + _STATES * layout.lanes * len(layout.counts)
            if near and len(data := quantized.written(layout)) <= budget:
                best, least = data, error
                break
    return best


@dataclass(frozen=True)
class _Setting:
    """How numbers are quantized.

    odd: whether zero is a level. spread: None for one scale; else the scale of a row is as its root mean square to this
    power. strength: of the rounding towards cheap levels, in squared steps a bit.
    """

    odd: bool
    spread: float | None
    strength: float


@dataclass(frozen=True)
class _Quantized:
    """Positions in half steps int64 [rows, size], scales float64 [1] or [rows], and a shape that fits."""

    positions: _Ints
    scales: _Floats
    shape: Shape

    def error(self, table: _Floats) -> float:
        return float(np.square(table - self.positions * (self.scales[:, None] / 2)).sum())

    def levels(self) -> _Ints:
        return (self.positions.reshape(-1) + self.shape.levels - 1) // 2

    def estimated(self, layout: Layout) -> float:
        """Bytes, with the ideal length of the levels."""
        used, blocks = np.bincount(self.levels(), minlength=self.shape.levels), len(layout.counts)
        bits = entropy.PRECISION - np.log2(self.shape.frequencies()[0])
        head = _SHAPE_BYTES + 2 * len(self.scales) + 4 * (blocks - 1)
        return head + _STATES * layout.lanes * blocks + float(used @ bits) / 8

    def written(self, layout: Layout) -> bytes:
        writer = entropy.Writer(len(layout.counts), layout.lanes)
        writer.put(self.levels(), entropy.Tables(self.shape.frequencies()), 0, layout.counts)
        streams = writer.finish()
        lengths = np.array([len(stream) for stream in streams[:-1]], "<u4")
        head = bytes([self.shape.levels]) + np.array([self.shape.linear, self.shape.square], np.int8).tobytes()
        signed = -self.scales if len(self.scales) == 1 else self.scales
        return b"".join([head, signed.astype("<f2").tobytes(), lengths.tobytes(), *streams])


def _settings(table: _Floats, budget: int, layout: Layout) -> list[tuple[_Setting, float]]:
    """The settings with the least error on a sample of the rows, and about the finest step that they can afford."""
    sample = table[:: max(1, table.size // _SAMPLE)]
    share, part = budget * sample.size / table.size, Layout(*sample.shape)

    def ranked(settings: Iterable[_Setting]) -> list[tuple[_Setting, float]]:
        steps = [(setting, _finest(sample, share, part, setting)) for setting in settings]
        errors = [(_quantize(sample, step, setting).error(sample), setting, step) for setting, step in steps if step]
        return [entry[1:] for entry in sorted(errors, key=lambda entry: entry[0])]

    spreads = _SPREADS if len(table) > 1 else _SPREADS[:1]
    first = ranked(_Setting(odd, spread, _STRENGTHS[0]) for odd, spread in product((True, False), spreads))
    best = ranked(replace(setting, strength=strength) for strength, (setting, _) in product(_STRENGTHS, first[:2]))[:2]
    if len(sample) == len(table):
        return best
    return [(setting, step) for setting, _ in best[:1] if (step := _finest(table, budget, layout, setting))]


def _finest(table: _Floats, budget: float, layout: Layout, setting: _Setting) -> float:
    """About the finest step whose estimated size is within the budget, by bisection of its logarithm; 0 if none is."""
    low, high = 0.0, 4 * float(np.abs(table).max())
    for bisection in range(_BISECTIONS):
        step = high if bisection == 0 else float(np.sqrt(low * high))
        if _quantize(table, step, setting).estimated(layout) > budget:
            if bisection == 0:
                return 0.0
            low = step
        else:
            low, high = low or high / (2 * MAX_LEVELS), step
    return high


def _quantize(table: _Floats, step: float, setting: _Setting) -> _Quantized:
    """Levels of least (error / scale)^2 + strength * bits, then scales of least squared error."""
    size = np.abs(table)
    largest, scales = size.max(), np.full(1, step)
    if setting.spread is not None:
        power = np.sqrt(np.square(table).mean(axis=1))
        largest, scales = size.max(axis=1), step * (np.maximum(power / power.max(), 1e-3) ** setting.spread)
    scales = _half(np.maximum(scales, 2 * largest / MAX_LEVELS))
    ratio = size * (2 / scales[:, None])
    lowest = 0 if setting.odd else 1
    nearest = (2 * np.rint((ratio - lowest) / 2) + lowest).astype(np.int64).clip(lowest, MAX_LEVELS - 2 + lowest)
    distances, shape = nearest, _fit(nearest)
    for _ in range(_PASSES if setting.strength else 0):
        distances = _cheaper(ratio, nearest, 4 * setting.strength * _bits(shape))
        shape = _fit(distances)
    weights, squares = size * distances, (distances * distances).astype(np.float64)
    over, under = (part.sum() if len(scales) == 1 else part.sum(axis=1) for part in (weights, squares))
    scales = np.where(under > 0, _half(2 * over / np.maximum(under, 1)), scales)
    return _Quantized(np.where(table < 0, -distances, distances), scales, shape)


def _cheaper(ratio: _Floats, nearest: _Ints, price: _Floats) -> _Ints:
    """Of the nearest distance, the one below and the lowest that of least cost; `price`: of all that the shape has."""
    lowest = (len(price) - 1) % 2
    best = np.full_like(nearest, lowest)
    least = np.square(ratio - lowest) + price[lowest]
    for option in (nearest, nearest - 2):
        distance = np.clip(option, lowest, len(price) - 1)
        cost = np.square(ratio - distance) + price[distance]
        best, least = np.where(cost < least, distance, best), np.minimum(cost, least)
    return best


def _half(scales: _Floats) -> _Floats:
    return np.clip(scales, _SMALLEST, _LARGEST).astype(np.float16).astype(np.float64)


def _bits(shape: Shape) -> _Floats:
    """Of a level at every distance up to the largest (the value at distances of the other parity means nothing)."""
    bits = np.zeros(shape.levels)
    bits[np.abs(shape.positions())] = entropy.PRECISION - np.log2(shape.frequencies()[0])
    return bits


def _fit(distances: _Ints) -> Shape:
    """The shape of the largest likelihood for levels at these distances: Newton's method on a concave function."""
    far = int(distances.max())
    used = np.bincount(distances.reshape(-1), minlength=far + 1)[far % 2 :: 2].astype(np.float64)
    if len(used) == 1:
        return Shape(far + 1, 0, 0)
    place = np.arange(far % 2, far + 1, 2) / far
    terms = np.stack([place, place * place])
    levels = np.where(place > 0, 2.0, 1.0)
    wanted = terms @ used / used.sum()

    def cost(parameters: _Floats) -> float:
        exponents = -parameters @ terms
        top = exponents.max()
        partition = top + np.log(levels @ np.exp(exponents - top))
        return float(parameters @ wanted + partition + _RIDGE / 2 * parameters @ parameters)

    parameters, least = np.zeros(2), cost(np.zeros(2))
    for _ in range(_NEWTON_STEPS):
        exponents = -parameters @ terms
        likely = levels * np.exp(exponents - exponents.max())
        likely /= likely.sum()
        mean = terms @ likely
        gradient = wanted - mean + _RIDGE * parameters
        spread = (terms * likely) @ terms.T - np.outer(mean, mean) + _RIDGE * np.eye(2)
        move = np.linalg.solve(spread, gradient)
        share = 1.0
        while share > 1e-3 and cost(parameters - share * move) > least - 0.1 * share * float(gradient @ move):
            share /= 2
        if share * float(gradient @ move) < 1e-7:
            break
        parameters = parameters - share * move
        least = cost(parameters)
    linear, square = np.rint(parameters / _UNIT).clip(-128, 127).astype(int).tolist()
    return Shape(far + 1, linear, square)
