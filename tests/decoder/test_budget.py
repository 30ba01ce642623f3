"""How much a decode is: counted, timed on a probe, and refused above a budget."""

from __future__ import annotations

import time

import pytest
import torch
from cli.commands import bare_file
from pictures import make_pictures
from tiny_pipeline import make_file, make_pipeline

from d3codec.dataset import load
from d3codec.decoder import renderers
from d3codec.decoder.budget import Budget, Work, image_evaluations
from d3codec.decoder.decode import decode
from d3codec.decoder.estimate import estimate
from d3codec.decoder.plan import Extent
from d3codec.decoder.shard import Shard
from d3codec.decoder.verify import verify
from d3codec.errors import MissingGeneratorError, OutputError, UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import About, GddAugmentation, Images, Window

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


UNIT_BYTES = 8 * 192 + 8 * 8 * 192  # as uint8, and as binary64


def test_work_is_counted(tmp_path):
    content = make_pictures(tmp_path / "set.d3m")[0].file.content  # 3 steps with guidance
    work = Work.of(Extent.of(content))
    assert work == Work(60, 60 * 192, 60 * 64 * 7, 8 * 64 * 7, UNIT_BYTES)
    assert Work.of(Extent.of(content, [0], 3)) == Work(3, 3 * 192, 8 * 64 * 7, 8 * 64 * 7, UNIT_BYTES)
    assert Work.of(Shard(7, 9).of(Extent.of(content, [0], 3))).images == 0
    assert Work.of(Shard(8, 9).of(Extent.of(content))) == Work(4, 4 * 192, 4 * 64 * 7, 4 * 64 * 7, UNIT_BYTES // 2)


def test_what_a_unit_holds_is_counted(tmp_path):
    """A hundred copies of each of eight large images: one image is asked for, forty gigabytes would be held."""
    content = make_pictures(tmp_path / "set.d3m")[0].file.content
    (group,) = content.groups
    images = Images(grid=(2, 2), count=101, size=(4096, 4096), augmentation=GddAugmentation(copies=100))
    content = content.model_copy(update={"groups": (group.model_copy(update={"images": images}),)})
    work = Work.of(Extent.of(content, [0], 1))
    assert (work.images, work.unit_bytes) == (1, 3 * 4096**2 * 3 * (101 + 8))
    with pytest.raises(UsageError, match="unit bytes"):
        Budget().check(work, "file")
    plain = Images(grid=(2, 2), count=100, size=(4096, 4096))
    content = content.model_copy(update={"groups": (group.model_copy(update={"images": plain}),)})
    assert Work.of(Extent.of(content, [0], 1)).unit_bytes <= Budget().unit_bytes


def work_bomb(path):
    """A file of a few KB with 2^27 images."""
    about = About(pixels=bytes(32), fingerprint="here")
    return bare_file(path, names=tuple("abcdefgh"), about=about, ipc=1 << 20, groups=16, labels="h", kind="words")


@pytest.mark.parametrize("use", ["decode", "estimate", "verify", "images", "iterate", "shard"])
def test_a_work_bomb_is_refused_before_anything_is_listed(tmp_path, use):
    path = work_bomb(tmp_path / "bomb.d3m")
    assert path.stat().st_size < 20_000
    started = time.monotonic()
    if use == "estimate":
        assert "images" in estimate(path).refused
        assert "images" in estimate(path, shard="3/4").refused
    else:
        uses = {
            "decode": lambda: decode(path, tmp_path / "out"),
            "shard": lambda: decode(path, tmp_path / "out", shard="3/4"),
            "verify": lambda: verify(path, decode="all"),
            "images": lambda: load(path).images(),
            "iterate": lambda: next(iter(load(path))),
        }
        with pytest.raises(UsageError, match="images"):
            uses[use]()
    assert time.monotonic() - started < 10
    assert not (tmp_path / "out").exists()


def test_a_small_part_of_a_work_bomb_may_be_decoded(tmp_path):
    """A shard of it and a few images are as much work as they are."""
    path = work_bomb(tmp_path / "bomb.d3m")
    for part in ({"shard": "3/1000000"}, {"classes": [0], "limit": 3}):
        with pytest.raises(MissingGeneratorError):
            decode(path, tmp_path / "out", profile="fast", **part)


def test_what_is_generated_counts_and_not_what_is_left_of_it(tmp_path):
    (group,) = make_pictures(tmp_path / "set.d3m")[0].file.content.groups
    window = Window(generated=(64, 32), block=(0, 0, 32, 32))
    larger = group.model_copy(update={"images": Images(grid=(2, 2), count=4, size=(8, 8), window=window)})
    assert image_evaluations(larger) == 64 * 32 * 7
    copied = Images(grid=(2, 2), count=20, size=(8, 8), augmentation=GddAugmentation(copies=4))
    content = make_pictures(tmp_path / "set.d3m")[0].file.content
    content = content.model_copy(update={"groups": (group.model_copy(update={"images": copied}),)})
    assert Work.of(Extent.of(content)).evaluations == 3 * 4 * 64 * 7, "copies cost no evaluation"


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        (Budget(images=59), "images"),
        (Budget(pixel_bytes=60 * 192 - 1), "pixel bytes"),
        (Budget(evaluations=60 * 64 * 7 - 1), "evaluations"),
        (Budget(unit_evaluations=8 * 64 * 7 - 1), "unit evaluations"),
        (Budget(unit_bytes=UNIT_BYTES - 1), "unit bytes"),
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
    Budget(60, 60 * 192, 24.0, 60 * 64 * 7, 8 * 64 * 7, UNIT_BYTES).check(Work.of(Extent.of(content)), "file")


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
    assert found.seconds_per_image is None, "nothing was timed"


def test_an_estimate_says_what_would_be_refused(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    unseen = estimate(path, budget=Budget(images=59))
    assert "images" in unseen.refused
    assert (unseen.hours, unseen.probe_images, unseen.units_cached) == (None, 0, None)
    assert not list(tmp_path.iterdir()), "what is refused unseen is not probed"
    timed = estimate(path, generator=pipeline, budget=Budget(hours=1e-9))
    assert "hours" in timed.refused
    assert timed.hours > 0
    assert estimate(path, generator=pipeline, budget=None).refused is None


def test_an_estimate_times_with_one_thread_what_processes_share(made, tmp_path, monkeypatch):
    path, pipeline = made
    seen, render = [], renderers.render_units

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return render(*arguments)

    monkeypatch.setattr("d3codec.decoder.units.render_units", watched)
    monkeypatch.setattr("d3codec.decoder.estimate.most_processes", lambda device: 4)
    torch.set_num_threads(3)
    try:
        for number, processes in enumerate(("auto", 2, 1)):
            monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / str(number)))
            estimate(path, generator=pipeline, processes=processes)
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 1, 3]


def test_an_estimate_checks_the_output_as_a_decode_does(made, tmp_path):
    path, pipeline = made
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    for output, format in (("full", "imagefolder"), ("full", "npz"), ("full/letter.txt", "parquet")):
        with pytest.raises(OutputError):
            estimate(path, tmp_path / output, format=format, generator=pipeline)
    with pytest.raises(UsageError, match="a folder of pictures"):
        estimate(path, tmp_path / "out", format="npz", shard="0/2", generator=pipeline)


def test_a_cache_that_is_too_small_is_told(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    found = estimate(path, generator=pipeline, cache_gigabytes=1e-6)
    assert (found.cache_bytes, found.cache_limit_bytes) == (60 * 192 + 8 * 44, 1000)


def test_an_estimate_of_a_part(made, tmp_path, monkeypatch):
    path, pipeline = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    found = estimate(path, generator=pipeline, shard="1/4", processes=2)
    assert (found.images, found.units, found.processes) == (16, 2, 2)
    assert found.hours == found.device_hours / 2
    assert estimate(path, generator=pipeline, shard="8/9").images == 4  # of the last unit
    empty = estimate(path, generator=pipeline, shard="0/9")
    assert (empty.images, empty.units, empty.probe_images) == (0, 0, 0)
