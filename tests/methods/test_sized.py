"""`encode --bytes`: the size holds, students choose, interrupted work goes on, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photograph_case import NAMES, colour_teacher, make_autoencoder, make_prompted, photographs

import d3codec
from d3codec.decoder.verify import verify
from d3codec.errors import GeneratorError, ImagesError, MissingGeneratorError, OutputError, TeacherError, UsageError
from d3codec.format.file import D3MFile
from d3codec.methods import generated, plans, trials
from d3codec.methods.builder import Builder
from d3codec.methods.made import Made
from d3codec.methods.pool import split_validation
from d3codec.methods.sized import SizedReport, encode_to_size
from d3codec.training import ensemble

torch.set_num_threads(1)
IMAGES = photographs(count=30, side=16)  # three of each class are held out
FEW = photographs(count=6, side=16)
QUICK = {"teacher": colour_teacher, "resolution": 16, "processes": 1, "device": "cpu", "trial_steps": 2}


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folders of an autoencoder and of a pipeline."""
    folder = tmp_path_factory.mktemp("generators")
    return make_autoencoder(folder / "autoencoder"), make_prompted(folder / "prompted")


@pytest.fixture(autouse=True)
def _no_cache_of_others(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))


def encode(images, out: Path, size: int, *generators: Path, **options) -> SizedReport:
    report = encode_to_size(images, out, max_bytes=size, generators=generators, **{**QUICK, **options})
    assert report.bytes_total == out.stat().st_size <= size
    assert D3MFile.open(out).about.method == report.method
    return report


# -------------------------------------------------------------------------------------------------------- the size


@pytest.mark.parametrize(
    ("methods", "labels", "size", "ipc"),
    [
        (("latents",), None, 2100, 8),
        (("latents",), "hard", 900, 6),
        (("images",), None, 2100, 20),
        (("images",), "hard", 900, 4),
    ],
)
def test_the_size_is_filled(methods, labels, size, ipc, homes, tmp_path):
    report = encode(IMAGES if ipc > 6 else FEW, tmp_path / "x.d3m", size, homes[0], methods=methods, labels=labels,
                    ipc=ipc, profile="reproducible")  # fmt: skip
    assert report.bytes_total >= size - max(40, 0.03 * size)
    dataset = d3codec.load(tmp_path / "x.d3m")
    assert (report.method, report.images_per_class, dataset.images_per_class) == (*methods, ipc, ipc)
    assert dataset.labels.kind == report.labels == (labels or "adaptive")


@pytest.mark.parametrize("profile", ["exact", "reproducible"])
@pytest.mark.parametrize("methods", [("latents",), ("images",)])
def test_the_least_size_is_named_and_can_be_had(methods, profile, homes, tmp_path):
    """Also one byte below it, where a trial (reproducible) may fit while the file does not."""
    out, options = tmp_path / "x.d3m", {"methods": methods, "profile": profile}
    with pytest.raises(UsageError) as error:
        encode(IMAGES, out, 60, homes[0], **options)
    assert (error.value.field, error.value.found) == ("bytes", 60)
    least = int(error.value.expected.removeprefix("at least "))
    with pytest.raises(UsageError) as error:
        encode(IMAGES, out, least - 1, homes[0], **options)
    assert error.value.expected == f"at least {least}"
    assert not out.exists()
    report = encode(IMAGES, out, least, homes[0], **options)
    assert (report.bytes_total, report.images_per_class, report.profile == "exact") == (
        least,
        1,
        (methods, profile) == (("latents",), "exact"),
    )
    assert not Path(f"{out}.work").exists()


# ---------------------------------------------------------------------------------------------------- what is chosen


