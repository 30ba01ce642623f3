"""Choosing corrections: the encoder's greedy search for those that lower the divergence most per bit.

Nothing here is part of the format: another encoder may choose otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.labels.statistics import Statistics

Floats = NDArray[np.float32]

TEMPERATURES = (1.0, 4.0, 20.0)
_NEVER = np.float32(1e9)
_LEAST = np.float32(1e-7)  # gain of a correction
_FAR = np.float32(80)  # exponents stay below it
_MATRIX_WIDTH = 2048  # up to this all relatives of all classes are held as one matrix


class Relatives:
    """How far every class follows when one is corrected by 1, [W, W], computed as needed for many classes."""

    def __init__(self, statistics: Statistics) -> None:
        self._rows = statistics.rows.T.astype(np.float32)
        self._weighted = (statistics.weighted_rows / (1 << 24)).astype(np.float32)
        self.own = (statistics.lengths * statistics.shares / (1 << 24)).astype(np.float32)
        self._matrix = self._weighted @ self._rows if statistics.width <= _MATRIX_WIDTH else None

    def __call__(self, classes: NDArray[np.int64]) -> Floats:
        """Of each class [n] what all follow, float32 [n, W]."""
        return self._weighted[classes] @ self._rows if self._matrix is None else self._matrix[classes]


@dataclass(frozen=True)
class Costs:
    """Bits that a correction costs. zones: one in each zone [zones]; values [groups, 2 * largest + 1], the middle
    unused; counts [most + 2]: of how many there are."""

    zones: Floats
    values: Floats
    counts: Floats


@dataclass(frozen=True)
class Search:
    """What the search is given beside labels and costs. `price`: divergence that a bit is worth; `weights` [3] of the
    divergences at TEMPERATURES; `step` in nat; `spread`; `candidates` classes a label that are tried,
    `moves` corrections a label and round."""

    price: float
    weights: NDArray[np.float64]
    step: float
    spread: float
    candidates: int
    moves: int


def softmax(logits: Floats, temperature: float) -> Floats:
    """Probabilities [n, W] at a temperature."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) * np.float32(1 / temperature))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def divergences(logits: Floats, decoded: Floats) -> NDArray[np.float64]:
    """Mean Kullback-Leibler divergence of the decoded from the original softmax at TEMPERATURES, in nat, [3]."""
    found = []
    for temperature in TEMPERATURES:
        a = _log_softmax(logits * np.float32(1 / temperature))
        b = _log_softmax(decoded * np.float32(1 / temperature))
        found.append(float((np.exp(a) * (a - b)).sum(axis=1).mean()) if len(logits) else 0.0)
    return np.array(found)


