"""An image codec without a network: what a good engineer writes in a day, as a row of the benchmark.

DCT of whole images in three fixed colour axes; a gain an image; levels by a rate-distortion choice; rANS with static
tables. A table is chosen by the expected size of a coefficient in steps, which reader and writer both know: natural
scale of its frequency * gain / step. The reader fills in what was dropped: random coefficients of the spread that
dropped ones have.

File: u16 images, i16 96 log2(step), u8 lanes, one rANS stream (d3codec/entropy.py): gains, levels, signs, escapes.
"""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.entropy import TOTAL, Reader, Tables, Writer

from . import spectrum

HEAD = struct.Struct("<HhB")
STEPS_AN_OCTAVE, COARSEST = 96, 14 * 96
GAINS = 2.0 ** (np.arange(-4, 5) / 2)
SMALLEST, AN_OCTAVE, BUCKETS = -3.5, 4, 42  # log2 of the smallest expected size that is coded; buckets of sizes
LEVELS = 128  # magnitudes of a table; the largest of a bucket is its escape
RATE_WEIGHT = 0.11  # squared steps a bit: what a bit saves where quantization is fine, ln(2) / 6
REST = 16  # of an escape, in digits: 15 says that another follows

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Statistics:
    """What writer and reader know of photographs. Coefficients of an image are [D], those of the largest scale first.

    order: int64 [D], where they stand in [3, side, side]; means, scales: float64 [D];
    frequencies: int64 [BUCKETS, LEVELS], centroids: float64 [BUCKETS, LEVELS], magnitudes in steps; zero_spread:
    float64 [BUCKETS], of coefficients that became 0, in steps; gains: frequencies int64 [1, 9].
    """

    side: int
    order: Ints
    means: NDArray[np.float64]
    scales: NDArray[np.float64]
    frequencies: Ints
    centroids: NDArray[np.float64]
    zero_spread: NDArray[np.float64]
    gains: Ints


@cache
def statistics(side: int) -> Statistics:
    """Those that `photographs.npz` holds for images of `side` pixels (32 or 64)."""
    stored = spectrum.tables()
    return arranged(
        side,
        stored[f"means-{side}"],
        stored[f"scales-{side}"],
        stored["frequencies"],
        stored["centroids"],
        stored["zero-spread"],
        stored["gains"],
    )


def arranged(
    side: int,
    means: NDArray[Any],
    scales: NDArray[Any],
    frequencies: NDArray[Any],
    centroids: NDArray[Any],
    zero_spread: NDArray[Any],
    gains: NDArray[Any],
) -> Statistics:
    """Statistics from the numbers of the table file: means [3, 4, 4] of the lowest frequencies; scales, uint8
    [3, side, side], eighths of an octave; the rest as in Statistics, centroids as int8 differences in 1/128."""
    order = np.argsort(-scales.ravel().astype(np.int64), kind="stable")
    lowest = np.zeros((3, side, side))
    lowest[:, : means.shape[1], : means.shape[2]] = means
    return Statistics(
        side,
        order,
        lowest.ravel()[order],
        2.0 ** (scales.ravel()[order] / 8 - 4),
        frequencies.astype(np.int64),
        np.arange(LEVELS) + centroids / 128,
        zero_spread.astype(np.float64),
        gains.astype(np.int64),
    )


def largest(bucket: Ints) -> Ints:
    """The level of a bucket that says "this or more": six times the expected size, and two."""
    centre = SMALLEST + (bucket + 0.5) / AN_OCTAVE
    return np.asarray(np.minimum(np.ceil(6 * 2.0**centre) + 2, LEVELS - 1), np.int64)


def buckets(known: Statistics, gains: Ints, step: float) -> Ints:
    """Tables of the coefficients, int64 [N, D], of images with the gains [N]; below 0 they are not coded."""
    size = np.log2(known.scales / step) + np.log2(GAINS)[gains][:, None]
    return np.asarray(np.minimum(np.floor((size - SMALLEST) * AN_OCTAVE), BUCKETS - 1), np.int64)


