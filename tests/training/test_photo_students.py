"""Students of photographs: what they learn from groups, and that nothing else decides it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d3codec.errors import ImagesError, UsageError
from d3codec.training import photo_images, photo_students, students
from d3codec.training.photo_images import resize_photos
from d3codec.training.photo_students import PhotoGroup, batch_shares, evaluate_groups, train_student

COLOURS = np.array([[190, 70, 70], [70, 190, 70], [70, 70, 190], [190, 190, 70]])


@pytest.fixture(autouse=True)
def _one_thread():
    with students.one_thread():
        yield


def coloured(labels: np.ndarray, side: int = 16, seed: int = 0) -> np.ndarray:
    """Noise about the colour of each class, uint8 [N, side, side, 3]."""
    noise = np.random.default_rng(seed).normal(0, 40, (len(labels), side, side, 3))
    return (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)


def flat(levels: list[int], side: int = 16) -> np.ndarray:
    """One image of each grey level."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), side, side, 3)).copy()


def same_weights(one: photo_students.PhotoNet, other: photo_students.PhotoNet) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


LABELS, TEST = np.arange(80) % 4, np.arange(100) % 4


# ------------------------------------------------------------------------------------------------ learning


def test_a_student_learns_colours_and_another_seed_is_another_student():
    group = PhotoGroup(coloured(LABELS), LABELS)
    nets = [train_student([group], classes=4, side=16, seed=seed, steps=40) for seed in (3, 3, 4)]
    logits = photo_students.predict(nets[0], coloured(TEST, seed=1))
    assert students.accuracy(logits, TEST) > 90
    assert logits.dtype == np.float32
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])
    assert not nets[0].training
    seen = photo_students.features(nets[0], coloured(TEST, seed=1))
    head = nets[0].head
    np.testing.assert_allclose(seen @ head.weight.detach().numpy().T + head.bias.detach().numpy(), logits, atol=1e-4)


@pytest.mark.parametrize("bf16", [True, False])
def test_both_arithmetics_learn_and_decide_the_weights(bf16):
    group = PhotoGroup(coloured(LABELS), LABELS)
    net = train_student([group], classes=4, side=16, seed=0, steps=40, bf16=bf16)
    assert students.accuracy(photo_students.predict(net, coloured(TEST, seed=1)), TEST) > 90
    default = train_student([group], classes=4, side=16, seed=0, steps=40)
    assert same_weights(net, default) == (bf16 == photo_students.quick_bf16())


def test_soft_labels_and_not_the_classes_are_learned_when_they_are_there():
    """The logits say the class after the own one: it is this that the student names."""
    group = PhotoGroup(coloured(LABELS), LABELS, 8.0 * np.roll(np.eye(4), 1, 1)[LABELS])
    net = train_student([group], classes=4, side=16, seed=0, steps=40)
    assert students.accuracy(photo_students.predict(net, coloured(TEST, seed=1)), (TEST + 1) % 4) > 90


def test_targets_are_those_of_the_recipe():
    labels = np.array([0, 2])
    hard, temperature = PhotoGroup(flat([0, 1]), labels).targets(4)
    np.testing.assert_allclose(hard, [[0.925, 0.025, 0.025, 0.025], [0.025, 0.025, 0.925, 0.025]], rtol=1e-6)
    assert temperature == 1
    logits = np.array([[2.0, 0, 0, 0], [500, -500, 0, 0]])
    soft, temperature = PhotoGroup(flat([0, 1]), labels, logits).targets(4)
    np.testing.assert_allclose(soft[0], np.array([np.e, 1, 1, 1]) / (np.e + 3), rtol=1e-6)
    np.testing.assert_allclose(soft[1], [1, 0, 0, 0], atol=1e-6)
    assert temperature == 2


def test_the_global_state_of_torch_and_numpy_stays():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train_student([PhotoGroup(coloured(LABELS), LABELS)], classes=4, side=16, seed=0, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_networks_have_the_widths_of_the_recipe():
    shapes = {}
    for side in (32, 64):
        net = photo_students.new_network(10, side, torch.Generator().manual_seed(0))
        convolutions = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
        shapes[side] = [layer.out_channels for layer in convolutions]
        assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convolutions)
        assert net.eval()(torch.zeros(2, 3, side, side)).shape == (2, 10)
    assert shapes == {32: [32, 64, 128], 64: [32, 64, 128, 256]}


def test_one_image_trains():
    net = train_student([PhotoGroup(flat([90]), np.array([1]))], classes=2, side=16, seed=0, steps=1)
    assert np.isfinite(photo_students.predict(net, flat([90]))).all()


