"""One unit -> pixels through the networks of a generator: clean latents through the autoencoder, then rounding, window
and copies (spec section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from d3codec.decoder.denoise import Denoising
from d3codec.decoder.finish import Corrections, Source, correct, finished
from d3codec.decoder.latents import LatentRows
from d3codec.decoder.plan import UNIT_IMAGES, Unit, sources_of
from d3codec.decoder.precision import operators, round_levels, settings, to_levels
from d3codec.decoder.section_reader import Read, reader_of
from d3codec.errors import GeneratorError, UsageError
from d3codec.format.manifest import DecodeRecipe, Group, SheetsRecipe
from d3codec.generators.condition import Generator
from d3codec.generators.weights import require_torch

if TYPE_CHECKING:
    from torch import Tensor

AUTOENCODER_PIXELS = 1 << 20  # of the images that the autoencoder decodes together; never more than a unit


class Renderer:
    """Renders the units of one group that a generator makes: by a sampler, or of its stored latents alone.

    Arguments:
        group: its records; it need not be in a file yet.
        conditioning: the raw bytes of its `emb`, `wrd`, `tok` or `ids` section, b"" if it has none.
        generator: loaded with the group's cast, in the profile's dtype.
        profile: one of `precision.PROFILES`.
        classes: number of classes of the dataset.
        stored: its `lat` section, if the recipe has one: the raw bytes, or what reads them.
        choices: the raw bytes of its `cnd` section, if its candidates are chosen.
        corrections: levels that replace rounded ones, of the profile `exact`.

    Raises (when made):
        GeneratorError: a generator that the conditioning, the stored latents or the image size does not fit.
        SectionError: bytes that break the specification.
        UsageError: a group whose images themselves are stored.
    """

    def __init__(
        self,
        group: Group,
        conditioning: bytes,
        generator: Generator,
        profile: str,
        classes: int,
        *,
        stored: bytes | Read = b"",
        choices: bytes = b"",
        corrections: Corrections | None = None,
    ) -> None:
        recipe = group.recipe
        if isinstance(recipe, SheetsRecipe):
            raise UsageError("stored images need no generator", field="recipe", found=recipe.sampler)
        self._group, self._generator, self._profile = group, generator, profile
        self._device = generator.device.type
        torch = require_torch()
        self._state_dtype = torch.float64 if generator.dtype == torch.float64 else torch.float32
        self._shape = generator.latent_shape(*group.images.generated)
        self._check_stored()
        read = reader_of(stored) if isinstance(stored, bytes) else stored
        record, rows = recipe.start.stored, classes * group.images.sources
        self._stored = None if record is None else LatentRows(record, rows, read)
        self._denoising = None
        if not isinstance(recipe, DecodeRecipe):
            self._denoising = Denoising(group, recipe, conditioning, choices, generator, profile, classes)
        self._corrections = corrections or {}

    def render(self, unit: Unit) -> np.ndarray:
        """Pixels of a unit, uint8 [images of the unit, height, width, 3].

        Raises:
            PixelsError: values that are not finite.
            SectionError: stored latents that break the specification.
        """
        sources = sources_of(unit, self._group.images.copies + 1)
        pixels = round_levels(self.levels(sources))
        correct(pixels, sources, self._corrections)
        return finished(self._group, pixels, sources)

    def levels(
        self, sources: Sequence[Source], *, perturbation: float = 0.0, channels_last: bool = False
    ) -> np.ndarray:
        """What the generator makes for some sources, before rounding: [sources, height, width, 3] in 0 to 255.

        Profile `reproducible` takes at most eight and always computes eight. `perturbation` scales the start state
        by one more than it, and `channels_last` changes the order of memory: both only to measure how far the
        arithmetic carries.
        """
        torch = require_torch()
        asked = np.array(sources, np.int64).reshape(-1, 2)
        if self._profile == "reproducible":
            if len(asked) > UNIT_IMAGES:
                raise UsageError("a unit of the profile 'reproducible' has at most eight images", found=len(asked))
            asked = asked[np.minimum(np.arange(UNIT_IMAGES), len(asked) - 1)]  # padded by repeating the last one
        classes, indices = asked[:, 0].copy(), asked[:, 1].copy()

        def vary(state: Tensor) -> Tensor:
            if perturbation:
                state = state * (1.0 + perturbation)
            return state.contiguous(memory_format=torch.channels_last) if channels_last else state

        with settings(self._profile, self._device):
            stored = self._latents(classes * self._group.images.sources + indices)
            if self._denoising is not None:
                latents = self._denoising(classes, indices, self._shape, self._state_dtype, stored, vary)
            else:
                assert stored is not None  # the recipe `decode` has them
                latents = vary(stored)
            return self._decode(latents, len(sources))

    def _decode(self, latents: Tensor, count: int) -> np.ndarray:
        height, width = self._group.images.generated
        at_once = max(1, min(UNIT_IMAGES, AUTOENCODER_PIXELS // (height * width)))
        parts = []
        for first in range(0, count, at_once):
            with operators(self._profile):
                images = self._generator.decode_latents(latents[first : first + at_once])
            parts.append(to_levels(images))
        return np.concatenate(parts)[:count]

    def _check_stored(self) -> None:
        record = self._group.recipe.start.stored
        if record is not None and tuple(record.shape) != tuple(self._shape):
            raise GeneratorError(
                "the stored latents do not fit the generator and the image size",
                field="recipe.start",
                found=list(record.shape),
                expected=list(self._shape),
            )

    def _latents(self, rows: np.ndarray) -> Tensor | None:
        """The stored latents of some rows in the dtype of the state, or None if the recipe has none."""
        if self._stored is None:
            return None
        latents: Tensor = require_torch().from_numpy(self._stored(rows)).to(self._device, self._state_dtype)
        return latents
