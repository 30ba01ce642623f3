"""Real images at a price: grey levels of a few bits a pixel, packed and compressed. What the demo compares with.

Generous to the real images on purpose: no header is counted, and no byte for labels (images lie in rounds of one image
a class, so the place says the class).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from d3codec.errors import UsageError
from d3codec.training.teachers import Teacher


@dataclass(frozen=True)
class Stored:
    """Real images as a receiver sees them: uint8 [N, H, W, 3], classes int64 [N], positions in the source, bytes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    bytes: int


def pack_real(images: NDArray[np.uint8], bits: int) -> bytes:
    """Grey images of `bits` bits a pixel as bytes: packed bits in row order, zstd level 19.

    Arguments:
        images: uint8 [N, H, W, 3]; their grey value is the mean of the channels.
        bits: 1, 2, 4 or 8.
    """
    return zstandard.ZstdCompressor(level=19).compress(_packed(_levels(images, bits), bits))


def unpack_real(data: bytes, shape: tuple[int, int, int], bits: int) -> NDArray[np.uint8]:
    """The images of `pack_real` as a student sees them: uint8 [N, H, W, 3]; `shape` is (N, H, W)."""
    raw = zstandard.ZstdDecompressor().decompress(data)
    bit = np.unpackbits(np.frombuffer(raw, np.uint8))[:np.prod(shape) * bits].reshape(-1, bits)
    levels = bit @ (1 << np.arange(bits)[::-1])
    grey = np.rint(levels * (255 / (2**bits - 1))).astype(np.uint8).reshape(shape)
    return np.repeat(grey[..., None], 3, axis=-1)


def _levels(images: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits not in (1, 2, 4, 8):
        raise UsageError("bits a pixel", field="bits", found=bits, expected="1, 2, 4 or 8")
    return np.rint(images.mean(-1) * ((2**bits - 1) / 255)).astype(np.uint8)


def _packed(levels: NDArray[np.uint8], bits: int) -> bytes:
    return np.packbits(np.unpackbits(levels.reshape(-1, 1), axis=1)[:, 8 - bits:]).tobytes()


def in_rounds(labels: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions `order` rearranged: the first of every class, then the second of every class, while all have one."""
    of_class = [order[labels[order] == label] for label in range(int(labels.max()) + 1)]
    rounds = min(len(positions) for positions in of_class)
    return np.stack([positions[:rounds] for positions in of_class], axis=1).reshape(-1)


def fill(images: NDArray[np.uint8], labels: NDArray[np.int64], order: NDArray[np.int64], bits: int,
         budget: int) -> Stored:
    """As many whole rounds of `order` as fit into `budget` bytes. UsageError if not even one image a class does."""
    classes, positions = int(labels.max()) + 1, in_rounds(labels, order)

    def size(rounds: int) -> int:
        return len(pack_real(images[positions[:rounds * classes]], bits))

    low, high = 0, len(positions) // classes
    while low < high:  # the size grows with the number of images, but for a few bytes of luck
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= budget else (low, middle - 1)
    if low == 0:
        raise UsageError("no image of every class fits", field="budget", found=budget, expected=f"{size(1)} bytes or more")
    kept = positions[:low * classes]
    data = pack_real(images[kept], bits)
    return Stored(unpack_real(data, (len(kept), *images.shape[1:3]), bits), labels[kept], kept, len(data))


def fit_to_bytes(images: NDArray[np.uint8], labels: NDArray[np.int64], *, bits: int, budget: int,
                 seed: int) -> Stored:
    """Random real images, equally many of every class, as many as fit into `budget` bytes at `bits` bits a pixel."""
    return fill(images, labels, np.random.default_rng(seed).permutation(len(labels)), bits, budget)


def select_by_teacher(images: NDArray[np.uint8], labels: NDArray[np.int64], teacher: Teacher, *, bits: int,
                      budget: int) -> Stored:
    """Typical and diverse real images: of every class the medoids of k clusters, k as large as the budget allows.

    Clusters are those of k-means on pixels among the images that the teacher names right; medoids of such clusters
    were far better than the images of lowest loss, which are all alike.
    """
    right = np.flatnonzero(teacher(images).argmax(1) == labels)
    classes = int(labels.max()) + 1
    low, high = 1, int(np.bincount(labels[right], minlength=classes).min())
    best = fill(images, labels, _medoids(images, labels, right, low), bits, budget)
    while low < high:
        middle = (low + high + 1) // 2
        trial = fill(images, labels, _medoids(images, labels, right, middle), bits, budget)
        if len(trial.labels) == middle * classes:
            low, best = middle, trial
        else:
            high = middle - 1
    return best


def _medoids(images: NDArray[np.uint8], labels: NDArray[np.int64], allowed: NDArray[np.int64],
             clusters: int) -> NDArray[np.int64]:
    chosen = []
    for label in range(int(labels.max()) + 1):
        members = allowed[labels[allowed] == label]
        chosen.append(members[_centres(images[members].reshape(len(members), -1).astype(np.float64), clusters)])
    return np.concatenate(chosen)


def _centres(points: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Indices of the points nearest to the centres of k-means (Lloyd's rule from a farthest-first start)."""
    first = int(((points - points.mean(0)) ** 2).sum(1).argmin())
    centres = [first]
    distance = ((points - points[first]) ** 2).sum(1)
    while len(centres) < clusters:
        centres.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[centres[-1]]) ** 2).sum(1))
    means = points[centres]
    for _ in range(10):
        nearest = _distances(points, means).argmin(1)
        means = np.stack([points[nearest == k].mean(0) if (nearest == k).any() else means[k] for k in range(clusters)])
    order, taken = _distances(means, points).argsort(1), []
    for row in order:  # a point stands for one centre only
        taken.append(next(int(point) for point in row if int(point) not in taken))
    return np.array(taken)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T)
