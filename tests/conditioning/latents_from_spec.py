"""Transform-coded latents by the text of spec/latents.md and spec/entropy.md alone: slow, in plain Python."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

STATISTICS = Path(__file__).resolve().parents[2] / "spec" / "data" / "latents.stats"
P = [16777216, 16065917, 15384774, 14732510, 14107900, 13509772, 12937002, 12388515]
P += [11863283, 11360318, 10878678, 10417458, 9975792, 9552851, 9147841, 8760003]


def shifted(x: int, bits: int) -> int:
    """R(x, b) of the specification."""
    return (x + (1 << (bits - 1))) >> bits


def parity(x: int) -> int:
    return x.bit_count() % 2


def weight(cost: int) -> int:
    return P[cost % 16] // 2 ** (cost // 16)


def frequencies(weights: list[int]) -> list[int]:
    """entropy.md, section 1."""
    total = sum(weights)
    shares = lambda m: [max(1, w * m // total) if w else 0 for w in weights]  # noqa: E731
    low, high = 0, 3 * 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(shares(middle)) <= 4096 else (low, middle)
    found = shares(low)
    for s in sorted(range(len(weights)), key=lambda s: (-weights[s], s))[: 4096 - sum(found)]:
        found[s] += 1
    return found


class Stream:
    """entropy.md, section 3, of one block."""

    def __init__(self, data: bytes, lanes: int) -> None:
        self.states = list(struct.unpack_from(f"<{lanes}I", data))
        self.words = list(struct.unpack(f"<{(len(data) - 4 * lanes) // 2}H", data[4 * lanes :]))
        self.at = 0

    def plane(self, tables: list[list[int]]) -> list[int]:
        """Symbols, from the table of each."""
        symbols = []
        lanes = len(self.states)
        for start in range(0, len(tables), lanes):
            used = range(min(lanes, len(tables) - start))
            for lane in used:
                table, x = tables[start + lane], self.states[lane]
                slot, symbol, below = x % 4096, 0, 0
                while below + table[symbol] <= slot:
                    below += table[symbol]
                    symbol += 1
                self.states[lane] = table[symbol] * (x // 4096) + slot - below
                symbols.append(symbol)
            for lane in used:
                if self.states[lane] < 1 << 16:
                    self.states[lane] = (self.states[lane] << 16) + self.words[self.at]
                    self.at += 1
        return symbols

    def check_end(self) -> None:
        assert self.at == len(self.words)
        assert all(x == 1 << 16 for x in self.states)


class Statistics:
    """What sections 6 and 7 give of one shape."""

    scales: list[int]
    mean: list[Fraction]  # [C h w]
    matrices: list[list[list[int]]] | None
    exponent = 6
    rotation: list[list[int]] | None = None


def order_of_frequencies(h: int, w: int) -> list[tuple[int, int]]:
    return sorted(((v, u) for v in range(h) for u in range(w)), key=lambda f: (max(f), f[0], f[1]))


@cache
def shipped_rows() -> tuple[list[list[int]], list[list[int]], int]:
    """Costs and shifts of the 56 rows, and where the entries begin."""
    data, at, costs, shifts = STATISTICS.read_bytes(), 0, [], []
    for _ in range(56):
        count = data[at] + 1
        costs.append(list(data[at + 1 : at + 1 + count]))
        shifts.append(list(struct.unpack_from("<2b", data, at + 1 + count)))
        at += count + 3
    return costs, shifts, at


def entries() -> Iterator[tuple[int, tuple[int, int, int], bytes]]:
    data, at = STATISTICS.read_bytes(), shipped_rows()[2]
    while at < len(data):
        number, c, h, w, size = struct.unpack_from("<4BI", data, at)
        yield number, (c, h, w), data[at + 8 : at + 8 + size]
        at += 8 + size


@cache
def shipped(number: int, shape: tuple[int, int, int]) -> Statistics:
    """Section 6."""
    (body,) = (body for n, s, body in entries() if (n, s) == (number, shape))
    c, h, w = shape
    size = c * h * w
    exponent, passes, places, octave = struct.unpack_from("<bBHb", body)
    found = Statistics()
    found.exponent = exponent
    found.scales = [128 * octave + 4 * s for s in body[5 : 5 + size]]
    at, tables = 5 + size, []
    for n in [127, 127] + [16] * passes:
        tables.append(frequencies([weight(body[at + abs(value)]) for value in range(-n, n + 1)]))
        at += n + 1
    stream = Stream(body[at:], 8)
    found.mean = [Fraction(s - 127, 32) for s in stream.plane([tables[0]] * size)]
    entry = iter([s - 127 for s in stream.plane([tables[1]] * (c * size))])
    found.matrices = [[[next(entry) for _ in range(c)] for _ in range(c)] for _ in range(h * w)]
    rotation = [[(1 << 14) * (i == j) for j in range(places)] for i in range(places)]
    for table in tables[2:]:
        level = iter([s - 16 for s in stream.plane([table] * ((places - c) * places // 2))])
        for r in range(c, places):
            for i in (i for i in range(places) if i < i ^ r):
                if chosen := next(level):
                    sine = math.isqrt(1 << (11 + abs(chosen))) * (1 if chosen > 0 else -1)
                    cosine = math.isqrt((1 << 28) - sine * sine)
                    a, b = rotation[i], rotation[i ^ r]
                    rotation[i] = [shifted(cosine * p + sine * q, 14) for p, q in zip(a, b, strict=True)]
                    rotation[i ^ r] = [shifted(cosine * q - sine * p, 14) for p, q in zip(a, b, strict=True)]
    stream.check_end()
    found.rotation = rotation if passes else None
    return found


def own(data: bytes, shape: tuple[int, int, int]) -> tuple[Statistics, int]:
    """Section 7."""
    c, h, w = shape
    flag, octave = struct.unpack_from("<Bb", data)
    at = 2 + 2 * c
    found = Statistics()
    mean = struct.unpack_from(f"<{c}e", data, 2)
    found.mean = [Fraction(mean[k]) for k in range(c) for _ in range(h * w)]
    diagonals, offsets = data[at : at + h + w - 1], struct.unpack_from(f"<{c}b", data, at + h + w - 1)
    found.scales = [
        128 * octave + 4 * (diagonals[v + u] + offsets[k]) for v, u in order_of_frequencies(h, w) for k in range(c)
    ]
    at += h + w - 1 + c
    found.matrices = None
    if flag:
        entry = struct.unpack_from(f"<{c * c}b", data, at)
        found.matrices = [[list(entry[c * k : c * k + c]) for k in range(c)]] * (h * w)
        at += c * c
    return found, at


def decode(data: bytes, count: int, shape: tuple[int, int, int]) -> list[list[Fraction]]:
    """Latents of all images, each C h w numbers, exact but for the last rounding to binary64."""
    if not count:
        assert not data
        return []
    number, exponent = struct.unpack_from("<BH", data)
    assert exponent <= 8191
    statistics, at = own(data[3:], shape) if number == 0 else (shipped(number, shape), 0)
    at += 3
    blocks = -(-count // 256)
    lengths = struct.unpack_from(f"<{blocks - 1}I", data, at)
    at += 4 * (blocks - 1)
    found = []
    for block in range(blocks):
        end = at + lengths[block] if block < blocks - 1 else len(data)
        stream = Stream(data[at:end], max(1, min(256, count) // 64))
        for coefficients in block_of(stream, min(256, count - 256 * block), statistics, exponent):
            found.append(latents(coefficients, shape, statistics, exponent))
        at = end
    return found


@cache
def tables_of_symbols() -> list[list[int]]:
    """Section 3."""
    weights = [[weight(row[0]), 1, *(weight(c) for c in row[1:] for _ in range(2))] for row in shipped_rows()[0]]
    return [frequencies(row) for row in weights]


def block_of(stream: Stream, images: int, statistics: Statistics, exponent: int) -> list[list[int]]:
    """Coefficients of the images of a block: sections 2 to 4."""
    costs, shifts, _ = shipped_rows()
    tables = tables_of_symbols()
    mantissa = next(n for n in range(2048, 0, -1) if n**128 <= 1 << (1280 + exponent % 128))
    found = [[0] * len(statistics.scales) for _ in range(images)]
    states = [0] * images
    for d in sorted(range(len(statistics.scales)), key=lambda d: (-statistics.scales[d], d)):
        bucket = min(27, (statistics.scales[d] - (exponent - 4096) + 128) // 32)
        if bucket < 0:
            continue
        rows = [2 * bucket + parity(state & 0x79) for state in states]
        symbols = stream.plane([tables[row] for row in rows])
        escapes = iter(stream.plane([[1] * 4096] * symbols.count(1)))
        for image, (row, symbol) in enumerate(zip(rows, symbols, strict=True)):
            magnitude, negative = symbol // 2, symbol % 2
            if symbol == 1:
                e = next(escapes)
                magnitude, negative = len(costs[row]) + e // 2, e % 2
            if magnitude:
                position = 64 * magnitude - 32 * (row % 2) + shifts[row][min(magnitude, 2) - 1]
                found[image][d] = (-position if negative else position) * mantissa
            state = states[image]
            states[image] = (2 * state + (magnitude % 2 ^ parity(state & 0xA6))) % 256
    stream.check_end()
    return found


@cache
def cosines(n: int) -> list[list[int]]:
    return [
        [round(4096 * math.sqrt((2 if u else 1) / n) * math.cos(math.pi * u * (2 * i + 1) / (2 * n))) for i in range(n)]
        for u in range(n)
    ]


def latents(x: list[int], shape: tuple[int, int, int], statistics: Statistics, exponent: int) -> list[Fraction]:
    """Section 5."""
    c, h, w = shape
    if (turn := statistics.rotation) is not None:
        places = range(len(turn))
        x = [shifted(sum(x[i] * turn[i][j] for i in places), 14) for j in places] + x[len(turn) :]
    spectrum = {}
    for f, (v, u) in enumerate(order_of_frequencies(h, w)):
        part = x[c * f : c * f + c]
        for k in range(c):
            if statistics.matrices is not None:
                spectrum[k, v, u] = shifted(sum(part[i] * statistics.matrices[f][i][k] for i in range(c)), 6)
            else:
                spectrum[k, v, u] = part[k]
    rows, columns, found = cosines(h), cosines(w), []
    unit = Fraction(2) ** (exponent // 128 - 41 - statistics.exponent)
    for k in range(c):
        half = [
            [shifted(sum(rows[v][i] * spectrum[k, v, u] for v in range(h)), 12) for u in range(w)] for i in range(h)
        ]
        for i in range(h):
            for j in range(w):
                value = shifted(sum(half[i][u] * columns[u][j] for u in range(w)), 12)
                found.append(value * unit + statistics.mean[len(found)])
    return found
