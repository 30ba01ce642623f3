"""Students: small convolutional networks, trained from nothing. They measure what a dataset is worth.

One resize, one network and one schedule for every row of a table, so that rows differ by their data alone.
Training is deterministic for one seed and one number of threads; it draws from its own generator and leaves
torch's global state alone. Setting the threads is the caller's business: protocols.py and teachers.py take
`one_thread`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from d3codec.errors import ImagesError, UsageError

BATCH, EVALUATION_BATCH = 64, 250
LEARNING_RATE = 3e-3
STEPS = 400
SMALLEST_SIDE, LARGEST_SIDE = 4, 1024
GROUPS = 8  # of GroupNorm; batch norm would tie the images of a batch together

Progress = Callable[[str, int, int], None]
Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
Targets = NDArray[np.int64] | NDArray[np.floating[Any]]


class ConvNet(nn.Module):
    """Blocks of conv3x3, GroupNorm, ReLU, max pool; global average pool; linear.

    Arguments:
        classes: number of logits.
        side: width and height of its images in pixels, a power of two from 4 to 1024.
        width: channels of the first block. Up to 16 pixels all blocks have this many and the last feature
            map is 2 x 2; from 32 pixels on each block doubles them and the last map is 4 x 4 (32-64-128 at 32
            pixels, 32-64-128-256 at 64).

    `mean` and `std` (float32 [3], levels of 0 to 255) normalise the pixels; training sets them to those of
    its images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, side: int, width: int = 32) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise UsageError("no network of this width", field="width", found=width, expected=f"a multiple of {GROUPS}")
        self.classes, self.side, self.width = classes, side, width
        layers: list[nn.Module] = []
        channels = 3
        for block in block_widths(side, width):
            layers += [nn.Conv2d(channels, block, 3, padding=1), nn.GroupNorm(GROUPS, block)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = block
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)
        self.register_buffer("mean", torch.full((3,), 127.5))
        self.register_buffer("std", torch.full((3,), 127.5))

    def features(self, pixels: Tensor) -> Tensor:
        """What the last layer sees: float [N, channels] of pixels [N, 3, side, side], levels 0 to 255."""
        normalised = (pixels - self.mean[:, None, None]) / self.std[:, None, None]
        return cast(Tensor, self.blocks(normalised).mean((2, 3)))

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(pixels)))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights from `generator`, by the rule that torch's layers use."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(cast(Tensor, layer.bias), -bound, bound, generator=generator)
            elif isinstance(layer, nn.GroupNorm):
                nn.init.ones_(layer.weight)
                nn.init.zeros_(layer.bias)


def block_widths(side: int, width: int = 32) -> tuple[int, ...]:
    """Channels of each block of a ConvNet for images of `side` pixels. UsageError if none has that side."""
    if not SMALLEST_SIDE <= side <= LARGEST_SIDE or side & (side - 1):
        raise UsageError(
            "no network for images of this side",
            field="side",
            found=side,
            expected=f"a power of two from {SMALLEST_SIDE} to {LARGEST_SIDE}",
        )
    halvings = side.bit_length() - 1
    if side <= 16:
        return (width,) * (halvings - 1)
    return tuple(width << block for block in range(halvings - 2))


def default_side(smallest: int) -> int:
    """Side of a network for images of `smallest` pixels: the next power of two, 16 to 64."""
    return min(64, max(16, 1 << (smallest - 1).bit_length()))