def quantized(known: Statistics, magnitudes: Floats, step: float) -> tuple[Ints, Ints, float]:
    """Gains [N] and levels [N, D] of magnitudes in steps, float [N, D], and what they cost in bits.

    Of a coefficient: the nearest level, the next smaller or 0, whichever is least error + RATE_WEIGHT * bits; of an
    image the gain with the least sum. A coefficient that is nearest to 0 costs the same in all images, so only the
    others are looked at one by one. (Gains apart for brightness and colour show more dB and teach 1 to 2 points
    less: the gain of a colour that is not coded falls, and the fill with it.)
    """
    bits, count = _bits(known), len(magnitudes)
    images, columns = np.nonzero(magnitudes >= 0.5)
    values = magnitudes[images, columns]
    nearest = np.floor(values + 0.5).astype(np.int64)
    gains, best = np.zeros(count, np.int64), np.zeros(len(values), np.int64)
    least, spent = np.full(count, np.inf), np.zeros(count)
    for gain, likelihood in enumerate(known.gains[0] / TOTAL):
        bucket = buckets(known, np.array([gain]), step)[0]
        zeros = bits[bucket[bucket >= 0], 0].sum() - np.log2(likelihood)
        level, saved, extra = _levels(known, bits, bucket[columns], values, nearest)
        cost = RATE_WEIGHT * zeros - np.bincount(images, saved, count)
        better = cost < least
        least[better], gains[better] = cost[better], gain
        spent[better] = (zeros + np.bincount(images, extra, count))[better]
        best = np.where(better[images], level, best)
    levels = np.zeros(magnitudes.shape, np.int64)
    levels[images, columns] = best
    return gains, levels, float(spent.sum())


