"""One unit -> pixels: conditioning and noise through text encoder, sampler and autoencoder (spec section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from d3codec.conditioning import delta, words
from d3codec.decoder.plan import UNIT_IMAGES, Unit
from d3codec.decoder.precision import settings, to_pixels
from d3codec.decoder.samplers import ddim
from d3codec.decoder.schedules import MILLION, alpha_bars, timesteps
from d3codec.errors import GeneratorError, ManifestError, UsageError
from d3codec.format.manifest import Group, Recipe
from d3codec.generators.weights import require_torch
from d3codec.noise import normals_torch

if TYPE_CHECKING:
    import torch

    from d3codec.generators.stable_diffusion import StableDiffusion


class Renderer:
    """Renders the units of one group.

    Arguments:
        group: its records; it need not be in a file yet.
        conditioning_bytes: the raw bytes of its `emb` or `wrd` section.
        generator: loaded with the group's cast, in the profile's dtype.
        profile: 'reproducible' or 'fast'.
        rows: number of rows of the conditioning, i.e. of classes.

    Raises (when made):
        GeneratorError: a generator that the conditioning or the image size does not fit.
        SectionError: conditioning bytes that break the specification.
        ManifestError: a schedule that leaves nothing of the signal.
        UsageError: guidance without a negative prompt, or a recipe that this version cannot follow.
    """

    def __init__(
        self, group: Group, conditioning_bytes: bytes, generator: StableDiffusion, profile: str, rows: int
    ) -> None:
        self._group, self._generator, self._profile = group, generator, profile
        conditioning, recipe = group.conditioning, group.recipe
        if recipe.start[0] != 0:
            raise UsageError("stored start states are not part of this version", field="start", found=recipe.start)
        self._shape = generator.latent_shape(*group.images.size)
        self._device = generator.device.type
        self._template = _padded(conditioning.template, conditioning.padding)
        self._rows, self._vectors = self._conditioning(conditioning_bytes, rows)
        self._guidance = recipe.guidance / MILLION
        self._alphas, self._timesteps = _tables(recipe)
        self._final = float(self._alphas[0]) if recipe.final_alpha == "first" else 1.0
        self._unconditional = self._encode_negative() if recipe.guidance != MILLION else None

    def render(self, unit: Unit) -> np.ndarray:
        """Pixels of a unit, uint8 [images of the unit, height, width, 3].

        Profile `reproducible` takes the units of `plan` and always computes eight images; `fast` takes any
        number.

        Raises:
            PixelsError: values that are not finite.
        """
        torch = require_torch()
        count = len(unit.classes)
        classes, indices = np.array(unit.classes, np.int64), np.array(unit.indices, np.int64)
        if self._profile == "reproducible":
            if count > UNIT_IMAGES:
                raise UsageError("a unit of the profile 'reproducible' has at most eight images", found=count)
            last = np.minimum(np.arange(UNIT_IMAGES), count - 1)  # padded by repeating the last image
            classes, indices = classes[last], indices[last]
        with settings(self._profile, self._device):
            noise = normals_torch(
                self._group.noise_key,
                torch.from_numpy(indices),
                torch.from_numpy(classes),
                self._shape,
                device=self._device,
            )
            latents = self._sample(noise * (self._group.recipe.start[1] / MILLION), self._encode(classes))
            images = self._generator.decode_latents(latents)
            return to_pixels(images[:count])

    def _sample(self, start: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        cat = require_torch().cat
        if self._unconditional is not None:
            hidden = cat([self._unconditional[:1].expand(len(hidden), -1, -1), hidden])

        def denoise(latents: torch.Tensor, timestep: int) -> torch.Tensor:
            if self._unconditional is None:
                return self._generator.denoise(latents, timestep, hidden)
            without, given = self._generator.denoise(cat([latents, latents]), timestep, hidden).chunk(2)
            return without + self._guidance * (given - without)

        return ddim(denoise, start, self._timesteps, self._alphas, self._final, self._group.recipe.prediction)

    def _encode(self, classes: np.ndarray) -> torch.Tensor:
        ids = np.repeat(self._template[None], len(classes), axis=0)
        slots = self._group.conditioning.slots
        if self._vectors is None:
            ids[:, slots] = self._rows[classes]
            return self._generator.encode_text(ids)
        return self._generator.encode_text(ids, slots, self._vectors[classes])

    def _encode_negative(self) -> torch.Tensor:
        negative = self._group.conditioning.negative
        if negative is None:
            raise UsageError("guidance needs a negative prompt", field="negative", found=None)
        ids = np.repeat(_padded(negative, self._group.conditioning.padding)[None], UNIT_IMAGES, axis=0)
        with settings(self._profile, self._device):
            return self._generator.encode_text(ids)

    def _conditioning(self, data: bytes, rows: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Token ids of the slots, int64 [rows, slots], and vectors to place there, float64 [rows, slots, width]."""
        conditioning, slots = self._group.conditioning, len(self._group.conditioning.slots)
        if conditioning.kind == "words":
            return words.decode(data, rows, slots).astype(np.int64), None
        if conditioning.width != self._generator.width:
            raise GeneratorError(
                "the learned embeddings do not fit the generator",
                field="width",
                found=conditioning.width,
                expected=self._generator.width,
            )
        start = self._generator.token_embedding(conditioning.initial_token)
        return np.empty((rows, 0), np.int64), start + delta.decode(
            data, rows, slots, conditioning.width, conditioning.bits
        )


def _tables(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    try:
        return alpha_bars(*recipe.betas), timesteps(*recipe.timesteps, recipe.steps, recipe.betas[3])
    except ValueError as error:  # the manifest's limits leave only products that reach 0
        raise ManifestError("E_MANIFEST", str(error), field="recipe.betas", found=list(recipe.betas)) from None


def _padded(ids: tuple[int, ...], padding: tuple[int, int]) -> np.ndarray:
    token, length = padding
    return np.array([*ids, *[token] * (length - len(ids))], np.int64)
