from __future__ import annotations

import json
from dataclasses import replace
from statistics import stdev

import numpy as np
import pytest
import torch

from d3codec.errors import ImagesError, UsageError
from d3codec.grid import assemble
from d3codec.sources import LabelledImages
from d3codec.training import students
from d3codec.training.crops import crop_batches, crop_label, random_box
from d3codec.training.protocols import Task, TrainingSet, evaluate, evaluate_all, mapped_labels, run_students

NAMES = ("red", "green", "blue", "yellow")
COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])


def coloured(labels: np.ndarray, side: int, seed: int) -> np.ndarray:
    """Noise about the colour of each class: what a student learns within a few steps, at any scale."""
    noise = np.random.default_rng(seed).normal(0, 40, (len(labels), side, side, 3))
    return (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def test_images() -> LabelledImages:
    labels = np.arange(200) % 4
    return LabelledImages(list(coloured(labels, 8, 1)), labels, NAMES, "coloured noise")


@pytest.fixture(scope="module")
def collages() -> TrainingSet:
    """Ten 2 x 2 collages of each class; the logits are sure of the class."""
    labels = np.repeat(np.arange(4), 10)
    images = assemble(coloured(np.repeat(labels, 4), 8, 0).reshape(40, 4, 8, 8, 3), (2, 2))
    logits = np.repeat(8.0 * np.eye(4)[labels][:, None], 4, 1)
    return TrainingSet(images, labels, logits, (2, 2), NAMES)


@pytest.fixture(scope="module")
def reports(collages, test_images):
    protocols = ("H", "S0", "S1")
    found = evaluate_all([(collages, protocol) for protocol in protocols], test_images, runs=2, steps=30)
    return dict(zip(protocols, found, strict=True))


@pytest.mark.parametrize(("protocol", "items"), [("H", 160), ("S0", 160), ("S1", 40)])
def test_students_learn_under_each_protocol(reports, protocol, items):
    report = reports[protocol]
    assert report.accuracy_percent > 80  # chance is 25
    assert (report.protocol, report.runs, report.steps, report.side) == (protocol, 2, 30, 16)
    assert report.items == items
    assert report.seeds == (0, 1)
    assert report.test_images == 200


def test_the_report_adds_up(reports):
    report = reports["H"]
    assert report.accuracy_percent == pytest.approx(sum(report.per_run) / 2)
    assert report.spread == pytest.approx(stdev(report.per_run))
    share = report.accuracy_percent / 100
    assert report.binomial_error == pytest.approx(100 * (share * (1 - share) / 200) ** 0.5)
    values = json.loads(json.dumps(report.as_json()))
    assert values["runs"] == 2
    assert values["per_run"] == [round(run, 4) for run in report.per_run]
    assert f"{report.accuracy_percent:.1f} %" in report.as_text()


def test_the_number_of_processes_changes_nothing(collages, test_images, reports):
    seen = []
    again = evaluate_all(
        [(collages, "H"), (collages, "S1")],
        test_images,
        runs=2,
        steps=30,
        processes=2,
        progress=lambda *step: seen.append(step),
    )
    assert [report.per_run for report in again] == [reports["H"].per_run, reports["S1"].per_run]
    assert (seen[0], seen[-1]) == (("students", 0, 4), ("students", 4, 4))
    assert seen == sorted(set(seen))


def test_one_run_has_no_spread_and_its_own_seed(collages, test_images):
    report = evaluate(collages, test_images, protocol="H", runs=1, steps=2, seed=7, side=8, flip=True)
    assert report.spread is None
    assert report.seeds == (7,)
    assert report.network == "ConvNet 32-32 with GroupNorm"
    assert "±" not in report.as_text()


def test_flips_reach_the_students():
    """Bright to the left or bright to the right: who learns from mirrored images cannot tell."""
    labels = np.arange(40) % 2
    images = np.zeros((40, 8, 8, 3), np.uint8)
    images[labels == 0, :, :4] = images[labels == 1, :, 4:] = 200
    dataset, test = (
        TrainingSet(images, labels, None, (1, 1), ("left", "right")),
        LabelledImages(list(images), labels, ("left", "right"), "sides"),
    )
    plain, flipped = (
        evaluate(dataset, test, protocol="H", runs=1, steps=60, side=8, flip=flip) for flip in (False, True)
    )
    assert plain.accuracy_percent == 100
    assert flipped.accuracy_percent < 80


def test_soft_labels_and_not_the_classes_are_what_s0_and_s1_learn(collages, test_images):
    turned = replace(collages, patch_logits=np.roll(collages.patch_logits, 1, axis=2))
    shifted = replace(test_images, labels=(test_images.labels + 1) % 4)
    for protocol in ("S0", "S1"):
        assert evaluate(turned, shifted, protocol=protocol, runs=1, steps=30).accuracy_percent > 80


# -------------------------------------------------------------------------------------------------- crops


def test_a_crop_inside_one_patch_has_the_label_of_that_patch():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0], [0.3, 0.3, 0.4]])
    for patch, (top, left) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        label = crop_label(16, 16, (2, 2), (top, left, top + 8, left + 8), probabilities)
        assert (label == probabilities[patch]).all()
        label = crop_label(16, 16, (2, 2), (top + 1, left + 2, top + 5, left + 6), probabilities)
        assert label == pytest.approx(probabilities[patch], abs=1e-15)


