"""The grid of a collage: boxes of its patches, cutting and assembling, what a crop or a CutMix holds of each patch.

Pure geometry; patches are numbered row by row from the top left. Boxes are (top, left, bottom, right) in
pixels, lower end included, upper end not. A grid is (rows, columns) and divides the image exactly.

The area rule: a training image that shows parts of patches has the mean of the patches' label probabilities, each
weighted by its share of the image's area. Crop, flip and resize keep shares of areas, so the weights need the boxes
alone. A resize blends pixels across the seam of two patches; the rule takes the seam as sharp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """What a training image shows of a collage: `box` in pixels (fractions allowed), cut out, mirrored left to right
    if `flip`, then resized to any size."""

    box: Box
    flip: bool = False

    def source(self, part: Box) -> Box:
        """The box of the collage, in pixels, that fills a part of the view; `part` is (top, left, bottom, right) in
        shares of the view's height and width, 0 to 1, as it is seen: after the flip."""
        top, left, bottom, right = self.box
        upper, first, lower, last = part
        if self.flip:
            first, last = 1 - last, 1 - first
        height, width = bottom - top, right - left
        return top + upper * height, left + first * width, top + lower * height, left + last * width


def patch_boxes(height: int, width: int, grid: Grid) -> list[tuple[int, int, int, int]]:
    """Boxes of all patches of an image. Raises ValueError if the grid does not divide it."""
    patch_height, patch_width = _patch_size(height, width, grid)
    return [
        (top, left, top + patch_height, left + patch_width)
        for top in range(0, height, patch_height)
        for left in range(0, width, patch_width)
    ]


def cut(images: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """Cut collages, uint8 [N, H, W, 3], into patches [N, rows * columns, H / rows, W / columns, 3].

    Raises ValueError if the grid does not divide the images.
    """
    count, height, width, channels = images.shape
    patch_height, patch_width = _patch_size(height, width, grid)
    rows, columns = grid
    cells = images.reshape(count, rows, patch_height, columns, patch_width, channels).swapaxes(2, 3)
    return cells.reshape(count, rows * columns, patch_height, patch_width, channels)


def assemble(patches: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """Put patches, uint8 [N, rows * columns, h, w, 3], together to collages [N, rows * h, columns * w, 3].

    The inverse of `cut`. Raises ValueError if the number of patches is not that of the grid.
    """
    count, cells, patch_height, patch_width, channels = patches.shape
    rows, columns = grid
    if cells != rows * columns:
        raise ValueError(f"{cells} patches do not fill a grid of {rows} x {columns}")
    lines = patches.reshape(count, rows, columns, patch_height, patch_width, channels).swapaxes(2, 3)
    return lines.reshape(count, rows * patch_height, columns * patch_width, channels)


def crop_weights(height: int, width: int, grid: Grid, box: Box) -> NDArray[np.float64]:
    """Share of a crop's area that each patch holds, float64 [rows * columns], sum 1.

    `box` is (top, left, bottom, right) in pixels, fractions allowed. The label of the crop, flipped or resized or
    not, is the mean of the patches' probabilities under these weights (protocol S1). Raises ValueError for a box that
    is empty or leaves the image, or a grid that does not divide it.
    """
    return _area_shares(height, width, grid, box, box)


def cutmix_weights(
    height: int, width: int, grid: Grid, view: View, pasted: View, part: Box
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the area of a CutMix image that the patches of its two collages hold, float64 [rows * columns] each.

    The part of `view` is overwritten with the same part of `pasted`, another view of the same size, of this collage or
    another one of height x width (Yun et al., "CutMix", ICCV 2019, section 3.1). Both arrays together sum to 1.

    The usual rule mixes the labels of the two whole views by (1 - lambda, lambda), lambda being the area of the part.
    It is right where a label belongs to a whole image. Here each patch has its own: what the part hides may be all of
    one patch and nothing of another, and of the pasted view only that part is seen. So the weights are those of what is
    visible: the view's shares less those of the box that the part hides, and those of the box that the part shows.

    Arguments:
        part: (top, left, bottom, right) in shares of the views' height and width, 0 to 1; may be empty.

    Raises ValueError for a view that is empty or leaves its image, a part that leaves the view, or a grid that does
    not divide the images.
    """
    upper, first, lower, last = part
    if not (0 <= upper <= lower <= 1 and 0 <= first <= last <= 1):
        raise ValueError(f"the part {part} leaves the view: shares are from 0 to 1")
    hidden = _area_shares(height, width, grid, view.box, view.source(part))
    shown = _area_shares(height, width, grid, pasted.box, pasted.source(part))
    visible = crop_weights(height, width, grid, view.box) - hidden
    return np.maximum(visible, 0.0), shown  # below 0 by rounding alone


def _area_shares(height: int, width: int, grid: Grid, box: Box, inner: Box) -> NDArray[np.float64]:
    """Area of `inner` in each patch, as a share of the area of `box`, in which it lies: float64 [rows * columns]."""
    patch_height, patch_width = _patch_size(height, width, grid)
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"box {box} is empty or leaves the image of {height} x {width}")
    upper, first, lower, last = inner
    down = _overlaps(upper, lower, grid[0], patch_height) / (bottom - top)
    across = _overlaps(first, last, grid[1], patch_width) / (right - left)
    return np.outer(down, across).reshape(-1)


def _overlaps(start: float, end: float, cells: int, cell_size: int) -> NDArray[np.float64]:
    """Length of the interval's part in each of the cells along one axis."""
    edges = np.arange(cells + 1, dtype=np.float64) * cell_size
    return np.asarray(np.maximum(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0.0))


def _patch_size(height: int, width: int, grid: Grid) -> tuple[int, int]:
    rows, columns = grid
    if rows < 1 or columns < 1 or height < rows or width < columns or height % rows or width % columns:
        raise ValueError(f"a grid of {rows} x {columns} does not divide an image of {height} x {width}")
    return height // rows, width // columns
