"""The evaluation protocols: what students learn from a distilled dataset, as accuracy on real test images.

H: an item is a patch with the class of its collage, augmented. S0: an item is a patch with its stored soft
label, not augmented. S1: an item is a random resized crop of a collage, labelled by the area rule, augmented.
Figures of different protocols never stand in one column. Network, optimiser and number of steps are the same
for all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from d3codec.errors import ImagesError, UsageError
from d3codec.grid import Grid, cut
from d3codec.sources import LabelledImages
from d3codec.training import students
from d3codec.training.crops import crop_batches
from d3codec.training.students import SMALL_AFFINE, Augmentation, ConvNet, Progress
from d3codec.training.workers import in_processes

Protocol = Literal["H", "S0", "S1"]


@dataclass(frozen=True)
class TrainingSet:
    """A distilled dataset, decoded. Raises ImagesError for parts that do not fit together.

    images: uint8 [N, H, W, 3], collages; labels: int64 [N], their classes; patch_logits: float
    [N, patches, classes], the teacher's logits, None with hard labels; grid: (rows, columns) of a collage;
    class_names: in the order of labels and logits.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patch_logits: NDArray[np.floating[Any]] | None
    grid: Grid
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        count, classes, patches = len(self.images), len(self.class_names), self.grid[0] * self.grid[1]
        if not count or self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise ImagesError(
                "not a set of RGB images",
                field="images",
                found=f"{self.images.dtype} {self.images.shape}",
                expected="uint8 (N, height, width, 3)",
            )
        if self.labels.shape != (count,) or self.labels.min() < 0 or self.labels.max() >= classes:
            raise ImagesError(
                "the labels do not fit the images",
                field="labels",
                found=str(self.labels.shape),
                expected=f"({count},), from 0 to {classes - 1}",
            )
        if self.patch_logits is not None and self.patch_logits.shape != (count, patches, classes):
            raise ImagesError(
                "the logits do not fit the images",
                field="patch_logits",
                found=str(self.patch_logits.shape),
                expected=str((count, patches, classes)),
            )

    def patches(self) -> NDArray[np.uint8]:
        """uint8 [N * patches, h, w, 3], row by row within a collage."""
        cells = cut(self.images, self.grid)
        return cells.reshape(-1, *cells.shape[2:])

    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the patch logits at temperature 1, float32 [N, patches, classes].

        Raises UsageError with hard labels.
        """
        if self.patch_logits is None:
            raise UsageError(
                "this dataset has hard labels: there are no soft ones to train on",
                field="protocol",
                hint="Use protocol H.",
            )
        logits = self.patch_logits.astype(np.float64)
        powers = np.exp(logits - logits.max(2, keepdims=True))
        return np.asarray(powers / powers.sum(2, keepdims=True), np.float32)


@dataclass(frozen=True)
class EvaluationReport:
    """What students reached on the test images.

    accuracy_percent: mean of the runs; spread: their sample standard deviation in points, None for one run;
    binomial_error: standard error in points that comes from the number of test images alone; items: patches
    (H, S0) or collages (S1) trained on; seeds, per_run: of each run its seed and its accuracy; seconds:
    training and testing, added up over the runs.
    """

    accuracy_percent: float
    spread: float | None
    runs: int
    protocol: Protocol
    binomial_error: float
    steps: int
    side: int
    network: str
    items: int
    test_images: int
    seeds: tuple[int, ...]
    per_run: tuple[float, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        values = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return values | {"seeds": list(self.seeds), "per_run": [round(value, 4) for value in self.per_run]}

    def as_text(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.1f} over {self.runs} runs"
        return (
            f"protocol {self.protocol}: {self.accuracy_percent:.1f} %{spread} of {self.test_images:,} "
            f"test images (binomial error {self.binomial_error:.1f})\n{self.network}, "
            f"{self.steps:,} steps, {self.side} x {self.side} pixels, {self.seconds:.0f} s"
        )


def evaluate(
    dataset: TrainingSet,
    test: LabelledImages,
    *,
    protocol: Protocol,
    runs: int = 3,
    steps: int | None = None,
    side: int | None = None,
    flip: bool = False,
    augment: Augmentation = SMALL_AFFINE,
    seed: int = 0,
    processes: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> EvaluationReport:
    """Train students on a dataset and test them.

    Arguments:
        test: real images. Their classes are matched to the dataset's by name.
        runs: students, with the training seeds `seed`, `seed` + 1, ...
        steps: of the optimiser, by default students.STEPS.
        side: of the images in the network, a power of two; by default the next one to the patches, 16 to 64.
        flip: mirror half of the images (H and S1).
        augment: the other random changes (H and S1).
        processes: students trained at once, each on one thread. The result does not depend on it. Above 1 the
            main program must be importable (`if __name__ == "__main__"`).

    Raises:
        ImagesError: test classes that are not those of the dataset.
        UsageError: a soft protocol for hard labels, or numbers that make no sense.
    """
    return evaluate_all(
        [(dataset, protocol)],
        test,
        runs=runs,
        steps=steps,
        side=side,
        flip=flip,
        augment=augment,
        seed=seed,
        processes=processes,
        device=device,
        progress=progress,
    )[0]


def evaluate_all(
    rows: Sequence[tuple[TrainingSet, Protocol]],
    test: LabelledImages,
    *,
    runs: int = 3,
    steps: int | None = None,
    side: int | None = None,
    flip: bool = False,
    augment: Augmentation = SMALL_AFFINE,
    seed: int = 0,
    processes: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[EvaluationReport]:
    """`evaluate` for several datasets, whose students share the processes."""
    steps = students.STEPS if steps is None else steps
    for name, number in (("runs", runs), ("steps", steps), ("processes", processes)):
        if number < 1:
            raise UsageError("too few", field=name, found=number, expected="1 or more")
    augment = replace(augment, flip=flip or augment.flip)
    tasks = []
    for dataset, protocol in rows:
        pixels = side or students.default_side(min(dataset.patches().shape[1:3]))
        tested = students.resize_for_student(test.images, pixels), mapped_labels(test, dataset.class_names)
        training = _training(dataset, protocol, pixels, augment)
        tasks += [
            Task(*training, *tested, len(dataset.class_names), steps, each, pixels, device)
            for each in range(seed, seed + runs)
        ]
    results = run_students(tasks, processes=processes, progress=progress)
    return [
        _report(protocol, tasks[at : at + runs], results[at : at + runs])
        for at, (_, protocol) in zip(range(0, len(tasks), runs), rows, strict=True)
    ]


def mapped_labels(test: LabelledImages, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Labels of test images as positions in `class_names`, matched by name.

    Class order is the most frequent reproduction failure of this field. Only where the names are not the dataset's
    but 0, 1, ... or 00000, 00001, ... (a parquet file without metadata, numbered folders) positions decide. Raises
    ImagesError if the classes are not the same, naming them.
    """
    theirs, ours = tuple(test.class_names), tuple(class_names)
    numbered = set(theirs) != set(ours) and all(name.isdecimal() for name in theirs)
    numbered = numbered and sorted(map(int, theirs)) == list(range(len(ours)))
    missing = () if numbered else tuple(name for name in ours if name not in theirs)
    extra = () if numbered else tuple(name for name in theirs if name not in ours)
    if missing or extra:
        parts = [
            f"{what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for what, names in (("without test images", missing), ("unknown to the dataset", extra))
            if names
        ]
        raise ImagesError(
            f"the test images have other classes than the dataset; {'; '.join(parts)}",
            file=test.source,
            field="classes",
            found=len(theirs),
            expected=len(ours),
            hint="Classes are matched by name: rename class folders, or write a classes.json.",
        )
    places = [int(name) if numbered else ours.index(name) for name in theirs]
    return np.asarray(np.array(places, np.int64)[test.labels])


