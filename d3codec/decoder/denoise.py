"""Conditioning and noise -> clean latents: the sampler on the tables of the recipe (spec sections 7.1 to 7.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from d3codec.conditioning import candidates
from d3codec.decoder.precision import operators
from d3codec.decoder.recipe import Sampler, SamplerRecipe
from d3codec.decoder.rows import ConditioningRows
from d3codec.format.limits import MILLION
from d3codec.format.manifest import Group
from d3codec.generators.condition import Condition, Generator
from d3codec.generators.weights import require_torch
from d3codec.noise import normals_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from d3codec.decoder.recipe import Denoise


class Denoising:
    """The clean latents of the sources of one group.

    Arguments:
        group: its records. recipe: that of the group.
        conditioning: the raw bytes of its `emb`, `wrd`, `tok` or `ids` section.
        choices: of its `cnd` section, if its candidates are chosen.
        generator: loaded in the profile's dtype. classes: of the dataset.

    Raises:
        GeneratorError: a generator that the conditioning does not fit.
        SectionError: bytes that break the specification.
    """

    def __init__(
        self,
        group: Group,
        recipe: SamplerRecipe,
        conditioning: bytes,
        choices: bytes,
        generator: Generator,
        profile: str,
        classes: int,
    ) -> None:
        self._group, self._generator, self._profile = group, generator, profile
        self._sampler = Sampler(recipe)
        self._rows = ConditioningRows(group, conditioning, generator, profile, classes)
        bits, sources = group.images.candidates, group.images.sources
        self._choices = None if bits is None else candidates.unpack(choices, classes, sources, bits)

    def __call__(
        self,
        classes: np.ndarray,
        indices: np.ndarray,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        stored: Tensor | None,
        vary: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Latents [batch, *shape] of some sources, int64 [batch] each of class and index within it.

        `dtype` is that of the state; `stored` are their stored latents; `vary` may change the start state.
        """
        torch = require_torch()
        drawn, streams = torch.from_numpy(self._candidates(classes, indices)), torch.from_numpy(classes)

        def draw(n: int) -> Tensor:
            key, device = self._group.noise_key, self._generator.device
            return normals_torch(key, drawn, streams, shape, n=n, device=device).to(dtype)

        by_class = self._rows.by_class
        condition = self._rows(classes if by_class else classes * self._group.images.sources + indices)
        state = vary(self._sampler.start(draw(0), stored))
        return self._sampler.run(self._denoiser(condition), state, draw, stored)

    def _candidates(self, classes: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Which noise each source takes (spec section 3.2)."""
        if self._choices is None:
            return indices
        chosen: np.ndarray = (indices << (self._group.images.candidates or 0)) + self._choices[classes, indices]
        return chosen

    def _denoiser(self, condition: Condition) -> Denoise:
        torch = require_torch()
        without = self._rows.unconditional
        guidance = self._group.recipe.guidance / MILLION

        def network(state: Tensor, timestep: float, given: Condition) -> Tensor:
            with operators(self._profile):
                return self._generator.denoise(state, timestep, given)

        if without is None:
            return lambda state, timestep: network(state, timestep, condition)
        both = Condition.cat([without.expand(len(condition)), condition])

        def guided(state: Tensor, timestep: float) -> Tensor:
            unguided, given = network(torch.cat([state, state]), timestep, both).chunk(2)
            return unguided + (given - unguided) * guidance

        return guided
