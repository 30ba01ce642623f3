"""Samplers: from noise to a clean latent by repeated denoising (spec section 7).

Functions over (denoiser, state, timesteps, table, noise source); they know no network, draw no noise
themselves and keep no state. States may be tensors, arrays or plain floats: only + - * touch them, in the order
written here, and every coefficient is a binary64 number made from + - * / and correctly rounded roots. The
profile `exact-fixed` depends on both.

A prediction is the noise (`eps`), the velocity (`v`, Salimans and Ho 2022) or the clean signal (`sample`).
`draw(step)` gives standard normal numbers in shape and dtype of the state; step 1 is the first. The number
belongs to the step, so a step whose noise has the weight 0 asks for nothing and shifts no other draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Integers = Sequence[int] | NDArray[np.int64]
    Reals = Sequence[float] | NDArray[np.float64]
    Draw = Callable[[int], Tensor]

PREDICTIONS = ("eps", "v", "sample")


def ddim(
    denoise: Callable[[Tensor, int], Tensor],
    x: Tensor,
    timesteps: Integers,
    alpha_bars: Reals,
    final_alpha: float,
    prediction: str = "eps",
    *,
    eta: float = 0.0,
    draw: Draw | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Run DDIM over all timesteps and return the last state, same shape and dtype as `x`.

    `denoise(x, t)` gives the network's prediction in the shape of `x`. `timesteps` descend; `alpha_bars[t]` is
    the table of the schedule; a step aims at the next timestep of the list, the last one at `final_alpha`. With
    alpha at t and alpha' at the target, step s is

        sigma = eta * sqrt((1 - alpha') / (1 - alpha) * (1 - alpha / alpha'))
        x <- sqrt(alpha') * clean + sqrt(1 - alpha' - sigma^2) * noise + sigma * draw(s)

    so eta 0 is deterministic and eta 1 has the variance of DDPM. `on_step(t, x)` sees the state after each step.
    Raises ValueError for an unknown prediction, eta outside 0 to 1, or eta above 0 without `draw`.

    diffusers (0.42.1) aims at t - count // steps instead, which is not the next timestep of its own list with
    `linspace` and, where steps do not divide count, `trailing` spacing (its issue 12633). The rule of the
    papers stands here; with `leading` spacing both are the same.
    Reference: Song, Meng, Ermon, "Denoising diffusion implicit models", ICLR 2021, eq. 12 and 16.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}, outside 0 to 1")
    if eta > 0.0 and draw is None:
        raise ValueError("eta above 0 needs a source of noise")
    for step, (t, alpha, target) in enumerate(_alpha_steps(timesteps, alpha_bars, final_alpha, prediction), start=1):
        clean, noise = _clean_and_noise(x, denoise(x, t), alpha, prediction)
        sigma = _deviation(eta, alpha, target)
        # At the clean end rounding may leave less than nothing.
        x = clean * math.sqrt(target) + noise * math.sqrt(max(1.0 - target - sigma * sigma, 0.0))
        if draw is not None and sigma > 0.0:
            x = x + draw(step) * sigma
        if on_step is not None:
            on_step(t, x)
    return x


def ddim_reinject(
    denoise: Callable[[Tensor, int], Tensor],
    x: Tensor,
    timesteps: Integers,
    alpha_bars: Reals,
    final_alpha: float,
    prediction: str,
    stored: Tensor,
    *,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Run LD3M's sampler, DDIM with eta 0 that pulls its clean signal towards a stored latent.

    Arguments as for `ddim`; `stored` has shape and dtype of `x`. With S timesteps and i = S - 1 at the first
    step down to 0 at the last,

        w = i / (S - 1)
        x <- sqrt(alpha') * ((1 - w) * clean + w * stored) + sqrt(1 - alpha') * noise

    The first step takes only the noise from the network, the last one is plain DDIM. LD3M starts at the stored
    latent with noise of the first timestep, and its final alpha is the first of the table. Raises ValueError for
    an unknown prediction or one timestep alone, for which w is not defined.
    Reference: Moser et al., "Unlocking dataset distillation with diffusion models", NeurIPS 2025, as its published
    code runs it (`p_sample_ddim`): eq. 7 of the paper puts the mean of the step, not the clean signal, first.
    """
    last = len(timesteps) - 1
    if last == 0:
        raise ValueError("re-injection is defined for two steps or more")
    for step, (t, alpha, target) in enumerate(_alpha_steps(timesteps, alpha_bars, final_alpha, prediction)):
        clean, noise = _clean_and_noise(x, denoise(x, t), alpha, prediction)
        weight = (last - step) / last
        clean = clean * (1.0 - weight) + stored * weight
        x = clean * math.sqrt(target) + noise * math.sqrt(1.0 - target)
        if on_step is not None:
            on_step(t, x)
    return x


