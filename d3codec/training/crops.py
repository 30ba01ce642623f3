"""Crops of collages for protocol S1: where they lie, and their labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3codec.grid import Grid, crop_weights
from d3codec.training import students

Box = tuple[int, int, int, int]  # top, left, bottom, right


def crop_label(
    height: int, width: int, grid: Grid, box: Box, patch_probabilities: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Soft label of a crop of a height x width collage, float64 [classes]: the patches' probabilities
    [patches, classes], weighted by the area that the crop holds of each."""
    return np.asarray(crop_weights(height, width, grid, box) @ patch_probabilities)


def random_box(height: int, width: int, grid: Grid, generator: torch.Generator) -> Box:
    """A square crop in whole pixels: area uniform between a patch's and the collage's, place uniform."""
    smallest = 1 / (grid[0] * grid[1])
    scale, down, across = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    side = round(math.sqrt((smallest + (1 - smallest) * scale) * height * width))
    side = min(height, width, max(1, side))
    top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
    return top, left, top + side, left + side


def crop_batches(
    images: NDArray[np.uint8], probabilities: NDArray[np.float32], grid: Grid, side: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of crops, uint8 [B, 3, side, side], with their labels, float32 [B, classes].

    The batch is that of the protocols that train on patches: 64, or the number of patches if that is smaller.
    A crop is cut out before it is resized, so that nothing of its neighbours enters it.
    """
    height, width = images.shape[1:3]
    batch = min(students.BATCH, len(images) * grid[0] * grid[1])
    for chosen in students.shuffled_batches(len(images), batch, generator):
        crops, labels = [], np.empty((batch, probabilities.shape[2]), np.float32)
        for place, number in enumerate(chosen):
            top, left, bottom, right = box = random_box(height, width, grid, generator)
            crops.append(np.ascontiguousarray(images[number, top:bottom, left:right]))
            labels[place] = crop_label(height, width, grid, box, probabilities[number])
        pixels = students.resize_for_student(crops, side).transpose(0, 3, 1, 2)
        yield torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels)
