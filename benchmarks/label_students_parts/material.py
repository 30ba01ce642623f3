"""Datasets, teachers of our own, and distilled datasets of real images with the teacher's logits of their patches."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import MissingFileError
from d3codec.format.save import save_atomically
from d3codec.grid import assemble
from d3codec.sources import LabelledImages, read_images
from d3codec.training import students
from d3codec.training.protocols import mapped_labels
from d3codec.training.teachers import ConvNetTeacher, hold_out, load_teacher, train_teacher

SIDE, TEACHER_SIDE, GRID, A_CLASS = 32, 64, (2, 2), 40
TEACHER_AUGMENT = students.Augmentation(rotate_degrees=6.0, shift=0.1, scale=0.15, flip=True)


@dataclass(frozen=True)
class Problem:
    """A dataset: its files, how long networks train, and its rows: k of top-k, bytes a label of the ranked head, k of
    MR-k where a codec holds all logits."""

    name: str
    title: str
    train: tuple[str, ...]
    test: str
    teacher_steps: int
    steps: int
    tops: tuple[int, ...]
    budgets: tuple[float, ...]
    mr: int


PROBLEMS = (
    Problem(
        "tiny-imagenet-197",
        "Tiny-ImageNet, 197 classes",
        ("tiny_imagenet_no_nette_64_train.parquet",),
        "tiny_imagenet_no_nette_64_val.parquet",
        teacher_steps=2000,
        steps=400,
        tops=(1, 2, 5, 10),
        budgets=(2, 4, 8, 16, 40),
        mr=10,
    ),
    Problem(
        "imagenette",
        "ImageNette, 10 classes",
        ("imagenette_64_train.parquet", "imagenette_64_train_extra.parquet"),
        "imagenette_64_val.parquet",
        teacher_steps=1200,
        steps=200,
        tops=(1, 2),
        budgets=(0.5, 1, 2, 4, 8),
        mr=3,
    ),
)


@dataclass(frozen=True)
class Material:
    """Patches, uint8 [N, 32, 32, 3], by class, and their collages; classes, int64 [N]; the teacher's logits of the
    patches, float32 [N, width]; (images, labels) that validate and that test; what is to be said of the teacher."""

    patches: NDArray[np.uint8]
    collages: NDArray[np.uint8]
    classes: NDArray[np.int64]
    logits: NDArray[np.float32]
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    teacher: dict[str, Any]


def material(problem: Problem, data: Path, work: Path) -> Material:
    """Train the teacher unless `work` has it, cut patches and ask it for their logits.

    Patches are the first images of each class on which the teacher was trained, the validation images those that it
    was not. Raises MissingFileError without the images.
    """
    for name in (*problem.train, problem.test):
        if not (data / name).is_file():
            raise MissingFileError("no such file", file=name, hint="Name its folder with --data or D3CODEC_DATA.")
    parts = [read_images(data / name) for name in problem.train]
    names, known = parts[0].class_names, np.concatenate([part.labels for part in parts])
    images = [image for part in parts for image in part.images]
    small = students.resize_for_student(images, SIDE)
    test = read_images(data / problem.test)
    test_labels, small_test = mapped_labels(test, names), students.resize_for_student(test.images, SIDE)
    weights = work / f"{problem.name}-teacher.safetensors"
    report = weights.with_suffix(".json")
    if not (weights.exists() and report.exists()):
        taught = teach(problem, LabelledImages(images, known, names, problem.name), small, weights)
        teacher = load_teacher(weights)
        taught["accuracy_percent"] = round(students.accuracy(teacher(test.images), test_labels), 2)
        taught["accuracy_through_patches_percent"] = round(students.accuracy(teacher(small_test), test_labels), 2)
        save_atomically(report, json.dumps(taught).encode())
    kept, held = hold_out(known, seed=0)
    members = [kept[known[kept] == label][:A_CLASS] for label in range(len(names))]
    patches = small[np.concatenate(members)]
    return Material(
        patches,
        assemble(patches.reshape(-1, GRID[0] * GRID[1], SIDE, SIDE, 3), GRID),
        np.repeat(np.arange(len(names)), A_CLASS),
        asked(weights, patches, work / f"{problem.name}-logits"),
        (small[held], known[held]),
        (small_test, test_labels),
        json.loads(report.read_text()),
    )


def teach(problem: Problem, images: LabelledImages, small: NDArray[np.uint8], weights: Path) -> dict[str, Any]:
    """Train the teacher: half of the images, by lot, as a patch shows them, because patches are what it will judge."""
    blurred = np.random.default_rng(0).random(len(images)) < 0.5
    patched = students.resize_for_student(small, TEACHER_SIDE)
    seen = [patch if lot else image for lot, patch, image in zip(blurred, patched, images.images, strict=True)]
    started = time.process_time()
    report = train_teacher(
        replace(images, images=seen),
        weights,
        side=TEACHER_SIDE,
        steps=problem.teacher_steps,
        seed=0,
        augment=TEACHER_AUGMENT,
    )
    chosen = {key: value for key, value in report.as_json().items() if key in ("side", "steps", "trained_on", "digest")}
    return chosen | {"cpu_seconds": round(time.process_time() - started)}


def asked(weights: Path, patches: NDArray[np.uint8], saved: Path) -> NDArray[np.float32]:
    """The teacher's logits of patches, kept in a file because asking takes a while."""
    teacher = load_teacher(weights)
    assert isinstance(teacher, ConvNetTeacher)
    path = saved.with_name(f"{saved.name}-{teacher.digest[:12]}.npy")
    if not path.exists():
        np.save(path, teacher(patches))
    return np.asarray(np.load(path))
