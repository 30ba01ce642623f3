"""Samplers: from noise to a clean latent by repeated denoising (spec section 7).

Functions over (denoiser, state, timesteps, table); they know no network, draw no noise and keep no state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PREDICTIONS = ("eps", "v", "sample")


def ddim(
    denoise: Callable[[Tensor, int], Tensor],
    x: Tensor,
    timesteps: Sequence[int] | NDArray[np.int64],
    alpha_bars: Sequence[float] | NDArray[np.float64],
    final_alpha: float,
    prediction: str = "eps",
    *,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Run deterministic DDIM over all timesteps and return the last state, same shape and dtype as `x`.

    `denoise(x, t)` gives the network's prediction in the shape of `x`: the noise (`eps`), the velocity (`v`,
    Salimans and Ho 2022) or the clean signal (`sample`). `timesteps` descend; `alpha_bars[t]` is the table of
    the schedule; a step aims at the next timestep, the last one at `final_alpha`. `on_step(t, x)` sees the
    state after each step. Coefficients are binary64, the state stays in its own dtype. Raises ValueError for
    an unknown prediction.
    Reference: Song, Meng, Ermon, "Denoising diffusion implicit models", ICLR 2021, eq. 12, sigma = 0.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction: {prediction!r}")
    visited = [int(t) for t in timesteps]
    alphas = [*(float(alpha_bars[t]) for t in visited), float(final_alpha)]
    for t, (alpha, target) in zip(visited, pairwise(alphas), strict=True):
        clean, noise = _clean_and_noise(x, denoise(x, t), alpha, prediction)
        x = clean * math.sqrt(target) + noise * math.sqrt(1.0 - target)
        if on_step is not None:
            on_step(t, x)
    return x


def _clean_and_noise(x: Tensor, output: Tensor, alpha: float, prediction: str) -> tuple[Tensor, Tensor]:
    """Split the state x = signal * clean + spread * noise, given one of them or their velocity."""
    signal, spread = math.sqrt(alpha), math.sqrt(1.0 - alpha)
    # Times the reciprocal, never tensor / number: CUDA turns the latter into the former, a CPU does not.
    if prediction == "eps":
        return (x - output * spread) * (1.0 / signal), output
    if prediction == "sample":
        return output, (x - output * signal) * (1.0 / spread)
    return x * signal - output * spread, output * signal + x * spread
