"""Adaptive labels: the text's own decoder, golden streams, error bounds, sizes, parts, damaged and hostile bytes.

Golden streams were written once and are decoded for ever; D3M_REGENERATE=1 writes them anew.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import adaptive_from_spec
from labels.label_cases import digest, teacher_logits

from d3codec import labels
from d3codec.entropy_adaptive import Reader
from d3codec.errors import SectionError
from d3codec.labels import adaptive, adaptive_numbers

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

GOLDEN = Path(__file__).parents[1] / "golden" / "adaptive_labels.json"
Case = tuple[np.ndarray, np.ndarray]  # logits, classes


def by_the_text(data: bytes, classes: np.ndarray, width: int) -> np.ndarray:
    """Logits of the slow decoder, float32."""
    logits, _, symbols = adaptive_from_spec.decode(data, classes.tolist(), width)
    assert symbols <= 6 * len(classes) * width
    return (np.array(logits, np.float64).reshape(len(classes), width) / 256).astype(np.float32)


def stored(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """What steps are even in: logit of the class less each logit, those above 0 unbent, in 1/256 nat, float64."""
    values = np.asarray(logits, np.float64)
    found = (values[np.arange(len(values)), classes, None] - values) * 256
    bend = 3 / 2**14
    return np.where(found > 0, (np.sqrt(1 + 4 * bend * np.maximum(found, 0)) - 1) / (2 * bend), found)


def kl(logits: np.ndarray, decoded: np.ndarray, temperature: float) -> float:
    a, b = (np.asarray(z, np.float64) / temperature for z in (logits, decoded))
    a, b = (z - z.max(axis=1, keepdims=True) for z in (a, b))
    a, b = (z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in (a, b))
    return float((np.exp(a) * (a - b)).sum(axis=1).mean())


@st.composite
def cases(draw: st.DrawFn, most: int = 60) -> tuple[Case, int]:
    """Labels of all kinds, calm, wild and with outliers, and a step from much too fine to much too coarse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.sampled_from([1, 2, 3, 5, 10, 17]))
    count = draw(st.integers(1, most))
    scale = draw(st.sampled_from([1e-3, 1.0, 3.0, 30.0, 3000.0]))
    logits = rng.normal(size=(count, width)) * scale
    if draw(st.booleans()):
        logits[rng.integers(count), rng.integers(width)] += draw(st.sampled_from([100.0, -1000.0, 30_000.0]))
    classes = rng.integers(0, draw(st.integers(1, width)), count)
    step = draw(st.integers(1, adaptive.MAX_STEP) | st.sampled_from([1, 128, 256, 400, 600]))
    return (logits, classes), step


# ------------------------------------------------------------------------------------------------ same logits


def golden_cases() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """Stream, classes and width of each golden case."""
    found = {}
    for name, count, width, step in [
        ("ten columns", 150, 10, 300),
        ("two columns", 60, 2, 256),
        ("many columns", 20, 64, 256),
        ("two blocks", 4_200, 3, 500),
        ("fine", 30, 5, 4),
    ]:
        logits, classes = teacher_logits(count, width, seed=count)
        found[name] = adaptive.encode(logits, classes, step=step), classes, width
    logits, classes = teacher_logits(40, 4, seed=6)
    logits[5] *= 500
    found["far away"] = adaptive.encode(logits, classes, step=100), classes, 4
    return found


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, str | int]]:
    if os.environ.get("D3M_REGENERATE"):
        records = {}
        for name, (data, classes, width) in golden_cases().items():
            records[name] = {
                "width": width,
                "classes": base64.b64encode(classes.astype(np.uint8)).decode(),
                "logits": digest(adaptive.decode(data, classes, width)),
                "data": base64.b64encode(data).decode(),
            }
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n")
    found: dict[str, dict[str, str | int]] = json.loads(GOLDEN.read_text())
    return found


@pytest.mark.parametrize("name", ["ten columns", "two columns", "many columns", "two blocks", "fine", "far away"])
def test_golden_streams(golden: dict[str, dict[str, str | int]], name: str) -> None:
    record = golden[name]
    data, width = base64.b64decode(str(record["data"])), int(record["width"])
    classes = np.frombuffer(base64.b64decode(str(record["classes"])), np.uint8)
    found = adaptive.decode(data, classes, width)
    assert digest(found) == record["logits"]
    np.testing.assert_array_equal(found, by_the_text(data, classes, width))


