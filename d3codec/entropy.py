"""Symbols to bytes and back by range coding with integer tables (spec/entropy.md): rANS (Duda 2013), interleaved lanes.

The states of all lanes of all blocks advance together, one numpy call for all, so many lanes make it fast. Integers
only: encoder and decoder agree bit by bit on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

PRECISION = 12
TOTAL = 1 << PRECISION
MAX_LANES = 64
MAX_WEIGHT = 2**32 - 1

_LOWEST = 1 << 16  # of a state between two steps; the state that every lane starts with in the encoder
_CHUNK = 1 << 18  # symbols that are looked up at once, to bound the memory

_Ints = NDArray[np.int64]
_Table = NDArray[np.int32]


def frequencies(weights: ArrayLike) -> _Ints:
    """Weights, integers >= 0 [T, S], to frequencies, int64 [T, S], rows of which sum to 4096.

    The rule of spec/entropy.md, section 1: every positive weight gets at least 1, zeros stay 0. Raises ValueError for
    other shapes and dtypes, weights outside 0 to 2^32 - 1 and, naming the row, no positive weight or more than 4,096.
    """
    table = np.asarray(weights)
    if table.ndim != 2 or table.dtype.kind not in "iu":
        raise ValueError(f"weights are integers [T, S], not {table.dtype} {list(table.shape)}")
    if ((table < 0) | (table > MAX_WEIGHT)).any():
        raise ValueError(f"weights outside 0 to {MAX_WEIGHT}")
    table = table.astype(np.int64)
    positive = table > 0
    present, sums = positive.sum(axis=1), table.sum(axis=1)
    wrong = (present == 0) | (present > TOTAL)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row} has {present[row]} positive weights, 1 to {TOTAL} are possible")
    shares = _shares(table, sums, _largest_multiple(table, positive, sums))
    missing = TOTAL - shares.sum(axis=1)
    ranks = np.argsort(np.argsort(-table, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(shares + (ranks < missing[:, None]))


def _largest_multiple(table: _Ints, positive: NDArray[np.bool_], sums: _Ints) -> _Ints:
    """Of each row the largest m for which the shares sum to at most 4096, by bisection: m < 2 * 4096 + 1."""
    low, high = np.zeros(len(table), np.int64), np.full(len(table), 2 * TOTAL + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        fits = _shares(table, sums, middle).sum(axis=1) <= TOTAL
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def _shares(table: _Ints, sums: _Ints, multiple: _Ints) -> _Ints:
    return np.asarray(np.maximum(table * multiple[:, None] // sums[:, None], table > 0))


class Tables:
    """Frequencies of symbols, one table a row.

    `frequencies`, `cumulative` (the sum of those before): int32 [T, S]. Zeros are allowed: such a symbol cannot be
    coded. Raises ValueError unless integers >= 0 [T, S] are given, rows of which sum to 4096.
    """

    def __init__(self, frequencies: ArrayLike) -> None:
        table = np.asarray(frequencies)
        if table.ndim != 2 or table.dtype.kind not in "iu":
            raise ValueError(f"frequencies are integers [T, S], not {table.dtype} {list(table.shape)}")
        wrong = ((table < 0) | (table > TOTAL)).any(axis=1) | (table.sum(axis=1) != TOTAL)
        if wrong.any():
            raise ValueError(f"row {int(wrong.argmax())} of the frequencies does not sum to {TOTAL}")
        self.frequencies: _Table = table.astype(np.int32)
        self.cumulative: _Table = (np.cumsum(self.frequencies, axis=1) - self.frequencies).astype(np.int32)

    def __len__(self) -> int:
        return len(self.frequencies)

    @cached_property
    def symbols(self) -> _Table:
        """The symbol of every slot, [(T + 1) * 4096]. The row after the last codes symbol 0 with certainty."""
        numbers = np.tile(np.arange(self.frequencies.shape[1], dtype=np.int32), len(self))
        return np.append(np.repeat(numbers, self.frequencies.reshape(-1)), np.zeros(TOTAL, np.int32))

    @cached_property
    def moves(self) -> NDArray[np.uint32]:
        """Of every slot: its symbol's frequency * 2^16 + its place among the symbol's slots, [(T + 1) * 4096]."""
        counts, first = self.frequencies.reshape(-1), self.cumulative.reshape(-1)
        slots = np.tile(np.arange(TOTAL, dtype=np.int32), len(self))
        moves = (np.repeat(counts, counts) << 16) + slots - np.repeat(first, counts)
        return np.append(moves, (TOTAL << 16) + np.arange(TOTAL)).astype(np.uint32)


class _Layout:
    """Where the symbols of a plane stand when steps are together: blocks that last longest come first.

    The symbols of a block are cut into rows of one a lane, its last row is padded. `active` [steps]: blocks that have
    a row in that step; `offsets` [steps + 1]: rows before it; `order`: the blocks, longest first.
    """

    def __init__(self, counts: ArrayLike, blocks: int, lanes: int) -> None:
        numbers = np.asarray(counts, np.int64)
        if numbers.shape != (blocks,) or (numbers < 0).any():
            raise ValueError(f"counts are {blocks} integers >= 0, not {numbers.tolist()}")
        self.total, self._lanes = int(numbers.sum()), lanes
        steps = -(-numbers // lanes)
        self.order = np.argsort(-steps, kind="stable")
        rank = np.argsort(self.order)
        self.active = blocks - np.searchsorted(np.sort(steps), np.arange(steps.max(initial=0)), side="right")
        self.offsets = np.concatenate([[0], np.cumsum(self.active)])
        ends = np.cumsum(steps)
        step = np.arange(self.offsets[-1]) - np.repeat(ends - steps, steps)
        self._places = self.offsets[step] + np.repeat(rank, steps)
        width = np.full(len(step), lanes)
        width[ends[steps > 0] - 1] = (numbers - (steps - 1) * lanes)[steps > 0]
        self._filled = None if (width == lanes).all() else np.arange(lanes) < width[:, None]

    def chunks(self) -> list[tuple[int, int]]:
        """Runs of steps, each of about 2^18 symbols."""
        size = max(1, _CHUNK // self._lanes)
        bounds = np.searchsorted(self.offsets, np.arange(0, self.offsets[-1] + size, size))
        return list(pairwise(np.unique(np.minimum(bounds, len(self.active))).tolist()))

    def spread(self, values: NDArray[np.generic], padding: int) -> NDArray[np.generic]:
        """One value a symbol, [total], in order of block, to [rows, lanes], in order of step."""
        rows = np.full((len(self._places), self._lanes), padding, values.dtype)
        if self._filled is None:
            rows[self._places] = values.reshape(rows.shape)
        else:
            padded = rows.copy()
            padded[self._filled] = values
            rows[self._places] = padded
        return rows

    def gather(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """The reverse of `spread`."""
        padded = rows[self._places]
        return np.asarray(padded.reshape(-1) if self._filled is None else padded[self._filled])


class _Layouts:
    """The layout of a plane's counts; planes in a row often have the same."""

    def __init__(self, blocks: int, lanes: int) -> None:
        if not 1 <= lanes <= MAX_LANES:
            raise ValueError(f"{lanes} lanes are outside 1 to {MAX_LANES}")
        self.blocks, self.lanes = blocks, lanes
        self._counts: bytes | None = None

    def of(self, counts: ArrayLike) -> _Layout:
        key = np.asarray(counts, np.int64).tobytes()
        if key != self._counts:
            self._last, self._counts = _Layout(counts, self.blocks, self.lanes), key
        return self._last


