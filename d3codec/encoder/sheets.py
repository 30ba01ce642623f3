"""Images -> contact sheets of a group whose images themselves are stored, at a quality or within a size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import features

from d3codec import images as codecs
from d3codec.format import limits
from d3codec.format.manifest import Group, HardLabels, Images, NoConditioning, SheetsRecipe

Format = Literal["png", "avif", "webp"]

ONE_SHEET_PIXELS = 1 << 22  # up to which all images lie on one sheet: every file costs some hundred bytes of its own


def smallest_format() -> Format:
    """The format that this Pillow can write whose files are smallest."""
    return "avif" if features.check("avif") else "webp"


@dataclass(frozen=True)
class Sheets:
    """Stored images: the record of their group (with hard labels), section `img`, and what a reader decodes, uint8
    [N, height, width, 3]."""

    group: Group
    section: bytes
    images: NDArray[np.uint8]


def store_images(
    images: NDArray[np.uint8], classes: int, grid: tuple[int, int], format: Format, quality: int | None
) -> Sheets:
    """Images uint8 [classes * count, height, width, 3], in order of class, on sheets of one class or of all.

    quality: 0 to 100, None with `png`. Raises MissingError for a Pillow without the format.
    """
    recipe = _recipe(images, classes, format)
    return _sheets(images, classes, grid, recipe, _section(images, recipe, quality))


def store_within(
    images: NDArray[np.uint8],
    classes: int,
    grid: tuple[int, int],
    format: Format,
    limit: int,
    known: dict[int | None, bytes] | None = None,
) -> Sheets:
    """The same at the highest quality whose section has at most `limit` bytes, at the lowest if there is none.

    known: sections of these images by quality, from other limits; those that are made are added.
    """
    recipe, known = _recipe(images, classes, format), {} if known is None else known

    def at(quality: int | None) -> bytes:
        if quality not in known:
            known[quality] = _section(images, recipe, quality)
        return known[quality]

    low, high = 0, 100
    best = at(None if format == "png" else low)
    while format != "png" and low < high and len(best) <= limit:
        middle = (low + high + 1) // 2
        if len(at(middle)) <= limit:
            best, low = at(middle), middle
        else:
            high = middle - 1
    return _sheets(images, classes, grid, recipe, best)


def _recipe(images: NDArray[np.uint8], classes: int, format: Format) -> SheetsRecipe:
    height, width = images.shape[1:3]
    per_sheet = len(images) if images[..., 0].size <= ONE_SHEET_PIXELS else len(images) // classes
    columns = max(1, min(round(math.sqrt(per_sheet * height / width)), limits.SHEET_SIDE // width))
    return SheetsRecipe(format=format, per_sheet=per_sheet, columns=columns)


def _section(images: NDArray[np.uint8], recipe: SheetsRecipe, quality: int | None) -> bytes:
    parts = (images[first : first + recipe.per_sheet] for first in range(0, len(images), recipe.per_sheet))
    return codecs.join_sheets([codecs.encode_sheet(part, recipe.columns, recipe.format, quality) for part in parts])


def _sheets(
    images: NDArray[np.uint8], classes: int, grid: tuple[int, int], recipe: SheetsRecipe, section: bytes
) -> Sheets:
    size = images.shape[1], images.shape[2]
    group = Group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=None,
        images=Images(grid=grid, count=len(images) // classes, size=size),
        noise_key=0,
        labels=HardLabels(),
        recipe=recipe,
    )
    decoded = []
    for number, file in enumerate(codecs.split_sheets(section, -(-len(images) // recipe.per_sheet))):
        count = min(recipe.per_sheet, len(images) - number * recipe.per_sheet)
        decoded.append(codecs.decode_sheet(file, recipe.format, count, size, recipe.columns))
    return Sheets(group, section, np.concatenate(decoded))
