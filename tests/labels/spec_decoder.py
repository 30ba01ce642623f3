"""A slow decoder of ranked-head labels, written from spec/labels.md and spec/entropy.md alone: plain integers.

It shares no code with d3codec, so that both can be held against each other. It counts the symbols it reads.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import accumulate
from math import comb, isqrt

LEVEL_WEIGHTS = [4096, 2896, 2048, 1448, 1024, 724, 512, 362, 256, 181, 128, 91, 64, 45, 32, 0]
ODDS = [65536, 46341, 32768, 23170, 16384, 11585, 8192, 5793, 4096, 2896, 2048, 1448, 1024, 724, 512, 362]


class Refused(Exception):
    """Bytes that the specification does not allow."""


def require(condition: bool) -> None:
    if not condition:
        raise Refused


# ------------------------------------------------------------------------------------------------ entropy.md


class Table:
    """Frequencies of symbols, from weights (section 1)."""

    def __init__(self, weights: Sequence[int]) -> None:
        total, present = sum(weights), [w for w in weights if w]
        m = bisect_right(range(8193), 4096, key=lambda m: sum(max(1, w * m // total) for w in present)) - 1
        self.f = [max(1, w * m // total) if w else 0 for w in weights]
        order = sorted(range(len(weights)), key=lambda s: (-weights[s], s))
        for s in order[: 4096 - sum(self.f)]:
            self.f[s] += 1
        self.ends = list(accumulate(self.f))


class Stream:
    """The stream of a block (sections 2 to 4)."""

    def __init__(self, data: bytes, lanes: int) -> None:
        require(len(data) >= 4 * lanes and len(data) % 2 == 0)
        self.x = list(struct.unpack_from(f"<{lanes}I", data))
        require(min(self.x) >= 2**16)
        self.words = iter(struct.unpack_from(f"<{len(data) // 2 - 2 * lanes}H", data, 4 * lanes))
        self.symbols = 0

    def plane(self, tables: Sequence[Table]) -> list[int]:
        """One symbol for each table."""
        found, lanes = [], len(self.x)
        for start in range(0, len(tables), lanes):
            step = tables[start : start + lanes]
            for lane, table in enumerate(step):
                slot = self.x[lane] % 4096
                s = bisect_right(table.ends, slot)
                self.x[lane] = table.f[s] * (self.x[lane] // 4096) + slot - (table.ends[s] - table.f[s])
                found.append(s)
            for lane in range(len(step)):
                if self.x[lane] < 2**16:
                    word = next(self.words, None)
                    require(word is not None)
                    self.x[lane] = 2**16 * self.x[lane] + word
        self.symbols += len(tables)
        return found

    def finish(self) -> None:
        require(next(self.words, None) is None and set(self.x) == {2**16})


# ------------------------------------------------------------------------------------------------ labels.md


def zone(rank: int) -> int:
    return rank.bit_length()


def zones(ranks: int) -> int:
    return 1 if ranks <= 1 else 1 + (ranks - 1).bit_length()


def group(rank: int) -> int:
    return [0, 1, 2, 3, 4, 4, 5, 5][zone(rank)] if zone(rank) < 8 else 6


class Bytes:
    """Bytes of a head from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        require(self.at + n <= len(self.data))
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, layout: str) -> int:
        (value,) = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return int(value)

    def leb128(self) -> int:
        value = 0
        for i in range(7):
            byte = self.number("B")
            value += (byte & 127) << (7 * i)
            if byte < 128:
                require(byte > 0 or i == 0)
                return value
        raise Refused

    def levels(self, rows: int, symbols: int) -> list[list[int]]:
        count = rows * symbols
        halves = [half for byte in self.take((count + 1) // 2) for half in (byte & 15, byte >> 4)]
        require(not any(halves[count:]))
        table = [halves[row * symbols : (row + 1) * symbols] for row in range(rows)]
        require(all(any(level != 15 for level in row) for row in table))
        return table


def table_of(levels: Sequence[int]) -> Table:
    return Table([LEVEL_WEIGHTS[level] for level in levels])


@dataclass
class Statistics:
    means: list[int]
    rows: list[list[int]]
    noise: int

    def __post_init__(self) -> None:
        self.lengths = [sum(b * b for b in row) for row in self.rows]
        self.shares = [2**24 // (length + self.noise) for length in self.lengths]
        self.bound = (2**24 - 1) // max(1, max(sum(abs(b) for b in row) for row in self.rows))


def read_statistics(data: Bytes) -> Statistics:
    width, axes, noise, n = data.number("I"), data.number("B"), data.number("H"), data.number("H")
    require(width > 0 and noise > 0 and width * (axes + 1) <= 2**20)
    planes = [1] + [min(8, axes - first) for first in range(0, axes, 8)]
    tables = [table_of(data.levels(1, 63)[0]) for _ in planes]
    stream = Stream(data.take(n), 8 if width * axes < 2**16 else 64)
    columns: list[list[int]] = []
    for table, count in zip(tables, planes, strict=True):
        values = stream.plane([table] * (width * count))
        columns += [[v - 31 for v in values[i * width : (i + 1) * width]] for i in range(count)]
    stream.finish()
    rows = [list(row) for row in zip(*columns[1:], strict=True)] if axes else [[] for _ in range(width)]
    return Statistics([512 * value for value in columns[0]], rows, noise)


@dataclass
class Layer:
    step: int
    spread: int
    biases: list[int]
    counts: Table
    densities: list[int]
    values: list[Table]
    largest: int


@dataclass
class Label:
    """What is read of a label; corrections [layer] of rank to value."""

    place: int
    own: int
    corrections: list[dict[int, int]]


class Decoder:
    """The head of a stream, and its blocks."""

    def __init__(self, data: bytes, width: int, count: int, shipped: bytes) -> None:
        head = Bytes(data)
        source, depth = head.number("B"), head.number("B")
        self.mean_scale, self.pull, self.class_pull = head.number("B"), head.number("H"), head.number("B")
        self.centre, self.own_step = head.number("h"), head.number("B")
        self.width = head.leb128()
        self.count = head.leb128()
        require(source <= 2 and depth <= 3 and self.own_step > 0 and 1 <= self.width <= 2**20)
        require((self.width, self.count) == (width, count))
        layers = []
        for _ in range(depth):
            step, spread, most, largest = (head.number("B") for _ in range(4))
            require(step > 0 and 1 <= most <= min(127, width - 1) and 1 <= largest <= 31)
            layers.append((step, spread, most, largest, [head.number("b") for _ in range(7)]))
        groups = 1 + group(max(0, width - 2))
        self.places = table_of(head.levels(1, zones(width))[0])
        self.own = table_of(head.levels(1, 33)[0])
        self.layers = []
        for step, spread, most, largest, biases in layers:
            counts = table_of(head.levels(1, most + 1)[0])
            (densities,) = head.levels(1, zones(width - 1))
            values = [table_of(row) for row in head.levels(groups, 2 * largest)]
            self.layers.append(Layer(step, spread, biases, counts, densities, values, largest))
        if source == 0:
            self.statistics = Statistics([0] * width, [[] for _ in range(width)], 1)
        else:
            self.statistics = read_statistics(head if source == 1 else Bytes(shipped))
        require(len(self.statistics.means) == width)
        self.blocks = [range(first, min(first + 1024, count)) for first in range(0, count, 1024)]
        lengths = [2 * int.from_bytes(head.take(3), "little") for _ in self.blocks]
        require(head.at + sum(lengths) == len(data))
        self.streams = [head.take(length) for length in lengths]
        self.lanes = max(1, min(1024, count) // 64)

    # -------------------------------------------------------------------------------------------- section 5

    def labels(self, block: int) -> list[Label]:
        stream, count = Stream(self.streams[block], self.lanes), len(self.blocks[block])
        places = stream.plane([self.places] * count)
        zone_of = list(places)
        for z in range(2, zones(self.width)):
            inside = [n for n in range(count) if zone_of[n] == z]
            first = 2 ** (z - 1)
            for n, value in zip(inside, self.even(stream, min(first, self.width - first), len(inside)), strict=True):
                places[n] = first + value
        own = [symbol - 16 for symbol in stream.plane([self.own] * count)]
        labels = [Label(places[n], own[n], []) for n in range(count)]
        for layer in self.layers:
            counts = stream.plane([layer.counts] * count)
            ranks = self.positions(stream, counts, layer.densities)
            symbols = iter(stream.plane([layer.values[group(r)] for label in ranks for r in label]))
            for label, positions in zip(labels, ranks, strict=True):
                found = {}
                for rank in positions:
                    n = next(symbols)
                    found[rank] = n - layer.largest if n < layer.largest else n - layer.largest + 1
                label.corrections.append(found)
        stream.finish()
        return labels

    def even(self, stream: Stream, size: int, count: int) -> list[int]:
        if size <= 4096:
            return stream.plane([uniform(size)] * count)
        pieces = -(-size // 4096)
        weights = [4096] * (pieces - 1) + [size - 4096 * (pieces - 1)]
        high = stream.plane([Table(weights)] * count)
        low = stream.plane([uniform(weights[h]) for h in high])
        return [4096 * h + n for h, n in zip(high, low, strict=True)]

    def positions(self, stream: Stream, counts: list[int], densities: list[int]) -> list[list[int]]:
        """Ranks of the corrections of every label, ascending."""
        ranks = self.width - 1
        left = list(counts)
        nodes: list[list[tuple[int, int, int]]] = [[] for _ in counts]  # first rank, length, positions
        for z in range(zones(ranks) - 1, 0, -1):
            first = 2 ** (z - 1)
            length = min(first, ranks - first)
            who = [n for n, k in enumerate(left) if k]
            for n, i in zip(who, stream.plane([split(first, length, densities[z], left[n]) for n in who]), strict=True):
                left[n] -= i
                nodes[n] += [(first, length, i)] if i else []
        for n, k in enumerate(left):
            nodes[n] += [(0, 1, k)] if k else []
        found: list[list[int]] = [[] for _ in counts]
        for h in (2**power for power in range(19, -1, -1)):
            due = [[node for node in label if h < node[1] <= 2 * h] for label in nodes]
            nodes = [[node for node in label if node[1] <= h] for label in nodes]
            for ranks_found, label in zip(found, due, strict=True):
                ranks_found += [first + r for first, length, k in label if k == length for r in range(length)]
            due = [[node for node in label if node[2] < node[1]] for label in due]
            taken = iter(stream.plane([split(h, length - h, 0, k) for label in due for _, length, k in label]))
            for n, label in enumerate(due):
                cut = [(node, next(taken)) for node in label]
                parts = [(first, h, k - i) for (first, _, k), i in cut]
                parts += [(first + h, length - h, i) for (first, length, _), i in cut if length < 2 * h]
                parts += [(first + h, length - h, i) for (first, length, _), i in cut if length == 2 * h]
                nodes[n] += [part for part in parts if part[2]]
        return [sorted(f + [node[0] for node in label]) for f, label in zip(found, nodes, strict=True)]

    # -------------------------------------------------------------------------------------------- section 4

    def prediction(self, factors: list[int], added: list[int]) -> list[int]:
        known = self.statistics
        g = [max(-known.bound, min(known.bound, (f + 2**23) >> 24)) for f in factors]
        return [
            sum(a * b for a, b in zip(g, row, strict=True)) + ((mean * self.mean_scale + 32) >> 6) + more
            for row, mean, more in zip(known.rows, known.means, added, strict=True)
        ]

    def start(self, class_: int, argmax: int) -> list[int]:
        known, p = self.statistics, 16 * self.pull
        factors = [known.shares[argmax] * b * p for b in known.rows[argmax]]
        if argmax != class_:
            also = (p * self.class_pull) >> 6
            factors = [f + known.shares[class_] * b * also for f, b in zip(factors, known.rows[class_], strict=True)]
        return factors

    def order(self, prediction: list[int], argmax: int) -> list[int]:
        columns = [column for column in range(self.width) if column != argmax]
        return sorted(columns, key=lambda column: (-prediction[column], column))

    def logits(self, label: Label, class_: int) -> list[int]:
        """In 1/4096 nat."""
        known, argmax = self.statistics, class_
        if label.place:
            near = self.prediction(self.start(class_, class_), [0] * self.width)
            argmax = self.order(near, class_)[label.place - 1]
        factors, added = self.start(class_, argmax), [0] * self.width
        for layer, corrections in zip(self.layers, label.corrections, strict=True):
            order = self.order(self.prediction(factors, added), argmax)
            for rank, column in enumerate(order):
                added[column] += 128 * layer.biases[group(rank)]
            for rank, x in corrections.items():
                j = order[rank]
                y = 256 * layer.step * x
                d = (y * layer.spread) >> 6
                added[j] += y - ((d * known.shares[j] * known.lengths[j]) >> 24)
                factors = [f + d * known.shares[j] * b for f, b in zip(factors, known.rows[j], strict=True)]
        values = self.prediction(factors, added)
        own = 256 * (self.centre + label.own * self.own_step)
        others = [value for column, value in enumerate(values) if column != argmax]
        values[argmax] = max([own, *(value + 64 for value in others)])
        return values


def uniform(size: int) -> Table:
    return _uniform(size)


@cache
def _uniform(size: int) -> Table:
    return Table([1] * size)


@cache
def split(before: int, after: int, level: int, k: int) -> Table:
    low, high = max(0, k - before), min(k, after)
    assert ODDS[level] == (isqrt(4 * 2 ** (32 - level)) + 1) // 2
    exact = {i: comb(after, i) * comb(before, k - i) * Fraction(ODDS[level], 2**16) ** i for i in range(low, high + 1)}
    largest = max(exact.values())
    return Table([max(1, 2**31 * exact[i] // largest) if i in exact else 0 for i in range(high + 1)])


def decode(data: bytes, classes: Sequence[int], width: int, shipped: bytes = b"") -> Iterator[list[int]]:
    """Logits of every label in 1/4096 nat; `shipped`: bytes of the shipped statistics. Raises Refused."""
    decoder = Decoder(data, width, len(classes), shipped)
    for number, block in enumerate(decoder.blocks):
        for label, n in zip(decoder.labels(number), block, strict=True):
            yield decoder.logits(label, classes[n])
