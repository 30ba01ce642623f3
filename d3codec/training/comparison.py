"""What a `.d3m` file is worth beside other ways to spend its bytes: the rows of the demo and of benchmarks/digits.py.

Every row is a training set with a price in bytes. All students share network, steps, resize and test images; a row
differs by its data and, with soft labels, by its protocol: H (hard labels, augmentation) or S0 (stored patch labels,
no augmentation). Columns of different protocols are never mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d3codec.dataset import Dataset, load
from d3codec.encoder.pack import class_words, repack_hard
from d3codec.encoder.select import select_class
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.load import load_generator
from d3codec.generators.weights import find_generator
from d3codec.grid import cut
from d3codec.sources import LabelledImages
from d3codec.training import baselines, students
from d3codec.training.protocols import Task, mapped_labels, run_students
from d3codec.training.teachers import Teacher

Progress = Callable[[str, int, int], None]
Role = Literal["d3m", "real", "reference"]
REAL_BITS = (1, 2, 4)
FINE_BITS = 4  # of the references: digits have 17 levels
SELECTED_BITS = 1  # of the row real-selected: with little room, more digits beat finer ones on validation images


@dataclass(frozen=True)
class Arm:
    """A training set: its price, and images with targets for every seed (random picks differ by seed)."""

    name: str
    role: Role
    what: str
    bytes: int
    protocol: Literal["H", "S0"]
    sets: tuple[tuple[NDArray[np.uint8], NDArray[Any]], ...]


@dataclass(frozen=True)
class Row:
    """A line of the table. Accuracy, spread (sample standard deviation over runs) and binomial error in points."""

    name: str
    role: Role
    what: str
    bytes: int
    images: int
    protocol: str
    accuracy_percent: float
    spread: float
    runs: int
    binomial_error: float
    per_run: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    file: str | Path,
    train: LabelledImages,
    test: LabelledImages,
    teacher: Teacher,
    *,
    generator: str | Path | None = None,
    side: int = 16,
    steps: int = students.STEPS,
    seeds: int = 3,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure a file, its controls and real images of the same bytes.

    Arguments:
        file: a `.d3m` with quantized labels whose classes are those of `train` and `test`, in the same order.
        train: the real images that the file was made from, of one size; test: images that nothing else has seen.
        generator: of the file; None looks for it.
        side, steps, seeds: of the students, the same for every row.
        processes: students trained at once, each on one thread; the result does not depend on it.

    Returns:
        The rows, in the order of the table; `chance` last.
    """
    arms = [*generated_arms(file, generator, seeds, progress), *real_arms(file, train, teacher, seeds)]
    tested = students.resize_for_student(test.images, side), mapped_labels(test, train.class_names)
    tasks = [
        Task(
            images,
            targets,
            None,
            students.SMALL_AFFINE if arm.protocol == "H" else None,
            *tested,
            len(train.class_names),
            steps,
            seed,
            side,
        )
        for arm in arms
        for seed, (images, targets) in enumerate(arm.sets)
    ]
    scores = [accuracy for accuracy, _ in run_students(tasks, processes=processes, progress=progress)]
    rows = [
        _row(arm, scores[at : at + seeds], len(test)) for at, arm in zip(range(0, len(tasks), seeds), arms, strict=True)
    ]
    return [*rows, _chance(train, test)]


def generated_arms(file: str | Path, generator: str | Path | None, seeds: int, progress: Progress | None) -> list[Arm]:
    """The file with its soft labels, with hard ones, and its recipe with class names instead of learned prompts."""
    dataset = load(file)
    group = dataset.file.content.groups[0]
    if group.generator is None:
        raise UsageError("a comparison of prompts needs images that a generator makes", file=dataset.path)
    folder = find_generator(group.generator, group.cast, given=generator)
    patches, hard = labelled_patches(dataset, folder, progress)
    soft = dataset.labels.probabilities().reshape(len(patches), -1)
    with TemporaryDirectory() as scratch:
        words = Path(scratch) / "class-words.d3m"
        words.write_bytes(class_words(file, load_generator(folder, cast=group.cast)))
        named, named_labels = labelled_patches(load(words), folder, progress)
        words_bytes = words.stat().st_size
    return [
        Arm("d3m", "d3m", "learned prompts, teacher's labels", dataset.bytes, "S0", ((patches, soft),) * seeds),
        Arm("d3m-hard", "d3m", "learned prompts, hard labels", len(repack_hard(file)), "H", ((patches, hard),) * seeds),
        Arm(
            "class-words",
            "d3m",
            "class names as prompts, nothing learned",
            words_bytes,
            "H",
            ((named, named_labels),) * seeds,
        ),
    ]


