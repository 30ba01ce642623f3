"""One adaptive state: a decoder after spec/entropy.md section 6, round trips, size, hostile streams."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.entropy_adaptive import Reader, Writer
from d3codec.errors import SectionError

Symbol = tuple[int, int]  # c(s), f(s)


def by_the_text(data: bytes, symbols: list[Symbol]) -> list[int]:
    """The slots of the stream's symbols, each taken as the given one; the stream must end as section 6 says."""
    x, left, slots = 0, list(data), []

    def filled(x: int) -> int:
        while x < 2**16 and left:
            x = 256 * x + left.pop(0)
        return x

    x = filled(x)
    for c, f in symbols:
        slots.append(x % 4096)
        x = filled(f * (x // 4096) + x % 4096 - c)
    assert (x, left) == (256, [])
    assert data[:1] != b"\0"
    return slots


def written(symbols: list[Symbol]) -> bytes:
    writer = Writer()
    for symbol in symbols:
        writer.put(*symbol)
    return writer.finish()


@st.composite
def any_symbols(draw: st.DrawFn) -> list[Symbol]:
    found = []
    for _ in range(draw(st.integers(0, 60))):
        first = draw(st.integers(0, 4095) | st.sampled_from([0, 4095]))
        found.append((first, draw(st.integers(1, 4096 - first) | st.sampled_from([1, 4096 - first]))))
    return found


@settings(deadline=None, max_examples=120)
@given(any_symbols())
# Shows D3M-152.
def test_round_trip_and_the_text(symbols: list[Symbol]) -> None:
    data = written(symbols)
    reader = Reader(data)
    slots = []
    for first, frequency in symbols:
        assert first <= reader.slot < first + frequency
        slots.append(reader.slot)
        reader.take(first, frequency)
    reader.finish()
    assert by_the_text(data, symbols) == slots
    needed = sum(math.log2(4096 / frequency) for _, frequency in symbols) / 8
    assert len(data) < 1.01 * needed + 3


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**40 - 1)), max_size=20))
def test_bits_round_trip(numbers: list[tuple[int, int]]) -> None:
    writer = Writer()
    for count, value in numbers:
        writer.put_bits(value % (1 << count), count)
    reader = Reader(writer.finish())
    for count, value in numbers:
        assert reader.take_bits(count) == value % (1 << count)
    reader.finish()


def test_by_hand() -> None:
    assert written([]) == bytes.fromhex("0100")
    assert written([(0, 4096)] * 100) == bytes.fromhex("0100")
    # 256 -> 4096 (256 div 16) + 0 + 4080 = 0x10ff0
    assert written([(4080, 16)]) == bytes.fromhex("010ff0")
    # and before that one, as 0x10ff0 is at least 4096 * 16: 0xf0 leaves, 0x10f -> 4096 * 16 + 15 + 32 = 0x1002f
    assert written([(32, 16), (4080, 16)]) == bytes.fromhex("01002ff0")
    writer = Writer()
    writer.put_bits(0xABCDE, 20)
    assert writer.finish() == written([(0xABC, 1), (0xDE0, 16)])


def test_size_of_many_symbols() -> None:
    rng = random.Random(0)
    symbols = [(rng.randrange(3000), rng.randrange(1, 1000)) for _ in range(20_000)]
    needed = sum(math.log2(4096 / frequency) for _, frequency in symbols) / 8
    assert needed - 10 < len(written(symbols)) < 1.002 * needed + 3


def test_symbols_that_do_not_fit() -> None:
    writer = Writer()
    for first, frequency in [(-1, 5), (0, 0), (0, 4097), (4095, 2), (4096, 1), (5, -1)]:
        with pytest.raises(ValueError, match="does not fit 4096"):
            writer.put(first, frequency)
    for value, count in [(1, 0), (-1, 3), (8, 3)]:
        with pytest.raises(ValueError, match="does not fit"):
            writer.put_bits(value, count)
    assert writer.finish() == written([])


TABLE = [0, 1, 100, 101, 2000, 4000, 4096]


def read_any(data: bytes, count: int) -> bool:
    """Whether a stream of `count` symbols of one table is accepted; its state stays in bounds."""
    reader = Reader(data, field="lab")
    for _ in range(count):
        assert 0 <= reader._state < 1 << 24
        s = next(s for s in range(6) if TABLE[s] <= reader.slot < TABLE[s + 1])
        reader.take(TABLE[s], TABLE[s + 1] - TABLE[s])
    failure = None
    try:
        reader.finish()
    except SectionError as error:
        failure = error
    assert failure is None or (failure.code, failure.field) == ("E_SECTION_VALUE", "lab")
    return failure is None


def test_damage_is_found_or_harmless() -> None:
    symbols = [(TABLE[s], TABLE[s + 1] - TABLE[s]) for s in (k * k % 6 for k in range(40))]
    data = written(symbols)
    assert read_any(data, 40)
    flips = accepted = 0
    for place in range(len(data)):
        for mask in (1, 0x10, 0x80, 0xFF):
            flips += 1
            accepted += read_any(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :], 40)
        assert not read_any(data[:place], 40)
    assert accepted <= 0.02 * flips
    for longer in (b"\0" + data, data + b"\0", data + data):
        assert not read_any(longer, 40)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_bytes_are_read_within_bounds(data: bytes, count: int) -> None:
    read_any(data, count)


# Shows D3M-153.
def test_what_is_wrong_is_said() -> None:
    with pytest.raises(SectionError, match=r"lab: E_SECTION_VALUE.*has bytes left over"):
        Reader(b"\1\2\3\4", field="lab").finish()
    for data in (b"", b"\1", b"\2\0"):
        with pytest.raises(SectionError, match="ends in another state"):
            Reader(data).finish()
    with pytest.raises(SectionError, match="begins with a byte 0"):
        Reader(b"\0\1\0").finish()
