"""From what was coded of a batch of labels to their logits, in integers (spec/labels.md section 4).

Units are 1/4096 nat. Matrix products of float32 are exact here, in any order, because every partial sum is an integer
below 2^24; so the same labels come out on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d3codec.labels.positions import zone_of
from d3codec.labels.statistics import UNITS_A_NAT, Statistics

Ints = NDArray[np.int64]

GROUPS = 7
"""Groups of ranks that share a table of values and a bias: zones 0, 1, 2, 3, 4 and 5, 6 and 7, all later ones."""

SIXTEENTH = UNITS_A_NAT // 16
_LIFT = UNITS_A_NAT // 64  # of the argmax above all other logits
_EXACT = (1 << 24) - 1  # float32 holds all integers up to this
_MOVES = 1 << 19  # numbers of corrections times axes that are held at once


def group_of(ranks: Ints) -> Ints:
    """Group of each rank, 0 to 6."""
    zones = zone_of(ranks)
    return np.asarray(np.minimum(np.where(zones > 3, 4 + (zones - 4) // 2, zones), GROUPS - 1))


@dataclass(frozen=True)
class Layer:
    """One pass of corrections. `step`, 1/16 nat; `spread`, 1/64: how much of a correction related classes follow;
    `bias` [7], 1/32 nat: added to the ranks of each group."""

    step: int
    spread: int
    bias: tuple[int, ...]


@dataclass(frozen=True)
class Parameters:
    """Numbers that hold for all labels of an archive. `mean_scale`, 1/64; `pull`, 1/256 nat: what an argmax adds to
    its relatives; `class_pull`, 1/64 of that: what the class adds if it is not the argmax; `centre`, 1/16 nat, and
    `own_step`, 1/16 nat, of the logit of the argmax."""

    mean_scale: int
    pull: int
    class_pull: int
    centre: int
    own_step: int


class Prediction:
    """Logits of a batch of labels while its layers are applied. `classes`, `argmax`: int64 [n], columns."""

    def __init__(self, statistics: Statistics, parameters: Parameters, classes: Ints, argmax: Ints) -> None:
        self._statistics, self._parameters, self._argmax = statistics, parameters, argmax
        width = statistics.width
        pairs, self._pair = np.unique(argmax * width + classes, return_inverse=True)
        self._pair_argmax, pair_class = pairs // width, pairs % width
        self._factors = _base_factors(statistics, parameters, self._pair_argmax, pair_class)
        self._added: NDArray[np.int32] | None = None  # biases and corrections, [n, width]
        self._mean = scaled_mean(statistics, parameters)

    @cached_property
    def _basis(self) -> NDArray[np.float32]:
        return np.asarray(self._statistics.rows.T, np.float32)

    def apply(self, layer: Layer, labels: Ints, ranks: Ints, values: Ints) -> None:
        """Apply a layer: to label `labels[i]` (ascending) at rank `ranks[i]` the correction `values[i]` steps."""
        orders = self.orders()
        bias = np.array(layer.bias, np.int32)[group_of(np.arange(self._statistics.width))] * (UNITS_A_NAT // 32)
        bias[-1] = 0  # the place of the argmax
        biases = np.empty(orders.shape, np.int32)
        np.put_along_axis(biases, orders, np.broadcast_to(bias, orders.shape), axis=1)
        if self._added is None:
            self._added, self._factors = biases[self._pair], self._factors[self._pair]
            corrected = orders[self._pair[labels], ranks]
        else:
            self._added += biases
            corrected = orders[labels, ranks]
        amounts = values * (layer.step * SIXTEENTH)
        spreads = (amounts * layer.spread) >> 6
        own_share = (spreads * self._statistics.shares[corrected] * self._statistics.lengths[corrected]) >> 24
        self._added[labels, corrected] += (amounts - own_share).astype(np.int32)
        axes = self._statistics.rows.shape[1]
        size = max(1, _MOVES // max(axes, 1))
        for first in range(0, len(labels) if axes else 0, size):  # in parts, which are added up: integers
            part = slice(first, first + size)
            starts = np.flatnonzero(np.diff(labels[part], prepend=-1))
            moves = spreads[part, None] * self._statistics.weighted_rows[corrected[part]]
            self._factors[labels[part][starts]] += np.add.reduceat(moves, starts, axis=0)

    def orders(self) -> NDArray[np.int64]:
        """Classes by falling prediction, equal ones by number, the argmax last: [n, width]. Before the first layer it
        is that of each pair of argmax and class, [pairs, width]: `of_label` says which is a label's."""
        return _order(self._values(), self._pair_argmax if self._added is None else self._argmax)

    def of_label(self) -> Ints:
        """Row of `orders` for every label."""
        return np.asarray(self._pair if self._added is None else np.arange(len(self._argmax)))

    def values(self) -> NDArray[np.int32]:
        """Prediction so far, [n, width], the argmax's own logit not yet in it."""
        values = self._values()
        return values[self._pair] if self._added is None else values

    def finish(self, own: Ints) -> NDArray[np.int32]:
        """Logits [n, width]: `own` [n] steps from the centre is the argmax's, but it is above all others."""
        values = self.values()
        rows = np.arange(len(values))
        values[rows, self._argmax] = np.iinfo(np.int32).min
        lowest = values.max(axis=1).astype(np.int64) + _LIFT if values.shape[1] > 1 else np.iinfo(np.int32).min
        chosen = (self._parameters.centre + own * self._parameters.own_step) * SIXTEENTH
        values[rows, self._argmax] = np.maximum(chosen, lowest)
        return values

    def _values(self) -> NDArray[np.int32]:
        values = _moved(self._statistics, self._factors, self._basis)
        values += self._mean
        if self._added is not None:
            values += self._added
        return values