def _training(
    dataset: TrainingSet, protocol: Protocol, side: int, augment: Augmentation
) -> tuple[NDArray[np.uint8], NDArray[Any], Grid | None, Augmentation | None]:
    """Images, targets, grid (only if items are crops) and augmentation of a protocol."""
    if protocol == "H":
        patches = students.resize_for_student(dataset.patches(), side)
        return patches, np.repeat(dataset.labels, len(patches) // len(dataset.labels)), None, augment
    if protocol == "S0":
        patches = students.resize_for_student(dataset.patches(), side)
        return patches, dataset.probabilities().reshape(len(patches), -1), None, None
    if protocol == "S1":
        return dataset.images, dataset.probabilities(), dataset.grid, augment
    raise UsageError("an unknown protocol", field="protocol", found=protocol, expected=", ".join(get_args(Protocol)))


# ------------------------------------------------------------------------------------------------ students


@dataclass(frozen=True)
class Task:
    """One student: what it trains on (see `_training`), what it is tested on, how long, with which seed."""

    images: NDArray[np.uint8]
    targets: NDArray[Any]
    crop_grid: Grid | None
    augment: Augmentation | None
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: int
    steps: int
    seed: int
    side: int
    device: str = "cpu"


def run_students(
    tasks: Sequence[Task], *, processes: int = 1, progress: Progress | None = None
) -> list[tuple[float, float]]:
    """(accuracy in percent, seconds) of each task, in order. The accuracy does not depend on `processes`."""
    return in_processes(_run_student, tasks, "students", len(tasks), processes=processes, progress=progress)


def _run_student(task: Task, progress: Progress) -> tuple[float, float]:
    started = time.perf_counter()
    logits = students.predict(_train(task), task.test_images)
    progress("student", 1, 1)
    return students.accuracy(logits, task.test_labels), time.perf_counter() - started


def _train(task: Task) -> ConvNet:
    if task.crop_grid is None:
        return students.train(
            task.images,
            task.targets,
            classes=task.classes,
            steps=task.steps,
            seed=task.seed,
            side=task.side,
            augment=task.augment,
            device=task.device,
        )
    generator = torch.Generator().manual_seed(task.seed)
    net = students.fresh(task.classes, task.side, task.images, generator)
    batches = crop_batches(task.images, task.targets, task.crop_grid, task.side, generator)
    return students.fit(net, batches, steps=task.steps, generator=generator, augment=task.augment, device=task.device)


def _report(protocol: Protocol, tasks: Sequence[Task], results: Sequence[tuple[float, float]]) -> EvaluationReport:
    first, per_run = tasks[0], tuple(percent for percent, _ in results)
    mean, tested = fmean(per_run), len(first.test_labels)
    widths = "-".join(map(str, students.block_widths(first.side)))
    return EvaluationReport(
        mean,
        stdev(per_run) if len(per_run) > 1 else None,
        len(per_run),
        protocol,
        students.binomial_error(mean, tested),
        first.steps,
        first.side,
        f"ConvNet {widths} with GroupNorm",
        len(first.images),
        tested,
        tuple(task.seed for task in tasks),
        per_run,
        sum(spent for _, spent in results),
    )
