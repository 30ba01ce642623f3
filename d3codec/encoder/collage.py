"""Patches, best first -> collages, in RDED's order (arXiv 2312.03526, `synthesize` of its code)."""

from __future__ import annotations

import numpy as np

from d3codec import grid as geometry


def fill_order(collages: int, cells: int) -> np.ndarray:
    """Which patch goes where: int64 (collages, cells), the rank of the patch in cell k (row-major) of
    collage i.

    Cell k of collage i takes rank k * collages + i, so that the first cells of all collages hold the best
    patches.
    """
    return np.arange(cells, dtype=np.int64) * collages + np.arange(collages, dtype=np.int64)[:, None]


def make_collages(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Collages from as many patches as fill whole ones.

    Arguments:
        patches: uint8 (n, height, width, 3), best first; n is a multiple of the grid's cells.
        grid: rows and columns.

    Returns:
        uint8 (n / cells, rows * height, columns * width, 3).

    Raises:
        ValueError: n is no such multiple.
    """
    cells = grid[0] * grid[1]
    if len(patches) % cells:
        raise ValueError(f"{len(patches)} patches do not fill collages of {cells}")
    return geometry.assemble(patches[fill_order(len(patches) // cells, cells)], grid)
