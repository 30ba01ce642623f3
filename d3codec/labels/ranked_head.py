"""Teacher logits as corrections to what their class predicts: kind `r` of the format (spec/labels.md).

A label is its argmax, the argmax's logit, and a few corrections at ranks of a predicted order. The order follows from
statistics of the teacher in exact integers, so no class index and no list of indices is stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d3codec.entropy import TOTAL, Reader, Tables, Writer, frequencies
from d3codec.labels import levels, positions
from d3codec.labels.positions import Ints
from d3codec.labels.prediction import Prediction, group_of, neighbours
from d3codec.labels.statistics import UNITS_A_NAT
from d3codec.labels.stream import (
    BLOCK,
    FIELD,
    OWN_RANGE,
    Corrections,
    LayerModel,
    Model,
    Symbols,
    damaged,
    lanes,
    pack_head,
    read_index,
    unpack_head,
    zones,
)

_BATCH_VALUES = 1 << 19  # logits that are rebuilt at once; products of matrices use several threads by themselves


def decode(data: bytes, classes: NDArray[np.integer], width: int, rows: slice | None = None) -> NDArray[np.float32]:
    """Logits of a stream, float32 [N, width] in nat; with `rows` those alone, reading no more blocks than they touch.

    `classes`: int [N], column of every label's class, of all labels whatever rows are wanted. Raises SectionError
    (`E_SECTION_VALUE`) for damage and for a stream of other labels, ValueError for a class that is no column.
    """
    model, count, place = unpack_head(data, width, len(classes))
    lengths, place = read_index(data, place, count)
    if place + int(lengths.sum()) != len(data):
        raise damaged("has blocks of another length than it states")
    columns = np.asarray(classes).astype(np.int64)
    outside = (columns < 0) | (columns >= width)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"row {row}: class {columns[row]} of labels of {width} columns")
    start, stop, _ = (rows or slice(None)).indices(count)
    if start >= stop:
        return np.empty((0, width), np.float32)
    first, last = start // BLOCK, -(-stop // BLOCK)
    ends = place + np.cumsum(lengths)
    streams = [data[end - length : end] for end, length in zip(ends[first:last], lengths[first:last], strict=True)]
    begin, end = first * BLOCK, min(last * BLOCK, count)
    symbols = _read(model, streams, end - begin, lanes(count))
    return rebuild(model, symbols, columns[begin:end], start - begin, stop - begin)


def select(data: bytes, count: int, width: int, chosen: Ints) -> bytes:
    """The stream of some of its `count` labels, int64 [n] ascending: the same logits, by the same model.

    Raises as `decode` does.
    """
    model, count, place = unpack_head(data, width, count)
    lengths, place = read_index(data, place, count)
    if place + int(lengths.sum()) != len(data):
        raise damaged("has blocks of another length than it states")
    ends = (place + np.cumsum(lengths)).tolist()
    streams = [data[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
    symbols = _read(model, streams, count, lanes(count))
    layers = []
    for layer in symbols.layers:
        kept = np.isin(np.repeat(np.arange(count), layer.counts), chosen)
        layers.append(Corrections(layer.counts[chosen], layer.ranks[kept], layer.values[kept]))
    return write(model, Symbols(symbols.places[chosen], symbols.own[chosen], layers))


def stated(data: bytes) -> tuple[int, int, int]:
    """Number of labels, width and source of the statistics that a stream states. Raises SectionError as `decode`."""
    model, count, _ = unpack_head(data, None, None)
    return count, model.statistics.width, model.source


def side_bytes(data: bytes) -> int:
    """Bytes of a stream that belong to no label: head, tables, statistics, lengths of blocks. SectionError as above."""
    _, count, place = unpack_head(data, None, None)
    return read_index(data, place, count)[1]


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
    return b"".join([pack_head(model, count), index, *streams])


def rebuild(model: Model, symbols: Symbols, classes: Ints, start: int, stop: int) -> NDArray[np.float32]:
    """Logits, float32 [stop - start, width] in nat, of labels start .. stop - 1 of those that `symbols` hold."""
    width = model.statistics.width
    result = np.empty((stop - start, width), np.float32)
    ends = [np.concatenate([[0], np.cumsum(layer.counts)]) for layer in symbols.layers]
    size = max(1, _BATCH_VALUES // width)

    for first in range(start, stop, size):
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
        offset = None if known is None else known.places[labels] - first
        places[labels] = first + _walk_even(coder, labels, min(first, width - first), offset)
    own = coder(levels.tables(model.own), zero, everyone, None if known is None else known.own + OWN_RANGE) - OWN_RANGE
    layers = []
    for number, item in enumerate(model.layers):
        layer = None if known is None else known.layers[number]
        layers.append(_walk_layer(coder, item, count, width - 1, layer))
    return Symbols(places, own, layers)


def _walk_even(coder: positions.Coder, labels: Ints, size: int, known: Ints | None) -> Ints:
    """One of `size` equally likely numbers a label, in two steps where there are more than a table can hold."""
    high = np.zeros(len(labels), np.int64)
    lengths = np.diff(np.append(np.arange(0, size, TOTAL), size))  # of runs of at most 4,096 numbers
    if len(lengths) > 1:
        runs = Tables(frequencies(lengths[None]))
        high = coder(runs, high, labels, None if known is None else known // TOTAL)
    weights = (np.arange(lengths[0])[None] < np.unique(lengths)[:, None]).astype(np.int64)
    kind = np.searchsorted(np.unique(lengths), lengths)[high]
    low = coder(Tables(frequencies(weights)), kind, labels, None if known is None else known % TOTAL)
    return high * TOTAL + low


def _walk_layer(
    coder: positions.Coder, model: LayerModel, count: int, size: int, known: Corrections | None
) -> Corrections:
    everyone = np.arange(count)
    counts = coder(
        levels.tables(model.counts), np.zeros(count, np.int64), everyone, None if known is None else known.counts
    )
    flat = None if known is None else np.repeat(everyone, known.counts) * size + known.ranks
    flat = positions.code(coder, counts, size, model.densities, model.counts.shape[1] - 1, flat)
    labels, ranks = flat // max(size, 1), flat % max(size, 1)
    largest = model.values.shape[1] // 2
    symbols = None if known is None else known.values + largest - (known.values > 0)
    symbols = coder(levels.tables(model.values), group_of(ranks), labels, symbols)
    values = symbols - largest + (symbols >= largest)
    return Corrections(counts, ranks, values)


def _read(model: Model, streams: list[bytes], count: int, lanes: int) -> Symbols:
    """Symbols of `count` labels from the streams of their blocks."""
    reader = Reader(streams, lanes, field=FIELD)
    block_of = np.arange(count) // BLOCK

    def take(tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        counts = np.bincount(block_of[labels], minlength=len(streams))
        return reader.take(tables, rows, counts).astype(np.int64)

    symbols = _walk(take, model, count, None)
    reader.finish()
    return symbols
