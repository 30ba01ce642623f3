"""Ranked-head streams: the text's own decoder, golden streams, round trips, parts, damage, other instruction sets.

Golden streams were written once and are decoded for ever; D3M_REGENERATE=1 writes them anew.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import spec_decoder
from labels.label_cases import digest, extreme_archive, random_archive, teacher_logits

from d3codec import labels
from d3codec.errors import SectionError
from d3codec.labels import ranked_head, statistics
from d3codec.labels.prediction import Parameters
from d3codec.labels.stream import IN_FILE, NONE, SHIPPED, Model, Symbols, zones

GOLDEN = Path(__file__).parents[1] / "golden" / "labels.json"
Archive = tuple[Model, Symbols, np.ndarray]


def golden_streams() -> dict[str, tuple[bytes, np.ndarray]]:
    """Stream and classes of each golden case."""
    z, classes = teacher_logits(150, 10, seed=1)
    cases = {"no statistics": (labels.encode_logits(z, classes=classes, bytes_per_label=3), classes)}
    model, symbols, classes = random_archive(np.random.default_rng(2), 1_100, 40, 2, IN_FILE, 9)
    cases["statistics in the file"] = ranked_head.write(model, symbols), classes
    z, classes = teacher_logits(12, 1000, seed=3)
    data = labels.encode_logits(z, classes=classes, bytes_per_label=30, statistics="shipped")
    cases["shipped statistics"] = data, classes
    return cases


def as_record(data: bytes, classes: np.ndarray) -> dict[str, object]:
    count, width, source = ranked_head.stated(data)
    logits = digest(labels.decode_logits(data, classes=classes))
    text = base64.b64encode(data).decode()
    return {
        "labels": count,
        "width": width,
        "source": source,
        "classes": classes.tolist(),
        "logits": logits,
        "data": text,
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, object]]:
    if os.environ.get("D3M_REGENERATE"):
        records = {name: as_record(*case) for name, case in golden_streams().items()}
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n")
    found: dict[str, dict[str, object]] = json.loads(GOLDEN.read_text())
    return found


def by_the_text(data: bytes, classes: np.ndarray, width: int, most: int = 1 << 20) -> np.ndarray:
    """Logits of the slow decoder, float32, of the first `most` labels."""
    decoded = spec_decoder.decode(data, classes.tolist(), width, statistics.shipped_bytes())
    rows = list(itertools.islice(decoded, most))
    return (np.array(rows, np.float64).reshape(len(rows), width) / 4096).astype(np.float32)


# ------------------------------------------------------------------------------------------------ same logits


@pytest.mark.parametrize("name", ["no statistics", "statistics in the file", "shipped statistics"])
# Shows D3M-095, D3M-154.
def test_golden_streams(golden: dict[str, dict[str, object]], name: str) -> None:
    record = golden[name]
    data, classes = base64.b64decode(str(record["data"])), np.array(record["classes"])
    count, width, source = ranked_head.stated(data)
    assert (count, width, source) == (record["labels"], record["width"], record["source"])
    found = labels.decode_logits(data, classes=classes)
    np.testing.assert_array_equal(found, by_the_text(data, classes, width))
    assert digest(found) == record["logits"]
    cost = labels.label_cost(data)
    assert cost["payload"] + cost["side"] == len(data)
    assert cost["shipped"] == (len(statistics.shipped_bytes()) if source == SHIPPED else 0)


def test_golden_streams_cover_the_text(golden: dict[str, dict[str, object]]) -> None:
    depths = {name: base64.b64decode(str(record["data"]))[1] for name, record in golden.items()}
    assert depths == {"no statistics": 1, "statistics in the file": 2, "shipped statistics": 2}
    assert golden["statistics in the file"]["labels"] == 1_100  # two blocks
    assert [golden[name]["source"] for name in depths] == [0, 1, 2]


@st.composite
def archives(draw: st.DrawFn, counts: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Model, Symbols, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    source = draw(st.sampled_from([NONE, IN_FILE]))
    return random_archive(
        rng,
        draw(st.sampled_from(counts)),
        draw(st.sampled_from(widths)),
        draw(st.integers(0, 3)),
        source,
        draw(st.sampled_from([0, 1, 8, 9])),
    )


WIDTHS = (1, 2, 3, 4, 5, 9, 16, 17, 33, 40, 129, 130)


@settings(max_examples=60)
@given(archives((0, 1, 5, 64, 129), WIDTHS))
# Shows D3M-159, D3M-160.
def test_symbols_and_logits_are_those_of_the_text(archive: Archive) -> None:
    model, symbols, classes = archive
    data, width = ranked_head.write(model, symbols), model.statistics.width
    assert ranked_head.stated(data) == (len(classes), width, model.source)
    slow = spec_decoder.Decoder(data, width, len(classes), b"")
    read = [label for block in range(len(slow.blocks)) for label in slow.labels(block)]
    assert [label.place for label in read] == symbols.places.tolist()
    assert [label.own for label in read] == symbols.own.tolist()
    for number, layer in enumerate(symbols.layers):
        found = [label.corrections[number] for label in read]
        assert [len(label) for label in found] == layer.counts.tolist()
        assert [rank for label in found for rank in label] == layer.ranks.tolist()
        assert [value for label in found for value in label.values()] == layer.values.tolist()
    found = ranked_head.decode(data, classes, width)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ranked_head.rebuild(model, symbols, classes, 0, len(classes)))
    np.testing.assert_array_equal(found[:3], by_the_text(data, classes, width, 3))


@settings(max_examples=40)
@given(archives((3, 1023, 1024, 1025, 3100), (2, 6, 20)), st.data())
def test_any_part_is_that_of_the_whole(archive: Archive, data: st.DataObject) -> None:
    model, symbols, classes = archive
    stream, width, count = ranked_head.write(model, symbols), model.statistics.width, len(classes)
    whole = ranked_head.decode(stream, classes, width)
    np.testing.assert_array_equal(whole, ranked_head.rebuild(model, symbols, classes, 0, count))
    places = st.integers(0, count) | st.sampled_from([min(count, place) for place in (0, 1023, 1024, 1025, 2048)])
    for _ in range(4):
        start, stop = data.draw(places), data.draw(places)
        part = ranked_head.decode(stream, classes, width, slice(start, stop))
        np.testing.assert_array_equal(part, whole[start:stop])
        assert part.shape[1] == width


def test_labels_at_the_limit_are_those_of_the_text() -> None:
    model, symbols, classes = extreme_archive()
    data = ranked_head.write(model, symbols)
    np.testing.assert_array_equal(ranked_head.decode(data, classes, 300)[:8], by_the_text(data, classes, 300, 8))


def test_a_part_needs_its_blocks_alone() -> None:
    model, symbols, classes = random_archive(np.random.default_rng(4), 2_500, 6, 1, NONE, 0)
    data = ranked_head.write(model, symbols)
    whole = ranked_head.decode(data, classes, 6)
    for rows in (slice(2400, 2401), slice(2048, None), slice(-1, None)):  # a short block has the lanes of the others
        np.testing.assert_array_equal(ranked_head.decode(data, classes, 6, rows), whole[rows])
    damaged = bytearray(data)
    damaged[-1] ^= 1  # the last block
    for rows in (slice(0, 2048), slice(1024, 1025)):
        np.testing.assert_array_equal(ranked_head.decode(bytes(damaged), classes, 6, rows), whole[rows])
    for hurt in (slice(2047, 2049), slice(2400, 2500), None):
        with pytest.raises(SectionError):
            ranked_head.decode(bytes(damaged), classes, 6, hurt)


@pytest.mark.parametrize("width", [4096, 8192, 8193, 12_288, 12_289, 20_000, 40_000])
def test_places_of_many_columns(width: int) -> None:
    """Zones of more than 4,096 places are coded in two steps."""
    places = np.unique([0, 1, 2, 4095, 4096, 8191, 8192, 12_287, 12_288, 16_383, 16_384, 20_480, width - 2, width - 1])
    places = places[places < width]
    classes = np.arange(len(places)) % 3
    uniform = np.zeros((1, zones(width)), np.uint8)
    model = Model(0, statistics.none(width), Parameters(0, 0, 0, 16, 1), uniform, np.zeros((1, 33), np.uint8), ())
    data = ranked_head.write(model, Symbols(places, np.zeros(len(places), np.int64), []))
    found = ranked_head.decode(data, classes, width)
    # all columns are alike: the class first, then the others in order
    expected = np.where(places > classes, places, np.where(places > 0, places - 1, classes))
    assert found.argmax(axis=1).tolist() == expected.tolist()
    slow = spec_decoder.Decoder(data, width, len(places), b"")
    assert [label.place for label in slow.labels(0)] == places.tolist()


# ------------------------------------------------------------------------------------------------ other machines

SCRIPT = """
import base64, json, sys
import numpy as np
from d3codec import labels
from d3codec.labels import ranked_head
from labels.label_cases import digest, extreme_archive
for record in json.load(open(sys.argv[1])).values():
    print(digest(labels.decode_logits(base64.b64decode(record["data"]), classes=np.array(record["classes"]))))
