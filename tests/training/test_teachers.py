from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from d3codec.errors import OutputError, TeacherError, UsageError
from d3codec.sources import LabelledImages, read_images
from d3codec.training import students
from d3codec.training.teacher_files import METADATA_KEY, teacher_bytes
from d3codec.training.teachers import hold_out, load_teacher, match_classes, train_teacher


@pytest.fixture(scope="module")
def digits():
    return read_images("digits:train")


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "digits.safetensors"
    return path, train_teacher(digits, path, steps=120, seed=1)


def few(images: LabelledImages, count: int) -> LabelledImages:
    return LabelledImages(images.images[:count], images.labels[:count], images.class_names, "few")


def test_the_report_is_about_the_file(trained):
    path, report = trained
    assert report.bytes == path.stat().st_size
    assert (report.classes, report.side, report.steps, report.seed) == (10, 16, 120, 1)
    assert report.held_out + report.trained_on == 1437
    assert 130 <= report.held_out <= 143
    assert report.accuracy_percent > 93
    assert json.loads(json.dumps(report.as_json()))["digest"] == report.digest == load_teacher(path).digest
    assert f"{report.held_out} held-out" in report.as_text()


def test_a_loaded_teacher_knows_images_it_has_not_seen(trained):
    teacher, test = load_teacher(str(trained[0])), read_images("digits:test")
    logits = teacher(np.stack(test.images))
    assert logits.dtype == np.float32
    assert logits.shape == (360, 10)
    assert students.accuracy(logits, test.labels) > 93
    assert teacher.class_names == test.class_names
    assert teacher.classes == 10
    assert teacher.features(test.images[:3]).shape == (3, 32)


def test_it_takes_images_of_any_size_by_the_way_of_the_students(trained):
    teacher, image = load_teacher(trained[0]), read_images("digits:test").images[0]
    resized = students.resize_for_student([image], 16)
    assert np.allclose(teacher([image]), teacher(resized), atol=1e-5)


def test_the_same_input_and_seed_give_the_same_bytes(digits, tmp_path):
    names = ["a", "b", "c"]
    for name, seed in zip(names, (5, 5, 6), strict=True):
        train_teacher(few(digits, 60), tmp_path / name, steps=3, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in names)
    assert a == b
    assert a != c
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_hold_out_takes_a_tenth_of_each_class_and_nothing_of_small_ones():
    labels = np.repeat([0, 1, 2], [20, 9, 35])
    kept, held = hold_out(labels, 0)
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 0, 3]
    assert sorted([*kept, *held]) == list(range(64))


def test_nothing_to_hold_out(digits, tmp_path):
    report = train_teacher(few(digits, 20), tmp_path / "t", steps=1)
    assert report.accuracy_percent is None
    assert report.held_out == 0
    assert "nothing held out" in report.as_text()


def test_a_missing_folder_is_found_before_the_training(digits, tmp_path):
    with pytest.raises(OutputError, match="no such folder"):
        train_teacher(digits, tmp_path / "no" / "t", steps=10**6)


def test_a_side_without_a_network(digits, tmp_path):
    with pytest.raises(UsageError, match="side"):
        train_teacher(few(digits, 20), tmp_path / "t", side=20, steps=1)


# ------------------------------------------------------------------------------------------- hostile files


def saved(path: Path, *, without: str = "", tensors=None, metadata=None, **fields) -> Path:
    """A small sound teacher, with something wrong on purpose."""
    net = students.empty_network(3, 8, 8)
    net.initialize(torch.Generator().manual_seed(0))
    described = {
        "architecture": "convnet",
        "class_names": ["a", "b", "c"],
        "classes": 3,
        "mean": [1.0, 2.0, 3.0],
        "side": 8,
        "std": [1.0, 2.0, 3.0],
        "version": 1,
        "width": 8,
    }
    described.update(fields)
    described.pop(without, None)
    weights = {name: value.detach() for name, value in net.named_parameters()}
    weights.update(tensors or {})
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    save_file(
        {k: v for k, v in weights.items() if v is not None},
        path,
        metadata={METADATA_KEY: text} if metadata is None else metadata,
    )
    return path