def labelled_patches(
    dataset: Dataset, generator: str | Path | None, progress: Progress | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All patches of a dataset's collages, uint8 [N, h, w, 3], and their classes, int64 [N]."""
    grid = dataset.file.content.groups[0].images.grid
    patches = cut(dataset.images(generator=generator, progress=progress), grid)
    classes = np.repeat(dataset.labels.hard(), patches.shape[1])
    return patches.reshape(-1, *patches.shape[2:]), classes


def real_arms(file: str | Path, train: LabelledImages, teacher: Teacher, seeds: int) -> list[Arm]:
    """Real images at the bytes of the file, the real images behind the collages, and all of them."""
    opened = D3MFile.open(file)
    budget, images, labels = opened.bytes_total, np.stack(list(train.images)), train.labels
    arms = []
    for bits in REAL_BITS:
        picks = [baselines.fit_to_bytes(images, labels, bits=bits, budget=budget, seed=seed) for seed in range(seeds)]
        arms.append(
            Arm(
                f"real-bytes-{bits}bit",
                "real",
                f"random real images, {bits} bit a pixel",
                max(pick.bytes for pick in picks),
                "H",
                tuple((pick.images, pick.labels) for pick in picks),
            )
        )
    chosen = baselines.select_by_teacher(images, labels, teacher, bits=SELECTED_BITS, budget=budget)
    arms.append(
        Arm(
            "real-selected",
            "real",
            f"real images chosen by the teacher, {SELECTED_BITS} bit a pixel",
            chosen.bytes,
            "H",
            ((chosen.images, chosen.labels),) * seeds,
        )
    )
    group = opened.content.groups[0]
    count = group.images.count * math.prod(group.images.grid)
    for name, what, positions in (
        (
            "real-patches",
            "as many real patches as the file shows, the best by RDED's rule",
            _collage_patches(train, teacher, count, images.shape[1]),
        ),
        ("full", "all real training images", np.arange(len(labels))),
    ):
        kept = baselines.store(images, labels, positions, FINE_BITS)
        arms.append(
            Arm(
                name,
                "reference",
                f"{what}, {FINE_BITS} bit a pixel",
                kept.bytes,
                "H",
                ((kept.images, kept.labels),) * seeds,
            )
        )
    return arms


def _collage_patches(train: LabelledImages, teacher: Teacher, per_class: int, side: int) -> NDArray[np.int64]:
    """Positions of the whole images that RDED's rule would put into as many collages as the file has."""
    choices = [
        select_class(train, label, teacher, crops=1, crop_scale=(1.0, 1.0), side=side, seed=0)
        for label in range(len(train.class_names))
    ]
    return np.concatenate([choice.best(per_class).images for choice in choices])


def _row(arm: Arm, runs: Sequence[float], tested: int) -> Row:
    mean = fmean(runs)
    return Row(
        arm.name,
        arm.role,
        arm.what,
        arm.bytes,
        len(arm.sets[0][0]),
        arm.protocol,
        round(mean, 2),
        round(stdev(runs), 2) if len(runs) > 1 else 0.0,
        len(runs),
        round(students.binomial_error(mean, tested), 2),
        tuple(round(run, 3) for run in runs),
    )


def _chance(train: LabelledImages, test: LabelledImages) -> Row:
    best = 100 * float(np.bincount(test.labels, minlength=len(train.class_names)).max()) / len(test)
    return Row(
        "chance",
        "reference",
        "always the most frequent test class",
        0,
        0,
        "-",
        round(best, 2),
        0.0,
        1,
        round(students.binomial_error(best, len(test)), 2),
        (round(best, 3),),
    )