# Shows D3M-163.
def test_the_example_of_the_text() -> None:
    data = bytes.fromhex("80 00 02 5c 5f 9e 88 83 1f fe 02 2d c9")
    classes = np.array([0, 1, 0, 2])
    logits, numbers, _ = adaptive_from_spec.decode(data, classes.tolist(), 3)
    assert numbers == [[0, 8, 12], [10, 0, 9], [0, 10, 1], [-86, -6, 0]]
    assert logits == [[0, -1216, -1968], [-1580, 0, -1395], [0, -1580, -131], [11008, 768, 0]]
    assert (adaptive.decode(data, classes, 3) * 256).tolist() == logits
    made_from = [[6, 1, -2], [0.5, 7, 1.25], [5, -1, 4.5], [40, 0, -3]]
    assert adaptive.encode(made_from, classes, step=128) == data


@settings(deadline=None, max_examples=80)
@given(cases())
# Shows D3M-162, D3M-164.
def test_labels_are_those_of_the_text_within_the_bound(case: tuple[Case, int]) -> None:
    (logits, classes), step = case
    width = logits.shape[1]
    data = adaptive.encode(logits, classes, step=step)
    found = adaptive.decode(data, classes, width)
    assert found.dtype == np.float32
    assert (found[np.arange(len(found)), classes] == 0).all()
    np.testing.assert_array_equal(found, by_the_text(data, classes, width))
    error = np.abs(stored(found, classes) - stored(logits, classes))
    assert error.max() <= 1.5 * step + 1


@settings(deadline=None, max_examples=40)
@given(cases(), st.randoms(use_true_random=False))
def test_classes_may_come_in_any_order(case: tuple[Case, int], random: object) -> None:
    """Only the order of the labels of one class counts."""
    (logits, classes), step = case
    keys = np.random.default_rng(random.randrange(2**32)).random(len(classes))  # type: ignore[attr-defined]
    for class_ in np.unique(classes):
        keys[classes == class_] = np.sort(keys[classes == class_])
    order = np.argsort(keys)
    data = adaptive.encode(logits, classes, step=step)
    assert adaptive.encode(logits[order], classes[order], step=step) == data
    width = logits.shape[1]
    moved = adaptive.decode(data, classes[order], width)
    np.testing.assert_array_equal(moved, adaptive.decode(data, classes, width)[order])


@pytest.mark.parametrize(("count", "width"), [(0, 10), (0, 1), (1, 1), (1, 2), (1, 64), (300, 1), (50, 2), (70, 64)])
@pytest.mark.parametrize("one_class", [False, True])
def test_few_and_many(count: int, width: int, one_class: bool) -> None:
    logits, classes = teacher_logits(count, width, seed=3)
    if one_class:
        classes[:] = width - 1
    data = adaptive.encode(logits, classes, step=256)
    found = adaptive.decode(data, classes, width)
    assert found.shape == (count, width)
    np.testing.assert_array_equal(found, by_the_text(data, classes, width))
    if count:
        assert np.abs(stored(found, classes) - stored(logits, classes)).max() <= 1.5 * 256 + 1
        assert len(data) <= 5 + count * (width - 1) * 0.9
    else:
        assert data == b""


def test_parts_are_those_of_the_whole() -> None:
    count = 2 * adaptive.BLOCK + 10
    logits, classes = teacher_logits(count, 2, seed=4)
    data = adaptive.encode(logits, classes, step=700)
    whole = adaptive.decode(data, classes, 2)
    np.testing.assert_array_equal(whole, by_the_text(data, classes, 2))
    for part in (slice(0, 3), slice(4095, 4097), slice(4096, 4200), slice(8190, count), slice(7, 7), slice(9000, None)):
        np.testing.assert_array_equal(adaptive.decode(data, classes, 2, part), whole[part])
    damaged = bytearray(data)
    damaged[-3] ^= 1
    np.testing.assert_array_equal(adaptive.decode(bytes(damaged), classes, 2, slice(0, 8192)), whole[:8192])


# ------------------------------------------------------------------------------------------------ size and quality


def test_a_budget_is_used_and_kept() -> None:
    logits, classes = teacher_logits(80, 10, seed=5)
    sizes, steps = [], []
    for budget in (0.6, 1.5, 2.5, 4.0):
        data = adaptive.encode_bytes(logits, classes, budget)
        step = int.from_bytes(data[:2], "little")
        assert data == adaptive.encode(logits, classes, step=step)
        assert 0.97 * budget * 80 - 2 < len(data) <= budget * 80
        assert len(adaptive.encode(logits, classes, step=step - 1)) > budget * 80
        sizes.append(len(data))
        steps.append(step)
    assert sizes == sorted(sizes)
    assert steps == sorted(steps, reverse=True)
    assert adaptive.encode_bytes(logits[:0], classes[:0], 1.0) == b""
    assert int.from_bytes(adaptive.encode_bytes(logits, classes, 1000.0)[:2], "little") == 1
    with pytest.raises(ValueError, match=r"80 labels of 10 columns do not fit 0.05 bytes a label, 0.\d\d is the least"):
        adaptive.encode_bytes(logits, classes, 0.05)
    with pytest.raises(ValueError, match="is the least"):
        adaptive.encode_bytes(logits, classes, float("nan"))


