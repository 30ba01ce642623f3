"""Coded rows: an independent reader that follows spec/entropy.md, rates, error, damage, refusals."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d3codec import entropy
from d3codec.conditioning import coded, quantized
from d3codec.conditioning.coded import POWERS, Layout, Shape
from d3codec.errors import SectionError

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 60))
NUMBERS = SHAPES.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=st.floats(-4, 4, width=32)))
LEARNED = np.random.default_rng(3).normal(0, 0.17, (10, 64))


def half(*values: float) -> bytes:
    return np.array(values, "<f2").tobytes()


def table_by_rule(levels: int, a: int, b: int) -> list[int]:
    """Section 5.2 and the rule of section 1, in Python's integers."""
    far = max(1, levels - 1)
    q = [4 * (a * d * far + b * d * d) // far**2 for d in (abs(2 * level - (levels - 1)) for level in range(levels))]
    weights = [max(1, POWERS[(x - min(q)) % 16] // 2 ** ((x - min(q)) // 16)) for x in q]
    return entropy.frequencies(np.array([weights]))[0].tolist()


def section(levels: list[list[int]], shape: tuple[int, int, int], scales: bytes) -> bytes:
    """A section of one block and one lane, its stream made of literal steps of section 3."""
    frequencies = table_by_rule(*shape)
    x, words = 2**16, []
    for level in reversed([level for row in levels for level in row]):
        f, c = frequencies[level], sum(frequencies[:level])
        if x >= f << 20:
            words.append(x % 2**16)
            x >>= 16
        x = 4096 * (x // f) + x % f + c
    return struct.pack("<Bbb", *shape) + scales + struct.pack(f"<I{len(words)}H", x, *reversed(words))


@st.composite
def sections(draw: st.DrawFn) -> tuple[bytes, list[list[int]], int, list[float]]:
    """Valid bytes of any shape, and the levels, their number and the scales in them."""
    rows, size = draw(st.integers(1, 3)), draw(st.integers(1, 30))
    count = draw(st.one_of(st.integers(1, 6), st.integers(1, 255)))
    shape = (count, *(draw(st.integers(-128, 127)) if count > 1 else 0 for _ in range(2)))
    levels = draw(
        st.lists(st.lists(st.integers(0, count - 1), min_size=size, max_size=size), min_size=rows, max_size=rows)
    )
    scales = draw(st.lists(st.integers(1, 0x7BFF), min_size=rows, max_size=rows))
    if draw(st.booleans()):
        scales = scales[:1]
    raw = struct.pack(f"<{len(scales)}H", *(s | (0x8000 if len(scales) == 1 and rows > 1 else 0) for s in scales))
    values = np.array(scales, "<u2").view("<f2").astype(float).tolist()
    return section(levels, shape, raw), levels, count, values * (rows if len(scales) == 1 else 1)


@settings(deadline=None, max_examples=100)
@given(sections())
# Shows D3M-083, D3M-149.
def test_decoding_follows_the_specification(given_section: tuple[bytes, list[list[int]], int, list[float]]) -> None:
    data, levels, count, scales = given_section
    found = coded.decode(data, len(levels), len(levels[0]), "emb").tolist()
    middle = Fraction(count - 1, 2)
    for row, stored, scale in zip(found, levels, scales, strict=True):
        assert [Fraction(value) for value in row] == [(level - middle) * Fraction(scale) for level in stored]


def test_powers_are_those_of_the_rule() -> None:
    for i, n in enumerate(POWERS):
        assert n**16 <= 2 ** (384 - i) < (n + 1) ** 16


@pytest.mark.parametrize("shape", [(1, 0, 0), (2, 5, -7), (3, -128, 127), (9, -20, 44), (254, 127, 127), (255, -1, 60)])
# Shows D3M-150.
def test_tables_are_those_of_the_rule(shape: tuple[int, int, int]) -> None:
    found = Shape(*shape).frequencies()[0].tolist()
    assert found == table_by_rule(*shape)
    assert found == found[::-1] or sum(abs(x - y) for x, y in zip(found, found[::-1], strict=True)) <= shape[0]


def test_golden_section() -> None:
    golden = section([[3, 0, 2, 2, 1, 3], [4, 3, 2, 2, 1, 1]], (5, -20, 44), half(-0.5))
    assert golden.hex() == "05ec2c00b82e2f7d73fe0f"
    values = [[0.5, -1.0, 0.0, 0.0, -0.5, 0.5], [1.0, 0.5, 0.0, 0.0, -0.5, -0.5]]
    assert coded.decode(golden, 2, 6, "emb").tolist() == values
    # without zero: levels -3/2, -1/2, 1/2, 3/2; a scale a row
    golden = section([[3, 0], [1, 2]], (4, 8, 0), half(0.5, 2.0))
    assert golden.hex() == "0408000038004094fe8d01"
    assert coded.decode(golden, 2, 2, "emb").tolist() == [[0.75, -0.75], [-1.0, 1.0]]


@settings(deadline=None, max_examples=25)
@given(NUMBERS, st.floats(0.2, 12))
def test_size_is_bounded_and_error_too(values: np.ndarray, bits: float) -> None:
    try:
        data = coded.encode(values, bits)
    except ValueError as error:
        assert "the shortest section has 9" in str(error)  # noqa: PT017
        assert bits * values.size < 8 * 9
        return
    assert len(data) * 8 <= bits * values.size
    found = coded.decode(data, *values.shape, "emb")
    assert np.square(found - values).sum() <= np.square(values).sum() * (1 + 1e-9) + 1e-30


@pytest.mark.parametrize("bits", [1.5, 2.0, 2.5, 3.0, 4.0])
def test_rate_is_used(bits: float) -> None:
    data = coded.encode(LEARNED, bits)
    assert bits * LEARNED.size - 24 <= len(data) * 8 <= bits * LEARNED.size
    # within a third of a bit of a normal source's rate-distortion function, everything counted
    found = coded.decode(data, 10, 64, "emb")
    distortion = np.square(found - LEARNED).mean() / np.square(LEARNED).mean()
    assert len(data) * 8 / LEARNED.size + 0.5 * np.log2(distortion) < 0.36


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_better_than_blocks_of_the_same_bytes(bits: int) -> None:
    blocks = quantized.encode(LEARNED, bits)
    found = coded.decode(coded.encode(LEARNED, 8 * blocks.nbytes / LEARNED.size), 10, 64, "emb")
    decibels = 10 * np.log10(
        np.square(quantized.decode(blocks, 64, bits, "emb") - LEARNED).sum() / np.square(found - LEARNED).sum()
    )
    assert decibels > {1: 0.5, 2: 1.5, 3: 2.5, 4: 3.0}[bits]


def test_error_falls_with_the_rate() -> None:
    rows = LEARNED * np.geomspace(0.02, 1, 10)[:, None]
    errors = [np.square(coded.decode(coded.encode(rows, bits), 10, 64, "emb") - rows).sum() for bits in (0.5, 1, 3, 6)]
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-3 * errors[0]


@pytest.mark.parametrize("kind", ["signs", "spike", "uniform", "laplace", "one level"])
def test_other_distributions(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "signs": rng.choice([-0.3, 0.3], (8, 100)),
        "spike": np.where(np.arange(800).reshape(8, 100) == 321, 50.0, rng.normal(0, 0.1, (8, 100))),
        "uniform": rng.uniform(-1, 1, (8, 100)),
        "laplace": rng.laplace(0, 1, (8, 100)),
        "one level": np.full((8, 100), 0.3),
    }[kind]
    data = coded.encode(values, 2.5)
    assert len(data) <= 250
    left = np.square(coded.decode(data, 8, 100, "emb") - values).sum() / np.square(values).sum()
    assert left < {"signs": 1e-6, "spike": 0.01, "uniform": 0.045, "laplace": 0.06, "one level": 1e-6}[kind]


def test_rows_of_very_different_size_get_their_own_scales() -> None:
    values = np.random.default_rng(2).normal(size=(4, 300)) * np.array([[1e-3], [1.0], [1.0], [30.0]])
    data = coded.encode(values, 6.5)
    assert data[4] < 0x80  # a scale a row
    found = coded.decode(data, 4, 300, "emb")
    assert (np.square(found - values).sum(axis=1) < 0.01 * np.square(values).sum(axis=1))[1:].all()


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_of_zeros(rows: int) -> None:
    data = coded.encode(np.zeros((rows, 40)), 2)
    assert data == bytes([1, 0, 0]) + half(-coded.ZERO_SCALE) + struct.pack("<I", 2**16)
    assert (coded.decode(data, rows, 40, "emb") == 0).all()


def test_no_numbers_are_no_bytes() -> None:
    assert coded.encode(np.zeros((0, 4)), 2) == coded.encode(np.zeros((3, 0)), 2) == b""
    assert coded.decode(b"", 0, 4, "emb").shape == (0, 4)
    assert coded.decode(b"", 3, 0, "lat").shape == (3, 0)
    with pytest.raises(SectionError) as caught:
        coded.decode(b"\0", 0, 4, "lat")
    assert (caught.value.code, caught.value.field) == ("E_SECTION_SIZE", "lat")


def test_many_blocks_and_some_rows_of_them() -> None:
    values = np.random.default_rng(4).normal(size=(300, 500))
    layout = Layout(300, 500)
    assert (layout.rows_a_block, layout.counts.tolist(), layout.lanes) == (131, [65_500, 65_500, 19_000], 15)
    data = coded.encode(values, 2)
    assert 1.98 < len(data) * 8 / values.size <= 2
    every = coded.decode(data, 300, 500, "emb")
    assert np.square(every - values).mean() < 0.1
    for first, count in [(0, 1), (130, 2), (131, 131), (299, 1), (262, 38), (7, 0), (300, 0)]:
        part = coded.decode(data, 300, 500, "emb", first=first, count=count)
        assert (part == every[first : first + count]).all()
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    assert (coded.decode(damaged, 300, 500, "emb", count=262) == every[:262]).all()  # the last block is not read
    with pytest.raises(SectionError):
        coded.decode(damaged, 300, 500, "emb", first=262, count=1)
    longer = data[:7] + b"\xff\xff" + data[9:]
    with pytest.raises(SectionError, match="longer than the section"):
        coded.decode(longer, 300, 500, "emb")
    for first, count in [(-1, 1), (0, 301), (300, 1), (5, -1)]:
        with pytest.raises(ValueError, match="of 300"):
            coded.decode(data, 300, 500, "emb", first=first, count=count)


def test_every_flip_and_every_truncation_is_found_or_harmless() -> None:
    data = coded.encode(LEARNED[:2], 2.5)
    refused = 0
    for place in range(len(data)):
        for mask in (1, 0x80, 0xFF):
            damaged = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            try:
                found = coded.decode(damaged, 2, 64, "emb")
            except SectionError as error:
                refused += error.field == "emb"
            else:
                assert found.shape == (2, 64)
                assert np.isfinite(found).all()
                assert place < 5  # another shape or another scale
        with pytest.raises(SectionError):
            coded.decode(data[:place], 2, 64, "emb")
    assert refused >= 3 * (len(data) - 5)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=80), st.integers(1, 5), st.integers(0, 40))
def test_any_bytes_are_read_within_bounds(data: bytes, rows: int, size: int) -> None:
    try:
        found = coded.decode(data, rows, size, "lat")
    except SectionError as error:
        assert error.field == "lat"  # noqa: PT017
    else:
        assert found.shape == (rows, size)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "E_SECTION_SIZE", "ends early"),
        (bytes([2, 0, 0, 0]), "E_SECTION_SIZE", "ends early"),
        (bytes([2, 0, 0]) + half(1), "E_SECTION_SIZE", "ends early"),
        (bytes([0, 0, 0]) + half(-1) + bytes(4), "E_SECTION_VALUE", "an impossible shape"),
        (bytes([1, 0, 1]) + half(-1) + bytes(4), "E_SECTION_VALUE", "an impossible shape"),
        (bytes([1, 0, 0]) + half(1, -1) + bytes(4), "E_SECTION_VALUE", "row 1 has a scale"),
        (bytes([1, 0, 0]) + half(0, 1) + bytes(4), "E_SECTION_VALUE", "row 0 has a scale"),
        (bytes([1, 0, 0]) + half(-np.inf) + bytes(4), "E_SECTION_VALUE", "row 0 has a scale"),
        (bytes([1, 0, 0]) + half(-0.0) + bytes(4), "E_SECTION_VALUE", "row 0 has a scale"),
        (bytes([1, 0, 0]) + half(1) + b"\x01\x7c" + bytes(4), "E_SECTION_VALUE", "row 1 has a scale"),  # signals
        (bytes([1, 0, 0]) + b"\x01\xfc" + bytes(4), "E_SECTION_VALUE", "row 0 has a scale"),
        (bytes([1, 0, 0]) + half(1, np.nan) + bytes(4), "E_SECTION_VALUE", "row 1 has a scale"),
        (bytes([1, 0, 0]) + half(-1) + bytes(4), "E_SECTION_VALUE", "initial state below"),
        (bytes([1, 0, 0]) + half(-1) + bytes([0, 0, 1, 0, 0, 0]), "E_SECTION_VALUE", "words left over"),
    ],
)
# Shows D3M-151.
def test_impossible_sections_are_refused(data: bytes, code: str, message: str) -> None:
    with pytest.raises(SectionError, match=message) as caught:
        coded.decode(data, 2, 5, "emb")
    assert (caught.value.code, caught.value.field) == (code, "emb")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -32753.0])
def test_values_that_cannot_be_stored_name_their_row(bad: float) -> None:
    values = np.ones((3, 40))
    values[1, 2] = bad
    with pytest.raises(ValueError, match=r"^row 1: numbers that are not finite or beyond 32752"):
        coded.encode(values, 2)


def test_extreme_values_are_taken() -> None:
    for value in (5e-324, 1e-12, 2.0**-24, 32752.0):
        values = np.tile([value, -value], (2, 50))
        found = coded.decode(coded.encode(values, 4), 2, 100, "emb")
        assert np.abs(found - values).max() <= max(2.0**-24, value * 2.0**-10)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"are \[rows, size\]"):
        coded.encode(np.ones((1, 4, 1)), 2)
    with pytest.raises(ValueError, match=r"0\.5 bits a number are 4 bytes, the shortest section has 9"):
        coded.encode(np.ones((1, 64)), 0.5)