def test_students_choose(homes, tmp_path, monkeypatch):
    """The plan with the most right answers is made, the first of equal ones; students see the decoded images."""
    seen = []

    def answers(groups, images, labels, **options):
        seen.append((len(groups[0]), groups[0].logits is not None, len(labels), options["steps"], options["seeds"]))
        return [[20.0, 40.0], [50.0, 60.0], [55.0, 55.0]][len(seen) - 1]

    monkeypatch.setattr(trials, "evaluate_groups", answers)
    report = encode(IMAGES, tmp_path / "x.d3m", 650, homes[0], profile="reproducible", report=tmp_path / "x.json")
    assert [row[1:] for row in seen] == [(True, 9, 2, (0, 1))] * len(report.tried)
    assert [trial.accuracy_percent for trial in report.tried] == [30.0, 55.0, 55.0]
    assert report.chosen == 1
    assert report.images_per_class == report.tried[report.chosen].images_per_class
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(report.as_json()))
    text = report.as_text()
    assert text.count("<- chosen") == 1
    assert f"{report.bytes_total:,} of 650 bytes" in text
    assert text.count("latents  ") == len(report.tried)


def test_with_too_few_images_the_usual_plan_is_taken(homes, tmp_path):
    report = encode(FEW, tmp_path / "x.d3m", 500, homes[0])
    assert [trial.accuracy_percent for trial in report.tried] == [None]
    assert "too few images to hold some out" in report.as_text()


def test_what_is_held_out_is_in_no_file():
    kept, held = split_validation(IMAGES)
    assert np.bincount(held.labels).tolist() == [3, 3, 3]
    assert np.bincount(kept.labels).tolist() == [27, 27, 27]
    shown = {image.tobytes() for image in kept.images}
    assert not shown & {image.tobytes() for image in held.images}
    assert split_validation(IMAGES, 28) == (IMAGES, None)  # all of them are needed
    assert split_validation(photographs(count=29, side=16))[1] is None
    many = replace(IMAGES, images=IMAGES.images * 40, labels=np.tile(IMAGES.labels, 40))
    assert np.bincount(split_validation(many)[1].labels).tolist() == [50, 50, 50]


def test_all_images_of_a_class_can_be_stored(homes, tmp_path):
    report = encode(IMAGES, tmp_path / "x.d3m", 580, homes[0], ipc=30, labels="hard", profile="reproducible")
    assert report.images_per_class == 30
    assert "untested" in report.as_text()
    with pytest.raises(ImagesError, match=r"'ash' has too few images .found 30 images, expected at least 31"):
        encode(IMAGES, tmp_path / "y.d3m", 3000, ipc=31)
    assert not (tmp_path / "y.d3m.work").exists()


# --------------------------------------------------------------------------------------------------- what is there


def test_without_an_autoencoder_images_are_stored_and_the_gain_is_named(tmp_path):
    report = encode(FEW, tmp_path / "x.d3m", 900, ipc=3)
    assert (report.method, report.profile) == ("images", "reproducible")
    assert "no autoencoder: with one, files of this size train better students" in report.as_text()
    assert "d3codec generators fetch taesd3" in report.as_text()
    assert "10 MB" in report.as_text()
    with pytest.raises(MissingGeneratorError, match=r"10 MB.*generators fetch taesd3"):
        encode(FEW, tmp_path / "y.d3m", 900, methods=("latents",))
    with pytest.raises(MissingGeneratorError, match="generators fetch taesd3"):
        encode(FEW, tmp_path / "y.d3m", 900, "taesd3")
    with pytest.raises(MissingGeneratorError, match="Stable Diffusion"):
        encode(FEW, tmp_path / "y.d3m", 900, methods=("d3m",))
    assert not list(tmp_path.glob("y*"))


def test_a_published_autoencoder_of_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshots = [tmp_path / "models--madebyollin--taesd3" / "snapshots" / name for name in ("1", "2")]
    for snapshot in snapshots:
        make_autoencoder(snapshot)
    next(snapshots[0].glob("*.safetensors")).unlink()  # a download that was interrupted
    report = encode(FEW, tmp_path / "x.d3m", 500, ipc=1)
    assert report.method == "latents"
    assert f"autoencoder of the Hugging Face cache: {snapshots[1]}" in report.as_text()


