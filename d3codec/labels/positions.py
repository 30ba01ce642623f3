"""Which ranks of an order are corrected: counts split over zones and halves (spec/labels.md section 5).

The ranks 0 .. size - 1 are cut into zones {0}, {1}, {2, 3}, {4 .. 7}, ... How many of a label's positions lie in each
zone is coded from the last zone down, then every zone is halved until single ranks are left. All labels of an archive
take each step together. Reading and writing walk the same way, so there is one function for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d3codec.entropy import Tables, frequencies

Ints = NDArray[np.int64]

EVEN = 0
_ONE = 1 << 16


class Coder(Protocol):
    """Takes the next plane from a stream, or puts the known symbols into it; gives them in both cases."""

    def __call__(self, tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        """Symbols [M] of `labels` [M] (ascending), coded by the tables `rows` [M]."""
        ...


def zone_of(ranks: Ints) -> Ints:
    """Number of the zone of each rank: 0 for 0, else 1 + the logarithm to base 2, rounded down."""
    return np.asarray(np.frexp(ranks.astype(np.float64))[1], np.int64)  # exponents of integers: exact


def code(
    coder: Coder, counts: Ints, size: int, levels: NDArray[np.uint8], most: int, known: Ints | None = None
) -> Ints:
    """Positions, one number label * size + rank each, ascending, int64 [sum of counts].

    `counts` [N], each at most `size` and `most`: positions a label; `levels` [zones]: 2^(-level / 2) is the density of
    a zone relative to all ranks before it; `known`: the result, when writing.
    """
    nodes = list(_zones(coder, counts, size, levels, most, known))
    found: list[Ints] = []
    for half in (1 << power for power in reversed(range(max(size - 1, 1).bit_length()))):
        nodes = [node for node in nodes if len(node[0])]
        due = [node for node in nodes if half < node[1] <= 2 * half]
        nodes = [node for node in nodes if node[1] <= half]
        whole = [(labels, length, ks == length, starts, ks) for labels, length, starts, ks in due]
        for labels, length, full, starts, _ in whole:
            found.append(((labels * size + starts)[full, None] + np.arange(length)).reshape(-1))
        open_nodes = [(b[~f & (k > 0)], n, s[~f & (k > 0)], k[~f & (k > 0)]) for b, n, f, s, k in whole]
        if sum(len(node[0]) for node in open_nodes):
            nodes += _halve(coder, open_nodes, half, size, most, known)
    for labels, _, starts, ks in nodes:  # single ranks
        found.append((labels * size + starts)[ks > 0])
    return np.sort(np.concatenate([*found, np.empty(0, np.int64)]))


_Node = tuple[Ints, int, Ints, Ints]  # labels [n], length, starts [n], positions in it [n]


def _zones(
    coder: Coder, counts: Ints, size: int, levels: NDArray[np.uint8], most: int, known: Ints | None
) -> Iterator[_Node]:
    left = counts.copy()
    for zone in reversed(range(1, (size - 1).bit_length() + 1)):
        before = 1 << (zone - 1)
        length = min(before, size - before)
        labels = np.flatnonzero(left)
        starts = np.full(len(labels), before)
        inside = _inside(known, labels * size + starts, length)
        tables = split_tables(before, length, min(most, before + length), int(levels[zone]))
        taken = coder(tables, left[labels], labels, inside)
        left[labels] -= taken
        yield labels, length, starts, taken
    labels = np.flatnonzero(left)
    yield labels, 1, np.zeros(len(labels), np.int64), left[labels]


def _halve(coder: Coder, due: list[_Node], half: int, size: int, most: int, known: Ints | None) -> list[_Node]:
    """Nodes of more than `half` and at most 2 * half ranks: the first `half` ranks, and those after them."""
    lengths = sorted({length for _, length, _, _ in due})
    rows = min(most, 2 * half) + 1
    tables = _stack([split_tables(half, length - half, rows - 1, EVEN) for length in lengths])
    labels = np.concatenate([node[0] for node in due])
    order = np.argsort(labels, kind="stable")
    labels, starts, ks = labels[order], *(np.concatenate([node[i] for node in due])[order] for i in (2, 3))
    kind = np.concatenate([np.full(len(node[0]), lengths.index(node[1])) for node in due])[order]
    after = starts + half
    inside = _inside(known, labels * size + after, np.array(lengths)[kind] - half)
    taken = coder(tables, kind * rows + ks, labels, inside)
    parts: list[_Node] = [(labels, half, starts, ks - taken)]
    for number, length in enumerate(lengths):
        chosen = kind == number
        parts.append((labels[chosen], length - half, after[chosen], taken[chosen]))
    return [(b[k > 0], n, s[k > 0], k[k > 0]) for b, n, s, k in parts]


def _inside(known: Ints | None, first: Ints, length: int | Ints) -> Ints | None:
    if known is None:
        return None
    return np.asarray(np.searchsorted(known, first + length) - np.searchsorted(known, first))


@lru_cache(maxsize=128)
def split_tables(before: int, after: int, most: int, level: int) -> Tables:
    """Row k, symbol i: i of k positions lie in the last `after` of before + after ranks, k up to `most`.

    Weights: Fisher's noncentral hypergeometric distribution with odds 2^(-level / 2) (spec/labels.md section 5).
    Rows that cannot occur (k > before + after) code 0 with certainty.
    """
    odds = _root_power(level)
    weights = np.zeros((most + 1, min(most, after) + 1), np.int64)
    weights[:, 0] = 1
    powers = [(math.comb(after, i) * odds**i, _ONE**i) for i in range(min(most, after) + 1)]
    for k in range(1, min(most, before + after) + 1):
        low, high = max(0, k - before), min(k, after)
        exact = [powers[i][0] * math.comb(before, k - i) * _ONE ** (high - i) for i in range(low, high + 1)]
        largest = max(exact)
        weights[k, 0] = 0
        weights[k, low : high + 1] = [max(1, (weight << 31) // largest) for weight in exact]
    return Tables(frequencies(weights))


def _root_power(level: int) -> int:
    """2^(16 - level / 2), rounded to the nearest integer."""
    return (math.isqrt(4 << (32 - level)) + 1) // 2


def _stack(tables: list[Tables]) -> Tables:
    widest = max(table.frequencies.shape[1] for table in tables)
    return Tables(
        np.concatenate([np.pad(t.frequencies, ((0, 0), (0, widest - t.frequencies.shape[1]))) for t in tables])
    )
