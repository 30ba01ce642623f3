"""Coefficients to latents in integers: rotations, channel matrices, an inverse DCT (spec/latents.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

ROTATION_BITS = 14
COSINE_BITS = 12
MATRIX_BITS = 6
"""What is shifted out after the channel matrices."""
LARGEST_SINE = 16
"""Sines are 2^(-8.5 + l / 2) for l = 1 .. 16."""

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Shape [C, h, w] of latents and how they are made of C h w coefficients, frequency by frequency.

    `scales`: int64 [C h w], standard deviations of the coefficients, 2^(scale / 128); `mean`: float64, of shape
    [C, h, w] or [C, 1, 1]; `matrices`: int64 [h w, C, C] or [1, C, C] (one for all), in units of 2^-`exponent`, rows
    are coefficients, or None (none, exponent 6); `rotation`: int64 [P, P], in units of 2^-14, or None.
    """

    shape: tuple[int, int, int]
    scales: _Ints
    mean: _Floats
    matrices: _Ints | None = None
    exponent: int = MATRIX_BITS
    rotation: _Ints | None = None

    def latents(self, coefficients: _Ints, exponent: int) -> _Floats:
        """Coefficients, int64 [n, C h w] of amounts below 2^29, in units of 2^exponent, to latents [n, C, h, w]."""
        channels, height, width = self.shape
        x = coefficients
        if self.rotation is not None:
            turned = x[:, : len(self.rotation)].astype(np.float64) @ self.rotation.astype(np.float64)  # below 2^53
            x = np.concatenate([_rounded(turned.astype(np.int64), ROTATION_BITS), x[:, len(self.rotation) :]], axis=1)
        x = x.reshape(len(x), height * width, channels)
        if self.matrices is not None:
            x = _rounded(np.moveaxis(np.moveaxis(x, 1, 0) @ self.matrices, 0, 1), MATRIX_BITS)
        spectrum = np.empty((len(x), channels, height * width), np.int64)
        spectrum[:, :, frequencies(height, width)] = x.swapaxes(1, 2)
        columns = _rounded(cosines(height).T @ spectrum.reshape(-1, channels, height, width), COSINE_BITS)
        values = _rounded(columns @ cosines(width), COSINE_BITS)
        return np.asarray(np.ldexp(values.astype(np.float64), exponent + MATRIX_BITS - self.exponent) + self.mean)


def frequencies(height: int, width: int) -> _Ints:
    """Places v * width + u of the frequencies in the order of coefficients: by max(v, u), then by v, then by u."""
    v, u = np.divmod(np.arange(height * width), width)
    return np.argsort(np.maximum(v, u), kind="stable")


@cache
def cosines(size: int) -> _Ints:
    """The orthonormal DCT-II, rows are frequencies, in units of 2^-12, each to the nearest integer, [size, size].

    No entry up to size 64 is near the middle between two integers, so that binary64 decides rightly.
    """
    places = np.arange(size)
    angles = np.pi * np.outer(places, 2 * places + 1) / (2 * size)
    amplitudes = np.sqrt(np.where(places > 0, 2, 1) / size)
    return np.asarray(np.rint(2**COSINE_BITS * np.outer(amplitudes, np.ones(size)) * np.cos(angles)), np.int64)


def sines() -> _Ints:
    """Sines of levels 0 .. 16, in units of 2^-14, and cosines that belong to them, [2, 17]."""
    s = [0] + [isqrt(1 << (level + 2 * ROTATION_BITS - LARGEST_SINE - 1)) for level in range(1, LARGEST_SINE + 1)]
    return np.array([s, [isqrt((1 << 2 * ROTATION_BITS) - x * x) for x in s]], np.int64)


def rotate(levels: _Ints, channels: int) -> _Ints:
    """The rotation, [P, P], of passes of levels, int64 [passes, P - channels, P / 2], -16 to 16.

    Round r = channels .. P - 1 of a pass turns all pairs of columns i and i xor r, i being the smaller.
    """
    sine, cosine = sines()
    size = 2 * levels.shape[2]
    result = np.eye(size, dtype=np.int64) << ROTATION_BITS
    for level in levels:
        for r, chosen in enumerate(level, start=channels):
            first, second = pairs(size, r)
            s, c = np.sign(chosen) * sine[np.abs(chosen)], cosine[np.abs(chosen)]
            a, b = result[:, first], result[:, second]
            result[:, first] = _rounded(c * a + s * b, ROTATION_BITS)
            result[:, second] = _rounded(c * b - s * a, ROTATION_BITS)
    return result.T.copy()


def pairs(size: int, r: int) -> tuple[_Ints, _Ints]:
    """The smaller and the larger places of all pairs of round r, in order of the smaller, [size / 2] each."""
    places = np.arange(size)
    smaller = places[places < places ^ r]
    return smaller, smaller ^ r


def _rounded(values: _Ints, bits: int) -> _Ints:
    """values / 2^bits, rounded to the nearest integer, halves up."""
    return np.asarray((values + (1 << (bits - 1))) >> bits)
