"""Positions: round trips, the tables' distribution, what positions cost, the order of symbols."""

from __future__ import annotations

from fractions import Fraction
from math import comb, log2, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import spec_decoder

from d3codec.entropy import Reader, Tables, Writer
from d3codec.labels import positions
from d3codec.labels.positions import Ints


def zones(size: int) -> int:
    return 1 + max(size - 1, 0).bit_length()


class Recorder:
    """A coder that writes to one block, and keeps planes and their cost."""

    def __init__(self, lanes: int = 1) -> None:
        self.writer, self.planes, self.bits = Writer(1, lanes), [], 0.0

    def __call__(self, tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        assert known is not None
        assert (np.diff(labels) >= 0).all()
        self.writer.put(known, tables, rows, [len(labels)])
        self.planes.append((labels.tolist(), rows.tolist(), known.tolist()))
        self.bits -= float(np.log2(tables.frequencies[rows, known] / 4096).sum())
        return known


def flat(ranks: list[list[int]], size: int) -> Ints:
    return np.array([label * size + rank for label, found in enumerate(ranks) for rank in sorted(found)], np.int64)


def written(ranks: list[list[int]], size: int, levels: list[int]) -> tuple[Recorder, bytes]:
    """Planes and stream of the ranks of every label."""
    recorder, counts = Recorder(), np.array([len(found) for found in ranks], np.int64)
    known, most = flat(ranks, size), int(counts.max(initial=1))
    given_back = positions.code(recorder, counts, size, np.array(levels, np.uint8), most, known)
    np.testing.assert_array_equal(given_back, known)
    (stream,) = recorder.writer.finish()
    return recorder, stream


def read(stream: bytes, counts: list[int], size: int, levels: list[int], most: int) -> Ints:
    reader = Reader([stream], 1)

    def take(tables: Tables, rows: Ints, labels: Ints, known: Ints | None) -> Ints:
        assert known is None
        return reader.take(tables, rows, [len(labels)]).astype(np.int64)

    found = positions.code(take, np.array(counts, np.int64), size, np.array(levels, np.uint8), most)
    reader.finish()
    return found


@settings(max_examples=120)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    size = data.draw(st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 999, 5000])))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = data.draw(st.lists(st.integers(0, 15), min_size=zones(size), max_size=zones(size)))
    most = min(size, data.draw(st.sampled_from([1, 3, 127])))
    counts = rng.integers(0, most + 1, data.draw(st.integers(0, 6)))
    ranks = [rng.permutation(size)[:count].tolist() for count in counts]
    recorder, stream = written(ranks, size, levels)
    np.testing.assert_array_equal(read(stream, counts.tolist(), size, levels, most), flat(ranks, size))
    assert all(len(rows) == len(known) == len(labels) for labels, rows, known in recorder.planes)


def test_zones() -> None:
    ranks = np.array([0, 1, 2, 3, 4, 7, 8, 1023, 1024, 2**20 - 1, 2**20])
    assert positions.zone_of(ranks).tolist() == [0, 1, 2, 2, 3, 3, 4, 10, 11, 20, 21]
    assert positions.zone_of(np.arange(5000)).tolist() == [spec_decoder.zone(rank) for rank in range(5000)]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (8, 3), (4, 4), (16, 16), (64, 20)])
@pytest.mark.parametrize("level", [0, 1, 7, 15])
def test_tables_are_fishers_distribution(before: int, after: int, level: int) -> None:
    most = min(before + after, 30)
    table = positions.split_tables(before, after, most, level)
    assert table.frequencies.shape == (most + 1, min(most, after) + 1)
    for k in range(most + 1):
        exact = [
            comb(after, i) * comb(before, k - i) * sqrt(0.5) ** (level * i) if i <= k else 0.0
            for i in range(table.frequencies.shape[1])
        ]
        share = np.array(exact) / sum(exact)
        found = table.frequencies[k] / 4096
        assert ((found > 0) == (share > 0)).all()
        np.testing.assert_allclose(found, share, atol=len(share) / 4096)
        inside = found[share > 0].tolist()
        expected = spec_decoder.split(before, after, level, k).f
        assert [round(f * 4096) for f in inside] == [f for f in expected if f]


def test_weights_have_31_bits() -> None:
    """A row whose frequencies would be others with 30."""
    found = positions.split_tables(16, 7, 4, 2).frequencies[4].tolist()
    exact = [comb(7, i) * comb(16, 4 - i) * Fraction(1, 2) ** i for i in range(5)]
    rows = [spec_decoder.Table([max(1, int(2**bits * e / max(exact))) for e in exact]).f for bits in (30, 31)]
    assert rows[0] != rows[1] == found