@pytest.mark.parametrize(("count", "most"), [(50, 0.4), (100, 0.6), (400, 1.0)])
def test_few_labels_are_better_than_ranked_ones_at_equal_bytes(count: int, most: float) -> None:
    logits, classes = teacher_logits(count, 10, seed=7)
    ranked = labels.encode_logits(logits, classes=classes, bytes_per_label=2.6)
    data = adaptive.encode_bytes(logits, classes, len(ranked) / count)
    found, other = adaptive.decode(data, classes, 10), labels.decode_logits(ranked, classes=classes)
    for temperature in (2, 4):
        assert kl(logits, found, temperature) < most * kl(logits, other, temperature)


def test_the_model_learns() -> None:
    """Structure that comes again costs less: the labels of one class, columns that go together."""
    rng = np.random.default_rng(8)
    axis, classes = rng.normal(size=10), np.arange(600) % 10
    noise, means = rng.normal(size=(600, 10)), 3 * rng.normal(size=(10, 10))
    together = 3 * rng.normal(size=(600, 1)) * axis + 0.5 * noise
    apart = np.sqrt(9 * (axis**2).mean() + 0.25) * noise
    sizes = [len(adaptive.encode(means[classes] + z, classes, step=256)) for z in (together, apart)]
    assert sizes[0] < 0.8 * sizes[1]
    mixed = len(adaptive.encode(means[rng.integers(0, 10, 600)] + together, classes, step=256))
    assert sizes[0] < 0.9 * mixed
    first = len(adaptive.encode(means[classes[:50]] + together[:50], classes[:50], step=256)) / 50
    assert sizes[0] / 600 < 0.8 * first


@pytest.mark.parametrize("spread", [1, 3, 8, 14, 20, 24, 25, 31, 57])
def test_costs_are_those_of_the_stream(spread: int) -> None:
    rng = np.random.default_rng(spread)
    writer, bits, written = adaptive.Writer(), 0.0, []
    for _ in range(1_500):
        centre = int(rng.integers(-(2**20), 2**20))
        number = round(centre / 16 + rng.standard_cauchy() * 2 ** (spread / 4 - 4))  # some far beyond all cells
        adaptive_numbers.write(writer, number, centre, spread)
        bits += adaptive_numbers.cost(number, centre, spread)
        written.append((number, centre))
    data = writer.finish()
    assert len(data) == pytest.approx(bits / 8, rel=0.01)
    reader = Reader(data)
    for number, centre in written:
        assert adaptive_numbers.read(reader, centre, spread) == number
    reader.finish()


@pytest.mark.parametrize("spread", range(1, 25))
# Shows D3M-165.
def test_cells_are_a_distribution_around_the_centre(spread: int) -> None:
    deviation = 0.9 * 2 ** ((spread - 0.5) / 4)  # in sixteenths
    for part in range(16):
        slots = adaptive_numbers.cells(spread, part)
        assert (slots[0], slots[-1], len(slots)) == (0, 4096, adaptive_numbers.SYMBOLS + 1)
        assert (np.diff(slots) > 0).all()
        edges = 16 * (np.arange(1, 33) - 16) - part
        below = 1 / (1 + np.exp(-np.clip(edges * np.pi / (np.sqrt(3) * deviation), -300, 300)))
        assert np.abs(np.array(slots[1:-1]) - np.arange(1, 33) - 4063 * below).max() < 0.02 * 4063


# ------------------------------------------------------------------------------------------------ damage, refusals


def refused(data: bytes, classes: np.ndarray, width: int) -> bool:
    """Whether damaged bytes are refused; if not, they decode to finite logits in the limits, those of the text."""
    try:
        found = adaptive.decode(data, classes, width)
    except SectionError as error:
        failure = error
    else:
        assert np.isfinite(found).all()
        assert np.abs(found).max(initial=0) < 65_536
        np.testing.assert_array_equal(found, by_the_text(data, classes, width))
        return False
    assert (failure.code, failure.field) == ("E_SECTION_VALUE", "lab")
    with pytest.raises(adaptive_from_spec.Refused):
        adaptive_from_spec.decode(data, classes.tolist(), width)
    return True


