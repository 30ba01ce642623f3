"""The grid of a collage: boxes of its patches, cutting and assembling, what a crop holds of each patch.

Pure geometry; patches are numbered row by row from the top left. Boxes are (top, left, bottom, right) in
pixels, lower end included, upper end not. A grid is (rows, columns) and divides the image exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int]


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


def crop_weights(height: int, width: int, grid: Grid, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Share of a crop's area that each patch holds, float64 [rows * columns], sum 1.

    `box` is (top, left, bottom, right) in pixels, fractions allowed. The label of the crop is the mean of the
    patches' labels under these weights. Raises ValueError for a box that is empty or leaves the image, or a
    grid that does not divide it.
    """
    patch_height, patch_width = _patch_size(height, width, grid)
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"box {box} is empty or leaves the image of {height} x {width}")
    down = _shares(top, bottom, grid[0], patch_height)
    across = _shares(left, right, grid[1], patch_width)
    return np.outer(down, across).reshape(-1)


def _shares(start: float, end: float, cells: int, cell_size: int) -> NDArray[np.float64]:
    """Share of the interval that lies in each of the cells along one axis."""
    edges = np.arange(cells + 1, dtype=np.float64) * cell_size
    overlaps = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(np.maximum(overlaps, 0.0) / (end - start))


def _patch_size(height: int, width: int, grid: Grid) -> tuple[int, int]:
    rows, columns = grid
    if rows < 1 or columns < 1 or height < rows or width < columns or height % rows or width % columns:
        raise ValueError(f"a grid of {rows} x {columns} does not divide an image of {height} x {width}")
    return height // rows, width // columns