def test_rows_that_cannot_occur_cost_nothing() -> None:
    table = positions.split_tables(2, 1, 9, 3).frequencies
    assert table.shape == (10, 2)
    assert (table[4:, 0] == 4096).all()
    assert table[3].tolist() == [0, 4096]


def test_a_row_does_not_depend_on_the_largest_count() -> None:
    """Else what a label decodes to would depend on which others are decoded with it."""
    whole = positions.split_tables(64, 40, 60, 5).frequencies
    for most in (1, 2, 7, 39, 40, 41, 59):
        part = positions.split_tables(64, 40, most, 5).frequencies
        assert (part == whole[: most + 1, : part.shape[1]]).all()
        assert not whole[: most + 1, part.shape[1] :].any()


def test_odds_are_roots_of_a_half() -> None:
    for level, odds in enumerate(spec_decoder.ODDS):
        assert positions._root_power(level) == odds
        assert Fraction(odds - Fraction(1, 2)) ** 2 <= 2 ** (32 - level) <= Fraction(odds + Fraction(1, 2)) ** 2


@pytest.mark.parametrize("size", [100, 999])
def test_positions_anywhere_cost_what_they_must(size: int) -> None:
    rng = np.random.default_rng(size)
    counts = rng.integers(0, 30, 200)
    ranks = [rng.permutation(size)[:count].tolist() for count in counts]
    levels = [0] * zones(size)
    recorder, stream = written(ranks, size, levels)
    ideal = sum(log2(comb(size, int(count))) for count in counts)
    assert ideal * 0.97 < recorder.bits < 1.004 * ideal
    assert len(stream) <= recorder.bits / 8 * 1.001 + 4


def test_densities_pay() -> None:
    """Positions that thin out cost less under levels that say so."""
    rng = np.random.default_rng(3)
    ranks = [sorted(set((2 ** rng.uniform(0, 9.9, 12) - 1).astype(int).tolist())) for _ in range(200)]
    flat_bits = written(ranks, 999, [0] * 11)[0].bits
    assert written(ranks, 999, [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])[0].bits < 0.85 * flat_bits


def test_all_ranks_cost_nothing() -> None:
    recorder, stream = written([list(range(13))] * 4 + [[]], 13, [0, 3, 1, 15, 2])
    assert recorder.bits == 0
    assert stream == bytes.fromhex("00000100")
    assert read(stream, [13, 13, 13, 13, 0], 13, [0, 3, 1, 15, 2], 13).tolist() == list(range(52))


def test_order_of_planes_and_symbols_by_hand() -> None:
    # 13 ranks: zones {0} {1} {2 3} {4 .. 7} {8 .. 12}; the last is 4 ranks and one.
    recorder, _ = written([[1, 4, 9, 12], [], [5, 6, 8, 10, 11]], 13, [0] * 5)
    assert recorder.planes == [
        # zones, from the last: labels that have positions left, how many are left, how many are in the zone
        ([0, 2], [4, 5], [2, 3]),
        ([0, 2], [2, 2], [1, 2]),
        ([0], [1], [0]),
        ([0], [1], [1]),
        # h = 4: the last zone has 5 ranks, the row says how many of it are there; in rank 12: one, none
        ([0, 2], [2, 3], [1, 0]),
        # h = 2: {4 .. 7} stands before {8 .. 11}. Label 0 has 4 and 9, label 2 has 5, 6 and 8, 10, 11
        ([0, 0, 2, 2], [1, 1, 2, 3], [0, 0, 1, 2]),
        # h = 1: first halves first. Label 0: {4 5} {8 9}; label 2: {4 5} {8 9}, then {6 7}; {10 11} is full
        ([0, 0, 2, 2, 2], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]),
    ]


def test_a_truncated_node_stands_before_full_ones() -> None:
    # 15 ranks: the last zone is {8 .. 14}; h = 4 gives {8 .. 11} and {12 13 14}, h = 2 the halves of {4 .. 7} first
    recorder, _ = written([[4, 8, 11, 12, 14]], 15, [0] * 5)
    assert recorder.planes[-3:] == [
        ([0], [4], [2]),
        # rows of nodes of 4 ranks come after those of 3: {4 .. 7} 1, {8 .. 11} 2, {12 13 14} 2; rows 0 to 4 a length
        ([0, 0, 0], [5 + 1, 5 + 2, 2], [0, 1, 1]),
        # first halves {4 5}, {8 9}, {12 13}, then what follows: {14} is single, {10 11}
        ([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]),
    ]
