"""Fit `photographs.npz`: averages of photographs that share no class with the benchmark's data sets.

    python -m photographs_parts.fit_tables DATA          (in the folder `benchmarks`; one minute)

Holds `rings-S` (float32 [3, S]: mean power of each ring of frequencies of images of S pixels), and for the transform
coder `means-S`, `scales-S`, `frequencies`, `centroids`, `zero-spread` and `gains` (transform_coder.arranged).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.entropy import frequencies

from . import spectrum
from .material import unrelated
from .transform_coder import (
    AN_OCTAVE,
    BUCKETS,
    GAINS,
    LEVELS,
    SMALLEST,
    Statistics,
    arranged,
    buckets,
    coefficients,
    largest,
    quantized,
)

SIDES = (32, 64)
FITTED_AT, IMAGES, STEPS, ROUNDS = 32, 1500, (2.0**5.5, 2.0**6.5, 2.0**7.5), 4
PRIOR = 8  # samples of a Laplace distribution in every bucket


def fit(data: Path) -> dict[str, NDArray[Any]]:
    """All arrays of the file."""
    found: dict[str, NDArray[Any]] = {}
    for side in SIDES:
        mean, power = moments(unrelated(data, side))
        found[f"rings-{side}"] = spectrum.ring_means(power).astype(np.float32)
        found[f"means-{side}"] = mean[:, :4, :4].astype(np.float32)
        found[f"scales-{side}"] = np.rint(8 * (np.log2(power) / 2 + 4)).clip(0, 255).astype(np.uint8)
    images = unrelated(data, FITTED_AT)
    images = images[np.random.default_rng(1).permutation(len(images))[:IMAGES]]
    start = {
        "frequencies": frequencies(np.rint(1e6 * laplace()).astype(np.int64)),
        "centroids": np.zeros((BUCKETS, LEVELS), np.int8),
        "zero-spread": np.full(BUCKETS, 0.3, np.float32),
        "gains": frequencies(np.ones((1, len(GAINS)), np.int64)),
    }
    for _ in range(ROUNDS):
        start = refit(arranged(FITTED_AT, found["means-32"], found["scales-32"], *start.values()), images)
    return found | start


def moments(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each coefficient of the spectra, [3, side, side] each."""
    first = second = np.zeros((3, *images.shape[1:3]))
    for at in range(0, len(images), 500):
        values = spectrum.spectra(images[at : at + 500]).astype(np.float64)
        first, second = first + values.sum(0), second + (values**2).sum(0)
    mean = first / len(images)
    return mean, second / len(images) - mean**2


def refit(known: Statistics, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Tables of what `known` makes of images, over all STEPS."""
    magnitudes = np.abs(coefficients(known, images))
    counts, sums = np.zeros((2, BUCKETS, LEVELS))
    zeros = np.zeros(BUCKETS)
    drawn = np.ones((1, len(GAINS)))
    for step in STEPS:
        a = magnitudes / step
        gains, levels, _ = quantized(known, a, step)
        bucket = buckets(known, gains, step)
        coded = bucket >= 0
        rows, values, level = bucket[coded], a[coded], levels[coded]
        level = np.minimum(level, largest(rows))
        np.add.at(counts, (rows, level), 1)
        np.add.at(sums, (rows, level), values)
        zeros += np.bincount(rows[level == 0], values[level == 0] ** 2, BUCKETS)
        drawn[0] += np.bincount(gains, minlength=len(GAINS))
    weights = counts + PRIOR * laplace()
    centres = np.where(counts > 20, sums / np.maximum(counts, 1), np.arange(LEVELS)) - np.arange(LEVELS)
    return {
        "frequencies": frequencies(np.ceil(1000 * weights).astype(np.int64)).astype(np.uint16),
        "centroids": np.rint(128 * centres.clip(-0.5, 0.5)).astype(np.int8),
        "zero-spread": np.sqrt(zeros / np.maximum(counts[:, 0], 1)).astype(np.float32),
        "gains": frequencies(drawn.astype(np.int64)).astype(np.uint16),
    }


def laplace() -> NDArray[np.float64]:
    """Laplace distributions of the expected sizes, [BUCKETS, LEVELS], nothing beyond the escape of a bucket."""
    levels, rows = np.arange(LEVELS), np.arange(BUCKETS)
    size = 2.0 ** (SMALLEST + (rows + 0.5) / AN_OCTAVE) / 2**0.5
    tail = np.exp(-np.maximum(levels - 0.6, 0) / size[:, None])
    share = tail - np.concatenate([tail[:, 1:], np.zeros((BUCKETS, 1))], 1)
    share = share * 0.99 + 1e-4
    share[levels > largest(rows)[:, None]] = 0
    return np.asarray(share / share.sum(1, keepdims=True))


if __name__ == "__main__":
    np.savez_compressed(spectrum.TABLES, **fit(Path(sys.argv[1])))
    print(f"{spectrum.TABLES}: {spectrum.TABLES.stat().st_size:,} bytes")
