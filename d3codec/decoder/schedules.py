"""Noise schedules, timesteps and sigmas from the few integers of a recipe (spec sections 3.4 and 7).

Everything is binary64 from exact decimals with operations that IEEE 754 fixes, or computed with 50 digits and
rounded once, so the tables are the same on every machine (float32 `linspace` and `cumprod` of the usual
libraries are not, and neither are the last bits of their logarithms and powers). The names `linear`, `scaled`,
`leading`, `trailing`, `linspace`, `table` and `karras` are those of the format; nothing here knows a sampler.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from itertools import accumulate
from operator import mul

import numpy as np
from numpy.typing import NDArray

MILLION = 1_000_000
SPACINGS = ("leading", "trailing", "linspace")

_DIGITS = Context(prec=50, rounding=ROUND_HALF_EVEN)  # its ln and exp are correctly rounded, hence portable
_RHO = 7


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
    """The training steps that DDIM visits, int64 [steps], descending. For i = 0 .. steps - 1,

    - `leading`: (steps - 1 - i) * (count div steps) + offset;
    - `trailing`: R(count * (steps - i) / steps) - 1;
    - `linspace`: R((steps - 1 - i) * (count - 1) / (steps - 1)), and 0 for a single step;

    where R rounds the exact quotient half to even. These are diffusers' rules, which it evaluates in binary64
    and float `arange`: for some numbers of steps (from 48 and 27 up, with 1,000 training steps) it misses an
    exact half by one, and its `trailing` list has one element too many for some (from 61 up).
    Raises ValueError for another spacing, an offset with any but `leading`, or a step outside 0 .. count - 1.
    Reference: Lin et al., "Common diffusion noise schedules and sample steps are flawed", WACV 2024, table 2.
    """
    _check_spacing(spacing, offset, steps, count)
    descending = range(steps - 1, -1, -1)
    if spacing == "leading":
        chosen = [i * (count // steps) + offset for i in descending]
    elif spacing == "trailing":
        chosen = [_nearest(count * (i + 1), steps) - 1 for i in descending]
    else:
        chosen = [_nearest(i * (count - 1), max(steps - 1, 1)) for i in descending]
    if chosen[0] >= count or chosen[-1] < 0:
        raise ValueError(f"timesteps {chosen[-1]} to {chosen[0]} of a schedule with steps 0 to {count - 1}")
    return np.array(chosen, np.int64)


def euler_timesteps(spacing: str, offset: int, steps: int, count: int) -> NDArray[np.float64]:
    """The timesteps that Euler's method visits with the sigmas of the table, float64 [steps], descending.

    As `timesteps`, but `linspace` does not round: each is the binary64 nearest to the exact quotient.
    """
    if spacing != "linspace":
        return timesteps(spacing, offset, steps, count).astype(np.float64)
    _check_spacing(spacing, offset, steps, count)
    # Python divides integers with one correct rounding.
    return np.array([i * (count - 1) / max(steps - 1, 1) for i in range(steps - 1, -1, -1)], np.float64)


def sigmas(
    rule: str, visited: Sequence[float] | NDArray[np.float64], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Noise over signal at the timesteps of Euler's method, float64 [steps + 1], descending, the last one 0.

    `visited` are the timesteps of `euler_timesteps`, `table` the alpha-bars. sigma_i = sqrt((1 - a_i) / a_i) for
    training step i. `table`: at t = i + f, sigma_i + f * (sigma_{i+1} - sigma_i), in binary64. `karras`: from the
    first to the last of these, evenly in their 7th root; each is the binary64 nearest to the exact value. A
    single one is the first. Raises ValueError for another rule.
    Reference: Karras et al. 2022, eq. 5 with rho = 7.
    """
    levels = _levels(table)
    chosen = [_between(levels, float(t)) for t in visited]
    if rule == "karras":
        chosen = _karras(chosen[0], chosen[-1], len(chosen))
    elif rule != "table":
        raise ValueError(f"unknown rule of sigmas: {rule!r}")
    return np.array([*chosen, 0.0])


