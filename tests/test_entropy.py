"""Entropy coding: an independent decoder that follows spec/entropy.md, round trips, size, hostile streams."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec import entropy
from d3codec.entropy import Reader, Tables, Writer, frequencies
from d3codec.errors import SectionError

Plane = tuple[np.ndarray, Tables, np.ndarray | int, list[int]]  # symbols, tables, rows of tables, counts


def scalar_decode(stream: bytes, lanes: int, planes: list[list[list[int]]]) -> list[list[int]]:
    """Sections 1 to 4 of the specification for one block; a plane is given as the frequencies of its symbols."""
    x = list(struct.unpack_from(f"<{lanes}I", stream))
    words = list(struct.unpack_from(f"<{len(stream) // 2 - 2 * lanes}H", stream, 4 * lanes))
    assert min(x) >= 2**16
    planes_found = []
    for tables in planes:
        found = []
        for start in range(0, len(tables), lanes):
            step = tables[start : start + lanes]
            for lane, f in enumerate(step):
                c = [0, *itertools.accumulate(f)]
                slot = x[lane] % 4096
                s = next(i for i in range(len(f)) if c[i] <= slot < c[i] + f[i])
                x[lane] = f[s] * (x[lane] // 4096) + slot - c[s]
                found.append(s)
            for lane in range(len(step)):
                if x[lane] < 2**16:
                    x[lane] = x[lane] * 2**16 + words.pop(0)
        planes_found.append(found)
    assert not words
    assert set(x) == {2**16}
    return planes_found


def scalar_frequencies(weights: list[int]) -> list[int]:
    """The rule of section 1, with m found by counting."""
    total = sum(weights)
    m = next(m for m in range(8192, -1, -1) if sum(max(1, w * m // total) for w in weights if w) <= 4096)
    found = [max(1, w * m // total) if w else 0 for w in weights]
    largest = sorted(range(len(weights)), key=lambda s: (-weights[s], s))
    for s in largest[: 4096 - sum(found)]:
        found[s] += 1
    return found


def written(planes: list[Plane], blocks: int, lanes: int) -> list[bytes]:
    writer = Writer(blocks, lanes)
    for plane in planes:
        writer.put(*plane)
    return writer.finish()


def drawn(rng: np.random.Generator, tables: Tables, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols as the tables expect them, and rows of tables."""
    rows = rng.integers(0, len(tables), total)
    ends = np.cumsum(tables.frequencies, axis=1)[rows]
    return (rng.integers(0, 4096, total)[:, None] >= ends).sum(axis=1), rows


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[Plane], int, int]:
    """Some planes with tables of all kinds, zero frequencies too, and the numbers of blocks and lanes."""
    blocks, lanes = draw(st.integers(0, 4)), draw(st.integers(1, 64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    planes: list[Plane] = []
    for _ in range(draw(st.integers(0, 3))):
        shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 17, 300])))
        weights = rng.integers(0, 2 ** rng.integers(1, 33, shape))
        weights *= rng.random(shape) < draw(st.sampled_from([0.1, 0.7, 1.0]))
        weights[:, rng.integers(shape[1])] = 1
        tables = Tables(frequencies(weights))
        counts = draw(st.lists(st.integers(0, 150), min_size=blocks, max_size=blocks))
        symbols, rows = drawn(rng, tables, sum(counts))
        planes.append((symbols, tables, rows, counts))
    return planes, blocks, lanes


def small_archive() -> tuple[list[Plane], int, int]:
    rng = np.random.default_rng(7)
    tables = Tables(frequencies(np.array([[1, 5, 0, 30], [100, 3, 9, 0]])))
    planes: list[Plane] = []
    for counts in ([100, 41], [0, 30], [37, 0]):
        symbols, rows = drawn(rng, tables, sum(counts))
        planes.append((symbols, tables, rows, counts))
    return planes, 2, 3


class CountingReader(Reader):
    """The real reader, with the symbols counted that it computes, padding included."""

    work = 0

    def _advance(self, states, read, slots, active, moves):  # type: ignore[no-untyped-def]
        self.work += slots.size
        super()._advance(states, read, slots, active, moves)


def read_hostile(streams: list[bytes], planes: list[Plane], lanes: int) -> bool:
    """Whether damaged streams are read to the end; checks bounds, errors and work."""
    reader = failure = None
    try:
        reader = CountingReader(streams, lanes, field="lab")
        for _, tables, rows, counts in planes:
            found = reader.take(tables, rows, counts)
            assert len(found) == sum(counts)
            assert tables.frequencies[rows, found].all()
        reader.finish()
    except SectionError as error:
        failure = error
    assert failure is None or (failure.code, failure.field) == ("E_SECTION_VALUE", "lab")
    most = sum(sum(counts) + len(counts) * lanes for _, _, _, counts in planes)
    assert reader is None or reader.work <= most
    return failure is None


