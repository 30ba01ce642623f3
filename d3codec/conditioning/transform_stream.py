"""Latents of images in few bytes: an integer transform, trellis-coded quantization, entropy coding (spec/latents.md).

Decoding is exact: integers to the end, then one scaling by a power of two and one addition in binary64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from d3codec import entropy
from d3codec.conditioning import transform_statistics as statistics
from d3codec.conditioning import transform_tables as tables
from d3codec.conditioning.transform_basis import Basis
from d3codec.conditioning.transform_own import OwnStatistics
from d3codec.conditioning.transform_tables import ESCAPE, ESCAPES, MANTISSAS, NEXT, QUANTIZER
from d3codec.errors import SectionError

BLOCK = 256
IMAGES_A_LANE = 64
MAX_CHANNELS = MAX_SIDE = 64
LARGEST_EXPONENT = 2 * tables.MIDDLE_STEP - 1
POSITION_BITS = 15
"""Coefficients are kept in units of 2^-15 of the power of two below the step."""

HEAD = struct.Struct("<BH")
"""Number of the statistics, exponent of the step."""
_VALUES_AT_ONCE = 1 << 22  # coefficients that are decoded together, to bound the memory

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def decode(
    data: bytes, count: int, shape: tuple[int, int, int], section: str, *, first: int = 0, rows: int | None = None
) -> _Floats:
    """The latents of a section of `count` images, or `rows` of them from `first` on: float64 [rows, C, h, w], exact.

    Only the blocks (256 images) of these rows are decoded. Raises SectionError, naming the section:
    `E_SECTION_SIZE` for bytes that end before the streams, `E_SECTION_VALUE` for statistics, a step, lengths or
    streams that are impossible. ValueError for rows that there are not, and shapes beyond 64 channels or a side of 64.
    """
    last = count if rows is None else first + rows
    if not 0 <= first <= last <= count:
        raise ValueError(f"rows {first} to {last - 1} of {count}")
    check_shape(shape)
    if not count:
        if data:
            raise SectionError("E_SECTION_SIZE", field=section, found=len(data), expected=0)
        return np.zeros((0, *shape))
    basis, exponent, bounds = _parse(data, count, shape, section)
    size = int(np.prod(shape))
    at_once = max(1, _VALUES_AT_ONCE // (BLOCK * size))
    found = [np.zeros((0, *shape))]
    for block in range(first // BLOCK, -(-last // BLOCK), at_once):
        chosen = range(block, min(block + at_once, -(-last // BLOCK)))
        streams = [data[start:end] for start, end in bounds[chosen.start : chosen.stop]]
        images = [min(BLOCK, count - BLOCK * b) for b in chosen]
        values = _coefficients(streams, images, lanes(count), basis, exponent, section)
        start = block * BLOCK
        values = values[max(0, first - start) : last - start]
        # 64 images at a time stay in the processor's cache
        found += [basis.latents(values[i : i + 64], power(exponent)) for i in range(0, len(values), 64)]
    return np.concatenate(found)


def check_shape(shape: tuple[int, int, int]) -> None:
    """Raises ValueError unless there are 1 to 64 channels and sides."""
    if not (1 <= shape[0] <= MAX_CHANNELS and 1 <= min(shape[1:]) <= max(shape[1:]) <= MAX_SIDE):
        raise ValueError(f"latents of {list(shape)}, at most [{MAX_CHANNELS}, {MAX_SIDE}, {MAX_SIDE}] are possible")


def lanes(count: int) -> int:
    """Lanes of the streams of `count` images."""
    return max(1, min(BLOCK, count) // IMAGES_A_LANE)


def power(exponent: int) -> int:
    """Of two: the unit of coefficients at a step."""
    return (exponent - tables.MIDDLE_STEP) // tables.STEPS_AN_OCTAVE - POSITION_BITS


def step(exponent: int) -> float:
    """The step of an exponent, exact."""
    return float(np.ldexp(float(tables.UNITS_A_STEP * MANTISSAS[exponent % tables.STEPS_AN_OCTAVE]), power(exponent)))


def order(basis: Basis, exponent: int) -> tuple[_Ints, _Ints]:
    """The components that are coded, from the largest scale down, and their buckets."""
    ordered = np.argsort(-basis.scales, kind="stable")
    buckets = tables.buckets(basis.scales[ordered], exponent)
    coded = buckets >= 0
    return ordered[coded], buckets[coded]


def _parse(
    data: bytes, count: int, shape: tuple[int, int, int], section: str
) -> tuple[Basis, int, list[tuple[int, int]]]:
    """Statistics, exponent of the step, and where the streams of the blocks begin and end."""
    if len(data) < HEAD.size:
        raise SectionError("E_SECTION_SIZE", "it ends early", field=section, found=len(data), expected=">= 3")
    number, exponent = HEAD.unpack_from(data)
    if exponent > LARGEST_EXPONENT:
        raise SectionError("E_SECTION_VALUE", "an impossible step", field=section, found=exponent)
    at = HEAD.size
    if number == statistics.OWN:
        own, size = OwnStatistics.unpack(data[at:], shape, section)
        basis, at = own.basis(shape), at + size
    elif (number, shape) in statistics.bodies():
        basis = statistics.shipped(number, shape)
    else:
        raise SectionError("E_SECTION_VALUE", f"no statistics {number} for latents of {list(shape)}", field=section)
    blocks = -(-count // BLOCK)
    head = at + 4 * (blocks - 1)
    if len(data) < head:
        raise SectionError("E_SECTION_SIZE", "it ends early", field=section, found=len(data), expected=f">= {head}")
    ends = head + np.cumsum(np.frombuffer(data, "<u4", blocks - 1, at).astype(np.int64))
    if len(ends) and ends[-1] > len(data):
        raise SectionError("E_SECTION_VALUE", "its streams are longer than the section", field=section)
    return basis, exponent, list(pairwise([head, *ends.tolist(), len(data)]))


def _coefficients(
    streams: list[bytes], images: list[int], lanes: int, basis: Basis, exponent: int, section: str
) -> _Ints:
    """Coefficients of all images of some blocks, [images, C h w], in units of 2^power."""
    symbols = statistics.symbols()
    values = np.zeros((sum(images), len(basis.scales)), np.int64)
    for plane in _planes(streams, images, lanes, basis, exponent, section):
        position = symbols.values[plane.rows, plane.found]
        if len(plane.more):
            escaped = plane.found == ESCAPE
            beyond = symbols.largest[plane.rows[escaped]] + 1 + (plane.more >> 1)
            position[escaped] = symbols.positions(plane.rows[escaped], beyond) * (1 - 2 * (plane.more & 1))
        values[:, plane.component] = position
    return np.asarray(values * MANTISSAS[exponent % tables.STEPS_AN_OCTAVE])


class _Plane(NamedTuple):
    """What is coded of one component: rows of the tables and symbols, [images], and what follows each ESCAPE."""

    component: int
    rows: _Ints
    found: NDArray[np.int32]
    more: NDArray[np.int32]


def _planes(
    streams: list[bytes], images: list[int], lanes: int, basis: Basis, exponent: int, section: str
) -> Iterator[_Plane]:
    symbols = statistics.symbols()
    reader = entropy.Reader(streams, lanes, field=section)
    state = np.zeros(sum(images), np.int64)
    block = np.repeat(np.arange(len(images)), images)
    for component, bucket in zip(*(a.tolist() for a in order(basis, exponent)), strict=True):
        rows = 2 * bucket + QUANTIZER[state]
        found = reader.take(symbols.tables, rows, images)
        odd, more = found >> 1 & 1, found[:0]
        escaped = found == ESCAPE
        if escaped.any():
            more = reader.take(ESCAPES, 0, np.bincount(block[escaped], minlength=len(images)))
            odd[escaped] = symbols.largest[rows[escaped]] + 1 + (more >> 1) & 1
        yield _Plane(component, rows, found, more)
        state = NEXT[state, odd]
    reader.finish()


class PlaneWriter:
    """Planes of symbols of `count` images to what stands after the head of a section."""

    def __init__(self, count: int) -> None:
        self._images = np.minimum(BLOCK, count - np.arange(0, count, BLOCK))
        self._block = np.arange(count) // BLOCK
        self._writer = entropy.Writer(len(self._images), lanes(count))

    def put(self, rows: _Ints, found: _Ints, more: _Ints) -> None:
        """Add a component: rows of the tables, symbols, and what follows if the symbol is ESCAPE, [count] each."""
        self._writer.put(found, statistics.symbols().tables, rows, self._images)
        escaped = found == ESCAPE
        if escaped.any():
            counts = np.bincount(self._block[escaped], minlength=len(self._images))
            self._writer.put(more[escaped], ESCAPES, 0, counts)

    def finish(self) -> bytes:
        streams = self._writer.finish()
        return np.array([len(stream) for stream in streams[:-1]], "<u4").tobytes() + b"".join(streams)


def select(data: bytes, count: int, shape: tuple[int, int, int], section: str, chosen: _Ints) -> bytes:
    """The section of some of its images, int64 [n] ascending: the same latents, by the same statistics and step.

    Raises as `decode` does.
    """
    check_shape(shape)
    if not len(chosen):
        return b""
    basis, exponent, bounds = _parse(data, count, shape, section)
    head = bounds[0][0] - 4 * (len(bounds) - 1)
    kept: list[list[_Ints]] = [[] for _ in order(basis, exponent)[0]]  # of each component, block after block
    for number, (start, end) in enumerate(bounds):
        here = chosen[chosen // BLOCK == number] % BLOCK
        if not len(here):
            continue
        images = [min(BLOCK, count - BLOCK * number)]
        for place, plane in enumerate(_planes([data[start:end]], images, lanes(count), basis, exponent, section)):
            more = np.zeros(len(plane.found), np.int64)
            more[plane.found == ESCAPE] = plane.more
            kept[place].append(np.stack([plane.rows, plane.found, more])[:, here])
    writer = PlaneWriter(len(chosen))
    for planes in kept:
        writer.put(*np.concatenate(planes, axis=1))
    return data[:head] + writer.finish()
