"""Tables and biases of a ranked-head stream from what was chosen. Nothing here is part of the format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from d3codec.labels import corrections, levels, positions
from d3codec.labels.corrections import TEMPERATURES, Costs, Floats
from d3codec.labels.positions import Ints
from d3codec.labels.prediction import GROUPS, group_of
from d3codec.labels.stream import OWN_RANGE, Corrections, LayerModel, Model, Symbols, groups, zones


def suited(model: Model, symbols: Symbols) -> Model:
    """The model with the tables that suit these symbols best."""
    places = np.bincount(positions.zone_of(symbols.places), minlength=model.places.shape[1])
    own = np.bincount(symbols.own + OWN_RANGE, minlength=2 * OWN_RANGE + 1)
    layers = [
        _layer_tables(item, found, model.statistics.width - 1)
        for item, found in zip(model.layers, symbols.layers, strict=True)
    ]
    return replace(model, places=levels.choose(places[None]), own=levels.choose(own[None]), layers=tuple(layers))


def _layer_tables(item: LayerModel, found: Corrections, size: int) -> LayerModel:
    table = value_counts(found, max(1, int(np.abs(found.values).max(initial=1))), size + 1)
    counts = np.bincount(found.counts, minlength=2)
    return LayerModel(item.layer, levels.choose(counts[None]), zone_levels(found.ranks, size), levels.choose(table))


def value_counts(found: Corrections, largest: int, width: int) -> NDArray[np.float64]:
    """How often each value occurs in each group of ranks, [groups, 2 * largest]."""
    table = np.zeros((groups(width), 2 * largest))
    np.add.at(table, (group_of(found.ranks), found.values + largest - (found.values > 0)), 1)
    return table


def zone_levels(ranks: Ints, size: int) -> NDArray[np.uint8]:
    """Level of every zone: how rarely its ranks are corrected, relative to all ranks before it."""
    totals = np.bincount(positions.zone_of(ranks), minlength=zones(size)).astype(np.float64)
    result = np.zeros(len(totals), np.uint8)
    for zone in range(1, len(totals)):
        before = 1 << (zone - 1)
        length = min(before, size - before)
        density = (totals[zone] + 0.01) / length
        earlier = (totals[:zone].sum() + 0.02) / before
        result[zone] = int(np.clip(round(2 * np.log2(earlier / density)), 0, levels.NEVER - 1))
    return result


def better_bias(
    bias: tuple[int, ...], groups_of: Ints, after: Floats, z: Floats, argmax: Ints, weights: NDArray[np.float64]
) -> tuple[int, ...]:
    """A Newton step on the divergence of `after`, what a layer leaves, each group of ranks [N, W] by itself."""
    slope, curve = np.zeros(GROUPS), np.full(GROUPS, 1e-9)
    members = groups_of.copy()
    members[np.arange(len(z)), argmax] = GROUPS
    for temperature, weight in zip(TEMPERATURES, weights, strict=True):
        wanted, now = (corrections.softmax(x, temperature) for x in (z, after))
        for group in range(GROUPS):
            inside = members == group
            held, right = (now * inside).sum(axis=1), (wanted * inside).sum(axis=1)
            slope[group] += weight / temperature * (held - right).mean()
            curve[group] += weight / temperature**2 * (held * (1 - held)).mean()
    moved = np.array(bias) + 32 * np.clip(-0.7 * slope / curve, -1, 1)
    return tuple(np.clip(np.rint(moved), -127, 127).astype(int).tolist())


def costs(item: LayerModel) -> Costs:
    """Bits of corrections under a layer's tables, finite everywhere."""
    value_bits = levels.bits(item.values)
    largest = value_bits.shape[1] // 2
    values = np.insert(value_bits, largest, 0, axis=1).clip(max=14)
    counts = levels.bits(item.counts)[0].clip(max=14)
    return Costs(_zone_bits(item), values.astype(np.float32), np.append(counts, 60).astype(np.float32))


def _zone_bits(item: LayerModel) -> Floats:
    """Bits of one more position in each zone, from the densities: log2((1 - p) / p)."""
    mean = float((2.0 ** -levels.bits(item.counts)[0] * np.arange(item.counts.shape[1])).sum())
    expected = np.zeros(len(item.densities))
    left = mean
    for zone in reversed(range(1, len(expected))):
        before = 1 << (zone - 1)
        odds = 2.0 ** (-int(item.densities[zone]) / 2)
        expected[zone] = left * odds / (1 + odds) / before
        left -= left * odds / (1 + odds)
    expected[0] = left
    expected = np.clip(expected, 1e-5, 0.95)
    return np.log2((1 - expected) / expected).astype(np.float32)


def expected_bytes(model: Model, symbols: Symbols) -> float:
    """Bytes that the symbols take under the model's tables, a little less than in a stream. No table of positions is
    made, which takes the time of writing."""
    zone = positions.zone_of(symbols.places)
    bits = float(levels.bits(model.places)[0][zone].sum() + np.maximum(zone - 1, 0).sum())
    bits += float(levels.bits(model.own)[0][symbols.own + OWN_RANGE].sum())
    for item, found in zip(model.layers, symbols.layers, strict=True):
        largest = item.values.shape[1] // 2
        value_bits = levels.bits(item.values)[group_of(found.ranks), found.values + largest - (found.values > 0)]
        bits += float(levels.bits(item.counts)[0][found.counts].sum() + value_bits.sum())
        bits += _position_bits(item, found, model.statistics.width - 1)
    return bits / 8


def _position_bits(item: LayerModel, found: Corrections, size: int) -> float:
    """Bits of the positions: the zone of each by the tables of densities, all places in a zone alike."""
    label = np.repeat(np.arange(len(found.counts)), found.counts)
    inside = np.zeros((len(found.counts), len(item.densities)), np.int64)
    np.add.at(inside, (label, positions.zone_of(found.ranks)), 1)
    left, bits = found.counts.copy(), 0.0
    for zone in reversed(range(1, len(item.densities))):
        before = 1 << (zone - 1)
        length = min(before, size - before)
        k, taken = np.arange(left.max(initial=0) + 1)[:, None], np.arange(inside[:, zone].max(initial=0) + 1)[None]
        weights = _log_choices(length, taken) + _log_choices(before, k - taken) - int(item.densities[zone]) / 2 * taken
        highest = weights.max(axis=1, keepdims=True)
        shares = weights - highest - np.log2(np.exp2(weights - highest).sum(axis=1, keepdims=True))
        bits -= float(shares[left, inside[:, zone]].sum())
        bits += float(_log_choices(length, inside[:, zone]).sum())
        left -= inside[:, zone]
    return bits


def _log_choices(total: int, chosen: Ints) -> NDArray[np.float64]:
    """log2 of the number of ways to choose, -1e9 where there is none."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, total + 1)))])
    possible = (chosen >= 0) & (chosen <= total)
    picked = np.where(possible, chosen, 0)
    return np.where(possible, factorials[total] - factorials[picked] - factorials[total - picked], -1e9)
