"""Labels for tests: logits of a made-up teacher, and archives of symbols that no encoder would choose."""

from __future__ import annotations

import hashlib

import numpy as np

from d3codec.labels import levels, statistics
from d3codec.labels.prediction import GROUPS, Layer, Parameters, group_of
from d3codec.labels.statistics import Statistics
from d3codec.labels.stream import IN_FILE, NONE, SHIPPED, Corrections, LayerModel, Model, Symbols, groups, zones


def teacher_logits(count: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [count, width] in nat, rows that share a few directions with a peak near their class, and the
    classes int64 [count]; about one argmax in six is another column."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(width, 6))
    classes = rng.integers(0, width, count)
    seen = np.where(rng.random(count) < 0.15, rng.integers(0, width, count), classes)
    logits = 0.5 * rng.normal(size=(count, width)) + rng.normal(size=width)
    logits += (0.4 * rng.normal(size=(count, 6)) + 0.3 * axes[seen]) @ axes.T
    logits[np.arange(count), seen] += rng.normal(6, 2, count)
    return logits.astype(np.float32), classes


def random_statistics(rng: np.random.Generator, width: int, axes: int) -> Statistics:
    """Statistics that the format can store, often with rows of zeros."""
    rows = np.rint(rng.normal(scale=rng.choice([0.3, 2.0, 20.0]), size=(width, axes))).clip(-31, 31)
    means = rng.integers(-31, 32, width) * 512
    return Statistics(means, rows.astype(np.int64), int(rng.choice([1, 37, 65_535])))


def random_levels(rng: np.random.Generator, shape: tuple[int, int], used: np.ndarray) -> np.ndarray:
    """Levels that allow at least what is `used`, bool [T, S]."""
    table = rng.integers(0, 15, shape, dtype=np.uint8)
    table[(rng.random(shape) < rng.choice([0.0, 0.5, 1.0])) & ~used] = levels.NEVER
    table[(table == levels.NEVER).all(axis=1), 0] = 3
    return table


def random_archive(
    rng: np.random.Generator, count: int, width: int, depth: int, source: int, axes: int
) -> tuple[Model, Symbols, np.ndarray]:
    """A model, symbols that its tables allow, and classes [count]; extreme numbers come often."""
    known = {
        NONE: lambda: statistics.none(width),
        IN_FILE: lambda: random_statistics(rng, width, axes),
        SHIPPED: statistics.shipped,
    }[source]()

    def any_of(least: int, most: int) -> int:
        return int(rng.choice([least, most, rng.integers(least, most + 1)]))

    places = np.where(rng.random(count) < 0.5, 0, rng.integers(0, width, count))
    own = rng.integers(-16, 17, count)
    layers, found = [], []
    for _ in range(depth if width > 1 else 0):
        most, largest = any_of(1, min(127, width - 1)), any_of(1, 31)
        counts = rng.binomial(most, rng.choice([0.0, 0.1, 0.7, 1.0]), count)
        ranks = [np.sort(rng.permutation(width - 1)[:k]) for k in counts]
        flat = np.concatenate([*ranks, np.empty(0, np.int64)]).astype(np.int64)
        values = rng.integers(1, largest + 1, len(flat)) * rng.choice([-1, 1], len(flat))
        found.append(Corrections(counts, flat, values))
        symbols = values + largest - (values > 0)
        used = np.zeros((groups(width), 2 * largest), bool)
        used[group_of(flat), symbols] = True
        count_levels = random_levels(rng, (1, most + 1), np.isin(np.arange(most + 1), counts)[None])
        densities = rng.integers(0, 16, zones(width - 1), dtype=np.uint8)
        densities[rng.integers(len(densities))] = 5
        biases = tuple(any_of(-128, 127) for _ in range(GROUPS))
        layer = Layer(any_of(1, 255), any_of(0, 255), biases)
        layers.append(LayerModel(layer, count_levels, densities, random_levels(rng, used.shape, used)))
    zone_of = np.frexp(places.astype(float))[1]
    number = zones(width)
    place_levels = random_levels(rng, (1, number), np.isin(np.arange(number), zone_of)[None])
    own_levels = random_levels(rng, (1, 33), np.isin(np.arange(33), own + 16)[None])
    numbers = [any_of(0, 255), any_of(0, 65_535), any_of(0, 255), any_of(-32_768, 32_767), any_of(1, 255)]
    model = Model(source, known, Parameters(*numbers), place_levels, own_levels, tuple(layers))
    return model, Symbols(places, own, found), rng.integers(0, width, count)


def extreme_archive() -> tuple[Model, Symbols, np.ndarray]:
    """Labels whose sums would leave what float32 holds, were they not held: 300 columns, 64 axes, all at its most."""
    rng = np.random.default_rng(11)
    count, width, most = 64, 300, 40
    known = Statistics(np.zeros(width, np.int64), rng.integers(-1, 2, (width, 64)), 1)
    ranks = np.concatenate([np.sort(rng.permutation(width - 1)[:most]) for _ in range(count)])
    values = rng.choice([-31, 31], count * most)
    counts, densities = np.zeros((1, most + 1), np.uint8), np.zeros(zones(width - 1), np.uint8)
    layer = LayerModel(Layer(255, 255, (0,) * GROUPS), counts, densities, np.zeros((groups(width), 62), np.uint8))
    places, own = np.zeros((1, zones(width)), np.uint8), np.zeros((1, 33), np.uint8)
    model = Model(IN_FILE, known, Parameters(64, 65_535, 255, 0, 255), places, own, (layer,) * 2)
    found = Corrections(np.full(count, most), ranks, values)
    classes = rng.integers(0, width, count)
    return model, Symbols(rng.integers(0, width, count), np.zeros(count, np.int64), [found] * 2), classes


def digest(logits: np.ndarray) -> str:
    """SHA-256 of logits, float32."""
    assert logits.dtype == np.float32
    return hashlib.sha256(np.ascontiguousarray(logits).astype("<f4").tobytes()).hexdigest()
