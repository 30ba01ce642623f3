"""Students of photographs: convolutional networks with batch norm, trained from nothing on groups of images.

The recipe is fixed for all rows of a table: AdamW with the one-cycle schedule, random crop and mirror, hard labels
smoothed or stored logits at a temperature (Hinton et al., arXiv 1503.02531), steps and batch by one rule in the number
of images. Training is deterministic for one seed, one thread and one machine; it draws from its own generator and
leaves torch's global state alone. Setting the threads is the caller's business in `train_student`, `predict` and
`features`; `evaluate_groups` takes one a student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from d3codec.errors import ImagesError, UsageError
from d3codec.training import students
from d3codec.training.photo_images import MEAN, SPREAD, cropped, padded, resize_photos
from d3codec.training.students import Images, Progress
from d3codec.training.workers import in_processes

PEAK_RATE, WEIGHT_DECAY = 2e-3, 0.05
LABEL_SMOOTHING, TEMPERATURE = 0.1, 2.0
LARGEST_WEIGHT = 255

# ------------------------------------------------------------------------------------------------- network


class PhotoNet(nn.Module):
    """Blocks of conv3x3, batch norm, ReLU, max pool; global average pool; linear.

    Widths 32-64-128 for images of 32 pixels, 32-64-128-256 for 64 (`students.block_widths`). Its weights are not
    drawn by torch's global generator: see `new_network`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, classes: int, side: int) -> None:
        super().__init__()
        self.classes, self.side = classes, side
        layers: list[nn.Module] = []
        channels = 3
        for width in students.block_widths(side):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)
        for name, values in (("mean", MEAN), ("spread", SPREAD)):
            self.register_buffer(name, torch.tensor(values, device="cpu").reshape(3, 1, 1), persistent=False)

    def features(self, pixels: Tensor) -> Tensor:
        """What the last layer sees: float [N, channels] of pixels [N, 3, side, side], levels 0 to 255."""
        return cast(Tensor, self.blocks((pixels - self.mean) / self.spread).mean((2, 3)))

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(pixels)))


def empty_network(classes: int, side: int) -> PhotoNet:
    """A PhotoNet that takes no memory yet. UsageError if no network has that side."""
    with torch.device("meta"):
        return PhotoNet(classes, side)