def empty_network(classes: int, side: int, width: int = 32) -> ConvNet:
    """A ConvNet whose weights are not drawn yet. Torch's layers would draw them from its global generator."""
    with torch.device("meta"):
        net = ConvNet(classes, side, width)
    net.to_empty(device="cpu")
    net.mean.fill_(127.5)
    net.std.fill_(127.5)
    return net


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each image of a batch.

    rotate_degrees: largest rotation either way; shift: largest shift, as a share of the side; scale: largest
    change of size, as a share; flip: mirror half of the images (never for digits or letters). Pixels from
    beyond the border repeat the border.
    """

    rotate_degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False


SMALL_AFFINE = Augmentation(rotate_degrees=6.0, shift=0.06, scale=0.05)


def augmented(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Float [N, 3, H, W] -> the same, each image changed at random: one bilinear affine sampling."""
    count = len(pixels)
    angle, across, down, size = torch.rand(4, count, generator=generator).mul_(2).sub_(1)
    mirror = torch.rand(count, generator=generator) < 0.5  # always drawn: `flip` changes no other number
    factor = 1 + augmentation.scale * size
    angle = angle * math.radians(augmentation.rotate_degrees)
    cosine, sine = angle.cos() * factor, angle.sin() * factor
    sign = torch.where(mirror, -1.0, 1.0) if augmentation.flip else torch.ones(count)
    affine = torch.stack(
        [cosine * sign, -sine, 2 * augmentation.shift * across, sine * sign, cosine, 2 * augmentation.shift * down], 1
    ).reshape(count, 2, 3)
    grid = functional.affine_grid(affine.to(pixels.device), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def resize_for_student(images: Images, side: int) -> NDArray[np.uint8]:
    """Images of any sizes, uint8 [H, W, 3] each -> uint8 [N, side, side, 3]: Pillow's bicubic, squashed.

    The one way into a network, for training, testing and teachers alike. Raises ImagesError for anything else
    than uint8 RGB images.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (side, side, 3):
        return images
    resized = np.empty((len(images), side, side, 3), np.uint8)
    for number, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImagesError(
                "not an RGB image",
                field=f"images[{number}]",
                found=f"{image.dtype} {image.shape}",
                expected="uint8 (height, width, 3)",
            )
        if image.shape[:2] == (side, side):
            resized[number] = image
        else:
            small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
            resized[number] = np.asarray(small)
    return resized


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside, the former number after it: sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: cosine up from peak / 25 during the first 30 %, then cosine down to nearly 0
    (Smith and Topin 2018, with torch's defaults)."""
    low, end, turn = peak / 25, peak / 250_000, 0.3 * steps - 1
    if step <= turn:
        return low + (peak - low) * (1 - math.cos(math.pi * step / turn)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * (step - turn) / (steps - 1 - turn))) / 2


