"""A distilled dataset under random resized crop, flip and CutMix, with the soft label of what each image shows.

No teacher is asked and nothing of torch is changed: the label of an item follows from the stored labels of its patches
by the area rule (grid.py). An item depends on seed, epoch and its index alone, never on the batch or the worker that it
is made in: the draws come from a counter (noise.py, domain LOADER), and the CutMix partner is drawn by each item, not
taken from its batch. Stored labels of SRe2L's kind, one a batch of a fixed size in a fixed order, cannot do that.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from d3codec.errors import ImagesError, UsageError
from d3codec.grid import Grid, View, crop_weights, cutmix_weights
from d3codec.noise import LOADER, philox4x32

TRIES = 10  # of a random crop, as in torchvision
_OWN, _PARTNER, _PASTE = range(3)  # who draws, in one item: the n of the counter

Range = tuple[float, float]
Pixels = tuple[int, int, int, int]  # top, left, bottom, right


class AugmentedItem(NamedTuple):
    """image: float32 from 0 to 1, or uint8, (3, size, size); label: float32 (classes,), probabilities that sum to 1."""

    image: torch.Tensor
    label: torch.Tensor


class AugmentedDataset(Dataset[AugmentedItem]):
    """Views of collages, each with its soft label, as a torch Dataset for any DataLoader.

    Call `set_epoch` before each epoch; without it all epochs show the same views.

    The label is the mean of softmax(patch logits / temperature), weighted by area: probabilities are mixed, not logits,
    as a mean over pixels that each have their patch's label must be. It goes with a student's softmax at the same
    temperature (RDED: T = 20 with CutMix on every batch, loss without the factor T^2). Mixup needs no geometry: mix
    images and labels of a batch by the same lambda.

    Arguments:
        images: uint8 (N, height, width, 3).
        patch_logits: float (N, patches, class_count), or None with hard labels: every patch has the image's class.
        classes: int64 (N,), kept as `targets`.
        grid: rows and columns of patches in an image.
        class_count: length of a label.
        size: height and width of the items in pixels. A crop is cut out, then resized with Pillow's bilinear filter,
            antialiased, so that nothing of its neighbours enters it.
        seed: 0 to 2^64 - 1.
        temperature: above 0.
        cutmix: probability that a part of another random view is pasted into an item, 0 to 1; its area is drawn from
            Beta(1, 1), the published setting for ImageNet.
        scale, ratio: smallest and largest area of a crop as a share of the image, and width by height.
        flip: mirror half of the views (never for digits or letters).
        as_float: float32 images from 0 to 1 instead of uint8.

    Raises:
        ImagesError: arrays that do not fit together.
        UsageError: numbers out of their range.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        patch_logits: NDArray[np.floating[Any]] | None,
        classes: NDArray[np.int64],
        grid: Grid,
        *,
        class_count: int,
        size: int,
        seed: int = 0,
        temperature: float = 1.0,
        cutmix: float = 0.0,
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        flip: bool = False,
        as_float: bool = True,
    ) -> None:
        _check_arrays(images, patch_logits, classes, grid, class_count)
        for name, value, sound, expected in (
            ("size", size, size >= 1, "1 or more"),
            ("seed", seed, 0 <= seed < 1 << 64, "0 to 2^64 - 1"),
            ("temperature", temperature, 0 < temperature < math.inf, "above 0"),
            ("cutmix", cutmix, 0 <= cutmix <= 1, "a probability"),
            ("scale", scale, 0 < scale[0] <= scale[1] <= 1, "(smallest, largest), shares from 0 to 1"),
            ("ratio", ratio, 0 < ratio[0] <= ratio[1] < math.inf, "(smallest, largest), above 0"),
        ):
            if not sound:
                raise UsageError("no augmentation like this", field=name, found=value, expected=expected)
        self._images, self._patch_logits, self._grid, self._class_count = images, patch_logits, grid, class_count
        self.targets = classes
        self._size, self._seed, self._temperature, self._cutmix = size, seed, temperature, cutmix
        self._scale, self._ratio, self._flip, self._as_float = scale, ratio, flip, as_float
        # Shared memory, so that persistent workers, which got their copy of this object before, see the next epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Show the views of this epoch, 0 to 2^32 - 1, from the next pass over a DataLoader on, persistent workers or
        not. Not during a pass: its workers are ahead. Raises UsageError out of this range."""
        if not 0 <= epoch < 1 << 32:
            raise UsageError("no such epoch", field="epoch", found=epoch, expected="0 to 2^32 - 1")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> AugmentedItem:
        index = range(len(self))[operator.index(index)]
        draws = uniforms(self._seed, int(self._epoch), index)
        height, width = self._images.shape[1:3]
        view = self._view(draws[_OWN])
        pixels = self._shown(index, view)
        if draws[_PASTE, 0, 0] < self._cutmix:
            partner, pasted = int(draws[_PASTE, 0, 1] * len(self)), self._view(draws[_PARTNER])
            top, left, bottom, right = paste_box(self._size, draws[_PASTE, 1])
            pixels[top:bottom, left:right] = self._shown(partner, pasted)[top:bottom, left:right]
            part = (top / self._size, left / self._size, bottom / self._size, right / self._size)
            own, others = cutmix_weights(height, width, self._grid, view, pasted, part)
            label = self._mixed(index, own) + self._mixed(partner, others)
        else:
            label = self._mixed(index, crop_weights(height, width, self._grid, view.box))
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self._as_float:
            image = image.float() / 255.0
        return AugmentedItem(image, torch.from_numpy(label.astype(np.float32)))

    def _view(self, draws: NDArray[np.float64]) -> View:
        height, width = self._images.shape[1:3]
        box = random_resized_box(height, width, self._scale, self._ratio, draws[:TRIES])
        return View(box, self._flip and bool(draws[TRIES, 0] < 0.5))

    def _shown(self, index: int, view: View) -> NDArray[np.uint8]:
        """What a view shows of an image, uint8 (size, size, 3)."""
        top, left, bottom, right = map(int, view.box)
        crop = np.ascontiguousarray(self._images[index, top:bottom, left:right])
        resized = np.array(Image.fromarray(crop).resize((self._size, self._size), Image.Resampling.BILINEAR))
        return resized[:, ::-1] if view.flip else resized

    def _mixed(self, index: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probabilities of an image's patches, weighted and added: float64 (classes,)."""
        if self._patch_logits is None:
            label = np.zeros(self._class_count)
            label[self.targets[index]] = weights.sum()
            return label
        held = weights > 0  # a thousand exponentials a patch: only for patches that are seen
        scaled = self._patch_logits[index][held].astype(np.float64) / self._temperature
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        return np.asarray(weights[held] @ (powers / powers.sum(1, keepdims=True)))


