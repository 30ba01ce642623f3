"""What the bytes of `.d3m` sections mean: noise and tables of samplers (d3m-1.0.md, 7.1 and 7.2), entropy coding
(entropy.md), coded labels (labels.md) and latents (latents.md). Nothing here knows of the container: `d3m_reader.py`
is the reader. Written from the specification alone; all names of one letter are those of its pages.
"""
from __future__ import annotations

import functools
import hashlib
import math
import operator
import statistics
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

TEACHER = ("imagenet-1k.stats", "d03820760b9e455aa9dee541774c2883cf4b9419be6423e2df326a44c4d19b89")
LATENTS = ("latents.stats", "989d8167ad96452f00bd4eacb1c5879015a30362cbe66b2005fe59154805b4ab")
NORMALS = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
MILLION = 1_000_000
LIMIT = (1 << 24) - 1
Record = dict[str, Any]
Table = Sequence[int]  # of an entropy coder: the sums c(0) .. c(S) of its frequencies
Shape = tuple[int, int, int]  # C, h, w
Pair = tuple[int, int]

class D3mError(Exception):
    """A file that breaks the specification: an error code of section 8 and a reason."""

class NoVerdict(Exception):
    """What is missing is not the file's fault."""

def check(ok: bool, code: str, reason: str) -> None:
    if not ok:
        raise D3mError(f"{code}: {reason}")

def sane(ok: bool, reason: str) -> None:
    check(ok, "E_SECTION_VALUE", reason)

def ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)

@dataclass
class Cursor:
    """Reads bytes from front to back; bytes that end too early are the error `code`."""
    data: bytes
    code: str = "E_SECTION_VALUE"
    pos: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.pos

    def take(self, size: int) -> bytes:
        check(size <= self.left, self.code, "the bytes end too early")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def leb128(self, most: int) -> int:
        number = 0
        for shift in range(0, 7 * most, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                sane(byte > 0 or shift == 0, "a LEB128 number that is not in its shortest form")
                return number
        raise D3mError("E_SECTION_VALUE: a LEB128 number of too many bytes")

@dataclass
class Resources:
    """What decoding may use: the folder of the normative tables, and a number of steps."""
    folder: Path
    work: int

    def spend(self, steps: int) -> None:
        self.work -= steps
        if self.work < 0:
            raise NoVerdict("the values are more work than this reader does (--work)")

    def table(self, name: str, digest: str) -> Cursor:
        path = self.folder / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise NoVerdict(f"the table {path} is missing, or another one (--data)")
        return Cursor(data)

# ---- Noise and tables of samplers (d3m, 7.1 and 7.2)

def philox(counter: tuple[int, int, int, int], key: int) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011)."""
    a, b, c, d = counter
    low, high = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ low, q & 0xFFFFFFFF, (p >> 32) ^ d ^ high, p & 0xFFFFFFFF
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d

@functools.cache
def normal_table() -> tuple[float, ...]:
    upper = [statistics.NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(32768, 65536)]
    data = struct.pack("<65536f", *(-x for x in reversed(upper)), *upper)
    if hashlib.sha256(data).hexdigest() != NORMALS:
        raise NoVerdict("this machine makes another table of normals")
    return struct.unpack("<65536f", data)

def normals(key: int, candidate: int, stream: int, draw: int, count: int) -> list[float]:
    """The first elements of a tensor of noise, row-major; `draw` is domain << 24 | n."""
    words = chain(*(philox((block, candidate, stream, draw), key) for block in range(ceil_div(count, 8))))
    return [normal_table()[index] for word in words for index in (word & 0xFFFF, word >> 16)][:count]

def alpha_bars(curve: str, first: int, last: int, count: int) -> list[float]:
    divisor = max(1, count - 1)
    betas = [(first * divisor + (last - first) * i) / (MILLION * divisor) for i in range(count)]
    if curve == "scaled":
        low, high = math.sqrt(first / MILLION), math.sqrt(last / MILLION)
        roots = [low + (high - low) * i / divisor for i in range(count)]
        betas = [root * root for root in roots]
    return list(accumulate((1 - beta for beta in betas), lambda product, factor: product * factor))

def timesteps(recipe: Record) -> list[float]:
    steps, count, (spacing, offset) = recipe["n"], recipe["b"][3], recipe["t"]
    if spacing == "leading":
        return [(steps - 1 - i) * (count // steps) + offset for i in range(steps)]
    if spacing == "trailing":
        return [round(Fraction(count * (steps - i), steps)) - 1 for i in range(steps)]
    exact = [Fraction((steps - 1 - i) * (count - 1), max(1, steps - 1)) for i in range(steps)]
    return [float(t) if "q" in recipe else round(t) for t in exact]

def sigmas(recipe: Record, alphas: list[float], times: list[float]) -> tuple[list[float], list[float]]:
    """Sigmas of the Euler samplers, the last one 0, and the timesteps that the denoiser is given."""
    table = [math.sqrt((1 - alpha) / alpha) for alpha in alphas]
    whole_steps = [int(t) for t in times]
    values = [table[i] + (t - i) * (table[i + 1] - table[i]) if t > i else table[i] for i, t in zip(whole_steps, times)]
    if recipe["q"] == "karras":
        with localcontext(Context(prec=80)):
            start, end = (Decimal(value) ** (1 / Decimal(7)) for value in (values[0], values[-1]))
            steps = max(1, len(values) - 1)
            values = [values[0]] + [float((start + (end - start) * i / steps) ** 7) for i in range(1, len(values))]
            times = [karras_time(table, sigma) for sigma in values]
    return [*values, 0.0], times

def karras_time(table: list[float], sigma: float) -> float:
    if len(table) == 1:
        return 0.0
    j = min(max(0, bisect_right(table, sigma) - 1), len(table) - 2)
    below, above = Decimal(table[j]).ln(), Decimal(table[j + 1]).ln()
    return float(j + min(max((Decimal(sigma).ln() - below) / (above - below), Decimal(0)), Decimal(1)))

def sampler_tables(recipe: Record, key: int) -> Record:
    """Digests of a sampler's tables (float64) and the first normals of candidate 0 of the first class."""
    tables = {"alpha_bars": alpha_bars(*recipe["b"]), "timesteps": timesteps(recipe)}
    if "q" in recipe:
        tables["sigmas"], tables["timesteps"] = sigmas(recipe, *tables.values())
    digests = {name: hashlib.sha256(struct.pack(f"<{len(v)}d", *v)).hexdigest() for name, v in tables.items()}
    return digests | {"noise": normals(key, 0, 0, 0, 8)}