def euler(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    timesteps: Reals,
    sigmas: Reals,
    prediction: str = "eps",
    *,
    on_step: Callable[[float, Tensor], None] | None = None,
) -> Tensor:
    """Run Euler's method on the probability flow and return the last state, same shape and dtype as `x`.

    The state is clean + sigma * noise. `sigmas` has one value more than `timesteps`, descends and ends in 0. The
    network is given x / sqrt(sigma^2 + 1), whose variance is that of its training, and the timestep, which may lie
    between two training steps:

        x <- x + (sigma' - sigma) * (x - clean) / sigma

    `on_step(t, x)` sees the state after each step. Raises ValueError for an unknown prediction or a number of
    sigmas that does not fit.
    Reference: Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022,
    algorithm 2 without churn and correction.
    """
    for t, sigma, target in _sigma_steps(timesteps, sigmas, prediction):
        x = x + _slope(denoise, x, t, sigma, prediction) * (target - sigma)
        if on_step is not None:
            on_step(t, x)
    return x


def euler_ancestral(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    timesteps: Reals,
    sigmas: Reals,
    prediction: str,
    draw: Draw,
    *,
    on_step: Callable[[float, Tensor], None] | None = None,
) -> Tensor:
    """Run Euler's method past each target and add noise to come back to it (SDXL-Turbo's sampler).

    Arguments, state and errors as for `euler`. Step s from sigma to sigma' is

        down = sigma'^2 / sigma,  up = sqrt(sigma'^2 - down^2)
        x <- x + (down - sigma) * (x - clean) / sigma + up * draw(s)

    The last step has sigma' = 0 and adds nothing, so a single step is `euler`.
    Reference: ancestral sampling of Song et al., "Score-based generative modeling through stochastic differential
    equations", ICLR 2021, appendix F, in the form of Crowson's k-diffusion, `sample_euler_ancestral` (there down
    comes from up; the two are the same number, and this order cancels no digits).
    """
    for step, (t, sigma, target) in enumerate(_sigma_steps(timesteps, sigmas, prediction), start=1):
        down = target * target / sigma
        up = math.sqrt((target - down) * (target + down))
        x = x + _slope(denoise, x, t, sigma, prediction) * (down - sigma)
        if up > 0.0:
            x = x + draw(step) * up
        if on_step is not None:
            on_step(t, x)
    return x


def _alpha_steps(
    timesteps: Integers, alpha_bars: Reals, final_alpha: float, prediction: str
) -> Iterator[tuple[int, float, float]]:
    """Timestep, alpha there and alpha at the target of every step."""
    _check(prediction)
    visited = [int(t) for t in timesteps]
    alphas = [*(float(alpha_bars[t]) for t in visited), float(final_alpha)]
    return ((t, alpha, target) for t, (alpha, target) in zip(visited, pairwise(alphas), strict=True))


def _sigma_steps(timesteps: Reals, sigmas: Reals, prediction: str) -> Iterator[tuple[float, float, float]]:
    """Timestep, sigma there and sigma at the target of every step."""
    _check(prediction)
    if len(sigmas) != len(timesteps) + 1:
        raise ValueError(f"{len(timesteps)} timesteps have {len(timesteps) + 1} sigmas, not {len(sigmas)}")
    levels = [float(sigma) for sigma in sigmas]
    return ((float(t), sigma, target) for t, (sigma, target) in zip(timesteps, pairwise(levels), strict=True))


def _check(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction: {prediction!r}")


def _deviation(eta: float, alpha: float, target: float) -> float:
    """Standard deviation of the noise that a DDIM step adds (eq. 16)."""
    if eta == 0.0:
        return 0.0
    return eta * math.sqrt((1.0 - target) / (1.0 - alpha) * (1.0 - alpha / target))


def _clean_and_noise(x: Tensor, output: Tensor, alpha: float, prediction: str) -> tuple[Tensor, Tensor]:
    """Split the state x = signal * clean + spread * noise, given one of them or their velocity."""
    signal, spread = math.sqrt(alpha), math.sqrt(1.0 - alpha)
    # Times the reciprocal, never tensor / number: CUDA turns the latter into the former, a CPU does not.
    if prediction == "eps":
        return (x - output * spread) * (1.0 / signal), output
    if prediction == "sample":
        return output, (x - output * signal) * (1.0 / spread)
    return x * signal - output * spread, output * signal + x * spread


def _slope(denoise: Callable[[Tensor, float], Tensor], x: Tensor, t: float, sigma: float, prediction: str) -> Tensor:
    """dx / dsigma = (x - clean) / sigma, which is the noise of the state (Karras et al., eq. 3 with eq. 4)."""
    square = sigma * sigma + 1.0
    root = math.sqrt(square)
    output = denoise(x * (1.0 / root), t)
    if prediction == "eps":
        return output
    if prediction == "sample":
        return (x - output) * (1.0 / sigma)
    return output * (1.0 / root) + x * (sigma / square)
