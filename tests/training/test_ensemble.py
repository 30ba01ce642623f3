"""Ensembles as teachers: training that goes on after a kill, what they answer, and their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d3codec.encoder.diverse import medoids
from d3codec.errors import ImagesError, OutputError, TeacherError, UsageError
from d3codec.sources import LabelledImages, read_images
from d3codec.training import ensemble, photo_images, photo_students, students
from d3codec.training.ensemble import crop_views, load_ensemble, teacher_steps, train_ensemble
from d3codec.training.photo_images import resize_photos
from d3codec.training.photo_students import PhotoGroup
from d3codec.training.teachers import match_classes

DATA = Path(os.environ.get("D3CODEC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
NAMES = ("red", "green", "blue")
COLOURS = np.array([[190, 70, 70], [70, 190, 70], [70, 70, 190]])
STEPS = 25


def coloured(count: int, seed: int) -> LabelledImages:
    """Noise about the colour of each class, in images of several sizes."""
    draw, labels = np.random.default_rng(seed), np.arange(count) % 3
    sizes = [(16, 16), (40, 23), (12, 30)]
    images = [
        (COLOURS[label] + draw.normal(0, 40, (*sizes[number % 3], 3))).clip(0, 255).astype(np.uint8)
        for number, label in enumerate(labels)
    ]
    return LabelledImages(images, labels, NAMES, "coloured noise")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    seen = []
    teacher = train_ensemble(coloured(30, 0), folder, side=16, steps=STEPS, progress=lambda *step: seen.append(step))
    return teacher, folder, seen


# ------------------------------------------------------------------------------------------------- answers


def test_it_knows_the_classes_of_a_small_pool(trained):
    teacher, _, seen = trained
    test = coloured(60, 1)
    logits = teacher(test.images)
    assert logits.dtype == np.float32
    assert students.accuracy(logits, test.labels) > 90
    assert (teacher.classes, teacher.side, teacher.class_names) == (3, 16, NAMES)
    assert seen == [("teachers", done, 3 * STEPS) for done in range(3 * STEPS + 1)]
    with students.one_thread():
        each = [photo_students.predict(net, test.images) for net in teacher.members]
        np.testing.assert_allclose(logits, np.mean(each, 0), atol=1e-5)
        assert (teacher.features(test.images) == photo_students.features(teacher.members[0], test.images)).all()
    assert min(np.abs(each[0] - each[1]).max(), np.abs(each[1] - each[2]).max()) > 0.01  # three different networks


def test_losses_are_the_mean_cross_entropy_of_the_members(trained):
    teacher, test = trained[0], coloured(12, 1)
    expected = [
        torch.nn.functional.cross_entropy(net(pixels), torch.from_numpy(test.labels), reduction="none")
        for pixels in [torch.from_numpy(resize_photos(test.images, 16)).permute(0, 3, 1, 2).float()]
        for net in teacher.members
    ]
    losses = teacher.losses(test.images, test.labels)
    np.testing.assert_allclose(losses, torch.stack(expected).mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert losses.mean() < teacher.losses(test.images, (test.labels + 1) % 3).min()


def test_labels_are_mean_free_means_over_views_and_depend_on_their_image_alone(trained):
    teacher, test = trained[0], coloured(12, 1)
    labels = teacher.labels(test.images)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(1), 0, atol=1e-4)
    np.testing.assert_allclose(teacher.labels(test.images[5:7]), labels[5:7], atol=1e-4)
    views = [teacher(view) for view in crop_views(resize_photos(test.images, 16), 8)]
    expected = np.mean(views, 0)
    np.testing.assert_allclose(labels, expected - expected.mean(1, keepdims=True), atol=1e-4)
    assert np.ptp([view[0, 0] for view in views]) > 0  # the views are not all the same


def test_views_are_spread_over_all_crops():
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    padded, found = photo_images.padded(image), []
    for number, view in enumerate(crop_views(image, 8)):
        straight = view[:, :, ::-1] if number % 2 else view
        places = [(y, x) for y in range(5) for x in range(5) if (straight == padded[:, y : y + 16, x : x + 16]).all()]
        assert len(places) == 1
        found += places
    assert len(set(found)) == 8
    assert {y for y, _ in found} == {x for _, x in found} == {0, 1, 2, 3, 4}


def test_its_classes_are_matched_by_name(trained):
    teacher, images = trained[0], coloured(6, 1).images
    turned = match_classes(teacher, NAMES[::-1])
    assert (turned(images) == teacher(images)[:, ::-1]).all()
    assert match_classes(teacher, NAMES) is teacher


def test_steps_of_teachers():
    assert [teacher_steps(count) for count in (20, 300, 3000, 8000, 8936, 50_000)] == [400, 418, 936, 1500, 1680, 1680]


# ------------------------------------------------------------------------------------- files and resuming


def test_a_folder_gives_the_same_teacher_back(trained):
    teacher, folder, _ = trained
    again, images = load_ensemble(folder), coloured(9, 1).images
    assert (again(images) == teacher(images)).all()
    assert (again.digest, again.class_names) == (teacher.digest, NAMES)
    assert len(load_ensemble(folder, members=2).members) == 2
    with pytest.raises(TeacherError, match="no such teacher"):
        load_ensemble(folder, members=4)


def test_finished_members_are_used_and_other_ones_replaced(trained, tmp_path):
    teacher, folder, _ = trained
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "member-1.safetensors").write_bytes(b"damaged")
    seen: list[tuple[str, int, int]] = []
    options = {"side": 16, "steps": STEPS, "progress": lambda *step: seen.append(step)}
    again = train_ensemble(coloured(30, 0), tmp_path, **options)
    assert seen[-1] == ("teachers", STEPS, STEPS)  # one of the three
    assert again.digest == teacher.digest
    seen.clear()
    assert train_ensemble(coloured(30, 0), tmp_path, **options).digest == teacher.digest
    assert not seen
    for images, changed in ((coloured(30, 1), {}), (coloured(30, 0), {"steps": 1})):
        seen.clear()
        other = train_ensemble(images, tmp_path, **{**options, "members": 1, **changed})
        assert seen
        assert other.digest != teacher.digest
        with pytest.raises(TeacherError, match="different images or with different settings"):
            load_ensemble(tmp_path)


START = """
import sys
from training.test_ensemble import STEPS, coloured

