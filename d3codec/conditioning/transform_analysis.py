"""Latents to coefficients, and statistics of latents that bring none with them (spec/latents.md, sections 5 and 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d3codec.conditioning.transform_basis import COSINE_BITS, ROTATION_BITS, Basis, cosines, frequencies
from d3codec.conditioning.transform_own import OwnStatistics

_LEAST_DEVIATION = 2.0**-16

_Floats = NDArray[np.float64]


def analyse(images: _Floats, basis: Basis) -> _Floats:
    """Coefficients of latents, float64 [N, C h w]: what `Basis.latents` makes latents of, but for its rounding."""
    channels, height, width = basis.shape
    one = float(1 << COSINE_BITS)
    rows, columns = (np.linalg.inv(cosines(side) / one) for side in (height, width))
    grid = rows.T @ (images - basis.mean) @ columns
    values = grid.reshape(len(images), channels, -1)[:, :, frequencies(height, width)].transpose(2, 0, 1)
    if basis.matrices is not None:
        values = values @ np.linalg.pinv(basis.matrices * 2.0**-basis.exponent)
    values = values.transpose(1, 0, 2).reshape(len(images), -1)
    if basis.rotation is not None:
        size = len(basis.rotation)
        values[:, :size] = values[:, :size] @ np.linalg.inv(basis.rotation * 2.0**-ROTATION_BITS)
    return values


def fit_own(images: _Floats, matrix: bool) -> OwnStatistics:
    """Statistics of images, float64 [N, C, h, w]: with a matrix, the principal axes of the channels, or without."""
    channels, height, width = shape = images.shape[1:]
    mean = images.mean(axis=(0, 2, 3)).astype(np.float16)
    centred = images - mean.astype(np.float64)[:, None, None]
    axes = None
    if matrix:
        flat = centred.transpose(1, 0, 2, 3).reshape(channels, -1)
        axes = np.clip(np.rint(64 * np.linalg.eigh(flat @ flat.T)[1].T[::-1]), -128, 127).astype(np.int64)
    plain = OwnStatistics(0, mean, np.zeros(height + width - 1, np.int64), np.zeros(channels, np.int64), axes)
    coefficients = analyse(images, plain.basis(shape))
    variances = np.mean(coefficients**2, axis=0).reshape(-1, channels)
    scales = 32 * np.log2(np.maximum(np.sqrt(variances), _LEAST_DEVIATION))  # in 1/32 octave
    v, u = np.divmod(frequencies(height, width), width)
    offsets = np.clip(np.rint(scales.mean(axis=0) - scales.mean()), -128, 127)
    sums = np.bincount(v + u, (scales - offsets).mean(axis=1)) / np.bincount(v + u)
    octave = int(np.ceil(sums.max() / 32)) - 8  # 256 steps of 1/32 octave reach to the largest
    diagonals = np.clip(np.rint(sums - 32 * octave), 0, 255)
    return OwnStatistics(octave, mean, diagonals.astype(np.int64), offsets.astype(np.int64), axes)


def log_volume(basis: Basis) -> float:
    """log2 of the volume of the coefficients of a cube of latents of volume 1; rotations keep it."""
    if basis.matrices is None:
        return 0.0
    singular = np.linalg.svd(basis.matrices * 2.0**-basis.exponent, compute_uv=False)
    each = np.log2(np.maximum(singular, _LEAST_DEVIATION)).sum(axis=1)
    return -float(each.sum() * (basis.shape[1] * basis.shape[2] / len(each)))