def test_other_crops_mix_the_labels_by_area():
    probabilities = np.eye(4)
    assert crop_label(16, 16, (2, 2), (0, 0, 16, 16), probabilities) == pytest.approx([0.25] * 4)
    assert crop_label(16, 16, (2, 2), (0, 6, 8, 14), probabilities) == pytest.approx([0.25, 0.75, 0, 0])
    assert crop_label(16, 16, (2, 2), (4, 6, 12, 14), probabilities) == pytest.approx([0.125, 0.375] * 2)


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(16, 16, (2, 2)), (16, 16, (1, 1)), (12, 24, (1, 3)), (4, 4, (4, 4))]
)
def test_random_boxes_are_squares_between_a_patch_and_the_collage(height, width, grid):
    generator = torch.Generator().manual_seed(0)
    boxes = {random_box(height, width, grid, generator) for _ in range(2000)}
    sides = {bottom - top for top, _, bottom, _ in boxes}
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert bottom - top == right - left
    assert min(sides) == round((height * width / (grid[0] * grid[1])) ** 0.5)
    assert max(sides) == min(height, width)
    assert min(top for top, *_ in boxes) == 0
    assert max(bottom for _, _, bottom, _ in boxes) == height


def test_crops_and_their_labels_belong_together():
    """Every patch has one grey level, and its label is sure of the class of that level."""
    cells = np.arange(4, dtype=np.uint8).reshape(1, 4, 1, 1, 1).repeat(3, 4) * 80
    images = assemble(np.broadcast_to(cells, (1, 4, 8, 8, 3)), (2, 2))
    labels_of = np.eye(4, dtype=np.float32)[None]
    batches = crop_batches(images, labels_of, (2, 2), 8, torch.Generator().manual_seed(0))
    for _ in range(20):
        pixels, labels = next(batches)
        assert pixels.shape == (4, 3, 8, 8)
        assert torch.allclose(labels.sum(1), torch.ones(4))
        mean = pixels.float().mean((1, 2, 3))
        assert torch.allclose(mean, labels @ torch.tensor([0.0, 80.0, 160.0, 240.0]), atol=6)


# ------------------------------------------------------------------------------------------------ classes


def test_the_order_of_the_test_classes_does_not_matter(collages, test_images, reports):
    names = tuple(reversed(test_images.class_names))
    reversed_order = LabelledImages(test_images.images, 3 - test_images.labels, names, "reversed")
    assert evaluate(collages, reversed_order, protocol="H", runs=2, steps=30).per_run == reports["H"].per_run


@pytest.mark.parametrize(
    ("theirs", "named"), [(("a", "b"), "c"), (("a", "b", "c", "d"), "d"), (("a", "b", "x"), "x"), (("0", "1"), "a")]
)
def test_other_classes_are_refused_by_name(theirs, named):
    test = LabelledImages([np.zeros((8, 8, 3), np.uint8)], np.zeros(1, np.int64), theirs, "here")
    with pytest.raises(ImagesError, match=f"(: |, ){named}"):
        mapped_labels(test, ("a", "b", "c"))


def test_numbered_classes_are_matched_by_position():
    test = LabelledImages([np.zeros((8, 8, 3), np.uint8)] * 3, np.array([2, 0, 1]), ("0", "1", "2"), "here")
    assert mapped_labels(test, ("c", "b", "a")).tolist() == [2, 0, 1]
    assert mapped_labels(test, ("2", "1", "0")).tolist() == [0, 2, 1]  # the same names: by name
    folders = replace(test, class_names=("00000", "00001", "00002"))
    assert mapped_labels(folders, ("c", "b", "a")).tolist() == [2, 0, 1]
    assert mapped_labels(replace(test, class_names=("b", "a", "c")), ("a", "b", "c")).tolist() == [2, 1, 0]


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("protocol", ["S0", "S1"])
def test_soft_protocols_need_soft_labels(collages, test_images, protocol):
    with pytest.raises(UsageError, match="protocol H"):
        evaluate(replace(collages, patch_logits=None), test_images, protocol=protocol, steps=1)


@pytest.mark.parametrize(
    ("name", "value"), [("runs", 0), ("steps", 0), ("processes", 0), ("side", 20), ("protocol", "F")]
)
def test_arguments_without_sense(collages, test_images, name, value):
    arguments = {"protocol": "H", "steps": 1, "runs": 1} | {name: value}
    with pytest.raises(UsageError) as caught:
        evaluate(collages, test_images, **arguments)
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", np.zeros((40, 16, 16), np.uint8)),
        ("images", np.zeros((0, 16, 16, 3), np.uint8)),
        ("labels", np.zeros(39, np.int64)),
        ("labels", np.full(40, 4)),
        ("patch_logits", np.zeros((40, 3, 4))),
    ],
)
def test_parts_that_do_not_fit_together(collages, field, value):
    with pytest.raises(ImagesError) as caught:
        replace(collages, **{field: value})
    assert caught.value.field == field


def test_probabilities_are_the_softmax_even_of_large_logits(collages):
    logits = np.full((40, 4, 4), -5000.0)
    logits[..., :2] = 5000
    soft = replace(collages, patch_logits=logits).probabilities()
    assert soft[0, 0].tolist() == [0.5, 0.5, 0, 0]


def test_a_failing_student_ends_the_others(collages, test_images):
    """More classes in the labels than the network has can only come from a broken task: nothing may hang."""
    good = Task(
        collages.images,
        collages.labels,
        None,
        None,
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros(1, np.int64),
        4,
        1,
        0,
        16,
    )
    with pytest.raises(ImagesError):
        run_students([replace(good, classes=2), good], processes=2)


def test_students_default_steps_are_used(collages, test_images, monkeypatch):
    monkeypatch.setattr(students, "STEPS", 3)
    assert evaluate(collages, test_images, protocol="S0", runs=1).steps == 3