def test_every_flip_and_every_truncation_is_refused_or_decodes() -> None:
    logits, classes = teacher_logits(25, 6, seed=9)
    data = adaptive.encode(logits, classes, step=400)
    assert not refused(data, classes, 6)
    flips = found = 0
    for place in range(len(data)):
        for mask in (1 << place % 8, 0xFF):
            damaged = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            flips += 1
            found += refused(damaged, classes, 6)
        assert refused(data[:place], classes, 6)
    assert found > 0.85 * flips  # the container has digests
    for longer in (data + b"\0", data + b"\1\0", data + data):
        assert refused(longer, classes, 6)


@settings(deadline=None, max_examples=120)
@given(st.binary(max_size=200), st.integers(0, 30), st.integers(1, 12), st.integers(0, 2**32))
def test_any_bytes(data: bytes, count: int, width: int, seed: int) -> None:
    refused(data, np.random.default_rng(seed).integers(0, width, count), width)


@pytest.mark.parametrize("seed", range(4))
def test_wild_numbers_stay_within_64_bits(seed: int) -> None:
    """Labels as an enemy would write them: numbers from end to end of the range, for a whole block. The text's
    decoder checks every number that it computes."""
    rng = np.random.default_rng(seed)
    count, width = (adaptive.BLOCK, 2) if seed % 2 else (300, 12)
    logits = rng.choice([-32_000.0, 32_000.0, 0.0, 40.0], (count, width)) + rng.normal(size=(count, width))
    classes = rng.integers(0, width, count)
    data = adaptive.encode(logits, classes, step=1 if seed < 2 else 9_000)
    assert not refused(data, classes, width)


def test_lies_about_the_number_of_labels() -> None:
    logits, classes = teacher_logits(30, 5, seed=10)
    data = adaptive.encode(logits, classes, step=300)
    for count in (1, 29, 31, 60, 5_000):
        with pytest.raises(SectionError):
            adaptive.decode(data, np.resize(classes, count), 5)
    with pytest.raises(SectionError, match="has bytes but no labels"):
        adaptive.decode(data, classes[:0], 5)
    for width in (6, 10):
        with pytest.raises(SectionError):
            adaptive.decode(data, classes, width)


# Shows D3M-166.
def test_heads_that_cannot_be() -> None:
    logits, classes = teacher_logits(5_000, 2, seed=11)
    data = adaptive.encode(logits, classes, step=900)
    with pytest.raises(SectionError, match="has a step of 0"):
        adaptive.decode(bytes(2) + data[2:], classes, 2)
    for short in (b"", b"\1", data[:4]):
        with pytest.raises(SectionError, match="ends inside its head"):
            adaptive.decode(short, classes, 2)
    with pytest.raises(SectionError, match="blocks of another length"):
        adaptive.decode(data[:2] + b"\xff\xff\xff" + data[5:], classes, 2)
    assert refused(data[:2] + bytes(3) + data[5:], classes, 2)


@pytest.mark.parametrize(
    ("logits", "classes", "message"),
    [
        (np.eye(3), [0, 1, 3], "row 2: class 3 of labels of 3 columns"),
        (np.eye(3), [0, -1, 2], "row 1: class -1"),
        (np.eye(3), [0, 1], "3 labels have 2 classes"),
        (np.eye(3), [[0, 1, 2]], "classes are integers"),
        (np.eye(3), [0.0, 1.0, 2.0], "classes are integers"),
        (np.eye(65), range(65), "1 to 64 columns, not 65"),
        (np.ones(3), [0, 0, 0], "N, width"),
        ([[1, np.nan]], [0], "row 0: logits that are not finite"),
        ([[1, 2], [3, 3]], [0, 0], "row 1: one logit for all classes"),
        ([[1, 2], [0, 65_536]], [0, 0], "row 1: logits 65,536 nat apart"),
        ([[1, 2], [-1e308, 1e308]], [0, 0], "row 1: logits 65,536 nat apart"),
    ],
)
def test_what_cannot_be_encoded(logits: object, classes: object, message: str) -> None:
    for encode in (
        lambda: adaptive.encode(logits, classes, step=256),  # type: ignore[arg-type]
        lambda: adaptive.encode_bytes(logits, classes, 9.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=message):
            encode()


def test_steps_and_classes_that_cannot_be() -> None:
    for step in (0, -1, 65_536):
        with pytest.raises(ValueError, match="is outside 1 to 65535"):
            adaptive.encode(np.eye(2), [0, 1], step=step)
    data = adaptive.encode(np.eye(2), [0, 1], step=9)
    with pytest.raises(ValueError, match="row 1: class 2"):
        adaptive.decode(data, np.array([0, 2]), 2)
    for width in (0, 65):
        with pytest.raises(ValueError, match="1 to 64 columns"):
            adaptive.decode(data, np.array([0, 1]), width)
