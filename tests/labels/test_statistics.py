"""Statistics of teachers: round trips, what a fit says, the shipped ones, damage and bombs."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import spec_decoder
from labels.label_cases import random_statistics, teacher_logits

from d3codec.entropy import Reader
from d3codec.errors import SectionError
from d3codec.labels import levels, statistics
from d3codec.labels.statistics import Statistics

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

SPEC = Path(__file__).parents[2] / "spec"


def assert_same(found: Statistics, expected: Statistics) -> None:
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.noise == expected.noise


@settings(max_examples=60)
@given(st.sampled_from([1, 2, 3, 10, 70, 300]), st.sampled_from([0, 1, 7, 8, 9, 17]), st.integers(0, 2**32))
def test_round_trip(width: int, axes: int, seed: int) -> None:
    known = random_statistics(np.random.default_rng(seed), width, axes)
    packed = statistics.pack(known)
    found, used = statistics.unpack(packed + b"what follows")
    assert used == len(packed)
    assert found.rows.shape == (width, axes)
    assert_same(found, known)
    by_the_text = spec_decoder.read_statistics(spec_decoder.Bytes(packed))
    assert (by_the_text.means, by_the_text.rows) == (known.mean.tolist(), known.rows.tolist())
    assert (by_the_text.lengths, by_the_text.shares) == (known.lengths.tolist(), known.shares.tolist())


# Shows D3M-155.
def test_shares_are_quotients_rounded_down() -> None:
    known = Statistics(np.zeros(3, np.int64), np.array([[0, 0], [3, -4], [31, 31]]), 7)
    assert known.lengths.tolist() == [0, 25, 1922]
    assert known.shares.tolist() == [2**24 // 7, 2**24 // 32, 2**24 // 1929]
    assert known.weighted_rows.tolist() == [[0, 0], [3 * 2**19, -4 * 2**19], [31 * 8697, 31 * 8697]]


def test_nothing_known() -> None:
    known = statistics.none(5)
    assert (known.width, known.rows.shape) == (5, (5, 0))
    assert not known.mean.any()


# Shows D3M-157.
def test_shipped_are_those_of_the_specification() -> None:
    known = statistics.shipped()
    assert known.width == 1000
    normative = (SPEC / "data" / statistics.SHIPPED).read_bytes()
    assert statistics.shipped_bytes() == normative
    assert statistics.unpack(normative)[1] == len(normative)
    assert statistics.shipped_digest() == hashlib.sha256(normative).hexdigest()
    assert statistics.shipped_digest() in (SPEC / "labels.md").read_text("utf-8")


def test_a_fit_says_how_logits_move_together() -> None:
    z, _ = teacher_logits(4000, 40)
    z -= z.mean(axis=1, keepdims=True)
    known, step = statistics.fit(z, 40, 0.1), 0.1
    np.testing.assert_allclose(known.mean / 4096, z.mean(axis=0), atol=1 / 16 + 1e-3)
    covariance = np.cov(z.T, bias=True)
    np.testing.assert_allclose(known.rows @ known.rows.T * step**2, covariance, atol=0.08 * covariance.max())
    assert known.noise == 1
    fewer = statistics.fit(z, 5, 0.1)
    assert (fewer.rows == known.rows[:, :5]).all()
    left = np.mean(np.diag(covariance)) / step**2 - fewer.lengths.mean()
    assert abs(fewer.noise - left) < 0.02 * left


def test_a_fit_of_few_labels() -> None:
    z, _ = teacher_logits(3, 40)
    assert statistics.fit(z, 64, 0.1).rows.shape == (40, 3)
    known = statistics.fit(z * 1000, 2, 0.1)
    assert np.abs(known.rows).max() <= 31
    assert_same(statistics.unpack(statistics.pack(known))[0], known)


def small() -> tuple[Statistics, bytes]:
    known = random_statistics(np.random.default_rng(5), 7, 9)
    return known, statistics.pack(known)


def test_every_flip_is_refused_or_bounded() -> None:
    known, packed = small()
    refused = 0
    for place in range(len(packed)):
        for bit in range(8):
            damaged = packed[:place] + bytes([packed[place] ^ 1 << bit]) + packed[place + 1 :]
            try:
                found, used = statistics.unpack(damaged)
            except SectionError:
                refused += 1
                continue
            assert used <= len(packed)
            assert found.rows.shape[0] == found.width
            assert max(np.abs(found.rows).max(initial=0), np.abs(found.mean).max() // 512) <= 31
            assert found.noise >= 1
            if place >= 9:
                assert found.rows.shape == known.rows.shape
    assert refused > 0.9 * 8 * (len(packed) - 9)


def test_every_truncation_is_refused() -> None:
    _, packed = small()
    for length in range(len(packed)):
        with pytest.raises(SectionError) as caught:
            statistics.unpack(packed[:length])
        assert (caught.value.code, caught.value.field) == ("E_SECTION_VALUE", "lab")


@pytest.mark.parametrize(
    "head", [(0, 9, 1, 80), (7, 9, 0, 80), (7, 9, 1, 65_535), (2**20 + 1, 0, 1, 80), (2**32 - 1, 255, 1, 80)]
)
# Shows D3M-156.
def test_heads_that_cannot_be_are_refused(head: tuple[int, int, int, int]) -> None:
    with pytest.raises(SectionError, match="do not fit their head"):
        statistics.unpack(struct.pack("<IBHH", *head) + bytes(1000))


def certain_statistics(width: int, axes: int) -> bytes:
    """As many values in as few bytes as there can be: all certain."""
    table = np.full((1, 63), levels.NEVER, np.uint8)
    table[0, 31] = 0
    lanes = 8 if width * axes < 2**16 else 64
    head = struct.pack("<IBHH", width, axes, 1, 4 * lanes)
    return head + levels.pack(table) * (1 + -(-axes // 8)) + struct.pack("<I", 1 << 16) * lanes


def test_few_bytes_are_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest that there is has 2^20 values."""
    taken: list[int] = []

    class Counting(Reader):
        def take(self, tables, rows, counts):  # type: ignore[no-untyped-def]
            taken.append(int(np.sum(counts)))
            return super().take(tables, rows, counts) if len(taken) < 2 else np.full(taken[-1], 31, np.int32)

        def finish(self) -> None:
            pass

    monkeypatch.setattr(statistics, "Reader", Counting)
    tracemalloc.start()
    try:
        assert statistics.unpack(certain_statistics(4096, 255))[0].rows.shape == (4096, 255)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        assert sum(taken) == 2**20
        taken.clear()
        for width, axes in [(4097, 255), (2**20, 1), (65_536, 16)]:
            with pytest.raises(SectionError, match="do not fit"):
                statistics.unpack(certain_statistics(width, axes))
        assert not taken
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("width", [1, 10_000, 60_000])
def test_a_flat_teacher_of_many_columns(width: int) -> None:
    """What costs no bits can be read all the same."""
    known = Statistics(np.zeros(width, np.int64), np.zeros((width, 2), np.int64), 1)
    packed = statistics.pack(known)
    assert len(packed) == 9 + 2 * 32 + 4 * (8 if 2 * width < 2**16 else 64)
    assert_same(statistics.unpack(packed)[0], known)


def test_too_much_to_pack() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="fewer axes"):
        statistics.pack(random_statistics(rng, 1000, 255))
    with pytest.raises(ValueError, match="fewer axes"):
        statistics.pack(Statistics(np.zeros(600_000, np.int64), np.zeros((600_000, 1), np.int64), 1))