# --------------------------------------------------------------------------------------- groups and batches


def drawn_levels(monkeypatch, groups, **options):
    """The grey levels of the images in each batch that a network is trained on, at the centre of each."""
    batches, forward = [], photo_students.PhotoNet.forward

    def record(net, pixels):
        if net.training:
            batches.append(pixels[:, 0, 8, 8].int().tolist())
        return forward(net, pixels)

    monkeypatch.setattr(photo_students.PhotoNet, "forward", record)
    train_student(groups, classes=2, side=16, seed=0, **options)
    return batches


def test_batches_mix_the_groups_by_weight(monkeypatch):
    few, many = flat([1, 2, 3]), flat(list(range(100, 180)))
    groups = [PhotoGroup(few, np.zeros(3, int), weight=1), PhotoGroup(many, np.ones(80, int), weight=3)]
    batches = drawn_levels(monkeypatch, groups, steps=6)
    assert [len(batch) for batch in batches] == [64] * 6
    assert [sum(level < 100 for level in batch) for batch in batches] == [16] * 6
    small, large = ([level for batch in batches for level in batch if (level < 100) == low] for low in (True, False))
    assert {level: small.count(level) for level in (1, 2, 3)} == {1: 32, 2: 32, 3: 32}  # whole permutations
    assert sorted(large[:80]) == sorted(large[80:160]) == list(range(100, 180))
    assert large[:80] != large[80:160]


def test_every_draw_takes_one_of_the_copies(monkeypatch):
    copies = [flat([level + image for image in range(4)]) for level in (0, 50, 100)]
    batches = drawn_levels(monkeypatch, [PhotoGroup(copies, np.array([0, 1, 0, 1]))], steps=60)
    assert [len(batch) for batch in batches] == [4] * 60  # fewer than 32 images: all of them
    assert all(sorted(level % 50 for level in batch) == [0, 1, 2, 3] for batch in batches)
    taken = np.bincount([level // 50 for batch in batches for level in batch])
    assert len(taken) == 3
    assert taken.min() > 50  # of 240, 80 expected


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 70))
def test_shares_add_up_to_the_batch_and_to_the_weights(weights, batch):
    total = sum(weights)
    seen = np.array(list(islice(batch_shares(weights, batch), total)))
    assert (seen.sum(1) == batch).all()
    assert (seen.sum(0) == batch * np.array(weights)).all()  # `total` batches are whole turns
    exact = np.cumsum(np.full(total, batch))[:, None] * np.array(weights) / total
    assert (np.abs(np.cumsum(seen, 0) - exact) <= len(weights)).all()  # and never far off


def test_the_schedule():
    rule = {count: photo_students.schedule(count) for count in (10, 50, 199, 200, 500, 600, 3000, 8936)}
    assert rule == {
        10: (400, 10),
        50: (400, 32),
        199: (400, 32),
        200: (400, 64),
        500: (500, 64),
        600: (532, 64),
        3000: (936, 64),
        8936: (1200, 64),
    }
    assert photo_students.schedule(50, groups=2) == (400, 64)


def test_crops_reach_an_eighth_beyond_the_border_and_half_are_mirrored():
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, :8] = 200
    padded = photo_images.padded(image)
    assert padded.shape == (1, 20, 20, 3)
    assert (padded[0, 2:18, 2:18] == image[0]).all()
    assert (padded[0, 0] == photo_students.MEAN).all()
    many = torch.from_numpy(padded).expand(2000, -1, -1, -1)
    crops = photo_images.cropped(many, 16, torch.Generator().manual_seed(0)).numpy()
    mirrored = crops[:, 8, 2, 0] == 0
    assert 0.45 < mirrored.mean() < 0.55
    edges = crops[~mirrored, 8, :, 0].argmin(1)  # where the dark half begins: 8, moved by at most 2
    assert set(edges.tolist()) == {6, 7, 8, 9, 10}
    heights = (crops[:, :, 8] == photo_students.MEAN).all(2).sum(1)  # rows of border in the picture
    assert set(heights.tolist()) == {0, 1, 2}


# ------------------------------------------------------------------------------------------------ resizing


def test_large_images_are_averaged_over_areas():
    image = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    blocks = image.reshape(5, 32, 2, 32, 2, 3).mean((2, 4))
    small = resize_photos(image, 32)
    assert (small == np.rint(blocks)).all()
    assert (resize_photos(list(image), 32) == small).all()  # one by one, by the general rule
    assert resize_photos(small, 32) is small