@settings(deadline=None, max_examples=150)
@given(archives())
def test_round_trip(archive: tuple[list[Plane], int, int]) -> None:
    planes, blocks, lanes = archive
    streams = written(planes, blocks, lanes)
    assert len(streams) == blocks
    reader = Reader(streams, lanes)
    for symbols, tables, rows, counts in planes:
        found = reader.take(tables, rows, counts)
        assert found.dtype == np.int32
        assert found.tolist() == symbols.tolist()
    reader.finish()


@settings(deadline=None, max_examples=40)
@given(archives())
# Shows D3M-147.
def test_streams_follow_the_specification(archive: tuple[list[Plane], int, int]) -> None:
    planes, blocks, lanes = archive
    for block, stream in enumerate(written(planes, blocks, lanes)):
        expected, given_tables = [], []
        for symbols, tables, rows, counts in planes:
            part = slice(sum(counts[:block]), sum(counts[: block + 1]))
            expected.append(symbols[part].tolist())
            given_tables.append(tables.frequencies[rows[part]].tolist())
        assert scalar_decode(stream, lanes, given_tables) == expected


def test_one_symbol_by_hand() -> None:
    # frequencies 1024 and 3072: symbol 0 takes the state 2^16 to 4096 * (2^16 div 1024) = 2^18; symbol 1 to
    # 4096 * (2^16 div 3072) + 2^16 mod 3072 + 1024 = 4096 * 21 + 1024 + 1024 = 0x15800
    tables = Tables([[1024, 3072]])
    assert written([(np.array([0]), tables, 0, [1])], 1, 1) == [bytes.fromhex("00000400")]
    assert written([(np.array([1]), tables, 0, [1])], 1, 1) == [bytes.fromhex("00580100")]
    # two lanes, of which the second has no symbol
    assert written([(np.array([0]), tables, 0, [1])], 1, 2) == [bytes.fromhex("00000400 00000100")]


def test_golden_stream() -> None:
    planes, blocks, lanes = small_archive()
    golden = ["9a8a4c08cf9d0300f9875f00515da3800738d5c58ffcefd6", "6f3a2d002ecfdb00e43849e97cd08f2b"]
    assert [stream.hex() for stream in written(planes, blocks, lanes)] == golden
    for block, text in enumerate(golden):
        parts = [slice(sum(c[:block]), sum(c[: block + 1])) for _, _, _, c in planes]
        given_tables = [t.frequencies[r[part]].tolist() for (_, t, r, _), part in zip(planes, parts, strict=True)]
        expected = [s[part].tolist() for (s, _, _, _), part in zip(planes, parts, strict=True)]
        assert scalar_decode(bytes.fromhex(text), lanes, given_tables) == expected


def test_certain_symbols_cost_nothing() -> None:
    tables = Tables([[0, 4096, 0]])
    assert written([(np.ones(5000, int), tables, 0, [5000])], 1, 2) == [bytes.fromhex("00000100") * 2]


@pytest.mark.parametrize("lanes", [1, 5, 64])
def test_size_is_that_of_the_ideal_code(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    weights = np.exp(-np.abs(np.arange(31) - 15) / np.array([[0.2], [1.0], [4.0]])) * 1e6
    tables = Tables(frequencies(weights.astype(np.int64)))
    counts = [20_000, 3_000]
    symbols, rows = drawn(rng, tables, sum(counts))
    bits = -np.log2(tables.frequencies[rows, symbols] / 4096)
    for stream, ideal in zip(
        written([(symbols, tables, rows, counts)], 2, lanes), np.split(bits, [20_000]), strict=True
    ):
        excess = len(stream) - ideal.sum() / 8
        assert 0 < excess <= 0.002 * ideal.sum() / 8 + 4 * lanes


def test_planes_may_be_taken_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy, "_CHUNK", 100)
    planes, blocks, lanes = small_archive()
    reader = Reader(written(planes, blocks, lanes), lanes)
    assert all((reader.take(*plane[1:]) == plane[0]).all() for plane in planes)
    reader.finish()


# Shows D3M-148.
def test_every_flip_and_every_truncation_is_found_or_bounded() -> None:
    planes, blocks, lanes = small_archive()
    good = written(planes, blocks, lanes)
    assert read_hostile(good, planes, lanes)
    for block, stream in enumerate(good):
        others = list(good)
        for place in range(len(stream)):
            for mask in (1, 0x80, 0xFF):
                others[block] = stream[:place] + bytes([stream[place] ^ mask]) + stream[place + 1 :]
                assert not read_hostile(others, planes, lanes)
            others[block] = stream[:place]
            assert not read_hostile(others, planes, lanes)
        for longer in (stream + b"\0", stream + b"\0\0", stream * 2):
            others[block] = longer
            assert not read_hostile(others, planes, lanes)


