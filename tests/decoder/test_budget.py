"""How much a decode is: counted, timed on a probe, and refused above a budget."""

from __future__ import annotations

import pytest
import torch
from pictures import make_pictures
from tiny_pipeline import make_file, make_pipeline

from d3codec.decoder.budget import Budget, Work, image_evaluations
from d3codec.decoder.decode import decode
from d3codec.decoder.estimate import estimate
from d3codec.decoder.plan import Plan
from d3codec.decoder.shard import Shard
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import GddAugmentation, Images, Window

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(file of three classes of twenty images of 8 x 8, pipeline)."""
    folder = tmp_path_factory.mktemp("budget")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        pipeline = make_pipeline(folder / "pipeline")
        return make_file(folder / "set.d3m", pipeline, ipc=20, pixels=False), pipeline


# ------------------------------------------------------------------------------------------------------ counted


def test_work_is_counted(tmp_path):
    content = make_pictures(tmp_path / "set.d3m")[0].file.content  # 3 steps with guidance
    work = Work.of(content, Plan.of(content))
    assert work == Work(60, 60 * 192, 60 * 64 * 7, 8 * 64 * 7)
    assert Work.of(content, Plan.of(content, [0], 3)) == Work(3, 3 * 192, 8 * 64 * 7, 8 * 64 * 7)
    assert Work.of(content, Shard(7, 9).of(Plan.of(content, [0], 3))).images == 0


def test_what_is_generated_counts_and_not_what_is_left_of_it(tmp_path):
    (group,) = make_pictures(tmp_path / "set.d3m")[0].file.content.groups
    window = Window(generated=(64, 32), block=(0, 0, 32, 32))
    larger = group.model_copy(update={"images": Images(grid=(2, 2), count=4, size=(8, 8), window=window)})
    assert image_evaluations(larger) == 64 * 32 * 7
    copied = Images(grid=(2, 2), count=20, size=(8, 8), augmentation=GddAugmentation(copies=4))
    content = make_pictures(tmp_path / "set.d3m")[0].file.content
    content = content.model_copy(update={"groups": (group.model_copy(update={"images": copied}),)})
    assert Work.of(content, Plan.of(content)).evaluations == 3 * 4 * 64 * 7, "copies cost no evaluation"


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        (Budget(images=59), "images"),
        (Budget(pixel_bytes=60 * 192 - 1), "pixel bytes"),
        (Budget(evaluations=60 * 64 * 7 - 1), "evaluations"),
        (Budget(unit_evaluations=8 * 64 * 7 - 1), "unit evaluations"),
    ],
)
def test_too_much_is_refused_before_anything_is_done(made, tmp_path, monkeypatch, budget, field):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match=field) as caught:
        decode(path, tmp_path / "out", generator=pipeline, budget=budget)
    assert (caught.value.field, caught.value.exit_code) == ("budget", 2)
    assert "--yes" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_the_limits_themselves_are_allowed(made, tmp_path):
    path, _ = made
    content = D3MFile.open(path).content
    work = Work.of(content, Plan.of(content))
    Budget(60, 60 * 192, 24.0, 60 * 64 * 7, 8 * 64 * 7).check(work, "file")


def test_what_takes_too_long_is_refused_after_the_first_unit(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match="hours"):
        decode(path, tmp_path / "out", generator=pipeline, budget=Budget(hours=1e-9))
    assert len(list(tmp_path.glob("home/decoded/*/*/*.unit"))) == 1
    decode(path, tmp_path / "out", generator=pipeline, budget=None)
    assert len(list(tmp_path.glob("out/*/*.png"))) == 60


# -------------------------------------------------------------------------------------------------------- timed


@pytest.mark.parametrize("format", ["imagefolder", "npz", "webdataset", "parquet"])
def test_an_estimate_is_near_what_comes(made, tmp_path, monkeypatch, format):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    found = estimate(path, format=format, generator=pipeline, device="cpu")
    assert (found.images, found.units, found.units_cached, found.pixel_bytes) == (60, 8, 0, 60 * 192)
    assert (found.probe_images, found.processes, found.refused, found.device) == (8, 1, None, "cpu")
    assert len(list(tmp_path.glob("home/decoded/*/*/*.unit"))) == 1, "the probe stays in the cache"
    assert 0 < found.seconds_per_image < 5
    assert found.hours == found.device_hours == pytest.approx(found.seconds_per_image * 64 / 3600)
    decode(path, tmp_path / "out", format=format, generator=pipeline)
    files = [tmp_path / "out"] if format == "npz" else list((tmp_path / "out").rglob("*.*"))
    written = sum(item.stat().st_size for item in files if item.name not in ("decode.json", "classes.json"))
    assert 0.6 * written <= found.output_bytes <= 1.4 * written


def test_what_is_cached_takes_no_time(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    decode(path, generator=pipeline)
    found = estimate(path)  # whose generator is nowhere
    assert (found.units_cached, found.probe_images, found.hours) == (8, 0, 0.0)


def test_an_estimate_says_what_would_be_refused(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    unseen = estimate(path, budget=Budget(images=59))
    assert "images" in unseen.refused
    assert (unseen.hours, unseen.probe_images) == (None, 0)
    assert not list(tmp_path.iterdir()), "what is refused unseen is not probed"
    timed = estimate(path, generator=pipeline, budget=Budget(hours=1e-9))
    assert "hours" in timed.refused
    assert timed.hours > 0
    assert estimate(path, generator=pipeline, budget=None).refused is None


def test_an_estimate_of_a_part(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    found = estimate(path, generator=pipeline, shard="1/4", processes=2)
    assert (found.images, found.units, found.processes) == (16, 2, 2)
    assert found.hours == found.device_hours / 2
    assert estimate(path, generator=pipeline, shard="8/9").images == 4  # of the last unit
    empty = estimate(path, generator=pipeline, shard="0/9")
    assert (empty.images, empty.units, empty.probe_images) == (0, 0, 0)