def timesteps_of(chosen: Sequence[float] | NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where sigmas lie in a table of alpha-bars, float64, linear between two steps in the logarithm of sigma.

    Each is the binary64 nearest to the exact value; outside the table it is the nearest end.
    """
    levels = _levels(table)
    return np.array([_position(levels, float(sigma)) for sigma in chosen], np.float64)


def euler_schedule(
    rule: str, spacing: str, offset: int, steps: int, table: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Timesteps [steps] and sigmas [steps + 1] of Euler's method, float64, as a recipe states them.

    With `karras` the network is told where its sigmas lie in the table (`timesteps_of`). Raises ValueError as
    `timesteps` and `sigmas`.
    """
    visited = euler_timesteps(spacing, offset, steps, len(table))
    chosen = sigmas(rule, visited, table)
    return (timesteps_of(chosen[:-1], table) if rule == "karras" else visited), chosen


def initial_scale(initial: str, chosen: Sequence[float] | NDArray[np.float64]) -> float:
    """What the initial noise of Euler's method is multiplied by: the first sigma s, or sqrt(s * s + 1) for `root`.

    `sigma` is right where the first step stands for pure noise (trailing, linspace), `root` keeps the variance
    of a state that still has signal (leading). Raises ValueError for another name.
    """
    first = float(chosen[0])
    if initial == "sigma":
        return first
    if initial == "root":
        return math.sqrt(first * first + 1.0)
    raise ValueError(f"unknown initial scale: {initial!r}")


def _check_spacing(spacing: str, offset: int, steps: int, count: int) -> None:
    if spacing not in SPACINGS:
        raise ValueError(f"unknown spacing of timesteps: {spacing!r}")
    if not 1 <= steps <= count:
        raise ValueError(f"{steps} steps of a schedule with {count}")
    if offset and spacing != "leading":
        raise ValueError(f"an offset of {offset} with spacing {spacing!r}")


def _nearest(numerator: int, denominator: int) -> int:
    """The quotient rounded half to even, numerator >= 0."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def _linear(first: int, last: int, count: int) -> list[float]:
    # Python divides integers with one correct rounding: numerator and denominator are exact.
    gaps = max(count - 1, 1)
    return [(first * gaps + (last - first) * i) / (MILLION * gaps) for i in range(count)]


def _scaled(first: int, last: int, count: int) -> list[float]:
    a, b = math.sqrt(first / MILLION), math.sqrt(last / MILLION)
    gaps = max(count - 1, 1)
    roots = [a + (b - a) * i / gaps for i in range(count)]
    return [root * root for root in roots]


def _levels(table: NDArray[np.float64]) -> list[float]:
    """sigma of every training step, rising."""
    return [math.sqrt((1.0 - alpha) / alpha) for alpha in table.tolist()]


def _between(levels: list[float], t: float) -> float:
    low = math.floor(t)
    if low == t:
        return levels[low]
    return levels[low] + (t - low) * (levels[low + 1] - levels[low])


def _karras(first: float, last: float, steps: int) -> list[float]:
    with localcontext(_DIGITS):
        a, b = (_DIGITS.exp(Decimal(end).ln() / _RHO) for end in (first, last))
        roots = [a + (b - a) * i / max(steps - 1, 1) for i in range(steps)]
        # By multiplication: unlike ln and exp, decimal's power is not correctly rounded everywhere.
        return [float(math.prod([root] * _RHO)) for root in roots]


def _position(levels: list[float], sigma: float) -> float:
    if len(levels) == 1:
        return 0.0
    low = min(max(bisect_right(levels, sigma) - 1, 0), len(levels) - 2)
    with localcontext(_DIGITS):
        start, end = Decimal(levels[low]).ln(), Decimal(levels[low + 1]).ln()
        share = (Decimal(sigma).ln() - start) / (end - start)
        return float(low + min(max(share, Decimal(0)), Decimal(1)))