def uniforms(seed: int, epoch: int, index: int) -> NDArray[np.float64]:
    """The draws of an item: float64 [3, TRIES + 1, 4], multiples of 2^-32 from 0 to below 1.

    Philox under the key `seed`, counter (block, index, epoch, domain LOADER and who draws).
    """
    counter = np.empty((3, TRIES + 1, 4), np.uint32)
    counter[..., 0] = np.arange(TRIES + 1)
    counter[..., 1:3] = index, epoch
    counter[..., 3] = LOADER << 24 | np.arange(3)[:, None]
    return philox4x32(counter, seed) / 2.0**32


def random_resized_box(
    height: int, width: int, scale: Range, ratio: Range, draws: Sequence[Sequence[float]] | NDArray[np.float64]
) -> Pixels:
    """A random crop in whole pixels: area uniform in `scale`, width by height log-uniform in `ratio`, place uniform.

    Each row of `draws`, four numbers from 0 to below 1, is a try; the first crop that fits counts. If none does, the
    largest one in the centre whose ratio is allowed. Torchvision's RandomResizedCrop, after Szegedy et al., "Going
    deeper with convolutions", CVPR 2015, section 6.
    """
    for size, shape, down, across in draws:
        area = (scale[0] + (scale[1] - scale[0]) * size) * height * width
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** shape
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= crop_height <= height and 1 <= crop_width <= width:
            top, left = int(down * (height - crop_height + 1)), int(across * (width - crop_width + 1))
            return top, left, top + crop_height, left + crop_width
    crop_height = min(height, max(1, round(width / ratio[0])))
    crop_width = min(width, max(1, round(height * ratio[1])))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return top, left, top + crop_height, left + crop_width


def paste_box(size: int, draws: Sequence[float] | NDArray[np.float64]) -> Pixels:
    """The part of a size x size image that CutMix overwrites: area and centre uniform, then clipped to the image.

    Three of `draws`, each from 0 to below 1, count; small areas may leave no pixel. Yun et al., "CutMix", ICCV 2019,
    section 3.1, with lambda from Beta(1, 1).
    """
    area, down, across = draws[:3]
    half = int(size * math.sqrt(area)) // 2
    row, column = int(down * size), int(across * size)
    return max(0, row - half), max(0, column - half), min(size, row + half), min(size, column + half)


def _check_arrays(
    images: NDArray[np.uint8],
    patch_logits: NDArray[np.floating[Any]] | None,
    classes: NDArray[np.int64],
    grid: Grid,
    class_count: int,
) -> None:
    def check(field: str, sound: bool, found: object, expected: str) -> None:
        if not sound:
            raise ImagesError("not a set of augmentable images", field=field, found=found, expected=expected)

    sound = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    check("images", sound, f"{images.dtype} {images.shape}", "uint8 (N, height, width, 3)")
    (count, height, width, _), (rows, columns) = images.shape, grid
    divides = 1 <= rows <= height and 1 <= columns <= width and not height % rows and not width % columns
    check("grid", divides, grid, f"rows and columns that divide {height} x {width} pixels")
    inside = classes.shape == (count,) and ((classes >= 0) & (classes < class_count)).all()
    check("classes", bool(inside), f"{classes.dtype} {classes.shape}", f"({count},), from 0 to {class_count - 1}")
    if patch_logits is not None:
        shape = (count, rows * columns, class_count)
        check("patch_logits", patch_logits.shape == shape, patch_logits.shape, str(shape))