def new_network(classes: int, side: int, generator: torch.Generator) -> PhotoNet:
    """A PhotoNet with weights drawn by the rule of torch's layers, from `generator`."""
    net = empty_network(classes, side)
    constants = net.mean, net.spread
    net.to_empty(device="cpu")
    net.mean, net.spread = constants
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1 / layer.weight[0].numel() ** 0.5
            for values in (layer.weight, cast(Tensor, layer.bias)):
                nn.init.uniform_(values, -bound, bound, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return cast(PhotoNet, net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


# ---------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class PhotoGroup:
    """Images of one kind and what students are told about them. ImagesError for parts that do not fit together.

    images: uint8 [N, H, W, 3], or several such arrays, alternative copies of the same images: each time an image is
    drawn one of its copies is taken at random. labels: int64 [N]. logits: stored soft labels, float [N, classes],
    None for hard labels. weight: 1 to 255; a batch holds images of the groups in proportion to their weights.
    """

    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    logits: NDArray[np.floating[Any]] | None = None
    weight: int = 1

    def __post_init__(self) -> None:
        copies, count = self.copies, len(self.labels)
        for copy in copies:
            if copy.dtype != np.uint8 or copy.ndim != 4 or copy.shape[3] != 3 or copy.shape != copies[0].shape:
                raise ImagesError(
                    "not a set of RGB images of one size",
                    field="images",
                    found=f"{copy.dtype} {copy.shape}",
                    expected=f"uint8 (N, height, width, 3), all copies {copies[0].shape}",
                )
        if not copies or not count or len(copies[0]) != count or self.labels.shape != (count,):
            raise ImagesError(
                "the labels do not fit the images",
                field="labels",
                found=str(self.labels.shape),
                expected=f"({len(copies[0]) if copies else 'N'},), at least one image",
            )
        if not np.issubdtype(self.labels.dtype, np.integer) or self.labels.min() < 0:
            raise ImagesError(
                "the labels are not classes", field="labels", found=self.labels.dtype, expected="integers from 0"
            )
        if type(self.weight) is not int or not 1 <= self.weight <= LARGEST_WEIGHT:
            raise UsageError("no weight of a group", field="weight", found=self.weight, expected="1 to 255")

    @property
    def copies(self) -> tuple[NDArray[np.uint8], ...]:
        return (self.images,) if isinstance(self.images, np.ndarray) else tuple(self.images)

    def __len__(self) -> int:
        return len(self.labels)

    def targets(self, classes: int) -> tuple[NDArray[np.float32], float]:
        """Probabilities to learn, float32 [N, classes], and the temperature at which the student is compared."""
        if self.labels.max() >= classes:
            raise ImagesError(
                "a label is no class", field="labels", found=int(self.labels.max()), expected=f"0 to {classes - 1}"
            )
        if self.logits is None:
            smoothed = np.full((len(self), classes), LABEL_SMOOTHING / classes, np.float32)
            smoothed[np.arange(len(self)), self.labels] += 1 - LABEL_SMOOTHING
            return smoothed, 1.0
        if self.logits.shape != (len(self), classes) or not np.isfinite(self.logits).all():
            raise ImagesError(
                "the logits do not fit the images",
                field="logits",
                found=f"{self.logits.shape}, {'all' if np.isfinite(self.logits).all() else 'not all'} finite",
                expected=f"{(len(self), classes)}, all finite",
            )
        powers = np.exp((self.logits - self.logits.max(1, keepdims=True)) / TEMPERATURE)
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32), TEMPERATURE


def schedule(count: int, groups: int = 1) -> tuple[int, int]:
    """(steps, batch) of a student of `count` images in so many groups: one rule for everything that is compared."""
    steps = int(max(400, min(1200, 500 * (count / 500) ** 0.35)))
    return steps, 64 if groups > 1 or count >= 200 else min(32, count)


def batch_shares(weights: Sequence[int], batch: int) -> Iterator[list[int]]:
    """How many images of each group the next batch holds, without end.

    The slots of the batches are dealt to the group that is furthest behind its share, so that the groups take turns
    evenly and any sum(weights) slots from the beginning hold exactly `weights[g]` of group g.
    """
    total = sum(weights)
    turns, taken = np.empty(total, np.int64), np.zeros(len(weights), np.int64)
    for slot in range(total):
        turns[slot] = np.argmax(np.array(weights) * (slot + 1) - taken * total)
        taken[turns[slot]] += 1
    start = 0
    while True:
        here = turns[np.arange(start, start + batch) % total]
        yield np.bincount(here, minlength=len(weights)).tolist()
        start = (start + batch) % total


class _Material:
    """A group, ready to be drawn from: an endless row of permutations of its images."""

    def __init__(self, group: PhotoGroup, classes: int, side: int, generator: torch.Generator) -> None:
        copies = [padded(resize_photos(copy, side)) for copy in group.copies]
        self._copies = torch.from_numpy(np.stack(copies) if len(copies) > 1 else copies[0][None])
        targets, self.temperature = group.targets(classes)
        self._targets, self._generator = torch.from_numpy(targets), generator
        self._waiting = torch.empty(0, dtype=torch.int64)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next images uint8 [count, S, S, 3], their targets [count, classes] and temperatures [count, 1]."""
        while len(self._waiting) < count:
            more = torch.randperm(len(self._targets), generator=self._generator)
            self._waiting = torch.cat([self._waiting, more])
        at, self._waiting = self._waiting[:count], self._waiting[count:]
        copy: Tensor | int = 0
        if len(self._copies) > 1:
            copy = torch.randint(len(self._copies), (count,), generator=self._generator)
        return self._copies[copy, at], self._targets[at], torch.full((count, 1), self.temperature)


# ------------------------------------------------------------------------------------------------ training


def quick_bf16() -> bool:
    """Whether this processor multiplies bfloat16 numbers faster than float32 ones (AVX-512-BF16 or AMX)."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def train_student(
    groups: Sequence[PhotoGroup],
    *,
    classes: int,
    side: int,
    seed: int,
    steps: int | None = None,
    batch: int | None = None,
    bf16: bool | None = None,
    progress: Progress | None = None,
) -> PhotoNet:
    """Train a student from nothing.

    Arguments:
        groups: what it learns from; images of another size are resized (`resize_photos`).
        side: pixels of its images, a power of two.
        seed: of weights, order, copies and crops.
        steps, batch: of the optimiser, and images in each; by default those of `schedule`.
        bf16: multiply in bfloat16 while training; by default where it is quicker (`quick_bf16`).
        progress: called as progress("training", step, steps).

    Returns:
        The network after the last step, in evaluation mode.

    Raises:
        ImagesError, UsageError: labels, logits or numbers that do not fit.
    """
    if not groups:
        raise UsageError("nothing to train on", field="groups", found=0, expected="one group or more")
    rule = schedule(sum(map(len, groups)), len(groups))
    steps, batch = rule[0] if steps is None else steps, rule[1] if batch is None else batch
    for name, number in (("steps", steps), ("batch", batch)):
        if number < 1:
            raise UsageError("too few", field=name, found=number, expected="1 or more")
    generator = torch.Generator().manual_seed(seed)
    net = new_network(classes, side, generator).train()
    material = [_Material(group, classes, side, generator) for group in groups]
    shares = batch_shares([group.weight for group in groups], batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    reduced = quick_bf16() if bf16 is None else bf16
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=steps)
    for step, share in zip(range(steps), shares, strict=False):
        drawn = [each.draw(count) for each, count in zip(material, share, strict=True) if count]
        images, targets, temperatures = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        pixels = cropped(images, side, generator).permute(0, 3, 1, 2).float()  # channels last, as the weights
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            logits = net(pixels)
        agreed = (targets * functional.log_softmax(logits.float() / temperatures, 1)).sum(1)
        optimizer.zero_grad()
        loss = -(agreed * temperatures[:, 0] ** 2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        if progress is not None:
            progress("training", step + 1, steps)
    return net.eval()


@torch.no_grad()
def predict(net: PhotoNet, images: Images) -> NDArray[np.float32]:
    """Logits, float32 [N, classes], of uint8 images of any sizes."""
    return students.in_batches(net.forward, images, net.classes, lambda some: resize_photos(some, net.side))


@torch.no_grad()
def features(net: PhotoNet, images: Images) -> NDArray[np.float32]:
    """What the network's last layer sees, float32 [N, channels], of uint8 images of any sizes."""
    return students.in_batches(net.features, images, net.head.in_features, lambda some: resize_photos(some, net.side))


# ---------------------------------------------------------------------------------------------- evaluation


def evaluate_groups(
    groups: Sequence[PhotoGroup],
    test_images: Images,
    test_labels: NDArray[np.int64],
    *,
    classes: int,
    side: int,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int | None = None,
    processes: int = 1,
    bf16: bool | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Train a student with each seed and test it: accuracies in percent, one a seed. See `evaluate_rows`."""
    return evaluate_rows(
        [groups],
        test_images,
        test_labels,
        classes=classes,
        side=side,
        seeds=seeds,
        steps=steps,
        processes=processes,
        bf16=bf16,
        progress=progress,
    )[0]


def evaluate_rows(
    rows: Sequence[Sequence[PhotoGroup]],
    test_images: Images,
    test_labels: NDArray[np.int64],
    *,
    classes: int,
    side: int,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int | None = None,
    processes: int = 1,
    bf16: bool | None = None,
    progress: Progress | None = None,
) -> list[list[float]]:
    """`evaluate_groups` for several training sets, whose students share the processes.

    Arguments:
        rows: the groups of each training set.
        test_images, test_labels: uint8 images of any sizes and int64 [N], in the same classes.
        steps: of each student; by default those of `schedule`.
        processes: students trained at once, each on one thread. The result does not depend on it. Above 1 the main
            program must be importable (`if __name__ == "__main__"`).
        progress: called as progress("students", steps done, steps) while they train.

    Returns:
        Accuracies in percent, by row and seed.
    """
    if not len(test_images) or len(test_images) != len(test_labels):
        raise ImagesError(
            "the labels do not fit the test images", field="labels", found=len(test_labels), expected=len(test_images)
        )
    tested = resize_photos(test_images, side)
    tasks = [
        _Student(groups, tested, test_labels, classes, side, seed, steps, bf16) for groups in rows for seed in seeds
    ]
    lengths = [steps or schedule(sum(map(len, groups)), len(groups))[0] for groups in rows for _ in seeds]
    found = in_processes(_run_student, tasks, "students", sum(lengths), processes=processes, progress=progress)
    return [found[start : start + len(seeds)] for start in range(0, len(found), len(seeds))]


@dataclass(frozen=True)
class _Student:
    groups: Sequence[PhotoGroup]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: int
    side: int
    seed: int
    steps: int | None
    bf16: bool | None


def _run_student(task: _Student, progress: Progress) -> float:
    net = train_student(
        task.groups,
        classes=task.classes,
        side=task.side,
        seed=task.seed,
        steps=task.steps,
        bf16=task.bf16,
        progress=progress,
    )
    return students.accuracy(predict(net, task.test_images), task.test_labels)
