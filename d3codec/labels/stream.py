"""What stands before the blocks of a ranked-head stream (spec/labels.md section 1), and its limits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import SectionError
from d3codec.labels import levels, statistics
from d3codec.labels.positions import Ints
from d3codec.labels.prediction import GROUPS, Layer, Parameters, group_of
from d3codec.labels.statistics import Statistics

BLOCK = 1024
"""Labels that are coded, and can be decoded, together."""

_LABELS_A_LANE = 64

MAX_LAYERS = 3
MAX_COUNT = 127
"""Largest number of corrections of a layer."""
MAX_VALUE = 31
OWN_RANGE = 16
"""The argmax's logit is at most so many steps from the centre."""
MAX_WIDTH = 1 << 20

NONE, IN_FILE, SHIPPED = 0, 1, 2
"""Where the statistics are."""

_HEAD = struct.Struct("<BBBHBhB")  # source, layers, mean scale, pull, class pull, centre, own step
_LAYER = struct.Struct(f"<BBBB{GROUPS}b")  # step, spread, largest count, largest value, biases
FIELD = "lab"


@dataclass(frozen=True)
class LayerModel:
    """A layer with the levels of its tables: counts [1, most + 1], densities of zones [zones], values
    [groups, 2 * largest] (-largest .. -1, 1 .. largest)."""

    layer: Layer
    counts: NDArray[np.uint8]
    densities: NDArray[np.uint8]
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class Model:
    """All that is common to the labels of an archive."""

    source: int
    statistics: Statistics
    parameters: Parameters
    places: NDArray[np.uint8]  # zones of the argmax's place among the neighbours, [1, zones]
    own: NDArray[np.uint8]  # [1, 33]
    layers: tuple[LayerModel, ...]


class Corrections(NamedTuple):
    """Of one layer: how many each label has, int64 [N]; their ranks and values, in order of label and rank, [M]."""

    counts: Ints
    ranks: Ints
    values: Ints


class Symbols(NamedTuple):
    """What is coded of N labels: place of the argmax among the class's neighbours, its logit in steps from the centre,
    and the layers."""

    places: Ints
    own: Ints
    layers: list[Corrections]


def groups(width: int) -> int:
    """Number of groups of ranks that labels of a width have."""
    return int(group_of(np.array([max(width - 2, 0)]))[0]) + 1


def zones(size: int) -> int:
    """Number of zones of an order of `size` ranks."""
    return 1 + max(size - 1, 0).bit_length()


def lanes(count: int) -> int:
    """Lanes of every block of an archive of `count` labels."""
    return max(1, min(BLOCK, count) // _LABELS_A_LANE)


def _table_shapes(width: int, layers: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Shapes of all tables of levels, in order; `layers`: largest count and value of each."""
    yield 1, zones(width)
    yield 1, 2 * OWN_RANGE + 1
    for most, largest in layers:
        yield 1, most + 1
        yield 1, zones(width - 1)
        yield groups(width), 2 * largest


def pack_head(model: Model, count: int) -> bytes:
    numbers, width = model.parameters, model.statistics.width
    head = _HEAD.pack(
        model.source,
        len(model.layers),
        numbers.mean_scale,
        numbers.pull,
        numbers.class_pull,
        numbers.centre,
        numbers.own_step,
    )
    head += _leb128(width) + _leb128(count)
    tables = [model.places, model.own]
    for item in model.layers:
        most, largest = item.counts.shape[1] - 1, item.values.shape[1] // 2
        head += _LAYER.pack(item.layer.step, item.layer.spread, most, largest, *item.layer.bias)
        tables += [item.counts, item.densities, item.values]
    head += b"".join(levels.pack(table) for table in tables)
    return head + (statistics.pack(model.statistics) if model.source == IN_FILE else b"")


def unpack_head(data: bytes, width: int | None, count: int | None) -> tuple[Model, int, int]:
    """Model, number of labels and length of the head. `width`, `count`: what they must be, or None."""
    reader = _Bytes(data)
    source, depth, mean_scale, pull, class_pull, centre, own_step = reader.struct(_HEAD)
    stated_width, stated_count = reader.leb128(), reader.leb128()
    for name, found, expected in (("labels", stated_count, count), ("logits a label", stated_width, width)):
        if expected is not None and found != expected:
            raise damaged(f"states another number of {name}", found, expected)
    if source > SHIPPED or depth > MAX_LAYERS or not 1 <= stated_width <= MAX_WIDTH or not own_step:
        raise damaged("has a head of impossible numbers")
    layers, shapes = [], []
    for _ in range(depth):
        step, spread, most, largest, *bias = reader.struct(_LAYER)
        if not step or not 1 <= most <= min(MAX_COUNT, stated_width - 1) or not 1 <= largest <= MAX_VALUE:
            raise damaged("has a layer of impossible numbers")
        layers.append(Layer(step, spread, tuple(bias)))
        shapes.append((most, largest))
    tables = [
        levels.unpack(reader.take(levels.packed_bytes(*shape)), *shape) for shape in _table_shapes(stated_width, shapes)
    ]
    known = statistics.none(stated_width)
    if source == IN_FILE:
        known, used = statistics.unpack(data[reader.place :])
        reader.take(used)
    elif source == SHIPPED:
        known = statistics.shipped()
    if known.width != stated_width:
        raise damaged("has statistics of another width", known.width, stated_width)
    models = tuple(
        LayerModel(layer, tables[2 + 3 * number], tables[3 + 3 * number][0], tables[4 + 3 * number])
        for number, layer in enumerate(layers)
    )
    parameters = Parameters(mean_scale, pull, class_pull, centre, own_step)
    return Model(source, known, parameters, tables[0], tables[1], models), stated_count, reader.place


def _leb128(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def read_index(data: bytes, place: int, count: int) -> tuple[NDArray[np.int64], int]:
    """Lengths of the blocks in bytes, and where the first begins. They fill the stream."""
    blocks = -(-count // BLOCK)
    if len(data) - place < 3 * blocks:  # before anything of that size is made
        raise damaged("ends inside its head")
    index = np.frombuffer(data, np.uint8, 3 * blocks, place).reshape(blocks, 3).astype(np.int64)
    lengths = 2 * (index @ np.array([1, 1 << 8, 1 << 16]))
    return lengths, place + 3 * blocks


class _Bytes:
    """Bytes of a head, taken from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def take(self, length: int) -> bytes:
        if self.place + length > len(self._data):
            raise damaged("ends inside its head")
        self.place += length
        return self._data[self.place - length : self.place]

    def leb128(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 42:
                raise damaged("has a number of more than seven bytes")
        if not byte and shift > 7:
            raise damaged("has a number that is not in its shortest form")
        return value

    def struct(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def damaged(what: str, found: object = None, expected: object = None) -> SectionError:
    return SectionError("E_SECTION_VALUE", what, field=FIELD, found=found, expected=expected)