def test_generators_of_no_use(homes, tmp_path):
    for two in (homes[:1] * 2, (homes[1], homes[1])):
        with pytest.raises(UsageError, match="of no use where a size is named"):
            encode(FEW, tmp_path / "x.d3m", 900, *two)
    damaged = make_autoencoder(tmp_path / "damaged")
    weights = next(damaged.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(GeneratorError, match="damaged"):
        encode(FEW, tmp_path / "x.d3m", 900, damaged)
    assert not list(tmp_path.glob("x*"))


# ------------------------------------------------------------------------------------------------------- mixtures


@pytest.fixture(scope="module")
def mixed(homes, tmp_path_factory):
    """All that is tried with prompts, in a work folder that is kept."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mixed")
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        patch.setenv("HF_HUB_CACHE", str(folder))
        answers = {1: 10.0, 2: 90.0}
        patch.setattr(trials, "evaluate_groups", lambda groups, *_, **__: [answers[len(groups)]])
        stated = {"licence": "CC0-1.0", "source": "a test", "class_ids": ["x", "y", "z"], "authority": "ours"}
        stated |= {"initial_token": "c"}  # instead of the hint
        for module in (plans, generated):
            patch.setattr(module, "GENERATED_IPC", 8)  # 40 take a while
        report = encode(IMAGES, folder / "x.d3m", 1300, *homes, ipc=2, **stated, keep_work=True)
        patch.setattr(trials, "evaluate_groups", lambda groups, *_, **__: [float(len(groups[0]) == 24)])
        prompts = encode(IMAGES, folder / "p.d3m", 800, *homes, ipc=2, **stated, work=folder / "x.d3m.work")
    return folder, report, prompts


def test_prompts_and_latents_in_one_file(mixed, homes):
    folder, report, _ = mixed
    assert [(trial.method, trial.images_per_class) for trial in report.tried] == [
        ("d3m+latents", 2),
        ("latents", 2),
        ("d3m", 8),
    ]
    assert (report.method, report.images_per_class, report.profile) == ("d3m+latents", 10, "exact")
    assert 1260 <= report.bytes_total <= 1300
    file = D3MFile.open(folder / "x.d3m")
    assert file.about.weights == (1, 3)
    assert [group.images.count for group in file.content.groups] == [8, 2]
    assert verify(file, decode="all", generator=homes, device="cpu").pixels == "proved"
    dataset = d3codec.load(folder / "x.d3m")
    assert dataset.images(generator=homes, device="cpu").shape == (30, 16, 16, 3)
    assert dataset.labels.logits().shape == (30, 1, 3)


def test_a_mixture_is_filled_although_latents_leave_gaps(monkeypatch):
    """Files of latents stay below their room by more or less; what they took counts, not what they were given."""
    gaps = iter([30, 12, 25, 3, 9])
    monkeypatch.setattr(Builder, "_latents", lambda self, plan, room, final: part(room - next(gaps)))
    monkeypatch.setattr(
        Builder, "_merged", lambda self, parts, plan, final: bytes(sum(len(p.data) for p in parts) - 90)
    )
    built = Builder._mixed(object.__new__(Builder), part(900), plans.Plan(("d3m", "latents"), 5), 10_000, final=True)
    assert len(built.data) == 10_000 - 12


def part(size: int) -> Made:
    return Made(bytes(size), np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64), None)


def test_prompts_alone(mixed, homes):
    folder, _, report = mixed
    assert report.method == "d3m"
    file = D3MFile.open(folder / "p.d3m")
    assert len(file.content.groups) == 1
    words = json.loads((homes[1] / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert file.content.groups[0].conditioning.initial_token == words["c</w>"]
    assert verify(file, decode=9, generator=homes[1], device="cpu").pixels == "proved"


def test_every_file_says_where_it_is_from(mixed):
    for name in ("x.d3m", "p.d3m"):
        dataset = d3codec.load(mixed[0] / name)
        assert (dataset.about.licence, dataset.about.source) == ("CC0-1.0", "a test")
        assert [(info.name, info.id) for info in dataset.classes] == list(zip(NAMES, "xyz", strict=True))


# ------------------------------------------------------------------------------------------------------- unfinished


class Stop:
    """A progress callback that interrupts at one event."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.seen.append((stage, done, total))
        if len(self.seen) == self.at:
            raise KeyboardInterrupt


def test_an_interrupted_encode_ends_with_the_same_bytes(homes, tmp_path):
    peace, quick = Stop(0), {"profile": "reproducible"}
    encode(IMAGES, tmp_path / "peace.d3m", 560, homes[0], **quick, progress=peace)
    assert [event[:2] for event in peace.seen] == [("choose", number) for number in range(len(peace.seen))]
    out = tmp_path / "war.d3m"
    kept: dict[str, int] = {}
    for at in range(1, len(peace.seen) + 1):
        with pytest.raises(KeyboardInterrupt):
            encode(IMAGES, out, 560, homes[0], **quick, progress=Stop(at))
        assert not out.exists()
        found = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("war.d3m.work/*.npz")}
        assert kept.items() <= found.items()  # finished work is not done again
        kept = found
    assert len(kept) >= len(peace.seen) - 1
    encode(IMAGES, out, 560, homes[0], **quick)
    assert out.read_bytes() == (tmp_path / "peace.d3m").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peace.d3m", "war.d3m"]