def choose(
    logits: Floats,
    predicted: Floats,
    argmax: NDArray[np.int64],
    zones: NDArray[np.int64],
    groups: NDArray[np.int64],
    costs: Costs,
    search: Search,
    relatives: Relatives,
) -> tuple[NDArray[np.int8], Floats]:
    """Corrections in steps, int8 [n, W], and the prediction after them, float32 [n, W].

    A few corrections a label and round, those of largest gain: new ones, or other values of those that are there. The
    argmax is left alone. `zones`, `groups` [n, W]: those of the rank of every class.
    """
    count, width = logits.shape
    rows = np.arange(count)
    step, price = np.float32(search.step), np.float32(search.price)
    largest, most = costs.values.shape[1] // 2, len(costs.counts) - 2
    current = predicted.copy()
    targets = [softmax(logits, temperature) for temperature in TEMPERATURES]
    tried = _candidates(logits, current, targets, argmax, costs.zones[zones], search)
    wanted = np.take_along_axis(logits, tried, 1)
    wanted_zone, wanted_group = (np.take_along_axis(x, tried, 1) for x in (zones, groups))
    wanted_targets = [np.take_along_axis(target, tried, 1) for target in targets]
    log_odds = _log_odds(wanted_targets[0])
    zone_cost = costs.zones[wanted_zone]
    steps = np.zeros(tried.shape, np.float32)
    result, counts, active = np.zeros((count, width), np.int8), np.zeros(count, np.int64), rows
    for _ in range((most + most // 2) // search.moves + 4):
        if not len(active):
            break
        now, here = current[active], np.arange(len(active))
        values = np.take_along_axis(now, tried[active], 1)
        probabilities = _softmax_at(now, values)
        wrong = wanted[active] - values
        old = steps[active]
        more = (costs.counts[counts[active] + 1] - costs.counts[counts[active]])[:, None]
        cost = price * (zone_cost[active] + more)
        group = wanted_group[active]
        paid = np.where(old != 0, cost + price * costs.values[group, (old + largest).astype(np.int64)], np.float32(0))
        blocked = (counts[active] >= most)[:, None] & (old == 0)
        best, best_new = np.full(old.shape, -_LEAST, np.float32), old.copy()
        for aim in (log_odds[active] - _log_odds(probabilities[0]), wrong, wrong * np.float32(0.75)):
            new = np.clip(np.rint(old + aim / step), -largest, largest)
            change = (new - old) * step
            gain = np.where(new != 0, cost + price * costs.values[group, (new + largest).astype(np.int64)], 0) - paid
            for temperature, weight, target, p in zip(
                TEMPERATURES, search.weights, wanted_targets, probabilities, strict=True
            ):
                scaled = change * np.float32(1 / temperature)
                grown = np.log1p(np.maximum(p * np.expm1(np.minimum(scaled, _FAR)), np.float32(-0.999)))
                gain += np.float32(weight) * (grown - target[active] * scaled)
            better = (gain < best) & (new != old) & ~blocked
            best[better], best_new[better] = gain[better], new[better]
        moves = min(search.moves, tried.shape[1])
        places = np.argpartition(best, moves - 1, axis=1)[:, :moves] if moves > 1 else best.argmin(axis=1)[:, None]
        for place in places.T:
            good = best[here, place] < -_LEAST
            good &= (counts[active] < most) | (old[here, place] != 0)
            label, column_place = active[good], place[good]
            column, before, chosen = tried[label, column_place], old[here, place][good], best_new[here, place][good]
            move = (chosen - before) * step
            kept = current[label, argmax[label]]
            if search.spread:
                pull = move * np.float32(search.spread)
                current[label] += pull[:, None] * relatives(column)
                current[label, column] -= pull * relatives.own[column]
            current[label, column] += move
            current[label, argmax[label]] = kept
            steps[label, column_place] = chosen
            result[label, column] = chosen.astype(np.int8)
            counts[label] += (chosen != 0).astype(np.int64) - (before != 0)
        active = active[best.min(axis=1) < -_LEAST]
    return result, current


def choose_own(
    logits: Floats, predicted: Floats, argmax: NDArray[np.int64], offered: Floats, bits: Floats, search: Search
) -> NDArray[np.int64]:
    """Which of the `offered` logits [m], of a cost in `bits` [m], the argmax takes: index [n]."""
    rows = np.arange(len(logits))
    before = predicted[rows, argmax]
    change = offered[None] - before[:, None]
    total = np.broadcast_to(np.float32(search.price) * bits, change.shape).copy()
    for temperature, weight in zip(TEMPERATURES, search.weights, strict=True):
        p = softmax(predicted, temperature)[rows, argmax][:, None]
        target = softmax(logits, temperature)[rows, argmax][:, None]
        scaled = np.clip(change * np.float32(1 / temperature), -60, 60)
        total += np.float32(weight) * (
            np.log1p(np.maximum(p * np.expm1(scaled), np.float32(-0.999999))) - target * scaled
        )
    return np.asarray(total.argmin(axis=1))


def _candidates(
    logits: Floats,
    predicted: Floats,
    targets: list[Floats],
    argmax: NDArray[np.int64],
    zone_cost: Floats,
    search: Search,
) -> NDArray[np.int64]:
    """Columns worth trying, [n, candidates], ascending: those with most to gain before anything is corrected."""
    wrong = np.clip(logits - predicted, -20, 20)
    score = np.float32(-0.7 * search.price) * zone_cost
    for temperature, weight, target in zip(TEMPERATURES, search.weights, targets, strict=True):
        scaled = wrong * np.float32(1 / temperature)
        score = score + np.float32(weight) * np.abs(
            softmax(predicted, temperature) * np.expm1(scaled) - target * scaled
        )
    score[np.arange(len(logits)), argmax] = -_NEVER
    number = min(search.candidates, logits.shape[1] - 1)
    chosen = np.argpartition(-score, number - 1, axis=1)[:, :number]
    chosen.sort(axis=1)
    return np.asarray(chosen)


def _softmax_at(logits: Floats, values: Floats) -> list[Floats]:
    """Probabilities of the logits `values` [n, m], which are some of all `logits` [n, W], at TEMPERATURES."""
    highest = logits.max(axis=1, keepdims=True)
    shifted, shifted_values = logits - highest, values - highest
    found = []
    for temperature in TEMPERATURES:
        scale = np.float32(1 / temperature)
        found.append(np.exp(shifted_values * scale) / np.exp(shifted * scale).sum(axis=1, keepdims=True))
    return found


def _log_odds(probabilities: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities, 1e-9)) - np.log(np.maximum(1 - probabilities, 1e-6)))


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