from d3codec.training.ensemble import train_ensemble
if __name__ == "__main__":
    train_ensemble(coloured(30, 0), sys.argv[1], side=16, steps=10_000 * STEPS, processes=2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_training_goes_on_after_a_kill(trained, tmp_path):
    """Killed while two workers train: they end too, and the next call gives the same networks."""
    start = tmp_path / "start.py"
    start.write_text(START)
    paths = [str(Path(__file__).parents[1]), str(Path(ensemble.__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    folder = tmp_path / "teachers"
    parent = subprocess.Popen([sys.executable, str(start), str(folder)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(busy := children(parent.pid)) < 2 or not folder.is_dir():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    while left := [each for each in busy if is_alive(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not list(folder.iterdir())  # nothing half-written
    teacher, finished, _ = trained
    (folder / "member-0.safetensors").write_bytes((finished / "member-0.safetensors").read_bytes())
    seen: list[tuple[str, int, int]] = []
    again = train_ensemble(coloured(30, 0), folder, side=16, steps=STEPS, progress=lambda *step: seen.append(step))
    assert again.digest == teacher.digest
    assert seen[-1] == ("teachers", 2 * STEPS, 2 * STEPS)  # two were missing


def children(parent: int) -> list[int]:
    """Worker processes of a process: its spawned children, less the one that counts semaphores."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            owner = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if owner == parent and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):  # has ended meanwhile
            continue
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie has ended
    except OSError:
        return False


def change(path: Path, **metadata) -> None:
    """Write a member again with other fields of its metadata."""
    from safetensors.torch import load, save

    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    described = json.loads(header[ensemble.METADATA_KEY]) | metadata
    path.write_bytes(save(load(data), metadata={ensemble.METADATA_KEY: json.dumps(described)}))


def test_damaged_members_are_named(trained, tmp_path):
    from safetensors.torch import load, save

    whole = (trained[1] / "member-0.safetensors").read_bytes()
    path, tensors = tmp_path / "member-0.safetensors", load(whole)
    described = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    name = "head.bias"
    cases = {
        "cannot be read": whole[:-1],
        "not written by train_ensemble": save(tensors),
        "missing or unknown": save({key: value for key, value in tensors.items() if key != name}, metadata=described),
        "another type or shape": save(tensors | {name: tensors[name].double()}, metadata=described),
        "not a finite number": save(tensors | {name: tensors[name] * torch.nan}, metadata=described),
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(TeacherError, match=message) as caught:
            load_ensemble(tmp_path, members=1)
        assert caught.value.file == str(path)
    for metadata in ({"side": 24}, {"side": "16"}, {"class_names": 3}, {"training": None}, {"class_names": list("ab")}):
        path.write_bytes(whole)
        change(path, **metadata)
        with pytest.raises(TeacherError):
            load_ensemble(tmp_path, members=1)


def test_what_cannot_be_trained_is_refused_before_the_work(tmp_path):
    images = coloured(30, 0)
    one_class = LabelledImages(images.images, np.zeros(30, int), ("red",), "here")
    with pytest.raises(ImagesError, match="one class"):
        train_ensemble(one_class, tmp_path)
    with pytest.raises(UsageError, match="side"):
        train_ensemble(images, tmp_path / "new", side=24)
    with pytest.raises(UsageError, match="members"):
        train_ensemble(images, tmp_path / "new", members=0)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder"):
        train_ensemble(images, tmp_path / "file")
    with pytest.raises(ImagesError, match="labels"):
        train_ensemble(replace(images, labels=images.labels[1:]), tmp_path, side=16)


# ------------------------------------------------------------------------------------------- real pictures


def test_photographs_are_recognised_and_selected_ones_teach(tmp_path):
    """A quick look at the whole chain: 600 images, one short teacher, 10 medoids a class."""
    train, val = DATA / "imagenette_64_train.parquet", DATA / "imagenette_64_val.parquet"
    if not train.is_file() or not val.is_file():
        pytest.skip(f"no ImageNette under {DATA} (D3CODEC_TEST_DATA names another place)")
    pool, test = read_images(train), read_images(val)
    pool = replace(pool, images=resize_photos(pool.images[:600], 16), labels=pool.labels[:600])
    tested, labels = resize_photos(test.images[:500], 16), test.labels[:500]
    teacher = train_ensemble(pool, tmp_path, side=16, members=1, steps=150)
    assert students.accuracy(teacher(tested), labels) > 25  # chance is 10
    losses = teacher.losses(pool.images, pool.labels)
    chosen = medoids(teacher.features(pool.images), losses, pool.labels, 5, 10)
    assert losses[chosen].mean() < losses.mean()
    group = PhotoGroup(pool.images[chosen], pool.labels[chosen], teacher.labels(pool.images[chosen]))
    assert photo_students.evaluate_groups([group], tested, labels, classes=10, side=16, seeds=[0], steps=60)[0] > 18
