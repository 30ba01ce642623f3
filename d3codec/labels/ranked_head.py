"""Teacher logits as corrections to what their class predicts: kind `r` of the format (spec/labels.md).

A label is its argmax, the argmax's logit, and a few corrections at ranks of a predicted order. The order follows from
statistics of the teacher in exact integers, so no class index and no list of indices is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from d3codec.entropy import Reader, Tables, Writer, frequencies
from d3codec.errors import SectionError
from d3codec.labels import levels, positions, statistics
from d3codec.labels.positions import Ints
from d3codec.labels.prediction import GROUPS, Layer, Parameters, Prediction, group_of, neighbours
from d3codec.labels.statistics import UNITS_A_NAT, Statistics

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

_BATCH_VALUES = 1 << 20  # logits that are rebuilt at once
_WORKERS = 2
_HEAD = struct.Struct("<BBBHBhB")  # source, layers, mean scale, pull, class pull, centre, own step
_LAYER = struct.Struct(f"<BBBB{GROUPS}b")  # step, spread, largest count, largest value, biases
_FIELD = "lab"


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


def decode(data: bytes, classes: NDArray[np.integer], width: int, rows: slice | None = None) -> NDArray[np.float32]:
    """Logits of a stream, float32 [N, width] in nat; with `rows` those alone, reading no more blocks than they touch.

    `classes`: int [N], column of every label's class, of all labels whatever rows are wanted. Raises SectionError
    (`E_SECTION_VALUE`) for damage and for a stream of other labels.
    """
    model, count, place = _unpack_head(data, width, len(classes))
    lengths, place = _read_index(data, place, count)
    if place + int(lengths.sum()) != len(data):
        raise _damaged("has blocks of another length than it states")
    start, stop, _ = (rows or slice(None)).indices(count)
    if start >= stop:
        return np.empty((0, width), np.float32)
    first, last = start // BLOCK, -(-stop // BLOCK)
    ends = place + np.cumsum(lengths)
    streams = [data[end - length : end] for end, length in zip(ends[first:last], lengths[first:last], strict=True)]
    begin, end = first * BLOCK, min(last * BLOCK, count)
    symbols = _read(model, streams, end - begin, lanes(count))
    return rebuild(model, symbols, np.asarray(classes[begin:end], np.int64), start - begin, stop - begin)


def stated(data: bytes) -> tuple[int, int, int]:
    """Number of labels, width and source of the statistics that a stream states. Raises SectionError as `decode`."""
    model, count, _ = _unpack_head(data, None, None)
    return count, model.statistics.width, model.source


def side_bytes(data: bytes) -> int:
    """Bytes of a stream that belong to no label: head, tables, statistics, lengths of blocks. SectionError as above."""
    _, count, place = _unpack_head(data, None, None)
    return _read_index(data, place, count)[1]


def write(model: Model, symbols: Symbols) -> bytes:
    """The stream of an archive. The model's tables must allow every symbol."""
    count = len(symbols.places)
    blocks = -(-count // BLOCK)
    writer = Writer(blocks, lanes(count))
    block_of = np.arange(count) // BLOCK

    def put(tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        assert known is not None
        writer.put(known, tables, rows, np.bincount(block_of[labels], minlength=blocks))
        return known

    _walk(put, model, count, symbols)
    streams = writer.finish()
    index = b"".join((len(stream) // 2).to_bytes(3, "little") for stream in streams)
    return b"".join([_pack_head(model, count), index, *streams])


def rebuild(model: Model, symbols: Symbols, classes: Ints, start: int, stop: int) -> NDArray[np.float32]:
    """Logits, float32 [stop - start, width] in nat, of labels start .. stop - 1 of those that `symbols` hold."""
    width = model.statistics.width
    result = np.empty((stop - start, width), np.float32)
    ends = [np.concatenate([[0], np.cumsum(layer.counts)]) for layer in symbols.layers]
    size = max(1, _BATCH_VALUES // width)

    def one(first: int) -> None:
        last = min(first + size, stop)
        batch = slice(first, last)
        argmax = argmax_of(model, classes[batch], symbols.places[batch])
        prediction = Prediction(model.statistics, model.parameters, classes[batch], argmax)
        for item, layer, end in zip(model.layers, symbols.layers, ends, strict=True):
            inside = slice(end[first], end[last])
            labels = np.repeat(np.arange(last - first), layer.counts[batch])
            prediction.apply(item.layer, labels, layer.ranks[inside], layer.values[inside])
        logits = prediction.finish(symbols.own[batch])
        np.multiply(logits, np.float32(1 / UNITS_A_NAT), out=result[first - start : last - start])

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(one, range(start, stop, size)):
            pass
    return result


def argmax_of(model: Model, classes: Ints, places: Ints) -> Ints:
    """The argmax of labels from its place among the neighbours of their class."""
    argmax = classes.copy()
    moved = np.flatnonzero(places)
    if len(moved):
        kinds, which = np.unique(classes[moved], return_inverse=True)
        argmax[moved] = neighbours(model.statistics, model.parameters, kinds)[which, places[moved]]
    return argmax


def _walk(coder: positions.Coder, model: Model, count: int, known: Symbols | None) -> Symbols:
    """Every plane of an archive in order, written if `known`, else read (spec/labels.md section 5)."""
    everyone, width = np.arange(count), model.statistics.width
    zero = np.zeros(count, np.int64)
    zone = coder(
        levels.tables(model.places), zero, everyone, None if known is None else positions.zone_of(known.places)
    )
    places = np.minimum(zone, 1)
    for number in range(2, zones(width)):
        labels = np.flatnonzero(zone == number)
        first = 1 << (number - 1)
        even = Tables(frequencies(np.ones((1, min(first, width - first)), np.int64)))
        offset = coder(even, zero[labels], labels, None if known is None else known.places[labels] - first)
        places[labels] = first + offset
    own = coder(levels.tables(model.own), zero, everyone, None if known is None else known.own + OWN_RANGE) - OWN_RANGE
    layers = []
    for number, item in enumerate(model.layers):
        layer = None if known is None else known.layers[number]
        layers.append(_walk_layer(coder, item, count, width - 1, layer))
    return Symbols(places, own, layers)


def _walk_layer(
    coder: positions.Coder, model: LayerModel, count: int, size: int, known: Corrections | None
) -> Corrections:
    everyone = np.arange(count)
    counts = coder(
        levels.tables(model.counts), np.zeros(count, np.int64), everyone, None if known is None else known.counts
    )
    flat = None if known is None else np.repeat(everyone, known.counts) * size + known.ranks
    flat = positions.code(coder, counts, size, model.densities, flat)
    labels, ranks = flat // max(size, 1), flat % max(size, 1)
    largest = model.values.shape[1] // 2
    symbols = None if known is None else known.values + largest - (known.values > 0)
    symbols = coder(levels.tables(model.values), group_of(ranks), labels, symbols)
    values = symbols - largest + (symbols >= largest)
    return Corrections(counts, ranks, values)


def _read(model: Model, streams: list[bytes], count: int, lanes: int) -> Symbols:
    """Symbols of `count` labels from the streams of their blocks."""
    reader = Reader(streams, lanes, field=_FIELD)
    block_of = np.arange(count) // BLOCK

    def take(tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        counts = np.bincount(block_of[labels], minlength=len(streams))
        return reader.take(tables, rows, counts).astype(np.int64)

    symbols = _walk(take, model, count, None)
    reader.finish()
    return symbols


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


def _pack_head(model: Model, count: int) -> bytes:
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


def _unpack_head(data: bytes, width: int | None, count: int | None) -> tuple[Model, int, int]:
    """Model, number of labels and length of the head. `width`, `count`: what they must be, or None."""
    reader = _Bytes(data)
    source, depth, mean_scale, pull, class_pull, centre, own_step = reader.struct(_HEAD)
    stated_width, stated_count = reader.leb128(), reader.leb128()
    for name, found, expected in (("labels", stated_count, count), ("logits a label", stated_width, width)):
        if expected is not None and found != expected:
            raise _damaged(f"states another number of {name}", found, expected)
    if source > SHIPPED or depth > MAX_LAYERS or not 1 <= stated_width <= MAX_WIDTH or not own_step:
        raise _damaged("has a head of impossible numbers")
    layers, shapes = [], []
    for _ in range(depth):
        step, spread, most, largest, *bias = reader.struct(_LAYER)
        if not step or not 1 <= most <= min(MAX_COUNT, stated_width - 1) or not 1 <= largest <= MAX_VALUE:
            raise _damaged("has a layer of impossible numbers")
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
        raise _damaged("has statistics of another width", known.width, stated_width)
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


def _read_index(data: bytes, place: int, count: int) -> tuple[NDArray[np.int64], int]:
    """Lengths of the blocks in bytes, and where the first begins. They fill the stream."""
    blocks = -(-count // BLOCK)
    if len(data) - place < 3 * blocks:  # before anything of that size is made
        raise _damaged("ends inside its head")
    index = np.frombuffer(data, np.uint8, 3 * blocks, place).reshape(blocks, 3).astype(np.int64)
    lengths = 2 * (index @ np.array([1, 1 << 8, 1 << 16]))
    return lengths, place + 3 * blocks


class _Bytes:
    """Bytes of a head, taken from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def take(self, length: int) -> bytes:
        if self.place + length > len(self._data):
            raise _damaged("ends inside its head")
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
                raise _damaged("has a number of more than seven bytes")
        if not byte and shift > 7:
            raise _damaged("has a number that is not in its shortest form")
        return value

    def struct(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def _damaged(what: str, found: object = None, expected: object = None) -> SectionError:
    return SectionError("E_SECTION_VALUE", what, field=_FIELD, found=found, expected=expected)
