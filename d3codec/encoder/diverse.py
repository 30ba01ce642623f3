"""Which real images stand for a class: the medoids of those that the teacher is sure of.

Each class's images are clustered by k-means in the teacher's feature space (Lloyd 1982; start of k-means++, Arthur and
Vassilvitskii 2007) and the image next to each centre is taken: images that are typical and unlike each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d3codec.errors import ImagesError, UsageError

CONFIDENT = 0.7  # nats of cross-entropy: the right class has at least about half of the probability
ROUNDS = 20  # of Lloyd's algorithm at most


def medoids(
    features: np.ndarray,
    losses: np.ndarray,
    labels: np.ndarray,
    per_class: int | Sequence[int],
    classes: int,
    *,
    confident: float = CONFIDENT,
    seed: int = 0,
) -> np.ndarray:
    """Positions of diverse images of each class.

    Arguments:
        features: float (N, d), the teacher's features of each image.
        losses: float (N,), the teacher's cross-entropy of each image with its class, in nats.
        labels: int (N,), classes.
        per_class: images wanted of each class: one number, or one for each class; 0 takes none.
        classes: number of classes.
        confident: images with a loss below it are clustered. If a class has no more of them than are wanted, the ones
            with the lowest losses are taken.
        seed: of the first centres.

    Returns:
        int64, all different, ordered by class and within a class by position. A class's choice depends on the class's
        own images alone.

    Raises:
        ImagesError: arrays that do not fit together, or a class with fewer images than wanted.
        UsageError: a negative number, or not one a class.
    """
    wanted = [per_class] * classes if isinstance(per_class, int | np.integer) else [int(count) for count in per_class]
    if len(wanted) != classes or min(wanted, default=0) < 0:
        raise UsageError(
            "not one number of images a class",
            field="per_class",
            found=str(per_class),
            expected=f"a number from 0, or {classes} of them",
        )
    count = len(labels)
    if features.ndim != 2 or len(features) != count or losses.shape != (count,) or labels.shape != (count,):
        raise ImagesError(
            "features and losses do not fit the labels",
            field="features",
            found=f"{features.shape}, {losses.shape}",
            expected=f"({count}, d), ({count},)",
        )
    chosen = [np.zeros(0, np.int64)]
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < wanted[label]:
            raise ImagesError(
                "a class has fewer images than asked for",
                field=f"class {label}",
                found=len(members),
                expected=wanted[label],
                hint="Give more images of this class, or ask for fewer.",
            )
        chosen.append(np.sort(_of_class(members, features, losses, wanted[label], confident, (seed, label))))
    return np.concatenate(chosen)


def _of_class(
    members: np.ndarray, features: np.ndarray, losses: np.ndarray, count: int, confident: float, seed: Sequence[int]
) -> np.ndarray:
    ranked = members[np.argsort(losses[members], kind="stable")]
    sure = members[losses[members] < confident]
    if len(sure) <= count or not count:
        return ranked[:count]
    points = features[sure].astype(np.float64)
    nearest, distances = kmeans(points, count, np.random.default_rng(seed))
    order = np.lexsort((distances, nearest))  # by cluster, the one next to its centre first
    first = np.flatnonzero(np.diff(nearest[order], prepend=-1))
    chosen = sure[order[first]]
    spare = ranked[~np.isin(ranked, chosen)]  # for clusters that stay empty: images with the same features
    return np.concatenate([chosen, spare[: count - len(chosen)]])


def kmeans(points: np.ndarray, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of points float64 (N, d), N >= count > 0.

    Returns:
        int64 (N,), the cluster of each point, and float64 (N,), its squared distance from the centre of it. A cluster
        may be empty where fewer than `count` points differ.
    """
    points = points - points.mean(0)  # distances lose fewer digits
    centres = _spread_centres(points, count, draw)
    previous = np.full(len(points), -1)
    for _ in range(ROUNDS):
        nearest, distances = _nearest(points, centres)
        if (nearest == previous).all():
            break
        previous = nearest
        sizes = np.bincount(nearest, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        centres = sums / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)  # starts anew at the points that are furthest from theirs
        centres[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
    return _nearest(points, centres)


def _spread_centres(points: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """First centres: each a point, likely in proportion to its squared distance from those before; the best of a few
    draws is taken, the one that leaves the smallest sum of squared distances."""
    trials = 2 + int(np.log(count))
    centres = points[[draw.integers(len(points))]]
    distances = _squared_distances(points, centres)[:, 0]
    while len(centres) < count:
        places = draw.random(trials) * distances.sum()
        drawn = np.minimum(np.searchsorted(np.cumsum(distances), places), len(points) - 1)
        reached = np.minimum(distances[:, None], _squared_distances(points, points[drawn]))
        best = reached.sum(0).argmin()
        centres, distances = np.concatenate([centres, points[drawn[[best]]]]), reached[:, best]
    return centres


def _nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = _squared_distances(points, centres)
    nearest = distances.argmin(1)
    return nearest, distances[np.arange(len(points)), nearest]


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    products = points @ centres.T
    squares = (points**2).sum(1)[:, None] - 2 * products + (centres**2).sum(1)[None]
    return np.asarray(np.maximum(squares, 0))
