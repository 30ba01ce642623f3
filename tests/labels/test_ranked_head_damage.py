"""Damaged and hostile ranked-head streams: refused or decoded within bounds of memory and work, never else."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels.label_cases import random_archive

from d3codec import labels
from d3codec.entropy import Reader
from d3codec.errors import SectionError
from d3codec.labels import levels, ranked_head, statistics
from d3codec.labels.prediction import GROUPS, Layer, Parameters
from d3codec.labels.stream import NONE, SHIPPED, Corrections, LayerModel, Model, Symbols, groups, zones

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines


def small_streams() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """A stream with statistics and two layers, and one with neither statistics nor many bytes."""
    found = {}
    for name, count, width, depth, source, axes in [("plain", 12, 5, 1, 0, 0), ("rich", 7, 6, 2, 1, 1)]:
        model, symbols, classes = random_archive(np.random.default_rng(7), count, width, depth, source, axes)
        found[name] = ranked_head.write(model, symbols), classes, width
    return found


def most_symbols(count: int, width: int, depth: int) -> int:
    """Bound on the symbols of labels: zones and halves of every position, and the rest."""
    number = zones(width)
    return count * (3 + depth * (1 + number + min(127, width - 1) * (number + 1)))


class Counting(Reader):
    """The real reader, with planes and symbols counted."""

    planes = symbols = 0

    def take(self, tables, rows, counts):  # type: ignore[no-untyped-def]
        Counting.planes += 1
        Counting.symbols += int(np.sum(counts))
        return super().take(tables, rows, counts)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr(ranked_head, "Reader", Counting)
    Counting.planes = Counting.symbols = 0
    return Counting


def decoded_or_refused(data: bytes, classes: np.ndarray, width: int | None) -> bool:
    """Whether damaged bytes decode, to finite logits of the shape that they state; within bounds all the same."""
    Counting.planes = Counting.symbols = 0
    stated, failure = width, None
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    try:
        if width is None:
            found = labels.decode_logits(data, classes=classes)
            _, stated, _ = ranked_head.stated(data)
        else:
            found = ranked_head.decode(data, classes, width)
        assert found.shape == (len(classes), stated)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    except (SectionError, ValueError) as error:
        failure = error
    if isinstance(failure, SectionError):
        assert (failure.code, failure.field) == ("E_SECTION_VALUE", "lab")
    elif failure is not None:  # decode_logits of a stream that states fewer columns than the classes need
        assert width is None
        assert "columns" in str(failure)
    assert tracemalloc.get_traced_memory()[1] < 48 << 20  # 0 where nothing is traced: that is slow
    assert Counting.symbols <= most_symbols(len(classes), 2**14 if width is None else width, 3)
    assert Counting.planes <= 2 + 16 + 3 * (2 + 2 * 16)
    return failure is None


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("name", ["plain", "rich"])
def test_every_flip_is_refused_or_bounded(name: str) -> None:
    data, classes, width = small_streams()[name]
    assert decoded_or_refused(data, classes, width)
    good = decoded = 0
    for place in range(len(data)):
        for mask in (1 << place % 8, 0xFF):
            damaged = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            decoded += decoded_or_refused(damaged, classes, width)
            good += 1
    assert 0 < decoded < 0.4 * good  # numbers that nothing checks, such as biases; the container has digests


@pytest.mark.usefixtures("counting", "traced")
@pytest.mark.parametrize("name", ["plain", "rich"])
def test_flips_of_the_head_with_the_width_as_stated(name: str) -> None:
    data, classes, _ = small_streams()[name]
    for place in range(24):
        for mask in (1 << place % 8, 0x80, 0xFF):
            decoded_or_refused(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :], classes, None)


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("name", ["plain", "rich"])
def test_every_truncation_and_extension_is_refused(name: str) -> None:
    data, classes, width = small_streams()[name]
    for wrong in [*(data[:length] for length in range(len(data))), data + b"\0", data + b"\0\0", data + data]:
        assert not decoded_or_refused(wrong, classes, width)
        with pytest.raises(SectionError):
            ranked_head.decode(wrong, classes, width, slice(0, 1))


@settings(max_examples=80)
@given(st.binary(max_size=400), st.integers(0, 40), st.integers(1, 12))
def test_any_bytes(data: bytes, count: int, width: int) -> None:
    head = struct.pack("<BBBHBhB", 0, 1, 64, 256, 38, 0, 1) + bytes([width, count])
    for stream in (data, head + data):
        with contextlib.suppress(SectionError):
            assert ranked_head.decode(stream, np.zeros(count, np.int64), width).shape == (count, width)


def with_numbers(data: bytes, width: bytes, count: bytes) -> bytes:
    """The stream `plain` with other bytes for its width and number of labels, one byte each."""
    return data[:9] + width + count + data[11:]


# Shows D3M-161.
def test_lies_about_width_and_number() -> None:
    data, classes, width = small_streams()["plain"]
    assert with_numbers(data, bytes([width]), b"\x0c") == data
    for lie, message in [
        ((b"\x06", b"\x0c"), "another number of logits a label .found 6, expected 5"),
        ((b"\x05", b"\x0d"), "another number of labels .found 13, expected 12"),
        ((b"\x05", b"\x8c\x00"), "not in its shortest form"),
        ((b"\x85\x80\x00", b"\x0c"), "not in its shortest form"),
        ((b"\x05", b"\xff\xff\xff\xff\xff\xff\xff\x01"), "more than seven bytes"),
    ]:
        with pytest.raises(SectionError, match=message):
            ranked_head.decode(with_numbers(data, *lie), classes, width)


@pytest.mark.parametrize("count", [13, 1024, 1025, 10**6, 2**40, 2**49 - 1])
def test_more_labels_than_the_data_hold(count: int) -> None:
    data, _, width = small_streams()["plain"]
    stated = bytearray()
    value = count
    while value > 127:
        stated.append(value & 127 | 128)
        value >>= 7
    stated.append(value)
    lie = with_numbers(data, bytes([width]), bytes(stated))
    tracemalloc.start()
    try:
        assert ranked_head.stated(lie)[0] == count
        if count > 1024 * len(data):
            with pytest.raises(SectionError, match="ends inside its head"):
                ranked_head.side_bytes(lie)
        if count <= 10**6:
            with pytest.raises(SectionError):
                ranked_head.decode(lie, np.zeros(count, np.int64), width)
        assert tracemalloc.get_traced_memory()[1] < (1 << 20 if count > 10**6 else 64 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("place", "value"), [(0, 3), (1, 4), (8, 0), (11, 0), (13, 0), (13, 5), (13, 128), (14, 0), (14, 32)]
)
# Shows D3M-161.
def test_impossible_numbers_of_the_head(place: int, value: int) -> None:
    """Source, layers, own step; step, largest count and largest value of a layer (5 columns)."""
    data, classes, width = small_streams()["plain"]
    for decode in (ranked_head.decode, lambda lie, *_: ranked_head.stated(lie)):
        with pytest.raises(SectionError, match="impossible numbers"):
            decode(data[:place] + bytes([value]) + data[place + 1 :], classes, width)


@pytest.mark.parametrize("width", [b"\x00", b"\x81\x80\x40", b"\xff\xff\xff\xff\x7f"])
def test_widths_that_cannot_be(width: bytes) -> None:
    data, _, _ = small_streams()["plain"]
    with pytest.raises(SectionError, match="impossible numbers"):
        ranked_head.stated(with_numbers(data, width, b"\x0c"))


# Shows D3M-161.
def test_statistics_of_another_width() -> None:
    data, classes, _ = small_streams()["rich"]
    model, _, _ = random_archive(np.random.default_rng(7), 7, 6, 2, 1, 1)
    place = data.index(statistics.pack(model.statistics))
    for lie in (5, 7):
        with pytest.raises(SectionError):
            ranked_head.decode(data[:place] + bytes([lie]) + data[place + 1 :], classes, 6)
    shipped = bytes([SHIPPED]) + data[1:]
    with pytest.raises(SectionError, match=r"another width .found 1000, expected 6"):
        ranked_head.decode(shipped, classes, 6)


@pytest.mark.parametrize("class_", [-1, 5, 2**40])
def test_classes_that_are_no_columns(class_: int) -> None:
    data, classes, _ = small_streams()["plain"]
    classes = classes.copy()
    classes[9] = class_
    with pytest.raises(ValueError, match="of labels of 5 columns"):
        labels.decode_logits(data, classes=classes)


def bomb(count: int, width: int) -> tuple[bytes, np.ndarray]:
    """Labels that are as much work as labels can be, in as few bytes: every rank corrected, everything certain."""

    def certain(symbols: int, which: int, rows: int = 1) -> np.ndarray:
        table = np.full((rows, symbols), levels.NEVER, np.uint8)
        table[:, which] = 0
        return table

    most = width - 1
    densities = np.zeros(zones(most), np.uint8)
    values = certain(2, 1, groups(width))
    layer = LayerModel(Layer(1, 0, (0,) * GROUPS), certain(most + 1, most), densities, values)
    parameters = Parameters(0, 0, 0, 16, 1)
    places, own = certain(zones(width), 0), certain(33, 16)
    model = Model(NONE, statistics.none(width), parameters, places, own, (layer,) * 3)
    full = Corrections(np.full(count, most), np.tile(np.arange(most), count), np.ones(count * most, np.int64))
    zero = np.zeros(count, np.int64)
    return ranked_head.write(model, Symbols(zero, zero, [full] * 3)), zero


def test_work_grows_with_the_labels(counting: type[Counting]) -> None:
    symbols, planes = [], []
    for count in (1024, 3072):
        data, classes = bomb(count, 64)
        assert len(data) < 400 + 67 * count // 1024
        counting.planes = counting.symbols = 0
        tracemalloc.start()
        try:
            found = ranked_head.decode(data, classes, 64)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (found[:, 1:] == np.float32(3 / 16)).all()
        assert peak < (32 << 20) + 3 * 63 * 100 * count
        symbols.append(counting.symbols)
        planes.append(counting.planes)
    assert symbols[1] == 3 * symbols[0] <= 3 * most_symbols(1024, 64, 3)
    assert planes[0] == planes[1]


def test_work_of_damaged_labels_grows_with_the_labels(counting: type[Counting]) -> None:
    """Random words: whatever comes out of them, no label is more than its share."""
    for count in (200, 1024, 5000):
        model, symbols, classes = random_archive(np.random.default_rng(1), count, 40, 3, NONE, 0)
        data = bytearray(ranked_head.write(model, symbols))
        rng = np.random.default_rng(count)
        side = ranked_head.side_bytes(bytes(data))
        data[side + 64 :] = rng.bytes(len(data) - side - 64)
        counting.planes = counting.symbols = 0
        try:
            ranked_head.decode(bytes(data), classes, 40)
        except SectionError:
            pass
        assert 0 < counting.symbols <= most_symbols(count, 40, 3)