class Writer:
    """Planes of symbols to the streams of `blocks` blocks, each of `lanes` (1 to 64) lanes."""

    def __init__(self, blocks: int, lanes: int) -> None:
        self._layouts = _Layouts(blocks, lanes)
        self._planes: list[tuple[_Layout, NDArray[np.generic], NDArray[np.generic]]] = []

    def put(self, symbols: ArrayLike, tables: Tables, rows: ArrayLike, counts: ArrayLike) -> None:
        """Add a plane: symbols, integers [M], in order of block, coded by the tables `rows`, one or [M].

        `counts`, integers [blocks], are the numbers of symbols of each block. Raises ValueError for symbols that the
        tables cannot code, rows that they do not have and counts that do not fit.
        """
        layout = self._layouts.of(counts)
        numbers = np.asarray(symbols, np.int64)
        if numbers.shape != (layout.total,):
            raise ValueError(f"{layout.total} symbols are counted, {list(numbers.shape)} given")
        which = _table_rows(rows, tables, layout)
        outside = (numbers < 0) | (numbers >= tables.frequencies.shape[1])
        if outside.any():
            raise ValueError(f"symbol {numbers[outside][0]} is outside the tables")
        used = tables.frequencies[which, numbers]
        if not used.all():
            raise ValueError(f"symbol {numbers[used == 0][0]} has frequency 0")
        first = tables.cumulative[which, numbers]
        self._planes.append((layout, layout.spread(used, TOTAL), layout.spread(first, 0)))  # padding changes no state

    def finish(self) -> list[bytes]:
        """The stream of each block."""
        blocks, lanes = self._layouts.blocks, self._layouts.lanes
        states = np.full((blocks, lanes), _LOWEST, np.uint32)
        words: list[NDArray[np.uint32]] = []  # those of the last step first
        owners: list[_Ints] = []
        for layout, used, first in reversed(self._planes):
            ordered = states[layout.order]
            for step in reversed(range(len(layout.active))):
                rows = slice(layout.offsets[step], layout.offsets[step + 1])
                pushed, by = _push(ordered[: layout.active[step]], used[rows], first[rows])
                words.append(pushed)
                owners.append(layout.order[by // lanes])
            states[layout.order] = ordered
        words.append(np.empty(0, np.uint32))
        owners.append(np.empty(0, np.int64))
        owner = np.concatenate(owners[::-1])
        sequence = np.concatenate(words[::-1])[np.argsort(owner, kind="stable")].astype("<u2")
        bounds = np.searchsorted(np.sort(owner), np.arange(blocks + 1)).tolist()
        heads = states.astype("<u4")
        return [heads[b].tobytes() + sequence[bounds[b] : bounds[b + 1]].tobytes() for b in range(blocks)]


def _push(
    states: NDArray[np.uint32], used: NDArray[np.generic], first: NDArray[np.generic]
) -> tuple[NDArray[np.uint32], _Ints]:
    """Code one symbol a lane in place; the words that leave the states, and which lanes (flat) they leave."""
    flat, counts = states.reshape(-1), used.reshape(-1).astype(np.uint32)
    leaving = np.flatnonzero((flat >> 20) >= counts)
    pushed = flat[leaving]
    flat[leaving] = pushed >> 16
    quotient = flat // counts
    flat += quotient * (TOTAL - counts) + first.reshape(-1).astype(np.uint32)  # 4096 q + x mod f + first
    return np.asarray(pushed & 0xFFFF, np.uint32), leaving.astype(np.int64)


class Reader:
    """Streams of blocks, each of `lanes` (1 to 64) lanes, to planes of symbols, taken in the order of their writing.

    Work and memory follow from the planes that are taken, whatever the streams hold. Raises SectionError
    (`E_SECTION_VALUE`), naming `field` and the block, for a stream without its initial states, or below 2^16.
    """

    def __init__(self, streams: Sequence[bytes], lanes: int, *, field: str = "stream") -> None:
        self._layouts, self._field = _Layouts(len(streams), lanes), field
        head = 4 * lanes
        self._refuse(
            np.array([len(s) < head or len(s) % 2 > 0 for s in streams], bool), "is too short, or of odd length"
        )
        heads = b"".join(stream[:head] for stream in streams)
        self._states = np.frombuffer(heads, "<u4").astype(np.uint32).reshape(len(streams), lanes)
        self._refuse((self._states < _LOWEST).any(axis=1), "has an initial state below 2^16")
        words = b"".join(stream[head:] for stream in streams) + bytes(2)  # a last word, so that there is one
        self._words = np.frombuffer(words, "<u2").astype(np.uint32)
        lengths = np.array([(len(stream) - head) // 2 for stream in streams], np.int64)
        self._last = np.cumsum(lengths) - 1  # the last word of each block
        self._read = self._last - lengths  # the last word that was read

    def take(self, tables: Tables, rows: ArrayLike, counts: ArrayLike) -> NDArray[np.int32]:
        """The next plane: symbols, int32 [M], in order of block; parameters as in `Writer.put`.

        Raises SectionError (`E_SECTION_VALUE`) if words are missing, ValueError for rows that the tables do not have
        and counts that do not fit.
        """
        layout = self._layouts.of(counts)
        which = layout.spread(_table_rows(rows, tables, layout), len(tables))  # padding changes no state
        found = np.empty(which.shape, np.int32)
        states, read = self._states[layout.order], self._read[layout.order]
        for first, last in layout.chunks():
            start, end = layout.offsets[[first, last]]
            slots = which[start:end].astype(np.int64) << PRECISION
            self._advance(states, read, slots, layout.active[first:last].tolist(), tables.moves)
            np.take(tables.symbols, slots, out=found[start:end], mode="clip")
        self._states[layout.order], self._read[layout.order] = states, read
        self._refuse(self._read > self._last, "ends too early")
        return layout.gather(found)

    def finish(self) -> None:
        """Check that the streams end here. Raises SectionError (`E_SECTION_VALUE`) if one does not."""
        self._refuse((self._states != _LOWEST).any(axis=1), "ends in another state")
        self._refuse(self._read != self._last, "has words left over")

    def _advance(
        self, states: NDArray[np.uint32], read: _Ints, slots: _Ints, active: list[int], moves: NDArray[np.uint32]
    ) -> None:
        """Some steps, in place: `slots` [rows, lanes] holds 4096 * table, and then + the slot of each state."""
        lanes, words = states.shape[1], self._words
        spare, move, word = np.empty_like(states), np.empty_like(states), np.empty_like(states)
        low, at = np.empty(states.shape, bool), np.empty(states.shape, np.int64)
        row, size = 0, -1
        for blocks in active:
            if blocks != size:
                size = blocks
                x, y, m, w, below, p, r = (a[:blocks] for a in (states, spare, move, word, low, at, read))
                before, after = r[:, None], p[:, lanes - 1]
            slot = slots[row : row + blocks]
            row += blocks
            np.bitwise_and(x, TOTAL - 1, out=y)
            np.add(slot, y, out=slot)
            moves.take(slot, out=m, mode="clip")
            np.right_shift(x, PRECISION, out=x)
            np.right_shift(m, 16, out=y)
            np.multiply(x, y, out=x)
            np.bitwise_and(m, 0xFFFF, out=m)
            np.add(x, m, out=x)
            np.less(x, _LOWEST, out=below)
            np.cumsum(below, axis=1, out=p)
            np.add(p, before, out=p)
            words.take(p, out=w, mode="clip")  # beyond the end of a block: found after the plane
            r[:] = after
            np.left_shift(x, 16, out=y)
            np.bitwise_or(y, w, out=y)
            np.copyto(x, y, where=below)

    def _refuse(self, bad: NDArray[np.bool_] | np.bool_, what: str) -> None:
        if bad.any():
            raise SectionError("E_SECTION_VALUE", f"the stream of block {int(bad.argmax())} {what}", field=self._field)


def _table_rows(rows: ArrayLike, tables: Tables, layout: _Layout) -> _Table:
    """Table rows, int32 [M], checked."""
    which = np.asarray(rows)
    if which.dtype.kind not in "iu" and which.size:
        raise ValueError(f"rows of tables are integers, not {which.dtype}")
    if which.size and not 0 <= which.min() <= which.max() < len(tables):
        raise ValueError(f"rows {which.min()} to {which.max()}, {len(tables)} tables")
    if which.shape not in ((), (layout.total,)):
        raise ValueError(f"{layout.total} symbols are counted, {list(which.shape)} rows given")
    return np.broadcast_to(which.astype(np.int32), (layout.total,))