model, symbols, classes = extreme_archive()
print(digest(ranked_head.decode(ranked_head.write(model, symbols), classes, 300)))
"""


def simd_features() -> str:
    """What numpy can do without on this machine."""
    try:
        from numpy._core import _multiarray_umath as umath
    except ImportError:  # numpy 1
        from numpy.core import _multiarray_umath as umath
    return " ".join(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name))


VARIANTS = {
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "no dispatched instructions": {"NPY_DISABLE_CPU_FEATURES": simd_features()},
    "Sandy Bridge": {"OPENBLAS_CORETYPE": "Sandybridge", "MKL_ENABLE_INSTRUCTIONS": "AVX"},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "Skylake": {"OPENBLAS_CORETYPE": "SkylakeX", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "Nehalem without SIMD": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": simd_features()},
}


def test_any_instructions_and_threads_give_the_same_bits(golden: dict[str, dict[str, object]]) -> None:
    expected = [str(record["logits"]) for record in golden.values()]
    model, symbols, classes = extreme_archive()
    expected.append(digest(ranked_head.decode(ranked_head.write(model, symbols), classes, 300)))
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parents[2], Path(__file__).parents[1]))
    skylake = "avx512f" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else False
    for name, variant in VARIANTS.items():
        if name == "Skylake" and not skylake:
            continue  # its kernels would be illegal instructions
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(GOLDEN)],
            env={**os.environ, "PYTHONPATH": paths, **variant},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{name}: {run.stderr}"
        assert run.stdout.split() == expected, name