@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_any_size_is_averaged_exactly(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    fine = image.repeat(8, 0).repeat(8, 1).astype(np.int64)  # each pixel as 8 x 8: then the parts are whole
    expected = np.rint(fine.reshape(8, height, 8, width, 3).sum((1, 3)) / (height * width))
    assert (resize_photos([image], 8)[0] == expected).all()


def test_small_images_are_enlarged_and_other_things_refused():
    image = np.random.default_rng(0).integers(0, 256, (10, 40, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    assert (resize_photos([image], 16)[0] == expected).all()
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(ImagesError, match=r"images\[1\]"):
            resize_photos([image, wrong], 16)


# ---------------------------------------------------------------------------------------------- evaluation


def test_the_number_of_processes_changes_nothing():
    groups = [PhotoGroup(coloured(LABELS), LABELS), PhotoGroup(coloured(LABELS, 8, 2), LABELS, weight=3)]
    test, steps = coloured(TEST, 32, 1), []
    options = {"classes": 4, "side": 16, "seeds": (0, 1), "steps": 25}
    one = evaluate_groups(groups, test, TEST, **options, progress=lambda *step: steps.append(step))
    assert min(one) > 60
    assert steps == [("students", done, 50) for done in range(51)]
    seen = []
    two = evaluate_groups(groups, test, TEST, **options, processes=2, progress=lambda *step: seen.append(step))
    assert one == two
    assert seen[0] == ("students", 0, 50)
    assert seen[-1] == ("students", 50, 50)
    assert seen == sorted(seen)


ENDLESS = """
import os, sys, time
sys.path[:0] = [{folder!r}]
from d3codec.training.workers import in_processes
from endless import endless
if __name__ == "__main__":
    in_processes(endless, [{folder!r}] * 2, "stage", 10, processes=2)
"""
TASK = """
import os, time
def endless(folder, progress):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    while True:
        progress()
        time.sleep(0.05)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_ends_the_workers(tmp_path):
    (tmp_path / "endless.py").write_text(TASK)
    (tmp_path / "start.py").write_text(ENDLESS.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(Path(photo_students.__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "start.py")], stderr=subprocess.DEVNULL, env=environment)
    workers = within(180, lambda: [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()], 2)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) != 0
    assert within(60, lambda: [each for each in workers if is_alive(each)], 0) == []


def within(seconds, listed, count):
    deadline = time.monotonic() + seconds
    while len(found := listed()) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"  # a zombie has ended
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"images": coloured(LABELS).astype(np.float32)}, "images"),
        ({"images": coloured(LABELS)[..., :1]}, "images"),
        ({"images": [coloured(LABELS), coloured(LABELS, 8)]}, "images"),
        ({"images": []}, "labels"),
        ({"labels": LABELS[:-1]}, "labels"),
        ({"labels": LABELS - 1}, "labels"),
        ({"labels": LABELS.astype(float)}, "labels"),
        ({"images": coloured(LABELS[:0]), "labels": LABELS[:0]}, "labels"),
        ({"weight": 0}, "weight"),
        ({"weight": 256}, "weight"),
    ],
)
def test_groups_that_do_not_fit_together_are_refused(change, field):
    with pytest.raises((ImagesError, UsageError)) as caught:
        replace(PhotoGroup(coloured(LABELS), LABELS), **change)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "options", "field"),
    [
        ({"logits": np.zeros((80, 3))}, {}, "logits"),
        ({"logits": np.full((80, 4), np.nan)}, {}, "logits"),
        ({}, {"classes": 3}, "labels"),
        ({}, {"side": 24}, "side"),
        ({}, {"steps": 0}, "steps"),
        ({}, {"batch": 0}, "batch"),
    ],
)
def test_training_refuses_what_does_not_fit(change, options, field):
    group = replace(PhotoGroup(coloured(LABELS), LABELS), **change)
    with pytest.raises((ImagesError, UsageError)) as caught:
        train_student([group], **{"classes": 4, "side": 16, "seed": 0, **options})
    assert caught.value.field == field


def test_nothing_to_train_on_or_to_test_on_is_refused():
    with pytest.raises(UsageError, match="groups"):
        train_student([], classes=4, side=16, seed=0)
    with pytest.raises(ImagesError, match="test images"):
        evaluate_groups([PhotoGroup(coloured(LABELS), LABELS)], coloured(TEST), TEST[:-1], classes=4, side=16)
    with pytest.raises(UsageError, match="processes"):
        evaluate_groups([PhotoGroup(coloured(LABELS), LABELS)], coloured(TEST), TEST, classes=4, side=16, processes=0)