def test_work_is_good_for_other_sizes_and_refused_for_other_images(homes, tmp_path):
    work = {"work": tmp_path / "work", "keep_work": True, "ipc": 1, "profile": "reproducible"}
    encode(FEW, tmp_path / "x.d3m", 650, homes[0], **work)
    other = encode(FEW, tmp_path / "y.d3m", 700, homes[0], **work | {"ipc": 2})
    assert other.limit == 700
    for images, change, field in (
        (photographs(count=6, side=16, seed=1), {}, "images"),
        (FEW, {"labels": "hard"}, "labels"),
        (FEW, {"teacher": lambda images: colour_teacher(images)}, "teacher"),
        (FEW, {"resolution": 32}, "resolution"),
    ):
        with pytest.raises(UsageError, match="unfinished work with other options") as error:
            encode(images, tmp_path / "x.d3m", 650, homes[0], **work | change)
        assert error.value.field == field
    fresh = encode(FEW, tmp_path / "x.d3m", 650, homes[0], **work | {"labels": "hard"}, restart=True)
    assert fresh.labels == "hard"


def test_a_teacher_is_trained_where_none_is_given(tmp_path, monkeypatch):
    """Interrupted while it is trained, the networks that were finished are kept."""
    monkeypatch.setattr(ensemble, "teacher_steps", lambda count: 40)  # 400 take a while
    images, options = photographs(count=3, side=16, classes=2), {"teacher": None, "ipc": 1, "labels": "hard"}
    events = Stop(90)
    with pytest.raises(KeyboardInterrupt):
        encode(images, tmp_path / "x.d3m", 600, **options, progress=events)
    assert events.seen[-1] == ("teachers", 89, 120)
    kept = sorted(path.name for path in tmp_path.glob("x.d3m.work/teacher/*"))
    assert kept == ["member-0.safetensors", "member-1.safetensors"]
    again = Stop(0)
    report = encode(images, tmp_path / "x.d3m", 600, **options, progress=again)
    assert [event for event in again.seen if event[0] == "teachers"][-1] == ("teachers", 40, 40)
    assert "no teacher was given: three small networks were trained on the images" in report.as_text()
    assert report.teacher.startswith("sha256:")


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"methods": ("jpeg",)}, UsageError, "methods"),
        ({"methods": ()}, UsageError, "methods"),
        ({"resolution": 20}, UsageError, "resolution"),
        ({"ipc": 0}, UsageError, "ipc"),
        ({"profile": "exact-fixed"}, UsageError, "profile"),
        ({"labels": "loud"}, UsageError, "labels"),
        ({"labels": "hard", "label_step": 5}, UsageError, "label_step"),
        ({"trial_steps": 0}, UsageError, "trial_steps"),
        ({"licence": "x" * 100_000}, UsageError, "licence"),
        ({"authority": "ours"}, UsageError, "class_ids"),
        ({"teacher": "none.safetensors"}, TeacherError, "none.safetensors"),
        ({"teacher": lambda images: np.zeros((len(images), 2))}, TeacherError, "shape"),
        ({"generators": ["no/such"]}, MissingGeneratorError, "no/such"),
        ({"report": "no/folder/x.json"}, OutputError, "no/folder"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(change, kind, message, tmp_path):
    asked = {"max_bytes": 900, **QUICK, **change}
    with pytest.raises(kind, match=message):
        encode_to_size(FEW, tmp_path / "x.d3m", **asked, progress=lambda *_: pytest.fail("it has begun"))
    assert not list(tmp_path.iterdir())