def shuffled_batches(count: int, batch: int, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of `batch` positions below `count`, cut from permutations one after the other."""
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, torch.randperm(count, generator=generator).numpy()])
        yield waiting[:batch]
        waiting = waiting[batch:]


def fit(
    net: ConvNet,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    steps: int,
    generator: torch.Generator,
    augment: Augmentation | None = None,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.01,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ConvNet:
    """Train `net` in place on `steps` batches and return it in evaluation mode; the last state counts.

    `batches` yields pixels (uint8 [B, 3, side, side]) and targets (int64 [B] classes, or float [B, classes]
    probabilities). Cross-entropy, AdamW with peak 3e-3 and the one-cycle schedule; bfloat16 only on CUDA.
    """
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay, fused=True)
    for step in range(steps):
        pixels, targets = next(batches)
        inputs = pixels.to(device).float()
        if augment is not None:
            inputs = augmented(inputs, augment, generator)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, steps, LEARNING_RATE)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            logits = net(inputs)
        loss = functional.cross_entropy(logits.float(), targets.to(device), label_smoothing=label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress is not None:
            progress("training", step + 1, steps)
    return net.eval()


def fresh(classes: int, side: int, images: NDArray[np.uint8], generator: torch.Generator) -> ConvNet:
    """A network with drawn weights that normalises by the mean and spread of `images`, uint8 [N, H, W, 3]."""
    net = empty_network(classes, side)
    net.initialize(generator)
    levels = images.reshape(-1, 3)
    net.mean.copy_(torch.from_numpy(levels.mean(0, dtype=np.float64)))
    spread = np.maximum(levels.std(0, dtype=np.float64), 1.0)  # images of one colour have none
    net.std.copy_(torch.from_numpy(spread))
    return net


def train(
    images: Images,
    targets: Targets,
    *,
    classes: int,
    steps: int = STEPS,
    seed: int,
    side: int,
    augment: Augmentation | None = None,
    batch: int = BATCH,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.01,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ConvNet:
    """Train a student from nothing.

    Arguments:
        images: uint8 [H, W, 3] each, any sizes; resized to `side` here.
        targets: int64 [N], the class of each image, or float [N, classes], probabilities.
        steps, batch: optimiser steps, and images in each (all images when there are fewer).
        seed: of the weights, the order and the augmentation.

    Returns:
        The network after the last step, in evaluation mode.

    Raises:
        ImagesError: images or targets of another form.
    """
    pixels = resize_for_student(images, side)
    wanted = torch.from_numpy(_checked_targets(targets, len(pixels), classes))
    generator = torch.Generator().manual_seed(seed)
    net = fresh(classes, side, pixels, generator)
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    chosen = shuffled_batches(len(pixels), min(batch, len(pixels)), generator)
    batches = ((planes[at], wanted[at]) for at in chosen)
    return fit(
        net,
        batches,
        steps=steps,
        generator=generator,
        augment=augment,
        label_smoothing=label_smoothing,
        weight_decay=weight_decay,
        device=device,
        progress=progress,
    )


def _checked_targets(targets: Targets, count: int, classes: int) -> NDArray[np.int64] | NDArray[np.float32]:
    if np.issubdtype(targets.dtype, np.integer):
        if count and targets.shape == (count,) and targets.min() >= 0 and targets.max() < classes:
            return targets.astype(np.int64)
        expected = f"({count},) classes from 0 to {classes - 1}"
    else:
        if count and targets.shape == (count, classes) and np.allclose(targets.sum(1), 1, atol=1e-3):
            return targets.astype(np.float32)
        expected = f"({count}, {classes}) probabilities, or ({count},) integers"
    raise ImagesError(
        "these targets do not fit the images",
        field="targets",
        found=f"{targets.dtype} {targets.shape}",
        expected=expected,
    )


@torch.no_grad()
def predict(net: ConvNet, images: Images) -> NDArray[np.float32]:
    """Logits, float32 [N, classes], of uint8 images of any sizes."""
    return in_batches(
        net.forward, images, net.classes, lambda some: resize_for_student(some, net.side), net.mean.device
    )


@torch.no_grad()
def features(net: ConvNet, images: Images) -> NDArray[np.float32]:
    """What the network's last layer sees, float32 [N, channels], of uint8 images of any sizes."""
    return in_batches(
        net.features, images, net.head.in_features, lambda some: resize_for_student(some, net.side), net.mean.device
    )


def in_batches(
    function: Callable[[Tensor], Tensor],
    images: Images,
    width: int,
    resized: Callable[[Images], NDArray[np.uint8]],
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """`function` of uint8 images of any sizes, float32 [N, width], some at a time: it takes float32 [n, 3, side, side],
    levels 0 to 255, of what `resized` gives, uint8 [n, side, side, 3]."""
    result = np.empty((len(images), width), np.float32)
    for start in range(0, len(images), EVALUATION_BATCH):
        pixels = torch.from_numpy(np.ascontiguousarray(resized(images[start : start + EVALUATION_BATCH])))
        result[start : start + len(pixels)] = function(pixels.permute(0, 3, 1, 2).to(device).float()).cpu().numpy()
    return result


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images whose largest logit is that of their class, in percent."""
    return float(100 * (logits.argmax(1) == labels).mean())


def binomial_error(percent: float, tested: int) -> float:
    """One standard error, in points, of an accuracy in percent that was measured on `tested` images."""
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / tested)