def neighbours(statistics: Statistics, parameters: Parameters, classes: Ints) -> NDArray[np.int64]:
    """For each class [n] all classes, itself first, then by falling prediction for it: [n, width]."""
    values = _moved(statistics, _base_factors(statistics, parameters, classes, classes), None)
    values += scaled_mean(statistics, parameters)
    order = _order(values, classes)
    return np.concatenate([order[:, -1:], order[:, :-1]], axis=1)


def scaled_mean(statistics: Statistics, parameters: Parameters) -> NDArray[np.int32]:
    return np.asarray((statistics.mean * parameters.mean_scale + 32) >> 6, np.int32)


def _base_factors(statistics: Statistics, parameters: Parameters, argmax: Ints, classes: Ints) -> Ints:
    pull = parameters.pull * (UNITS_A_NAT // 256)
    factors = statistics.weighted_rows[argmax] * pull
    other = argmax != classes
    factors[other] += statistics.weighted_rows[classes[other]] * ((pull * parameters.class_pull) >> 6)
    return np.asarray(factors)


def _moved(statistics: Statistics, factors: Ints, basis: NDArray[np.float32] | None) -> NDArray[np.int32]:
    """Sum over the axes of row times factor / 2^24, the quotients rounded and held where sums stay exact."""
    if not statistics.rows.shape[1]:
        return np.zeros((len(factors), statistics.width), np.int32)
    bound = _EXACT // max(1, int(np.abs(statistics.rows).sum(axis=1).max()))
    rounded = np.clip((factors + (1 << 23)) >> 24, -bound, bound).astype(np.float32)
    exact = rounded @ (np.asarray(statistics.rows.T, np.float32) if basis is None else basis)
    return np.asarray(exact, np.int32)


def _order(values: NDArray[np.int32], last: Ints) -> NDArray[np.int64]:
    """Columns of each row by falling value, then by number; column `last` [n] of each at the end."""
    bits = int(values.shape[1] - 1).bit_length()
    keys = (-values.astype(np.int64) << bits) | np.arange(values.shape[1])
    keys[np.arange(len(values)), last] = (1 << 62) | last
    keys.sort(axis=1)
    return np.asarray(keys & ((1 << bits) - 1))
