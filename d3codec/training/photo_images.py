"""Images as students of photographs take them: squares of one side, padded for crops, cropped and mirrored."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from d3codec.errors import ImagesError
from d3codec.training.students import Images

MEAN, SPREAD = (117.0, 115.0, 107.0), (69.0, 67.5, 74.0)  # levels of red, green, blue: about those of photographs


def resize_photos(images: Images, side: int) -> NDArray[np.uint8]:
    """Images of any sizes, uint8 [H, W, 3] each -> uint8 [N, side, side, 3], squashed to squares.

    The one way into these networks. Images that are nowhere smaller than `side` are averaged over the area of each
    pixel, computed in integers and rounded once, so the same on every machine; others go through Pillow's bicubic.
    Raises ImagesError for anything else than uint8 RGB images.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3:
        height, width = images.shape[1:3]
        if (height, width) == (side, side):
            return images
        if height == width and height % side == 0:  # the same averages, much quicker
            return _block_averages(images, height // side)
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
        elif min(image.shape[:2]) >= side:
            resized[number] = _averaged(image, side)
        else:
            small = Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BICUBIC)
            resized[number] = np.asarray(small)
    return resized


def _block_averages(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    sums = np.zeros(images[:, ::factor, ::factor].shape, np.uint32)
    for row in range(factor):
        for column in range(factor):
            sums += images[:, row::factor, column::factor]
    averages: NDArray[np.uint8] = np.rint(sums / factor**2).astype(np.uint8)
    return averages


def _averaged(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> [side, side, 3]. All sums are integers below 2**53, so exact in float64 in any order."""
    height, width = image.shape[:2]
    rows = (_overlaps(height, side) @ image.reshape(height, -1).astype(np.float64)).reshape(side, width, 3)
    sums = np.tensordot(_overlaps(width, side), rows, (1, 1)).swapaxes(0, 1)
    averages: NDArray[np.uint8] = np.rint(sums / (height * width)).astype(np.uint8)
    return averages


def _overlaps(length: int, side: int) -> NDArray[np.float64]:
    """How much of each of `length` pixels lies in each of `side` equal parts, in 1/side pixels: [side, length]."""
    parts, pixels = np.arange(side)[:, None] * length, np.arange(length)[None] * side
    shared = np.minimum(parts + length, pixels + side) - np.maximum(parts, pixels)
    return np.asarray(np.maximum(shared, 0), np.float64)


def padded(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [..., side, side, 3] with a border of side/8 pixels of the mean colour: room for crops."""
    margin = images.shape[-2] // 8
    height, width = (length + 2 * margin for length in images.shape[-3:-1])
    result = np.empty((*images.shape[:-3], height, width, 3), np.uint8)
    result[:] = np.array(MEAN, np.uint8)
    result[..., margin : height - margin, margin : width - margin, :] = images
    return result


def cropped(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Padded uint8 [B, S, S, 3] -> [B, side, side, 3]: a random crop of each, half of them mirrored."""
    count, room = len(images), images.shape[1] - side
    offsets = torch.randint(room + 1, (2, count, 1), generator=generator)
    mirror = torch.rand(count, 1, generator=generator) < 0.5
    along = torch.arange(side)[None]
    rows, columns = offsets[0] + along, offsets[1] + torch.where(mirror, along.flip(1), along)
    return images[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
