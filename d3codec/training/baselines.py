"""Real images at a price: grey levels of a few bits a pixel, packed and compressed. A file's opponents.

Generous to the real images on purpose. Only pixels are counted: no header, and no byte for the labels,
because images lie in the order of their classes, equally many of each (of the first classes one more where
the number does not divide). The order within a class is free, so neighbours are alike, which compresses best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import zstandard
from numpy.typing import NDArray

from d3codec.errors import ImagesError, UsageError
from d3codec.training.teachers import Teacher

LEVEL = 19  # of zstd
STARTS = 5  # of k-means
IMAGES_FIRST, PIXELS_FIRST = 0, 1  # first byte of a packed set: which axis varies slowest


@dataclass(frozen=True)
class Stored:
    """Real images as a receiver sees them.

    images: uint8 [N, h, w, 3], grey, quantized; labels: int64 [N]; positions: int64 [N], in the source;
    bytes: what storing them takes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    bytes: int


# ------------------------------------------------------------------------------------------------- packing


def pack_real(images: NDArray[np.uint8], bits: int) -> bytes:
    """Images as bytes: grey levels of `bits` bits, packed, zstd level 19, in the better of two pixel orders.

    Arguments:
        images: uint8 [N, h, w, 3]; grey by ITU-R BT.601 (exact where the channels are equal).
        bits: 1 to 8 a pixel; level k stands for the grey value 255 k / (2^bits - 1).
    """
    levels = grey_levels(images, bits)
    orders = {IMAGES_FIRST: levels, PIXELS_FIRST: np.moveaxis(levels, 0, -1)}
    parameters = zstandard.ZstdCompressionParameters.from_level(LEVEL, write_content_size=False)
    compress = zstandard.ZstdCompressor(compression_params=parameters).compress
    packed = (bytes([first]) + compress(_packed(values, bits)) for first, values in orders.items())
    return min(packed, key=len)


