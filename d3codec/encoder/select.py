"""Images -> the patches of each class that the teacher finds most like it.

The rule of RDED (Sun et al., arXiv 2312.03526, section 3; D3M, arXiv 2403.07142, section 3.1): several random
square crops an image, the one with the lowest cross-entropy for the true class is kept, and a class's images
are sorted by it. RDED's code looks at some of a class's images and shows the teacher a crop in the middle of an
empty image (`members`, `canvas`); without these a crop is resized to the patch's side and shown as it is (D3M does
not say; so the teacher sees what it sees when it labels decoded patches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from d3codec.encoder.relabel import TEACHER_BATCH, Teacher, cross_entropy, teacher_logits
from d3codec.errors import ImagesError
from d3codec.sources import LabelledImages

PADDING = (124, 116, 104)  # the mean colour of ImageNet: zero after the usual normalisation
ATTEMPTS = 10  # draws of a crop before the largest central square is taken, as in torchvision


@dataclass(frozen=True)
class Choice:
    """Crops of one class, the best first.

    images: int64 (n,), positions in the source; boxes: int64 (n, 4), top, left, bottom, right in pixels;
    losses: float64 (n,), the teacher's cross-entropy in nats, ascending.
    """

    images: np.ndarray
    boxes: np.ndarray
    losses: np.ndarray

    def best(self, count: int) -> Choice:
        return Choice(self.images[:count], self.boxes[:count], self.losses[:count])


def uniforms(seed: int, label: int, rank: int, count: int) -> np.ndarray:
    """float64 (count,) in [0, 1), a pure function of the arguments: the draws of image number `rank` of a
    class.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, label, rank])).random_raw(count)
    return (np.asarray(words, np.uint64) >> np.uint64(11)) * 2.0**-53


def crop_box(height: int, width: int, scale: tuple[float, float], draws: np.ndarray) -> tuple[int, int, int, int]:
    """A random square of an image, after torchvision's RandomResizedCrop with ratio 1.

    Arguments:
        height, width: of the image, in pixels.
        scale: lowest and highest share of the image's area.
        draws: float64 (3 * ATTEMPTS,) in [0, 1): area, top and left of every attempt.

    Returns:
        top, left, bottom, right; the largest central square if no attempt fits into the image.
    """
    for area, top, left in draws.reshape(ATTEMPTS, 3).tolist():
        side = round(math.sqrt(height * width * (scale[0] + (scale[1] - scale[0]) * area)))
        if 0 < side <= min(height, width):
            y, x = int(top * (height - side + 1)), int(left * (width - side + 1))
            return y, x, y + side, x + side
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    return y, x, y + side, x + side


def cut_patch(image: np.ndarray, box: Sequence[int], side: int) -> np.ndarray:
    """A box (top, left, bottom, right) of an image uint8 (H, W, 3), resized by Pillow's bicubic filter:
    (side, side, 3).
    """
    top, left, bottom, right = (int(value) for value in box)
    patch = np.ascontiguousarray(image[top:bottom, left:right])
    if patch.shape[:2] == (side, side):
        return patch
    return np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC))


def select_class(
    images: LabelledImages,
    label: int,
    teacher: Teacher,
    *,
    crops: int = 5,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    side: int,
    seed: int = 0,
    members: int | None = None,
    canvas: int | None = None,
) -> Choice:
    """The best crop of every image of one class, the lowest cross-entropy first.

    Arguments:
        images: the labelled images.
        label: the class.
        teacher: uint8 (N, side, side, 3) -> logits (N, classes).
        crops: random squares an image; with crops 1 and crop_scale (1, 1) whole square images are ranked.
        crop_scale: lowest and highest share of the image's area.
        side: of a patch as the teacher sees it, in pixels.
        seed: the crops of an image depend on it, on the class and on the image's rank in its class, on
            nothing else.
        members: how many images of the class are looked at, drawn by `seed`; None: all.
        canvas: the teacher sees crops in the middle of squares of so many pixels of the colour PADDING, as in RDED's
            code; None: as they are.

    Raises:
        TeacherError: as `teacher_logits`.
    """
    own = np.flatnonzero(images.labels == label)
    if members is not None and members < len(own):
        own = own[np.sort(uniforms(seed, label, len(own), len(own)).argsort(kind="stable")[:members])]
    boxes = np.zeros((len(own), crops, 4), np.int64)
    losses = np.zeros((len(own), crops))
    at_once = max(1, TEACHER_BATCH // crops)
    for first in range(0, len(own), at_once):
        patches = []
        for rank in range(first, min(first + at_once, len(own))):
            image = images.images[own[rank]]
            height, width = image.shape[:2]
            draws = uniforms(seed, label, rank, crops * 3 * ATTEMPTS).reshape(crops, -1)
            boxes[rank] = [crop_box(height, width, crop_scale, draw) for draw in draws]
            patches += [_on_canvas(cut_patch(image, box, side), canvas) for box in boxes[rank]]
        logits = teacher_logits(teacher, np.stack(patches), len(images.class_names))
        losses[first : first + at_once] = cross_entropy(logits, label).reshape(-1, crops)
    best = losses.argmin(axis=1)
    rows = np.arange(len(own))
    order = losses[rows, best].argsort(kind="stable")
    return Choice(own[order], boxes[rows, best][order], losses[rows, best][order])


def _on_canvas(patch: np.ndarray, canvas: int | None) -> np.ndarray:
    if canvas is None:
        return patch
    height, width = patch.shape[:2]
    top, left = (canvas - height) // 2, (canvas - width) // 2
    square = np.full((canvas, canvas, 3), PADDING, np.uint8)
    square[top : top + height, left : left + width] = patch
    return square


def choice_patches(images: LabelledImages, choice: Choice, side: int) -> np.ndarray:
    """The pixels of a choice: uint8 (n, side, side, 3)."""
    cut = [cut_patch(images.images[i], box, side) for i, box in zip(choice.images, choice.boxes, strict=True)]
    return np.stack(cut) if cut else np.zeros((0, side, side, 3), np.uint8)


def select_patches(
    images: LabelledImages,
    teacher: Teacher,
    per_class: int,
    *,
    crops: int = 5,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    side: int,
    seed: int = 0,
) -> np.ndarray:
    """The `per_class` best patches of every class, best first: uint8 (classes, per_class, side, side, 3).

    Arguments are those of `select_class`. Raises ImagesError for a class with fewer images than that.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if counts.min() < per_class:
        poorest = int(counts.argmin())
        raise ImagesError(
            f"class {images.class_names[poorest]!r} has too few images for {per_class} patches",
            field=images.class_names[poorest],
            found=f"{counts[poorest]} images",
            expected=f"at least {per_class}: one patch an image",
        )
    chosen = []
    for label in range(len(images.class_names)):
        choice = select_class(images, label, teacher, crops=crops, crop_scale=crop_scale, side=side, seed=seed)
        chosen.append(choice_patches(images, choice.best(per_class), side))
    return np.stack(chosen)