def _levels(
    known: Statistics, bits: NDArray[np.float64], bucket: Ints, values: Floats, nearest: Ints
) -> tuple[Ints, NDArray[np.float64], NDArray[np.float64]]:
    """Of single coefficients: the best level, what it saves and what it costs in bits, both against 0."""
    rows = np.maximum(bucket, 0)
    top = largest(rows)
    level, saved, extra = np.zeros(len(values), np.int64), np.zeros(len(values)), np.zeros(len(values))
    for candidate in (np.maximum(nearest - 1, 0), nearest):
        kept = np.minimum(candidate, top)
        rest = candidate - top
        centre = np.where(rest < 0, known.centroids[rows, kept], candidate)
        more = bits[rows, kept] + np.where(rest < 0, 0, 4 * (1 + rest // (REST - 1))) - bits[rows, 0]
        gained = values**2 - (values - centre) ** 2 - RATE_WEIGHT * more
        chosen = (gained > saved) & (bucket >= 0) & (candidate > 0)
        level, saved, extra = (
            np.where(chosen, new, old) for new, old in ((candidate, level), (gained, saved), (more, extra))
        )
    return level, saved, extra


def _bits(known: Statistics) -> NDArray[np.float64]:
    """What each level costs, [BUCKETS, LEVELS], its sign included; many where a table has no such level."""
    cost = np.full((BUCKETS, LEVELS), 40.0)
    np.log2(TOTAL / np.maximum(known.frequencies, 1), out=cost, where=known.frequencies > 0)
    cost[:, 1:] += 1
    return cost


def encode(known: Statistics, images: NDArray[np.uint8], exponent: int) -> bytes:
    """A file of images, uint8 [N, side, side, 3], with steps of 2^(exponent / 96)."""
    step = 2.0 ** (exponent / STEPS_AN_OCTAVE)
    values = coefficients(known, images)
    gains, levels, _ = quantized(known, np.abs(values) / step, step)
    bucket = buckets(known, gains, step)
    coded = bucket >= 0
    chosen, rows = levels[coded], bucket[coded]
    top = largest(rows)
    lanes = int(np.clip(len(chosen) >> 14, 1, 64))
    writer = Writer(1, lanes)
    writer.put(gains, Tables(known.gains), 0, [len(gains)])
    writer.put(np.minimum(chosen, top), Tables(known.frequencies), rows, [len(rows)])
    negative = (values[coded] < 0)[chosen > 0]
    writer.put(negative.astype(np.int64), _even(2), 0, [len(negative)])
    rest = (chosen - top)[chosen >= top]
    while len(rest):
        writer.put(np.minimum(rest, REST - 1), _even(REST), 0, [len(rest)])
        rest = rest[rest >= REST - 1] - (REST - 1)
    return HEAD.pack(len(images), exponent, lanes) + writer.finish()[0]


@dataclass(frozen=True)
class Decoded:
    """Coefficients of the images, float32 [N, D], and the spread of what is missing in them, [N, D]."""

    values: NDArray[np.float32]
    spread: NDArray[np.float32]


def decode(known: Statistics, data: bytes) -> Decoded:
    """The reverse of `encode`. Raises SectionError for a damaged stream."""
    count, exponent, lanes = HEAD.unpack_from(data)
    step = 2.0 ** (exponent / STEPS_AN_OCTAVE)
    reader = Reader([data[HEAD.size :]], lanes)
    gains = reader.take(Tables(known.gains), 0, [count]).astype(np.int64)
    bucket = buckets(known, gains, step)
    coded = bucket >= 0
    rows = bucket[coded]
    top, levels = largest(rows), reader.take(Tables(known.frequencies), rows, [len(rows)]).astype(np.int64)
    signs = reader.take(_even(2), 0, [int((levels > 0).sum())])
    unfinished = np.flatnonzero(levels >= top)
    while len(unfinished):
        digit = reader.take(_even(REST), 0, [len(unfinished)])
        levels[unfinished] += digit
        unfinished = unfinished[digit == REST - 1]
    reader.finish()
    centre = np.where(levels < top, known.centroids[rows, np.minimum(levels, top)], levels)
    centre[levels == 0] = 0
    centre[levels > 0] *= 1 - 2 * signs
    values = np.zeros(bucket.shape, np.float32)
    values[coded] = centre * step
    spread = (known.scales * GAINS[gains][:, None]).astype(np.float32)
    spread[coded] = step * np.where(levels == 0, known.zero_spread[rows], 12**-0.5)
    return Decoded(values, spread)


def coefficients(known: Statistics, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is coded of images, float32 [N, D]: their spectra without the mean."""
    flat = spectrum.spectra(images).reshape(len(images), -1)[:, known.order]
    return np.asarray(flat - known.means, np.float32)


def shown(known: Statistics, values: Floats) -> NDArray[np.uint8]:
    """Coefficients [N, D] as images, uint8 [N, side, side, 3]."""
    flat = np.empty(values.shape, np.float32)
    flat[:, known.order] = values + known.means
    return spectrum.pixels(flat.reshape(-1, 3, known.side, known.side))


def filled(known: Statistics, decoded: Decoded, copies: int) -> NDArray[np.uint8]:
    """Copies of the images with random values for what is missing, uint8 [copies, N, side, side, 3]; none: as decoded,
    [1, N, side, side, 3]."""
    draw = np.random.default_rng(0)
    fresh = (draw.standard_normal(decoded.values.shape, np.float32) for _ in range(copies))
    values = [decoded.values + decoded.spread * noise for noise in fresh] or [decoded.values]
    return np.stack([shown(known, each) for each in values])


def within(known: Statistics, images: NDArray[np.uint8], budget: int) -> bytes | None:
    """The file of the finest step that has at most `budget` bytes; None if even the coarsest has more.

    Searched on what the tables say of up to 400 images, corrected by a real file, then on real files.
    """
    values = np.abs(coefficients(known, images))
    sample = values[np.random.default_rng(0).permutation(len(values))[:400]]

    @cache
    def estimate(exponent: int) -> float:
        step = 2.0 ** (exponent / STEPS_AN_OCTAVE)
        return HEAD.size + quantized(known, sample / step, step)[2] / 8 * len(values) / len(sample)

    exponent, share = COARSEST, 1.0
    for _ in range(2):
        exponent = bisect.bisect_left(range(COARSEST), -budget, key=lambda at: -share * estimate(at))
        data = encode(known, images, exponent)
        share = len(data) / estimate(exponent)
    while len(data) > budget:
        if exponent == COARSEST:
            return None
        exponent += 1
        data = encode(known, images, exponent)
    while exponent > 0 and len(finer := encode(known, images, exponent - 1)) <= budget:
        exponent, data = exponent - 1, finer
    return data


@cache
def _even(symbols: int) -> Tables:
    return Tables(np.full((1, symbols), TOTAL // symbols))
