"""Transform-coded latents: an independent decoder from spec/latents.md, sizes, errors, random access, damage."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.conditioning import transform, transform_encoder, transform_statistics, transform_tables
from d3codec.conditioning.transform_analysis import analyse
from d3codec.conditioning.transform_basis import Basis, cosines
from d3codec.conditioning.transform_search import quantize
from d3codec.errors import SectionError

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

HERE = Path(__file__).resolve().parent
GOLDEN = json.loads((HERE / "latents_golden.json").read_text())
SPEC = HERE.parents[1] / "spec"
TAESD3 = (16, 4, 4)


def literal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("latents_from_spec", HERE / "latents_from_spec.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LITERAL = literal()


def drawn(count: int, number: int = 1, shape: tuple[int, int, int] = TAESD3, seed: int = 0) -> np.ndarray:
    """Latents as likely as the shipped statistics say, of images with little and with much in them."""
    basis = transform_statistics.shipped(number, shape)
    random = np.random.default_rng(seed)
    normal = random.normal(size=(count, len(basis.scales))) * random.choice([0.6, 1, 1.3], size=(count, 1))
    return basis.latents(np.rint(normal * transform_tables.deviations(basis.scales) * 256).astype(np.int64), -8)


def by_the_text(data: bytes, count: int, shape: tuple[int, int, int]) -> np.ndarray:
    found = [[float(value) for value in image] for image in LITERAL.decode(data, count, shape)]
    return np.array(found).reshape(count, *shape)


LATENTS = drawn(300)
SECTION = transform.encode(LATENTS, 7500)


# ------------------------------------------------------------------------------------------------ the specification


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["shape"]))
# Shows D3M-167, D3M-168, D3M-169, D3M-170, D3M-171.
def test_golden_sections(case: dict) -> None:
    data, shape = bytes.fromhex(case["section"]), tuple(case["shape"])
    found = transform.decode(data, case["count"], shape, "lat")
    assert found.reshape(-1)[:4].tolist() == case["first"]
    assert hashlib.sha256(found.astype("<f8").tobytes()).hexdigest() == case["sha256"]
    if case["count"] < 100:
        assert (by_the_text(data, case["count"], shape) == found).all()


def test_example_of_the_text() -> None:
    text = (SPEC / "latents.md").read_text().split("## 9. Examples")[1]
    code = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    found = transform.decode(bytes.fromhex(code[0]), 2, (1, 2, 2), "lat")
    expected = [float(Fraction(number)) for line in code[1:] for number in line.split(",")]
    assert found.reshape(-1).tolist() == expected


# Shows D3M-172.
def test_shipped_statistics_are_those_of_the_text() -> None:
    data = transform_statistics.shipped_bytes()
    assert data == (SPEC / "data" / "latents.stats").read_bytes()
    assert len(data) <= 28 * 1024
    text = (SPEC / "latents.md").read_text()
    assert transform_statistics.shipped_digest() in text
    assert f"{len(data):,} bytes" in text
    symbols, _ = transform_statistics.unpack_symbols(data)
    entries = {
        key: transform_statistics.Fitted.unpack(body, key[1]) for key, body in transform_statistics.bodies().items()
    }
    assert transform_statistics.pack(symbols, entries) == data


@settings(max_examples=25)
@given(st.integers(1, 6), st.tuples(*[st.integers(1, 5)] * 3), st.floats(-7, 2), st.integers(0, 2**32 - 1))
# Shows D3M-173.
def test_own_statistics_follow_the_text(count: int, shape: tuple[int, int, int], fineness: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    latents = random.standard_t(2, size=(count, *shape)) * 2.0 ** random.integers(-6, 6)
    step = max(2.0**fineness * latents.std(), np.abs(latents).max() / 200, 2.0**-30)
    data = transform.encode_at(latents, step, number=0)
    assert (by_the_text(data, count, shape) == transform.decode(data, count, shape, "lat")).all()


def test_tables_of_numbers_follow_the_text() -> None:
    for i, n in enumerate(transform_tables.MANTISSAS.tolist()):
        assert n**128 <= 2 ** (1280 + i) < (n + 1) ** 128
    for size in (1, 2, 3, 8, 64):
        assert cosines(size).tolist() == LITERAL.cosines(size)
        assert np.abs(cosines(size) @ cosines(size).T / 4096**2 - np.eye(size)).max() < 1e-3


def test_every_number_fits_into_64_bits() -> None:
    random = np.random.default_rng(0)
    for (number, shape), limit in product(transform_statistics.bodies(), (2**29 - 1,)):
        basis = transform_statistics.shipped(number, shape)
        extreme = limit * random.choice([-1, 1], size=(1, len(basis.scales)))
        assert (basis.latents(extreme, -41) == basis.latents(-extreme, -41) * -1 + 2 * basis.mean).mean() > 0.4
    own = Basis((64, 64, 64), np.zeros(64**3, np.int64), np.zeros((64, 1, 1)), np.full((1, 64, 64), -128, np.int64))
    assert basis.rotation is not None
    assert (own.latents(np.full((1, 64**3), 1 - 2**29), 0).max()) > 0


# --------------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize(("count", "budget"), [(1, 30), (10, 200), (10, 600), (300, 6000)])
def test_the_budget_is_filled(count: int, budget: int) -> None:
    data = transform.encode(LATENTS[:count], budget)
    assert budget - max(12, budget / 100) <= len(data) <= budget
    assert data[0] == transform_statistics.TAESD3


@pytest.mark.parametrize(("rate", "gap"), [(20, 0.11), (60, 0.16)])
def test_error_is_near_what_theory_allows(rate: int, gap: float) -> None:
    """Bits a coded coefficient above the rate-distortion function of independent normal coefficients."""
    basis = transform_statistics.shipped(1, TAESD3)
    random = np.random.default_rng(5)
    deviations = transform_tables.deviations(basis.scales)
    latents = basis.latents(np.rint(random.normal(size=(128, 256)) * deviations * 256).astype(np.int64), -8)
    data = transform.encode(latents, rate * 128, number=1)
    error = analyse(latents, basis) - analyse(transform.decode(data, 128, TAESD3, "lat"), basis)
    distortion, level = np.square(error).sum(axis=1).mean(), 1.0
    while np.minimum(deviations**2, level).sum() < distortion:
        level *= 1.001
    bits = np.maximum(0, np.log2(deviations**2 / level) / 2)
    assert (8 * len(data) / 128 - bits.sum()) / (bits > 0).sum() < gap


def test_search_finds_the_best_path() -> None:
    symbols = transform_statistics.symbols()
    random = np.random.default_rng(1)
    buckets = np.array([9, 6, 4, 2])
    values = np.abs(random.normal(size=(6, 4))) * 2.0 ** (buckets / 4 - 1)
    bits = -np.log2(
        symbols.tables.frequencies / 4096, where=symbols.tables.frequencies > 0, out=np.full((56, 240), 99.0)
    )

    def cost(image: np.ndarray, magnitudes: tuple[int, ...]) -> float:
        total, state = 0.0, 0
        for value, bucket, m in zip(image, buckets, magnitudes, strict=True):
            row = np.array(2 * bucket + transform_tables.QUANTIZER[state])
            total += (value - symbols.positions(row, np.array(m)) / 32) ** 2 + 0.3 * bits[row, 2 * m]
            state = transform_tables.NEXT[state, m % 2]
        return total

    found = quantize(values, buckets, symbols)
    for image, magnitudes in zip(values, found.magnitudes, strict=True):
        best = min(cost(image, choice) for choice in product(range(4), repeat=4))
        assert cost(image, tuple(magnitudes.tolist())) <= best + 1e-4


def test_statistics_are_chosen_by_what_fits() -> None:
    other = np.random.default_rng(0).normal(5, 0.1, (10, *TAESD3))
    for latents, step, number in (
        (LATENTS[:20], 300, transform_statistics.TAESD3),
        (drawn(20, 2, (4, 4, 4)), 300, transform_statistics.TAESD),
        (LATENTS[:20, ::-1], 0.3, transform_statistics.OWN),
        (other, 0.1, transform_statistics.OWN),
    ):
        assert transform.encode_at(latents, step)[0] == number
    assert transform.encode(LATENTS[:10], 300)[0] == transform_statistics.TAESD3


def test_own_statistics_work_for_any_latents() -> None:
    random = np.random.default_rng(2)
    mixing = random.normal(size=(8, 8))
    latents = np.einsum(
        "nchw,cd->ndhw", random.normal(size=(80, 8, 6, 3)) * 2.0 ** -np.arange(8)[:, None, None], mixing
    )
    data = transform.encode(latents, 80 * 60, number=0)
    assert data[3] == 1  # with a matrix
    error = np.square(transform.decode(data, 80, (8, 6, 3), "lat") - latents).mean()
    assert error < 0.02 * latents.var()
    fine = transform.encode_at(latents, float(np.abs(latents).max()) / 2000, number=0)
    error = np.abs(transform.decode(fine, 80, (8, 6, 3), "lat") - latents).max()
    assert error < 2e-3 * np.abs(latents).max()


def test_outliers_are_escapes() -> None:
    latents = np.random.default_rng(0).normal(size=(300, 2, 2, 2))
    latents[[7, 7, 290], [0, 1, 1], 0, 0] = 400, -300, 250
    data = transform.encode_at(latents, 0.25, number=0)
    found = transform.decode(data, 300, (2, 2, 2), "lat")
    assert np.abs(found - latents).max() < 1.5
    assert (by_the_text(data, 300, (2, 2, 2)) == found).all()


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(ValueError, match="5 bytes for 300 latents, the least possible is 39"):
        transform.encode(LATENTS, 5)
    with pytest.raises(ValueError, match=r"latents are \[N, C, h, w\]"):
        transform.encode(LATENTS[0], 500)
    with pytest.raises(ValueError, match="at most"):
        transform.encode(np.zeros((1, 65, 1, 1)), 500)
    with pytest.raises(ValueError, match="no statistics 2"):
        transform.encode(LATENTS, 5000, number=2)
    with pytest.raises(ValueError, match="too fine"):
        transform.encode_at(LATENTS, 1e-3, number=1)
    for wrong in (np.nan, np.inf, 1e5):
        latents = LATENTS[:5].copy()
        latents[3, 2, 1, 0] = wrong
        with pytest.raises(ValueError, match="image 3"):
            transform.encode(latents, 5000)


def test_least_size_is_possible() -> None:
    assert len(transform.encode(LATENTS, 39)) <= 39
    assert transform.encode(np.zeros((0, *TAESD3)), 0) == b""
    assert transform.decode(b"", 0, TAESD3, "lat").shape == (0, *TAESD3)


# --------------------------------------------------------------------------------------------------------- decoding


def test_rows_decode_alone() -> None:
    whole = transform.decode(SECTION, 300, TAESD3, "lat")
    for first, rows in ((0, 0), (300, 0), (7, 1), (250, 10), (299, 1)):
        assert (
            transform.decode(SECTION, 300, TAESD3, "lat", first=first, rows=rows) == whole[first : first + rows]
        ).all()
    (length,) = struct.unpack_from("<I", SECTION, 3)
    damaged = SECTION[: 7 + length] + b"\0" * (len(SECTION) - 7 - length)  # the second block
    assert (transform.decode(damaged, 300, TAESD3, "lat", rows=256) == whole[:256]).all()
    with pytest.raises(SectionError, match=r"lat: .*block 0"):
        transform.decode(damaged, 300, TAESD3, "lat", first=256)
    with pytest.raises(ValueError, match="rows 299 to 300 of 300"):
        transform.decode(SECTION, 300, TAESD3, "lat", first=299, rows=2)
    with pytest.raises(ValueError, match="at most"):
        transform.decode(SECTION, 300, (16, 65, 1), "lat")


def own_section(**changes: bytes) -> bytes:
    fields = {"number": b"\0", "step": b"\2\x0d", "flag": b"\0", "octave": b"\xf9", "mean": b"\0\x33"}
    fields |= {"rest": bytes.fromhex("e8eafb00906e5ce398e10818bc8c")} | changes
    return b"".join(fields.values())


@pytest.mark.parametrize(
    ("data", "code", "detail"),
    [
        (b"\0\0", "E_SECTION_SIZE", "ends early"),
        (own_section(rest=b"\xe8\xea"), "E_SECTION_SIZE", "in its statistics"),
        (own_section(flag=b"\1", rest=b"\xe8\xea\xfb\0"), "E_SECTION_SIZE", "in its statistics"),
        (own_section(step=b"\0\x20"), "E_SECTION_VALUE", "impossible step"),
        (own_section(number=b"\1"), "E_SECTION_VALUE", "no statistics 1"),
        (own_section(number=b"\x09"), "E_SECTION_VALUE", "no statistics 9"),
        (own_section(flag=b"\2"), "E_SECTION_VALUE", "unknown statistics"),
        (own_section(mean=b"\0\x7c"), "E_SECTION_VALUE", "not finite"),
        (own_section(mean=b"\1\xfe"), "E_SECTION_VALUE", "not finite"),
        (own_section() + b"\0\0", "E_SECTION_VALUE", "left over"),
        (own_section()[:-2], "E_SECTION_VALUE", "ends too early"),
        (own_section()[:-1], "E_SECTION_VALUE", "odd length"),
    ],
)
# Shows D3M-174.
def test_refusals(data: bytes, code: str, detail: str) -> None:
    with pytest.raises(SectionError, match=detail) as caught:
        transform.decode(data, 2, (1, 2, 2), "lat")
    assert (caught.value.code, caught.value.field) == (code, "lat")


# Shows D3M-174.
def test_refusals_of_blocks() -> None:
    with pytest.raises(SectionError, match="longer than the section"):
        transform.decode(SECTION[:3] + b"\xff\xff\xff\x7f" + SECTION[7:], 300, TAESD3, "lat")
    with pytest.raises(SectionError, match="ends early"):
        transform.decode(SECTION[:5], 300, TAESD3, "lat")
    with pytest.raises(SectionError, match="lat"):
        transform.decode(b"\0", 0, TAESD3, "lat")


@settings(max_examples=40)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(GOLDEN))
    section, shape = bytearray.fromhex(case["section"]), tuple(case["shape"])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, len(section) - 1), st.integers(0, min(40, len(section) - 1))))
        section[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 9))
    if cut > 6:
        del section[data.draw(st.integers(0, len(section) - 1)) :]
    try:
        found = transform.decode(bytes(section), case["count"], shape, "lat")
    except SectionError as error:
        assert error.field == "lat"  # noqa: PT017
    else:
        assert found.shape == (case["count"], *shape)
        assert np.isfinite(found).all()


def test_time_follows_the_shape() -> None:
    """Random bytes of any step decode without a table or an array that the bytes ask for."""
    random = np.random.default_rng(3)
    for exponent in (0, 4000, 8191):
        streams = np.full(2000, 65536, "<u4").tobytes() + random.bytes(2000)
        data = struct.pack("<BH", 1, exponent) + streams
        with pytest.raises(SectionError):
            transform.decode(data, 3, TAESD3, "lat")


def test_estimates_of_sizes_are_close() -> None:
    (source,) = transform_encoder._sources(LATENTS, 1)
    for exponent in (5000, 5150, 5300):
        assert source.estimated(exponent) == pytest.approx(len(source.written(exponent)), rel=0.02)
