"""A recipe made ready: its tables, its start state, and which of `samplers` runs on them (spec section 7).

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from d3codec.decoder import samplers, schedules
from d3codec.format.limits import MILLION
from d3codec.format.manifest import Content, DdimRecipe, EulerRecipe, ReinjectRecipe
from d3codec.noise import normals

if TYPE_CHECKING:
    from torch import Tensor

    Draw = Callable[[int], Tensor]
    Denoise = Callable[[Tensor, float], Tensor]

SamplerRecipe = DdimRecipe | ReinjectRecipe | EulerRecipe


class Sampler:
    """A recipe made ready. The manifest's limits leave no schedule that has no tables."""

    def __init__(self, recipe: SamplerRecipe) -> None:
        self._recipe, self._scale = recipe, 1.0
        self._alphas = schedules.alpha_bars(*recipe.betas)
        if isinstance(recipe, EulerRecipe):
            self._visited, self._sigmas = schedules.euler_schedule(
                recipe.sigmas, *recipe.timesteps, recipe.steps, self._alphas
            )
            self._scale = schedules.initial_scale(recipe.initial, self._sigmas)
        else:
            self._timesteps = schedules.timesteps(*recipe.timesteps, recipe.steps, recipe.betas[3])
            self._final = float(self._alphas[0]) if recipe.final_alpha == "first" else 1.0

    def start(self, noise: Tensor, stored: Tensor | None) -> Tensor:
        """The state before the first step, a * stored + b * scale * noise, in the shape of the noise."""
        start = self._recipe.start
        state = noise * (start.b / MILLION * self._scale)
        return state if stored is None or start.a == 0 else stored * (start.a / MILLION) + state

    def run(self, denoise: Denoise, state: Tensor, draw: Draw, stored: Tensor | None) -> Tensor:
        """From the start state to clean latents; `draw(n)` is the noise of step n, counted from 1."""
        recipe = self._recipe
        if isinstance(recipe, EulerRecipe):
            if recipe.sampler == "euler":
                return samplers.euler(denoise, state, self._visited, self._sigmas, recipe.prediction)
            return samplers.euler_ancestral(denoise, state, self._visited, self._sigmas, recipe.prediction, draw)
        tables = (self._timesteps, self._alphas, self._final, recipe.prediction)
        if isinstance(recipe, ReinjectRecipe):
            assert stored is not None  # the manifest demands it
            return samplers.ddim_reinject(denoise, state, *tables, stored)
        return samplers.ddim(denoise, state, *tables, eta=recipe.eta / MILLION, draw=draw)


def check_tables(content: Content) -> None:
    """Makes the tables of every recipe, and the first noise of every group that has any.

    Raises D3MError on a machine whose arithmetic is not that of IEEE 754: its noise would be another.
    """
    for group in content.groups:
        if isinstance(group.recipe, SamplerRecipe):
            Sampler(group.recipe)
            normals(group.noise_key, 0, 0, (1,))
