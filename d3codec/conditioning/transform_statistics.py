"""Statistics of transform-coded latents that ship with the package (spec/latents.md, section 6)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from d3codec import entropy
from d3codec.conditioning.transform_basis import LARGEST_SINE, Basis, rotate
from d3codec.conditioning.transform_tables import BUCKETS, SCALE_UNIT, STEPS_AN_OCTAVE, Symbols, costs_to_weights

SHIPPED = "latents.stats"
OWN, TAESD3, TAESD = 0, 1, 2
"""Statistics in the stream, and those of madebyollin/taesd3 and madebyollin/taesd in the package."""

Shape = tuple[int, int, int]

_ENTRY = struct.Struct("<4BI")  # id, C, h, w, bytes that follow
_HEAD = struct.Struct("<bBHb")  # exponent of the matrices, passes, P, octave of the scales
_LANES = 8
_MOST = 127  # of entries of matrices and means
MEAN_UNIT = 1 / 32

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """Statistics of one shape as they are shipped.

    `scales`: int64 [C h w], 0 to 255, in 1/32 octave above `octave`; `mean`: int64 [C, h, w] in 1/32, and `matrices`:
    int64 [h w, C, C] in units of 2^-`exponent`, both -127 to 127; `levels`: int64 [passes, P - C, P / 2] of the
    rotation, -16 to 16.
    """

    shape: Shape
    octave: int
    scales: _Ints
    mean: _Ints
    matrices: _Ints
    exponent: int
    levels: _Ints

    def basis(self) -> Basis:
        """What the decoder uses."""
        rotation = rotate(self.levels, self.shape[0]) if self.levels.size else None
        mean = self.mean.astype(np.float64) * MEAN_UNIT
        scales = STEPS_AN_OCTAVE * self.octave + SCALE_UNIT * self.scales
        return Basis(self.shape, scales, mean, self.matrices, self.exponent, rotation)

    def pack(self) -> bytes:
        """To the bytes of an entry, without its head."""
        planes = [self.mean, self.matrices, *self.levels]
        sizes = [_MOST, _MOST, *[LARGEST_SINE] * len(self.levels)]
        costs = [_costs(plane, size) for plane, size in zip(planes, sizes, strict=True)]
        writer = entropy.Writer(1, _LANES)
        for plane, size, cost in zip(planes, sizes, costs, strict=True):
            writer.put(plane.reshape(-1) + size, _table(cost), 0, [plane.size])
        places = 2 * self.levels.shape[2] if self.levels.size else 0
        head = _HEAD.pack(self.exponent, len(self.levels), places, self.octave) + self.scales.astype(np.uint8).tobytes()
        return head + b"".join(cost.astype(np.uint8).tobytes() for cost in costs) + writer.finish()[0]

    @staticmethod
    def unpack(data: bytes, shape: Shape) -> Fitted:
        """The reverse of `pack`."""
        channels, height, width = shape
        size = channels * height * width
        exponent, passes, places, octave = _HEAD.unpack_from(data)
        at = _HEAD.size + size
        counts = [size, channels * size, *[(places - channels) * places // 2] * passes]
        sizes = [_MOST, _MOST, *[LARGEST_SINE] * passes]
        starts = np.cumsum([at, *[n + 1 for n in sizes]]).tolist()
        reader = entropy.Reader([data[starts[-1] :]], _LANES, field=SHIPPED)
        planes = [
            reader.take(_table(np.frombuffer(data, np.uint8, n + 1, start).astype(np.int64)), 0, [count]) - n
            for n, start, count in zip(sizes, starts[:-1], counts, strict=True)
        ]
        reader.finish()
        mean, matrices, *levels = (plane.astype(np.int64) for plane in planes)
        return Fitted(
            shape,
            octave,
            np.frombuffer(data, np.uint8, size, _HEAD.size).astype(np.int64),
            mean.reshape(shape),
            matrices.reshape(height * width, channels, channels),
            exponent,
            np.array(levels, np.int64).reshape(passes, max(0, places - channels), places // 2),
        )


def _costs(values: _Ints, size: int) -> _Ints:
    """Costs, in 1/16 bit, of amounts 0 .. size, the least 0, for these values."""
    counts = np.bincount(np.abs(values).reshape(-1), minlength=size + 1) / np.where(np.arange(size + 1) > 0, 2, 1)
    costs = -16 * np.log2((counts + 1e-3) / counts.max())
    return np.asarray(np.clip(np.rint(costs), 0, 255), np.int64)


def _table(costs: _Ints) -> entropy.Tables:
    """One table for values -n .. n from the costs of amounts 0 .. n."""
    weights = costs_to_weights(costs)
    return entropy.Tables(entropy.frequencies(np.concatenate([weights[:0:-1], weights])[None]))


def pack(symbols: Symbols, entries: Mapping[tuple[int, Shape], Fitted]) -> bytes:
    """All statistics to the bytes of the file that is shipped."""
    parts = []
    for costs, shifts in zip(symbols.costs, symbols.shifts, strict=True):
        parts += [bytes([len(costs) - 1]), costs.astype(np.uint8).tobytes(), shifts.astype(np.int8).tobytes()]
    for (number, shape), fitted in entries.items():
        body = fitted.pack()
        parts += [_ENTRY.pack(number, *shape, len(body)), body]
    return b"".join(parts)


@cache
def shipped_bytes() -> bytes:
    return resources.files("d3codec.conditioning").joinpath(SHIPPED).read_bytes()


def shipped_digest() -> str:
    """SHA-256 of the shipped statistics, in hex."""
    return hashlib.sha256(shipped_bytes()).hexdigest()


@cache
def symbols() -> Symbols:
    """Costs and shifts of magnitudes, for all statistics."""
    return unpack_symbols(shipped_bytes())[0]


def unpack_symbols(data: bytes) -> tuple[Symbols, int]:
    """What `pack` wrote of symbols, and how many bytes that is."""
    costs, shifts, at = [], [], 0
    for _ in range(2 * BUCKETS):
        count = data[at] + 1
        costs.append(np.frombuffer(data, np.uint8, count, at + 1).astype(np.int64))
        shifts.append(np.frombuffer(data, np.int8, 2, at + 1 + count).astype(np.int64))
        at += count + 3
    return Symbols(tuple(costs), np.array(shifts)), at


@cache
def bodies() -> dict[tuple[int, Shape], bytes]:
    """The packed statistics of each autoencoder and shape in the package."""
    data = shipped_bytes()
    found, at = {}, unpack_symbols(data)[1]
    while at < len(data):
        number, *shape, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + size
        found[number, (shape[0], shape[1], shape[2])] = data[at - size : at]
    return found


@cache
def shipped(number: int, shape: Shape) -> Basis:
    """The shipped statistics of an autoencoder and a shape. Raises KeyError if there are none."""
    return Fitted.unpack(bodies()[number, shape], shape).basis()