# ---- Entropy coding (entropy.md)

POWERS = (16777216, 16065917, 15384774, 14732510, 14107900, 13509772, 12937002, 12388515, 11863283, 11360318, 10878678,
          10417458, 9975792, 9552851, 9147841, 8760003)

def make_table(weights: Sequence[int]) -> Table:
    total, low, high = sum(weights), 0, 4097 + len(weights)
    while high - low > 1:  # the largest factor with which the frequencies are at most 4,096
        factor = (low + high) // 2
        fits = sum(max(1, weight * factor // total) for weight in weights if weight) <= 4096
        low, high = (factor, high) if fits else (low, factor)
    counts = [max(1, weight * low // total) if weight else 0 for weight in weights]
    for symbol in sorted(range(len(weights)), key=lambda s: -weights[s])[: 4096 - sum(counts)]:
        counts[symbol] += 1
    return tuple(accumulate(counts, initial=0))

@functools.lru_cache(256)
def uniform(count: int) -> Table:
    return make_table([1] * count)

def cost_weight(cost: int) -> int:
    return POWERS[cost % 16] >> cost // 16

class Stream:
    """One stream of one block: its planes are decoded in turn (sections 2 to 4)."""

    def __init__(self, data: bytes, lanes: int) -> None:
        sane(len(data) >= 4 * lanes and len(data) % 2 == 0, "a stream of an impossible length")
        self.states = list(struct.unpack_from(f"<{lanes}I", data))
        self.words = iter(struct.unpack_from(f"<{len(data) // 2 - 2 * lanes}H", data, 4 * lanes))
        sane(min(self.states) >= 1 << 16, "an initial state below 2^16")

    def plane(self, tables: Sequence[Table]) -> list[int]:
        states, words, symbols, lanes = self.states, self.words, [], len(self.states)
        for index, table in enumerate(tables):
            lane = index % lanes
            state = states[lane]
            slot = state & 4095
            symbol = bisect_right(table, slot) - 1
            state = (table[symbol + 1] - table[symbol]) * (state >> 12) + slot - table[symbol]
            if state < 65536:
                word = next(words, None)
                if word is None:
                    raise D3mError("E_SECTION_VALUE: a word beyond the end of a stream")
                state = state << 16 | word
            states[lane] = state
            symbols.append(symbol)
        return symbols

    def finish(self) -> None:
        good = next(self.words, None) is None and set(self.states) == {1 << 16}
        sane(good, "words that are left in a stream, or a lane that is not back at 2^16")

class OneState:
    """A stream of one state (section 6)."""

    def __init__(self, data: bytes) -> None:
        sane(data[:1] != b"\0", "a stream whose first byte is 0")
        self.bytes, self.state = iter(data), 0
        self.fill()

    def fill(self) -> None:
        while self.state < 65536 and (byte := next(self.bytes, None)) is not None:
            self.state = self.state << 8 | byte

    def symbol(self, table: Table) -> int:
        slot = self.state & 4095
        symbol = bisect_right(table, slot) - 1
        self.state = (table[symbol + 1] - table[symbol]) * (self.state >> 12) + slot - table[symbol]
        self.fill()
        return symbol

    def bits(self, count: int) -> int:
        number = 0
        while count:
            some = min(count, 12)
            number, count = number << some | self.symbol(uniform(1 << some)), count - some
        return number

    def finish(self) -> None:
        sane(next(self.bytes, None) is None and self.state == 256, "a stream that does not end where it should")

def split_streams(cursor: Cursor, lengths: Sequence[int]) -> list[bytes]:
    """Streams back to back; the last one takes what is left."""
    sane(sum(lengths) <= cursor.left, "streams beyond the end")
    return [cursor.take(length) for length in lengths] + [cursor.take(cursor.left)]

def coded_rows(data: bytes, rows: int, size: int) -> Iterator[list[float]]:
    """Section 5."""
    cursor, block = Cursor(data, "E_SECTION_SIZE"), max(1, 65536 // size)
    single = data[4:5] >= b"\x80"  # the sign bit of the first scale
    levels, a, b, *scales = cursor.unpack(f"Bbb{1 if single else rows}e")
    lengths = cursor.unpack(f"{ceil_div(rows, block) - 1}I")
    sane(levels > 1 or (levels, a, b) == (1, 0, 0), "the number of levels, or the shape of their table")
    scales = [-scales[0]] * rows if single else scales
    sane(all(0 < scale < math.inf for scale in scales), "an impossible scale")
    lanes, span = max(1, min(64, min(block, rows) * size // 4096)), max(1, levels - 1)
    distances = [abs(2 * level - levels + 1) for level in range(levels)]
    costs = [4 * (a * d * span + b * d * d) // (span * span) for d in distances]
    table = make_table([max(1, cost_weight(cost - min(costs))) for cost in costs])
    for index, part in enumerate(split_streams(cursor, lengths)):
        stream, here = Stream(part, lanes), scales[index * block : (index + 1) * block]
        symbols = stream.plane([table] * (len(here) * size))
        stream.finish()
        for row, scale in enumerate(here):
            numbers = [(level - (levels - 1) / 2) * scale for level in range(levels)]
            yield [numbers[symbol] for symbol in symbols[row * size : (row + 1) * size]]

class Fields:
    """Vectors of integers below 2^62 as one large integer each: their sums and multiples are those of the integers."""

    def __init__(self, count: int) -> None:
        self.form = f"<{count}Q"
        self.ones = int.from_bytes(struct.pack(self.form, *[1] * count), "little")

    def pack(self, values: Iterable[int]) -> int:
        return int.from_bytes(struct.pack(self.form, *(v + (1 << 62) for v in values)), "little") - (self.ones << 62)

    def unpack(self, packed: int) -> list[int]:
        data = (packed + (self.ones << 62)).to_bytes(struct.calcsize(self.form), "little")
        return [value - (1 << 62) for value in struct.unpack(self.form, data)]

    def rounded(self, packed: int, bits: int) -> int:
        mask = self.ones * ((1 << 64 - bits) - 1)
        return (packed + self.ones * ((1 << 62) + (1 << bits - 1)) >> bits & mask) - (self.ones << 62 - bits)

# ---- Ranked-head labels (labels.md, sections 1 to 7)

LEVEL_WEIGHTS = (4096, 2896, 2048, 1448, 1024, 724, 512, 362, 256, 181, 128, 91, 64, 45, 32, 0)
ODDS = (65536, 46341, 32768, 23170, 16384, 11585, 8192, 5793, 4096, 2896, 2048, 1448, 1024, 724, 512, 362)

def zones(ranks: int) -> int:
    return 1 if ranks <= 1 else 1 + (ranks - 1).bit_length()

def group_of(rank: int) -> int:
    return (0, 1, 2, 3, 4, 4, 5, 5, 6)[min(8, rank.bit_length())]

def level_rows(cursor: Cursor, rows: int, symbols: int) -> list[list[int]]:
    """Tables of levels (section 3)."""
    levels = [level for byte in cursor.take(ceil_div(rows * symbols, 2)) for level in (byte & 15, byte >> 4)]
    sane(not any(levels[rows * symbols :]), "filling that is not 0")
    table = [levels[i * symbols : (i + 1) * symbols] for i in range(rows)]
    sane(all(min(row) < 15 for row in table), "a row of nothing but 15")
    return table

def level_tables(cursor: Cursor, rows: int, symbols: int) -> list[Table]:
    return [make_table([LEVEL_WEIGHTS[level] for level in row]) for row in level_rows(cursor, rows, symbols)]

class Teacher:
    """What is known of a teacher before any label (section 2), and the prediction of section 4."""

    def __init__(self, means: list[int], axes: list[list[int]], noise: int) -> None:
        self.means, self.fields = means, Fields(len(means))
        self.columns = list(zip(*axes)) if axes else [()] * len(means)  # b_j,i
        self.lengths = [sum(b * b for b in column) for column in self.columns]
        self.shares = [(1 << 24) // (length + noise) for length in self.lengths]
        self.bound = LIMIT // max(1, *(sum(map(abs, column)) for column in self.columns))
        self.axes = [self.fields.pack(axis) for axis in axes]

    def predict(self, factors: list[int], added: list[int]) -> list[int]:
        weights = (max(-self.bound, min(self.bound, factor + (1 << 23) >> 24)) for factor in factors)
        total = sum(weight * axis for weight, axis in zip(weights, self.axes) if weight)
        return [a + b for a, b in zip(self.fields.unpack(total), added)]

    def moved(self, factors: list[int], column: int, amount: int) -> list[int]:
        amount *= self.shares[column]
        return [f + amount * b for f, b in zip(factors, self.columns[column])]

def read_teacher(cursor: Cursor, width: int) -> Teacher:
    columns, count, noise, size = cursor.unpack("IBHH")
    sane(columns == width and noise > 0 and width * (count + 1) <= 1 << 20, "statistics of another width, or size")
    tables = [level_tables(cursor, 1, 63)[0] for _ in range(1 + ceil_div(count, 8))]
    stream = Stream(cursor.take(size), 8 if width * count < 65536 else 64)
    means = [512 * (symbol - 31) for symbol in stream.plane([tables[0]] * width)]
    planes = [stream.plane([t] * (width * min(8, count - 8 * i))) for i, t in enumerate(tables[1:])]
    stream.finish()
    numbers = [symbol - 31 for symbol in chain(*planes)]
    return Teacher(means, [numbers[i * width : (i + 1) * width] for i in range(count)], noise)

@dataclass(frozen=True)
class Layer:
    step: int
    spread: int
    reach: int  # V, the largest value of a correction
    biases: Sequence[int]
    counts: Table
    densities: Sequence[int]
    values: Sequence[Table]

@dataclass(frozen=True)
class Ranked:
    """The head of ranked labels, but for the lengths of their streams."""
    teacher: Teacher
    means: list[int]  # scaled
    pull: int  # p of section 4
    class_pull: int
    centre: int
    own_step: int
    places: Table
    own: Table
    layers: list[Layer]

    def start(self, top: int, column: int) -> list[int]:
        factors = self.teacher.moved([0] * len(self.teacher.axes), top, self.pull)
        return factors if top == column else self.teacher.moved(factors, column, self.pull * self.class_pull >> 6)

def read_ranked(cursor: Cursor, count: int, width: int, resources: Resources) -> Ranked:
    source, depth, mean_scale, pull, class_pull, centre, own_step = cursor.unpack("BBBHBhB")
    sane(source <= 2 and depth <= 3 and own_step > 0, "numbers of ranked labels")
    sane((cursor.leb128(7), cursor.leb128(7)) == (width, count), "another number of columns or labels")
    numbers = [cursor.unpack("BBBB7b") for _ in range(depth)]
    sane(all(n[0] and 1 <= n[2] <= min(127, width - 1) and 1 <= n[3] <= 31 for n in numbers), "numbers of a layer")
    places, own = level_tables(cursor, 1, zones(width))[0], level_tables(cursor, 1, 33)[0]
    layers = []
    for step, spread, most, reach, *biases in numbers:
        counts, densities = level_tables(cursor, 1, most + 1)[0], level_rows(cursor, 1, zones(width - 1))[0]
        values = level_tables(cursor, 1 + group_of(max(0, width - 2)), 2 * reach)
        layers.append(Layer(step, spread, reach, biases, counts, densities, values))
    known = resources.table(*TEACHER) if source == 2 else cursor
    teacher = read_teacher(known, width) if source else Teacher([0] * width, [], 1)
    means = [mean * mean_scale // 64 for mean in teacher.means]
    layer_work = sum(n[2] for n in numbers) * (20 + len(teacher.axes) // 2)
    resources.spend(count * (width * (4 + len(teacher.axes) // 8) * (depth + 2) + layer_work))
    return Ranked(teacher, means, 16 * pull, class_pull, centre, own_step, places, own, layers)

def order(values: list[int], top: int) -> list[int]:
    """All columns but the argmax, by falling value; a sort leaves equal ones in the order of columns."""
    return [j for j in sorted(range(len(values)), key=lambda j: -values[j]) if j != top]

def ranked_labels(data: bytes, classes: list[int], width: int, resources: Resources) -> Iterator[list[float]]:
    cursor = Cursor(data)
    head = read_ranked(cursor, len(classes), width, resources)
    blocks = [classes[i : i + 1024] for i in range(0, len(classes), 1024)]
    lengths = [2 * int.from_bytes(cursor.take(3), "little") for _ in blocks]
    sane(sum(lengths) == cursor.left, "streams that do not add up to the bytes that are left")

    @functools.lru_cache(1024)
    def class_order(column: int) -> list[int]:
        return order(head.teacher.predict(head.start(column, column), head.means), column)

    for block, length in zip(blocks, lengths):
        stream = Stream(cursor.take(length), max(1, min(1024, len(classes)) // 64))
        places = read_places(stream, head.places, len(block), width)
        owns = [symbol - 16 for symbol in stream.plane([head.own] * len(block))]
        corrections = [read_corrections(stream, layer, len(block), width - 1) for layer in head.layers]
        stream.finish()
        for i, column in enumerate(block):
            top = class_order(column)[places[i] - 1] if places[i] else column
            label = [listed[i] for listed in corrections]
            yield [v / 4096 for v in ranked_label(head, column, top, owns[i], label)]

def ranked_label(head: Ranked, column: int, top: int, own: int, label: list[list[Pair]]) -> list[int]:
    """Section 4: the logits in 1/4096 nat; `label` are ranks and values of corrections, layer by layer."""
    teacher, factors, added = head.teacher, head.start(top, column), list(head.means)
    values = teacher.predict(factors, added)
    for layer, corrections in zip(head.layers, label):
        ranks = order(values, top)
        for rank, j in enumerate(ranks):
            added[j] += 128 * layer.biases[group_of(rank)]
        for rank, x in corrections:
            j, y = ranks[rank], 256 * layer.step * x
            d = y * layer.spread >> 6
            added[j] += y - (d * teacher.shares[j] * teacher.lengths[j] >> 24)
            factors = teacher.moved(factors, j, d)
        values = teacher.predict(factors, added)
    others = values[:top] + values[top + 1 :]
    values[top] = max([256 * (head.centre + own * head.own_step)] + [v + 64 for v in others])
    return values

def read_places(stream: Stream, table: Table, labels: int, width: int) -> list[int]:
    """Planes 1 and 2 of section 5."""
    zone_of = stream.plane([table] * labels)
    places = list(zone_of)  # right for zones 0 and 1
    for zone in range(2, zones(width)):
        first, found = 1 << zone - 1, [i for i, z in enumerate(zone_of) if z == zone]
        count = min(first, width - first)
        sizes = [min(4096, count - i) for i in range(0, count, 4096)]
        upper = stream.plane([make_table(sizes)] * len(found)) if len(sizes) > 1 else [0] * len(found)
        lower = stream.plane([uniform(sizes[number]) for number in upper])
        for i, a, b in zip(found, upper, lower):
            places[i] = first + 4096 * a + b
    return places

@functools.lru_cache(1 << 14)
def split(before: int, after: int, level: int, count: int) -> Table:
    """How many of `count` positions lie in the ranks after (5.1)."""
    i = max(0, count - before)
    parts = [math.comb(after, i) * math.comb(before, count - i) * ODDS[level] ** i << 16 * (count - i)]
    for n in range(i, min(count, after)):  # the quotients of neighbours; all divisions are exact
        parts.append(parts[-1] * (after - n) * (count - n) * ODDS[level] // ((n + 1) * (before - count + n + 1) << 16))
    largest = max(parts)
    return make_table([0] * i + [max(1, (part << 31) // largest) for part in parts])

def read_corrections(stream: Stream, layer: Layer, labels: int, ranks: int) -> list[list[Pair]]:
    """Rank and value of the corrections of every label (plane 4 of section 5)."""
    left = stream.plane([layer.counts] * labels)
    nodes: list[list[tuple[int, int, int]]] = [[] for _ in left]  # first rank, ranks, positions
    for zone in range(zones(ranks) - 1, 0, -1):
        first = 1 << zone - 1
        size, some = min(first, ranks - first), [i for i, count in enumerate(left) if count]
        found = stream.plane([split(first, size, layer.densities[zone], left[i]) for i in some])
        for i, count in zip(some, found):
            nodes[i] += [(first, size, count)] if count else []
            left[i] -= count
    positions = [[0] * count for count in left]
    for half in (1 << bit for bit in range(18, -1, -1)):
        large = [(i, node) for i, own in enumerate(nodes) for node in own if node[1] > half]
        nodes = [[node for node in own if node[1] <= half] for own in nodes]
        for i, (first, size, count) in large:
            positions[i] += range(first, first + size) if count == size else []
        large = [(i, node) for i, node in large if node[1] != node[2]]
        after = stream.plane([split(half, size - half, 0, count) for _, (_, size, count) in large])
        fronts = [(i, (first, half, k - n)) for (i, (first, _, k)), n in zip(large, after)]
        backs = [(i, (first + half, size - half, n)) for (i, (first, size, _)), n in zip(large, after)]
        for i, node in chain(fronts, sorted(backs, key=lambda back: back[1][1] == half)):  # the shorter one first
            nodes[i] += [node] if node[2] else []
    ordered = [sorted(own + [node[0] for node in listed]) for own, listed in zip(positions, nodes)]
    symbols = iter(stream.plane([layer.values[group_of(rank)] for own in ordered for rank in own]))
    return [[(rank, n - layer.reach + (n >= layer.reach)) for rank, n in zip(own, symbols)] for own in ordered]

# ---- Adaptive labels (labels.md, section 8)

@functools.lru_cache(512)
def number_table(spread: int, phase: int) -> Table:
    """The table of 8.4; `spread` is i', `phase` is p."""
    def logistic(d: int) -> int:
        if d < 0:
            return (1 << 24) - logistic(-d)
        t = d * (811, 682, 574, 482)[spread % 4] >> 4 + spread // 4
        return (1 << 48) // ((1 << 24) + (POWERS[t % 16] >> t // 16))

    return (0, *(s + (4063 * logistic(16 * (s - 16) - phase) >> 24) for s in range(1, 33)), 4096)

def read_number(stream: OneState, centre: int, spread: int) -> int:
    bits = max(0, spread - 21 >> 2)
    symbol = stream.symbol(number_table(spread - 4 * bits, (centre + 8 >> bits) % 16))
    cell = (centre + 8 >> 4 + bits) + symbol - 16
    if symbol in (0, 32):
        more = stream.bits(5)
        distance = (1 << more) + stream.bits(more) - 1
        cell += distance if symbol else -distance
    return (cell << bits) + stream.bits(bits)

def adaptive_block(stream: OneState, classes: list[int], width: int, step: int) -> list[list[float]]:
    """Sections 8.2 and 8.3."""
    columns, largest, floor = range(width), LIMIT // step, 24576 // step
    taken, seen, sums, total, coded = [0] * width, [16] * width, [[0] * width for _ in columns], 0, 0  # n, m, s
    variances = [8 * (6144 // step) ** 2 * (k + 2) // (k + 1) + 1 for k in columns]
    gains = [[(1 << 24) // (j + 2) for j in range(k)] for k in columns]
    turns = [(classes[:index].count(c), c, index) for index, c in enumerate(classes)]
    logits: list[list[float]] = [[] for _ in classes]
    for _, c, index in sorted(turns):
        common = (16 * total + floor) // (coded + 2)
        errors, row = [0] * width, [0.0] * width
        for k in (k for k in columns if k != c):
            mean = (32 * sums[c][k] + 16 * sums[k][c] + 4 * common) // (2 * taken[c] + taken[k] + 4)
            centre = mean + (sum(g * e for g, e in zip(gains[k], errors)) >> 24)
            centre = max(-16 * largest, min(16 * largest, centre))
            number = read_number(stream, centre, ((variances[k] // seen[k] + 1) ** 2).bit_length())
            number = max(-largest, min(largest, number))
            errors[k] = max(-(1 << 14), min(1 << 14, 16 * number - centre))
            sums[c][k] += number
            total += number
            variances[k] += errors[k] ** 2
            seen[k] += 1
            x = step * number
            row[k] = -min(x + (3 * max(0, x) ** 2 >> 14), LIMIT) / 256
        taken[c] += 1
        coded += width - 1
        shares = [(e << 24) // v for e, v in zip(errors, variances)]
        for k in (k for k in columns if errors[k]):
            gains[k] = [g + errors[k] * share for g, share in zip(gains[k], shares)]
        logits[index] = row
    stream.finish()
    return logits

def adaptive_labels(data: bytes, classes: list[int], width: int) -> Iterator[list[float]]:
    cursor = Cursor(data)
    step = cursor.unpack("H")[0]
    sane(step > 0, "a step of 0")
    blocks = [classes[i : i + 4096] for i in range(0, len(classes), 4096)]
    lengths = [int.from_bytes(cursor.take(3), "little") for _ in blocks[1:]]
    for block, part in zip(blocks, split_streams(cursor, lengths)):
        yield from adaptive_block(OneState(part), block, width, step)

# ---- Transform-coded latents (latents.md)

@dataclass(frozen=True)
class Statistics:
    scales: list[int]  # g_d
    means: list[float]  # by channel, row and column
    exponent: int = 6
    matrices: list[list[list[int]]] | None = None  # A_f[k][c]
    rotation: list[int] | None = None  # rows of T, as fields

@dataclass(frozen=True)
class SymbolRow:
    table: Table
    largest: int  # M
    shifts: tuple[int, int]

@functools.lru_cache(128)
def cosines(n: int) -> list[list[int]]:
    """D_n[u][i]"""
    return [[round(4096 * math.sqrt((2 if u else 1) / n) * math.cos(math.pi * u * (2 * i + 1) / (2 * n)))
             for i in range(n)] for u in range(n)]

def symbol_rows(cursor: Cursor) -> list[SymbolRow]:
    rows = []
    for _ in range(56):
        largest = cursor.take(1)[0]
        zero, *others = map(cost_weight, cursor.take(largest + 1))
        table = make_table([zero, 1, *(weight for weight in others for _ in "+-")])
        rows.append(SymbolRow(table, largest, cursor.unpack("bb")))
    return rows

def shipped_statistics(cursor: Cursor, number: int, shape: Shape) -> Statistics:
    """Section 6, after the rows of symbols."""
    entries = {}
    while cursor.left:
        *key, length = cursor.unpack("4BI")
        entries[tuple(key)] = cursor.take(length)
    sane((number, *shape) in entries, f"no statistics {number} are shipped for {shape}")
    entry, channels, size = Cursor(entries[number, *shape]), shape[0], math.prod(shape)
    exponent, passes, turned, octave = entry.unpack("bBHb")
    scales = [128 * octave + 4 * s for s in entry.take(size)]
    costs = [[cost_weight(cost) for cost in entry.take(n + 1)] for n in (127, 127, *passes * [16])]
    tables = [make_table([*weights[:0:-1], *weights]) for weights in costs]
    stream = Stream(entry.take(entry.left), 8)
    means = [(symbol - 127) / 32 for symbol in stream.plane([tables[0]] * size)]
    numbers = iter([symbol - 127 for symbol in stream.plane([tables[1]] * (size * channels))])
    matrices = [[[next(numbers) for _ in range(channels)] for _ in range(channels)] for _ in range(size // channels)]
    fields, rotation = Fields(turned), [1 << 64 * i + 14 for i in range(turned)]
    pairs = [(i, i ^ r) for r in range(channels, turned) for i in range(turned) if i < i ^ r]
    for table in tables[2:]:
        for (i, j), level in zip(pairs, stream.plane([table] * len(pairs))):
            if level != 16:
                sine = math.isqrt(1 << 11 + abs(level - 16)) * (1 if level > 16 else -1)
                cosine, a, b = math.isqrt((1 << 28) - sine * sine), rotation[i], rotation[j]
                rotation[i] = fields.rounded(cosine * a + sine * b, 14)
                rotation[j] = fields.rounded(cosine * b - sine * a, 14)
    stream.finish()
    return Statistics(scales, means, exponent, matrices, rotation if passes else None)

def own_statistics(cursor: Cursor, frequencies: list[Pair], shape: Shape) -> Statistics:
    """Section 7."""
    channels, height, width = shape
    matrix = cursor.unpack("B")[0]
    sane(matrix <= 1, "neither a matrix nor none")
    octave, *numbers = cursor.unpack(f"b{channels}e{height + width - 1}B{channels}b")
    rows = cursor.unpack(f"{channels * channels}b") if matrix else ()
    means, slopes, offsets = numbers[:channels], numbers[channels:-channels], numbers[-channels:]
    sane(all(map(math.isfinite, means)), "a mean of latents that is not finite")
    scales = [128 * octave + 4 * (slopes[v + u] + b) for v, u in frequencies for b in offsets]
    matrices = [[list(rows[k : k + channels]) for k in range(0, len(rows), channels)]] * len(frequencies)
    return Statistics(scales, [m for m in means for _ in frequencies], 6, matrices if matrix else None)

def transform_latents(data: bytes, images: int, shape: Shape, resources: Resources) -> Iterator[list[float]]:
    cursor, shipped = Cursor(data, "E_SECTION_SIZE"), resources.table(*LATENTS)
    number, j = cursor.unpack("BH")
    sane(j <= 8191, "J above 8191")
    rows, cells = symbol_rows(shipped), [(v, u) for v in range(shape[1]) for u in range(shape[2])]
    frequencies = sorted(cells, key=lambda cell: (max(cell), cell))
    known = shipped_statistics(shipped, number, shape) if number else own_statistics(cursor, frequencies, shape)
    resources.spend(images * math.prod(shape) * len(known.rotation or ()) // 8)
    lengths = cursor.unpack(f"{ceil_div(images, 256) - 1}I")
    buckets = [min(27, (scale - (j - 4096) + 128) // 32) for scale in known.scales]
    falling = sorted(range(len(buckets)), key=lambda d: -known.scales[d])
    coded = [(d, buckets[d]) for d in falling if buckets[d] >= 0]
    n = max(n for n in range(1024, 2048) if n**128 <= 1 << 1280 + j % 128)
    unit = math.ldexp(1.0, j // 128 - 41 - known.exponent)
    for index, part in enumerate(split_streams(cursor, lengths)):
        stream = Stream(part, max(1, min(256, images) // 64))
        for x in positions(stream, min(256, images - 256 * index), len(buckets), coded, rows):
            numbers = latent([n * position for position in x], shape, frequencies, known)
            yield [value * unit + mean for value, mean in zip(numbers, known.means)]

def positions(stream: Stream, images: int, size: int, coded: list[Pair], rows: list[SymbolRow]) -> list[list[int]]:
    """The positions X with their signs, image by image (sections 3 and 4); `coded` are components and buckets."""
    states, result = [0] * images, [[0] * size for _ in range(images)]
    for d, bucket in coded:
        quantizers = [(state & 0x79).bit_count() & 1 for state in states]
        here = [rows[2 * bucket + q] for q in quantizers]
        symbols = stream.plane([row.table for row in here])
        escapes = iter(stream.plane([uniform(4096)] * symbols.count(1)))
        for i, (symbol, q, row) in enumerate(zip(symbols, quantizers, here)):
            m, negative = symbol // 2, symbol & 1
            if symbol == 1:
                escape = next(escapes)
                m, negative = row.largest + 1 + escape // 2, escape & 1
            if m:
                position = 64 * m - 32 * q + row.shifts[min(m, 2) - 1]
                result[i][d] = -position if negative else position
            states[i] = (2 * states[i] + (m & 1 ^ (states[i] & 0xA6).bit_count() & 1)) & 255
    stream.finish()
    return result

def latent(x: list[int], shape: Shape, frequencies: list[Pair], known: Statistics) -> list[int]:
    """Section 5: the integers z by channel, row and column."""
    channels, height, width = shape
    if known.rotation:
        fields = Fields(len(known.rotation))
        turned = sum(value * row for value, row in zip(x, known.rotation) if value)
        x = fields.unpack(fields.rounded(turned, 14)) + x[len(known.rotation) :]
    spectrum = {}
    for f, cell in enumerate(frequencies):
        y = spectrum[cell] = x[f * channels : (f + 1) * channels]
        if known.matrices:
            spectrum[cell] = [sum(map(operator.mul, y, column)) + 32 >> 6 for column in zip(*known.matrices[f])]
    down, across, result = list(zip(*cosines(height))), list(zip(*cosines(width))), []  # by i, then v or u
    for c in range(channels):
        columns = [[spectrum[v, u][c] for v in range(height)] for u in range(width)]
        half = [[sum(map(operator.mul, waves, column)) + 2048 >> 12 for column in columns] for waves in down]
        result += [sum(map(operator.mul, waves, row)) + 2048 >> 12 for row in half for waves in across]
    return result
