"""Noise schedules and timesteps from the few integers of a recipe (spec sections 3.4 and 7).

Everything is binary64 from exact decimals with operations that IEEE 754 fixes, so the tables are the same on
every machine (float32 `linspace` and `cumprod` of the usual libraries are not). The names `linear`, `scaled`
and `leading` are those of the format; nothing here knows a sampler.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul

import numpy as np
from numpy.typing import NDArray

MILLION = 1_000_000


def alpha_bars(rule: str, first_millionths: int, last_millionths: int, count: int) -> NDArray[np.float64]:
    """The running products of 1 - beta over `count` training steps, float64 [count], falling, in (0, 1).

    `linear`: beta runs evenly from first to last, each the binary64 nearest to its exact value. `scaled`: its
    square root does, in binary64 as `a + (b - a) * i / (count - 1)` from the roots a and b of the two ends,
    then squared. First and last are in millionths. Raises ValueError for another rule, betas outside (0, 1),
    count < 1, or a product that underflows to 0, from which no sampler finds back.
    Reference: Ho et al. 2020 (linear); Rombach et al. 2022 use the scaled rule.
    """
    if count < 1:
        raise ValueError(f"a schedule has at least one step, not {count}")
    for name, value in (("first", first_millionths), ("last", last_millionths)):
        if not 0 < value < MILLION:
            raise ValueError(f"the {name} beta is {value} millionths, outside 1 to 999999")
    if rule == "linear":
        betas = _linear(first_millionths, last_millionths, count)
    elif rule == "scaled":
        betas = _scaled(first_millionths, last_millionths, count)
    else:
        raise ValueError(f"unknown rule of betas: {rule!r}")
    table = np.array(list(accumulate((1.0 - beta for beta in betas), mul)))
    if table[-1] == 0:
        raise ValueError(f"betas up to {last_millionths} millionths leave nothing after {count} steps")
    return table


def timesteps(spacing: str, offset: int, steps: int, count: int) -> NDArray[np.int64]:
    """The training steps that a sampler visits, int64 [steps], descending.

    `leading`: i * (count div steps) + offset for i = steps - 1 .. 0. Raises ValueError for another spacing,
    or if a step would lie outside 0 .. count - 1.
    """
    if spacing != "leading":
        raise ValueError(f"unknown spacing of timesteps: {spacing!r}")
    if not 1 <= steps <= count:
        raise ValueError(f"{steps} steps of a schedule with {count}")
    chosen = np.arange(steps - 1, -1, -1, dtype=np.int64) * (count // steps) + offset
    if chosen[0] >= count or chosen[-1] < 0:
        raise ValueError(f"timesteps {chosen[-1]} to {chosen[0]} of a schedule with steps 0 to {count - 1}")
    return chosen


def _linear(first: int, last: int, count: int) -> list[float]:
    # Python divides integers with one correct rounding: numerator and denominator are exact.
    gaps = max(count - 1, 1)
    return [(first * gaps + (last - first) * i) / (MILLION * gaps) for i in range(count)]


def _scaled(first: int, last: int, count: int) -> list[float]:
    a, b = math.sqrt(first / MILLION), math.sqrt(last / MILLION)
    gaps = max(count - 1, 1)
    roots = [a + (b - a) * i / gaps for i in range(count)]
    return [root * root for root in roots]
