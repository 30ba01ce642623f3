"""Parts of the benchmark of photographs: sizes that are kept, fills, the transform coder, rows after a kill."""

from __future__ import annotations

import importlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from d3codec.errors import D3MError, MissingFileError, UsageError  # noqa: E402
from d3codec.sources import LabelledImages  # noqa: E402
from d3codec.training.ensemble import train_ensemble  # noqa: E402
from d3codec.training.photo_students import PhotoGroup  # noqa: E402

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    figure, material, opponents, rows, sheets, spectrum, transform_coder = (
        importlib.import_module(f"photographs_parts.{name}")
        for name in ("figure", "material", "opponents", "rows", "sheets", "spectrum", "transform_coder")
    )
    selection = importlib.import_module("photographs_parts.selection")
    script = importlib.import_module("photographs")
finally:
    sys.path.remove(str(BENCHMARKS))

NAMES = ("red", "green", "blue")


def photographs(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures with the spectrum of photographs, uint8 [count, side, side, 3]."""
    natural = spectrum.tables()[f"rings-{side}"][:, spectrum.rings(side)]
    noise = np.random.default_rng(seed).standard_normal((count, 3, side, side))
    return spectrum.pixels(noise * np.sqrt(natural))


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    import pyarrow
    import pyarrow.parquet

    files = []
    for image in images:
        Image.fromarray(image).save(file := io.BytesIO(), "PNG", compress_level=0)
        files.append({"bytes": file.getvalue(), "path": None})
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(files, kind), "label": pyarrow.array(labels)})
    pyarrow.parquet.write_table(table, path)


def small_material(count: int = 10) -> object:
    """Three classes that differ by their colour; `count` images each in the pool."""

    def part(seed: int, number: int) -> object:
        labels = np.repeat(np.arange(3), number)
        images = photographs(3 * number, 32, seed).astype(np.int64)
        images[np.arange(3 * number), :, :, labels] += 60
        return material.Part(images.clip(0, 255).astype(np.uint8), labels)

    pool = part(1, count)
    return material.Material("small", "Small", 32, NAMES, pool.images, pool, part(2, 5), part(3, 8))


# ------------------------------------------------------------------------------------------------ spectrum and fill


def test_spectra_and_back():
    images = photographs(5, 32)
    assert (spectrum.pixels(spectrum.spectra(images)) == images).all()


def test_fill_keeps_the_images_and_brings_up_their_spectrum():
    images = photographs(60, 32)
    blurred = sheets.resized(sheets.resized(images, 8), 32)
    copies = sheets.spectral_fill(blurred, 4)
    assert copies.shape == (4, *images.shape)
    assert copies.dtype == np.uint8
    moved = (copies.astype(np.float64).mean(0) - blurred).mean((1, 2))  # mean colour of each image
    assert np.abs(moved).mean() < 3
    power = {
        name: spectrum.ring_means(spectrum.spectra(each).var(0))
        for name, each in (("natural", images), ("blurred", blurred), ("filled", copies[0]))
    }
    high = slice(8, 28)
    assert power["blurred"][0, high].mean() < 0.2 * power["natural"][0, high].mean()
    ratio = power["filled"][:, high].sum(1) / power["natural"][:, high].sum(1)
    assert ((ratio > 0.7) & (ratio < 1.3)).all(), ratio


def test_fill_leaves_alone_what_is_not_blurred():
    images = photographs(200, 32)
    blurred = sheets.resized(sheets.resized(images, 8), 32)
    added = []
    for each in (images, blurred):
        change = sheets.spectral_fill(each, 1)[0].astype(np.float64) - each
        added.append(spectrum.ring_means(spectrum.spectra(change + 127.5).var(0))[:, 8:].sum())
    assert added[0] < 0.1 * added[1]


def test_fill_is_the_same_every_time():
    images = photographs(4, 32)
    assert (sheets.spectral_fill(images, 2) == sheets.spectral_fill(images, 2)).all()


# --------------------------------------------------------------------------------------------------- contact sheets


@pytest.mark.parametrize("codec", ["avif", "webp", "jpeg"])
@pytest.mark.parametrize(("count", "budget"), [(7, 900)])
def test_a_sheet_never_exceeds_its_bytes(codec, count, budget):
    if not features.check("jpg" if codec == "jpeg" else codec):
        pytest.skip(f"this Pillow has no {codec}")
    originals = photographs(count, 64)
    small = sheets.resized(originals, 32)
    sheet = sheets.best_sheet(originals, small, codec, budget)
    assert sheet is not None
    assert len(sheet.data) + sheets.SIDE_INFORMATION == sheet.size <= budget
    assert sheet.tiles.shape == small.shape
    again = sheets.resized(sheets.cut(sheet.data, count, sheet.side), 32)
    assert (again == sheet.tiles).all()


def test_no_sheet_in_too_few_bytes():
    originals = photographs(20, 64)
    assert sheets.best_sheet(originals, sheets.resized(originals, 32), "webp", 60) is None


@given(count=st.integers(1, 30), side=st.sampled_from([8, 12, 16]))
@settings(max_examples=15)
def test_tiles_come_back_in_their_order(count, side):
    tiles = np.repeat(np.arange(count, dtype=np.uint8) * 8, side * side * 3).reshape(count, side, side, 3)
    found = sheets.cut(sheets.pack(tiles, "webp", 95), count, side)
    assert np.abs(found.mean((1, 2, 3)) - np.arange(count) * 8).max() < 4


def test_sides_to_try_grow_with_the_bytes():
    for side in (32, 64):
        tried = [sheets.plausible_sides(size, side) for size in (5, 20, 40, 100, 300)]
        assert all(2 <= len(each) <= 3 and max(each) <= side for each in tried)
        assert [max(each) for each in tried] == sorted(max(each) for each in tried)
    assert sheets.plausible_sides(10_000, 64)[-1] == 64


# -------------------------------------------------------------------------------------------------- transform coder


@given(seed=st.integers(0, 1000), count=st.integers(1, 6), exponent=st.integers(300, 1000))
@settings(max_examples=6)
def test_the_transform_coder_decodes_what_it_coded(seed, count, exponent):
    known = transform_coder.statistics(32)
    images = photographs(count, 32, seed)
    values = transform_coder.coefficients(known, images)
    step = 2.0 ** (exponent / transform_coder.STEPS_AN_OCTAVE)
    _, levels, _ = transform_coder.quantized(known, np.abs(values) / step, step)
    decoded = transform_coder.decode(known, transform_coder.encode(known, images, exponent))
    kept = decoded.values != 0
    assert (kept == (levels > 0)).all()
    assert (np.sign(decoded.values)[kept] == np.sign(values)[kept]).all()
    assert np.abs(np.abs(decoded.values) / step - levels)[kept].max() <= 0.51


def test_levels_beyond_the_tables_come_back():
    known = transform_coder.statistics(32)
    images = np.where(np.random.default_rng(0).random((3, 32, 32, 3)) < 0.5, 0, 255).astype(np.uint8)
    exponent = 2 * transform_coder.STEPS_AN_OCTAVE
    decoded = transform_coder.decode(known, transform_coder.encode(known, images, exponent))
    error = transform_coder.filled(known, decoded, 0)[0].astype(np.float64) - images
    assert np.sqrt((error**2).mean()) < 3


def test_fewer_bytes_show_less_and_none_exceed_the_budget():
    known = transform_coder.statistics(32)
    images = photographs(4, 32)
    errors = []
    for budget in (150, 600):
        data = transform_coder.within(known, images, budget)
        assert 0.95 * budget < len(data) <= budget
        shown = transform_coder.filled(known, transform_coder.decode(known, data), 0)[0]
        errors.append(((shown.astype(np.float64) - images) ** 2).mean())
    assert errors == sorted(errors, reverse=True)
    assert transform_coder.within(known, images, transform_coder.HEAD.size + 3) is None


def test_filled_images_of_the_transform_coder_have_the_power_of_photographs():
    known = transform_coder.statistics(32)
    images = photographs(40, 32)
    decoded = transform_coder.decode(known, transform_coder.encode(known, images, 800))
    power = [
        spectrum.ring_means(spectrum.spectra(each).var(0))[0, 8:28].sum()
        for each in (images, transform_coder.filled(known, decoded, 0)[0], transform_coder.filled(known, decoded, 1)[0])
    ]
    assert power[1] < 0.5 * power[0]
    assert 0.7 < power[2] / power[0] < 1.5


def test_other_sides_have_statistics_of_their_own():
    known = transform_coder.statistics(64)
    images = photographs(4, 64)
    data = transform_coder.encode(known, images, 700)
    assert transform_coder.filled(known, transform_coder.decode(known, data), 2).shape == (2, *images.shape)


def test_the_tables_are_small():
    assert spectrum.TABLES.stat().st_size < 60_000


# ---------------------------------------------------------------------------------------------------------- rows


@pytest.fixture(scope="module")
def chosen_from(tmp_path_factory):
    known = small_material()
    pool = LabelledImages(known.pool.images, known.pool.labels, NAMES, "small")
    folder = tmp_path_factory.mktemp("teacher")
    return selection.Selection(known, train_ensemble(pool, folder, side=32, members=1, steps=4))


class Counted:
    """Stores the first images of the pool and counts how often; raises where it is told to, as if killed."""

    def __init__(self, chosen_from, killed_at: int | None = None) -> None:
        self.pool, self.calls, self.killed_at = chosen_from.material.pool, [], killed_at

    def __call__(self, asked, draw):
        if len(self.calls) == self.killed_at:
            raise KeyboardInterrupt
        self.calls.append((asked["images"], draw))
        if asked["images"] > len(self.pool):
            return None
        at = np.random.default_rng(draw).permutation(len(self.pool))[: asked["images"]]
        group = PhotoGroup(self.pool.images[at], self.pool.labels[at])
        return rows.Stored((group,), 10 * asked["images"], {"note": draw}, (self.pool.images[at],))


def plan(store, **more):
    tries = tuple({"images": count} for count in (6, 12, 1000))
    return rows.Plan("first ones", "opponent", 500, tries, store, **more)


KEYS = {"dataset", "side", "budget", "bytes", "name", "role", "labels", "protocol"} | {
    "accuracy_percent",
    "spread",
    "runs",
}


def test_a_row_is_chosen_on_validation_and_goes_on_after_a_kill(chosen_from, tmp_path):
    bench = rows.Bench(chosen_from, tmp_path / "whole", seeds=3, steps=3)
    whole = bench.row(plan(store := Counted(chosen_from), drawn=True))
    assert set(whole) >= KEYS
    assert whole["bytes"] == 10 * whole["images"] <= whole["budget"]
    assert whole["runs"] == len(whole["per_run"]) == 3
    validated = [each.get("validation_percent", -1) for each in whole["tries"]]
    assert whole["settings"] == whole["tries"][int(np.argmax(validated))]["settings"]
    assert whole["tries"][2]["refused"]
    assert store.calls == [(6, 0), (12, 0), (1000, 0), (whole["images"], 1), (whole["images"], 2)]
    assert bench.row(plan(again := Counted(chosen_from), drawn=True)) == whole
    assert again.calls == []

    parts = rows.Bench(chosen_from, tmp_path / "parts", seeds=3, steps=3)
    for killed_at in (1, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            parts.row(plan(Counted(chosen_from, killed_at), drawn=True))
    last = parts.row(plan(rest := Counted(chosen_from), drawn=True))
    assert rest.calls == [(whole["images"], 2)]  # all else was finished before
    assert {key: value for key, value in last.items() if key != "cpu_seconds"} == {
        key: value for key, value in whole.items() if key != "cpu_seconds"
    }


def test_a_row_of_another_plan_is_measured_again(chosen_from, tmp_path):
    bench = rows.Bench(chosen_from, tmp_path, seeds=1, steps=2)
    bench.row(plan(Counted(chosen_from)))
    bench.row(replace(plan(store := Counted(chosen_from)), tries=({"images": 9},)))
    assert store.calls == [(9, 0)]


def test_a_row_over_its_budget_is_refused(chosen_from, tmp_path):
    bench = rows.Bench(chosen_from, tmp_path, seeds=1, steps=2)
    with pytest.raises(UsageError, match="over the budget"):
        bench.row(replace(plan(Counted(chosen_from)), budget=100))
    with pytest.raises(UsageError, match="no try fits"):
        bench.row(replace(plan(Counted(chosen_from)), tries=({"images": 1000},)))
    with pytest.raises(UsageError, match="too many choices"):
        bench.row(replace(plan(Counted(chosen_from)), tries=({"images": 6},) * 5))


def test_every_opponent_keeps_its_budget(chosen_from):
    """The plans of all rows with few images: what is counted is the class list, the labels and real files."""
    if not features.check("avif"):
        pytest.skip("this Pillow has no avif")
    listed = chosen_from.material.class_bytes
    assert listed == len("\tred\n\tgreen\n\tblue\n")
    for made in opponents.plans(chosen_from, Path(), (2000,)):
        if made.role in ("control", "reference"):
            continue
        stored = made.store({"images": 6, "fill": True}, 0)
        assert listed < stored.size <= 2000
        assert stored.images == 6
        assert len(stored.groups[0].copies) == 8
        assert (stored.groups[0].logits is not None) == (made.labels == "soft")
        if made.labels == "soft":
            assert stored.found["label_bytes"] > 0
    names = [(made.name, made.budget) for made in opponents.plans(chosen_from, Path(), opponents.EVERY_BUDGET)]
    assert len(set(names)) == len(names)


def test_the_result_keeps_rows_of_this_teacher_in_the_order_of_the_table(chosen_from, tmp_path):
    bench = rows.Bench(chosen_from, tmp_path / "rows", seeds=1, steps=2)
    row = bench.row(plan(Counted(chosen_from)))
    start = json.loads(json.dumps(script.about(chosen_from, 1)))
    path, order = tmp_path / "result.json", [("first ones", 500), ("chance", None)]
    script.add_rows(path, start, [opponents.chance(chosen_from)], order)
    script.add_rows(path, start, [row], order)
    result = json.loads(path.read_text())
    assert [each["name"] for each in result["rows"]] == ["first ones", "chance"]
    assert all(set(each) >= KEYS for each in result["rows"])
    figure.draw(result, tmp_path / "figure.png")
    assert 5_000 < (tmp_path / "figure.png").stat().st_size < 300_000
    inherited = script.inherited([plan(None)], path)
    assert inherited[0].tries == (row["settings"],)
    other = start | {"teacher": {"digest": "another"}}
    script.add_rows(path, other, [], order)
    assert json.loads(path.read_text())["rows"] == []


def test_a_contact_sheet_shows_both(chosen_from, tmp_path):
    stored = Counted(chosen_from)({"images": 12}, 0)
    figure.contact_sheet(stored, 3, 32, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (2 * 2 * 6 * 32 + figure.GAP, 2 * 3 * 32)


# -------------------------------------------------------------------------------------------------------- material


def test_missing_data_is_named(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        material.material("imagenette", 32, tmp_path)
    assert isinstance(caught.value, D3MError)
    assert "imagenette_64" in str(caught.value)
    assert "--data" in str(caught.value)


def test_parts_do_not_overlap(tmp_path):
    pytest.importorskip("pyarrow")
    labels = np.arange(55 * 2) % 2
    write_parquet(tmp_path / "cifar10_32_train.parquet", photographs(len(labels), 32, 1), labels)
    write_parquet(tmp_path / "cifar10_32_test.parquet", photographs(4, 32, 2), labels[:4])
    known = material.material("cifar10", 32, tmp_path)
    assert (len(known.pool), len(known.validation), len(known.test)) == (10, 100, 4)
    assert (np.bincount(known.validation.labels) == 50).all()
    held = {image.tobytes() for image in known.validation.images}
    assert not held & {image.tobytes() for image in known.pool.images}
    with pytest.raises(UsageError):
        material.material("cifar10", 64, tmp_path)