@settings(deadline=None, max_examples=100)
@given(archives(), st.data())
def test_any_bytes_are_read_within_bounds(archive: tuple[list[Plane], int, int], data: st.DataObject) -> None:
    planes, blocks, lanes = archive
    streams = data.draw(st.lists(st.binary(max_size=600), min_size=blocks, max_size=blocks))
    filled = data.draw(st.booleans())  # else most are refused at once
    read_hostile([s + bytes([1, 2, 3, 255]) * lanes * filled for s in streams], planes, lanes)


def test_a_damaged_block_is_named() -> None:
    planes, blocks, lanes = small_archive()
    streams = written(planes, blocks, lanes)
    with pytest.raises(SectionError, match="the stream of block 1 is too short"):
        Reader([streams[0], streams[1][:11]], lanes)
    with pytest.raises(SectionError, match="block 1 has an initial state below"):
        Reader([streams[0], bytes(len(streams[1]))], lanes)
    reader = Reader([streams[0], streams[1][:-4]], lanes)
    with pytest.raises(SectionError, match="block 1 ends too early"):
        reader.take(*planes[0][1:])
    reader = Reader([streams[0] + b"\0\0", streams[1]], lanes)
    for plane in planes:
        reader.take(*plane[1:])
    with pytest.raises(SectionError, match="block 0 has words left over"):
        reader.finish()
    with pytest.raises(SectionError, match="block 0 ends in another state"):
        Reader(streams, lanes).finish()


WEIGHTS = st.lists(st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 2**32 - 1)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(st.lists(WEIGHTS, min_size=1, max_size=3))
# Shows D3M-146.
def test_frequencies_follow_the_rule(rows: list[list[int]]) -> None:
    table = np.zeros((len(rows), 60), np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
        table[number, 0] += table[number].sum() == 0
    assert frequencies(table).tolist() == [scalar_frequencies(row) for row in table.tolist()]


def test_frequencies_at_the_limits() -> None:
    assert frequencies(np.ones((1, 4096), int)).tolist() == [[1] * 4096]
    assert frequencies([[0, 2**32 - 1, 0]]).tolist() == [[0, 4096, 0]]
    assert frequencies([[2**32 - 1, 1, 1]]).tolist() == [[4094, 1, 1]]
    assert frequencies([[7, 7, 7]]).tolist() == [[1366, 1365, 1365]]
    many = frequencies(np.append(np.ones(4000, int), np.full(90, 2**31))[None])[0]
    assert many[:4000].tolist() == [1] * 4000
    assert many[4000:].tolist() == [2] * 6 + [1] * 84


def test_frequencies_are_close_to_the_weights() -> None:
    weights = (np.exp(-np.abs(np.arange(41) - 20) / 2.0) * 1e6).astype(np.int64)
    ideal = weights / weights.sum()
    lost = -(ideal * np.log2(frequencies(weights[None])[0] / 4096 / ideal)).sum()
    assert 0 <= lost < 0.003


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1, 0], [0, 0]], "row 1 has 0 positive"),
        (np.ones((1, 4097), int), "row 0 has 4097 positive"),
        ([[-1, 5]], "outside 0 to"),
        ([[2**32]], "outside 0 to"),
        ([[0.5]], "integers"),
        ([1, 2], "integers"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frequencies(np.asarray(weights))


@pytest.mark.parametrize("rows", [[[4095]], [[4096, 1]], [[5000, -904]], [4096], [[4096.0]], [[0, 0]]])
def test_tables_that_do_not_sum_are_refused(rows: object) -> None:
    with pytest.raises(ValueError, match="frequencies"):
        Tables(np.asarray(rows))


def test_planes_that_cannot_be_coded_are_refused() -> None:
    tables, writer = Tables([[4096, 0], [2048, 2048]]), Writer(1, 4)
    for symbols, rows, counts, message in [
        ([1], 0, [1], "symbol 1 has frequency 0"),
        ([2], 0, [1], "symbol 2 is outside"),
        ([-1], 1, [1], "symbol -1 is outside"),
        ([0], 2, [1], "2 tables"),
        ([0], [0, 0], [1], "1 symbols are counted"),
        ([0, 0], 0, [1], "1 symbols are counted"),
        ([0], 0, [1, 0], "counts are 1 integers"),
        ([0], 0, [-1], "counts are 1 integers"),
        ([0], 0.0, [1], "rows of tables are integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer.put(np.array(symbols), tables, rows, counts)
    assert writer.finish() == [bytes.fromhex("00000100") * 4]
    for lanes in (0, 65):
        with pytest.raises(ValueError, match="outside 1 to 64"):
            Reader([], lanes)