def unpack_real(data: bytes, shape: tuple[int, int, int], bits: int) -> NDArray[np.uint8]:
    """The images of `pack_real` as a student sees them, uint8 [N, h, w, 3]; `shape` is (N, h, w)."""
    count, height, width = shape
    values = count * height * width
    raw = zstandard.ZstdDecompressor().decompress(data[1:], max_output_size=(values * bits + 7) // 8)
    digits = np.unpackbits(np.frombuffer(raw, np.uint8), count=values * bits).reshape(values, bits)
    levels = digits @ (1 << np.arange(bits)[::-1])
    ordered = (
        levels.reshape(shape) if data[0] == IMAGES_FIRST else np.moveaxis(levels.reshape(height, width, count), -1, 0)
    )
    return grey_images(ordered, bits)


def grey_levels(images: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """uint8 [N, h, w, 3] -> levels 0 to 2^bits - 1, uint8 [N, h, w]."""
    if not 1 <= bits <= 8:
        raise UsageError("no such number of bits a pixel", field="bits", found=bits, expected="1 to 8")
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise ImagesError(
            "not a set of RGB images of one size",
            field="images",
            found=f"{images.dtype} {images.shape}",
            expected="uint8 (N, h, w, 3)",
        )
    grey = images.astype(np.int64) @ np.array([299, 587, 114])  # thousandths
    top = 2**bits - 1
    return np.asarray((2 * grey * top + 255_000) // 510_000, np.uint8)


def grey_images(levels: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Levels [N, h, w] -> the grey images that they stand for, uint8 [N, h, w, 3]."""
    top = 2**bits - 1
    grey = ((2 * levels.astype(np.int64) * 255 + top) // (2 * top)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _packed(levels: NDArray[np.uint8], bits: int) -> bytes:
    return np.packbits(np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes()


def store(images: NDArray[np.uint8], labels: NDArray[np.int64], positions: NDArray[np.int64], bits: int) -> Stored:
    """The images at `positions`, in a cheap order, packed and seen again."""
    chosen = positions[cheap_order(images[positions], labels[positions], bits)]
    data = pack_real(images[chosen], bits)
    seen = unpack_real(data, (len(chosen), *images.shape[1:3]), bits)
    return Stored(seen, labels[chosen], chosen, len(data))


def cheap_order(images: NDArray[np.uint8], labels: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Positions by class and, within a class, each image followed by the one most like it."""
    levels = grey_levels(images, bits).reshape(len(images), -1).astype(np.float64)
    chains = []
    for label in np.unique(labels):
        left = np.flatnonzero(labels == label).tolist()
        chain = [left.pop(0)]
        while left:
            distances = ((levels[left] - levels[chain[-1]]) ** 2).sum(1)
            chain.append(left.pop(int(distances.argmin())))
        chains += chain
    return np.array(chains, np.int64)


# ----------------------------------------------------------------------------------------------- selection


def fit_to_bytes(images: NDArray[np.uint8], labels: NDArray[np.int64], bits: int, budget: int, seed: int) -> Stored:
    """Random real images, equally many of every class, as many as fit into `budget` bytes.

    Raises UsageError if not even one image of every class fits.
    """
    order = np.random.default_rng(seed).permutation(len(labels))

    def first(label: int, count: int) -> NDArray[np.int64]:
        return np.asarray(order[labels[order] == label][:count])

    return _as_many_as_fit(images, labels, np.bincount(labels), first, bits, budget)


def select_by_teacher(
    images: NDArray[np.uint8], labels: NDArray[np.int64], teacher: Teacher, bits: int, budget: int
) -> Stored:
    """Typical and diverse real images: of every class the k images next to the centres of k clusters, with k
    as large as `budget` bytes allow.

    k-means on the quantized pixels, among the images to whose class the teacher gives more than half of the
    probability. The images of lowest loss are all alike and worse than random ones. Raises UsageError like
    `fit_to_bytes`.
    """
    logits = teacher(images).astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    sure = 2 * powers[np.arange(len(labels)), labels] > powers.sum(1)
    points = grey_levels(images, bits).reshape(len(images), -1) / (2.0**bits - 1)

    @cache
    def medoids(label: int, count: int) -> NDArray[np.int64]:
        members = np.flatnonzero(sure & (labels == label))
        return members[central(points[members], count)]

    available = np.bincount(labels[sure], minlength=int(labels.max()) + 1)
    return _as_many_as_fit(images, labels, available, medoids, bits, budget)


def _as_many_as_fit(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    available: NDArray[np.int64],
    choose: Callable[[int, int], NDArray[np.int64]],
    bits: int,
    budget: int,
) -> Stored:
    """The largest set that fits. `available`: images of each class; `choose(label, count)` picks some."""
    classes = len(available)
    if not available.all():
        raise UsageError("a class without usable images", field="labels", found=int(available.argmin()))

    def stored(count: int) -> Stored:
        share, more = divmod(count, classes)
        chosen = np.concatenate([choose(label, share + (label < more)) for label in range(classes)])
        return store(images, labels, chosen, bits)

    best = stored(classes)
    if best.bytes > budget:
        raise UsageError(
            "not even one image of every class fits",
            field="budget",
            found=budget,
            expected=f"{best.bytes} bytes or more",
        )
    low, limit = classes, classes * int(available.min())
    high = limit
    while low < high:
        middle = (low + high + 1) // 2
        trial = stored(middle)
        if trial.bytes <= budget:
            low, best = middle, trial
        else:
            high = middle - 1
    for count in range(low + 1, min(low + classes, limit) + 1):  # a larger set may happen to compress better
        trial = stored(count)
        if trial.bytes <= budget:
            best = trial
    return best


def central(points: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Positions of `clusters` points, each next to a centre of k-means (best of five k-means++ starts)."""
    tries = [_lloyd(points, points[_spread(points, clusters, np.random.default_rng(seed))]) for seed in range(STARTS)]
    centres = min(tries, key=lambda centres: float(_distances(points, centres).min(1).sum()))
    chosen: list[int] = []
    for row in _distances(centres, points).argsort(1, kind="stable"):
        chosen.append(next(int(point) for point in row if int(point) not in chosen))
    return np.array(chosen, np.int64)


def _spread(points: NDArray[np.float64], clusters: int, draw: np.random.Generator) -> list[int]:
    """k-means++: each new start is drawn in proportion to its squared distance from those before."""
    starts = [int(draw.integers(len(points)))]
    nearest = ((points - points[starts[0]]) ** 2).sum(1)
    while len(starts) < clusters:
        total = nearest.sum()
        chance = nearest / total if total > 0 else None
        starts.append(int(draw.choice(len(points), p=chance)))
        nearest = np.minimum(nearest, ((points - points[starts[-1]]) ** 2).sum(1))
    return starts


def _lloyd(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    for _ in range(20):
        nearest = _distances(points, centres).argmin(1)
        centres = np.stack(
            [
                points[nearest == number].mean(0) if (nearest == number).any() else centre
                for number, centre in enumerate(centres)
            ]
        )
    return centres


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances [len(one), len(other)]."""
    return np.asarray((one * one).sum(1)[:, None] + (other * other).sum(1) - 2 * one @ other.T)
