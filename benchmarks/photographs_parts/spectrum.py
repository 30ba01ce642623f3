"""Spectra of photographs: the DCT of three fixed colour axes, and what photographs have in it on average.

`photographs.npz` beside this file holds the averages, fitted on Tiny-ImageNet without ImageNette's classes by
`fit_tables.py`, so that no data set of the benchmark had a part in them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

TABLES = Path(__file__).with_name("photographs.npz")

# Rows: brightness, red against blue, green against both; orthonormal.
COLOUR_AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])

Floats = NDArray[np.floating[Any]]


@cache
def tables() -> dict[str, NDArray[Any]]:
    """The averages by name (see `fit_tables.py`)."""
    with np.load(TABLES) as stored:
        return dict(stored)


def spectra(images: NDArray[Any]) -> NDArray[np.float32]:
    """Levels 0 to 255, [N, side, side, 3] -> orthonormal DCT coefficients, float32 [N, 3, side, side]."""
    colours = (images.astype(np.float32) - 127.5) @ COLOUR_AXES.T.astype(np.float32)
    return np.asarray(dctn(colours.transpose(0, 3, 1, 2), axes=(2, 3), norm="ortho"), np.float32)


def pixels(coefficients: Floats) -> NDArray[np.uint8]:
    """The reverse of `spectra`, rounded and clamped: uint8 [N, side, side, 3]."""
    colours = idctn(coefficients, axes=(2, 3), norm="ortho").transpose(0, 2, 3, 1)
    return np.asarray(np.rint(colours @ COLOUR_AXES + 127.5).clip(0, 255), np.uint8)


def rings(side: int) -> NDArray[np.int64]:
    """The ring of each coefficient, its rounded distance from the mean, int64 [side, side] below `side`."""
    down, across = np.mgrid[:side, :side]
    return np.minimum(np.rint(np.hypot(down, across)), side - 1).astype(np.int64)


def ring_means(power: Floats) -> NDArray[np.float64]:
    """[3, side, side] -> means over each ring, float64 [3, side]."""
    side = power.shape[-1]
    ring = rings(side).ravel()
    sums = np.stack([np.bincount(ring, plane.ravel(), side) for plane in power])
    return np.asarray(sums / np.bincount(ring, minlength=side))