def test_the_small_teacher_is_sound(tmp_path):
    assert load_teacher(saved(tmp_path / "t"))([np.zeros((5, 7, 3), np.uint8)]).shape == (1, 3)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("architecture", {"architecture": "resnet"}),
        ("version", {"version": 2}),
        ("version", {"version": True}),
        ("side", {"side": 24}),
        ("side", {"side": 8.0}),
        ("side", {"side": 2**40}),
        ("classes", {"classes": 0}),
        ("class_names", {"classes": 4}),
        ("class_names", {"class_names": ["a", "b", "b"]}),
        ("class_names", {"class_names": [1, 2, 3]}),
        ("class_names", {"class_names": "abc"}),
        ("mean", {"mean": [1.0, 2.0]}),
        ("mean", {"mean": [1, 2, 3]}),
        ("std", {"std": [1.0, 0.0, 1.0]}),
        ("std", {"std": [1.0, float("nan"), 1.0]}),
        ("mean", {"mean": [float("inf"), 0.0, 0.0]}),
        ("width", {"width": 12}),
        ("width", {"width": 2**20}),
        ("secret", {"secret": 1}),
        ("mean", {"without": "mean"}),
        ("blocks.0.weight", {"width": 16}),
        ("blocks.8.bias", {"side": 16}),
        ("head.weight", {"tensors": {"head.weight": torch.zeros(8, 3)}}),
        ("head.bias", {"tensors": {"head.bias": torch.zeros(3, dtype=torch.float16)}}),
        ("head.bias", {"tensors": {"head.bias": None}}),
        ("extra", {"tensors": {"extra": torch.zeros(1)}}),
        ("head.bias", {"tensors": {"head.bias": torch.tensor([0.0, float("nan"), 0.0])}}),
        ("__metadata__", {"metadata": {}}),
        ("__metadata__", {"metadata": {"format": "pt"}}),
        *((METADATA_KEY, {"metadata": {METADATA_KEY: text}}) for text in ("{", "[" * 100_000, "[]", '{"b":1,"a":2}')),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(tmp_path, field, wrong):
    path = saved(tmp_path / "t.safetensors", **wrong)
    with pytest.raises(TeacherError) as caught:
        load_teacher(path)
    assert caught.value.field == field
    assert caught.value.file == str(path)


def test_every_truncation_is_refused(tmp_path):
    data = saved(tmp_path / "t").read_bytes()
    for length in [*range(60), *range(60, len(data), 97), len(data) - 1]:
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(TeacherError):
            load_teacher(tmp_path / "cut")


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"PK\x03\x04 a torch.save file", b"\xff" * 64])
def test_other_kinds_of_files_are_refused(tmp_path, data):
    (tmp_path / "t.pt").write_bytes(data)
    with pytest.raises(TeacherError, match=r"t\.pt"):
        load_teacher(tmp_path / "t.pt")


def test_a_huge_network_in_a_small_file_takes_no_memory(tmp_path):
    with pytest.raises(TeacherError):
        load_teacher(saved(tmp_path / "t", side=1024, width=4096))


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(TeacherError) as caught:
        load_teacher(tmp_path / name)
    assert caught.value.file == str(tmp_path / name)


def test_the_file_holds_exactly_the_network(tmp_path):
    net = students.empty_network(2, 8, 8)
    net.initialize(torch.Generator().manual_seed(0))
    net.mean.copy_(torch.tensor([0.1, 100.3, 3.0]))
    (tmp_path / "t").write_bytes(teacher_bytes(net, ["x", "ü"]))
    teacher = load_teacher(tmp_path / "t")
    assert teacher.class_names == ("x", "ü")
    for name, value in net.state_dict().items():
        assert torch.equal(value, teacher.net.state_dict()[name])


# ----------------------------------------------------------------------------------------- module:function


@pytest.fixture
def _here(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    yield
    sys.modules.pop("own_teachers", None)


IMAGES = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", ["ready", "factory", "as_function", "Bright"])
def test_teachers_of_ones_own(name):
    before = list(sys.path)
    teacher = load_teacher(f"own_teachers:{name}")
    logits = teacher(IMAGES)
    assert teacher.classes == 2
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [0, 1]
    assert sys.path == before


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("returns_a_number", "not a teacher"),
        ("fails", "no weights here"),
        ("wrong_shape", "another shape"),
        ("not_finite", "not finite"),
        ("constant", "not a teacher"),
        ("absent", "no such function"),
    ],
)
def test_what_is_no_teacher(name, message):
    with pytest.raises(TeacherError, match=message):
        load_teacher(f"own_teachers:{name}")


def test_a_missing_module():
    with pytest.raises(TeacherError, match="cannot be imported"):
        load_teacher("no_such_module_at_all:f")


@pytest.mark.usefixtures("_here")
def test_a_teacher_that_fails_later():
    with pytest.raises(TeacherError, match="out of memory"):
        load_teacher("own_teachers:sometimes")(IMAGES)


# -------------------------------------------------------------------------------------------- class order


@pytest.mark.usefixtures("_here")
def test_logits_are_put_into_the_order_of_the_names():
    teacher = load_teacher("own_teachers:factory")
    assert match_classes(teacher, ["dark", "bright"]) is teacher
    swapped = match_classes(teacher, ["bright", "dark"])
    assert (swapped(IMAGES) == teacher(IMAGES)[:, ::-1]).all()
    assert swapped.classes == 2


@pytest.mark.usefixtures("_here")
def test_other_classes_are_refused():
    named, nameless = load_teacher("own_teachers:factory"), load_teacher("own_teachers:as_function")
    with pytest.raises(TeacherError) as caught:
        match_classes(named, ["dark", "grey"])
    assert caught.value.field == "grey"
    with pytest.raises(TeacherError):
        match_classes(named, ["dark"])
    assert match_classes(nameless, ["x", "y"]) is nameless
    with pytest.raises(TeacherError, match="number of classes"):
        match_classes(nameless, ["x", "y", "z"])
