"""One unit -> pixels: conditioning and noise through sampler and autoencoder, then rounding, window and copies
(spec section 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from d3codec.conditioning import coded
from d3codec.conditioning import latents as latent_rows
from d3codec.decoder.output import augment_gdd, window_resize
from d3codec.decoder.plan import UNIT_IMAGES, Unit, sources_of
from d3codec.decoder.precision import operators, round_levels, settings, to_levels
from d3codec.decoder.recipe import Sampler
from d3codec.decoder.rows import ConditioningRows, rows_of
from d3codec.errors import GeneratorError, UsageError
from d3codec.format.limits import MILLION
from d3codec.format.manifest import Group
from d3codec.generators.condition import Condition, Generator
from d3codec.generators.weights import require_torch
from d3codec.noise import normals_torch

if TYPE_CHECKING:
    from torch import Tensor

    from d3codec.decoder.recipe import Denoise

AUTOENCODER_PIXELS = 1 << 20  # of the images that the autoencoder decodes together; never more than a unit

Source = tuple[int, int]  # class, index of the generated image within it
Corrections = Mapping[Source, tuple[np.ndarray, np.ndarray]]  # places in the image's bytes, levels


class Renderer:
    """Renders the units of one group.

    Arguments:
        group: its records; it need not be in a file yet.
        conditioning: the raw bytes of its `emb`, `wrd`, `tok` or `ids` section.
        generator: loaded with the group's cast, in the profile's dtype.
        profile: one of `precision.PROFILES`.
        classes: number of classes of the dataset.
        stored: the raw bytes of its `lat` section, if the recipe has one.
        corrections: levels that replace rounded ones, of the profile `exact`.

    Raises (when made):
        GeneratorError: a generator that the conditioning, the stored latents or the image size does not fit.
        SectionError: bytes that break the specification.
    """

    def __init__(
        self,
        group: Group,
        conditioning: bytes,
        generator: Generator,
        profile: str,
        classes: int,
        *,
        stored: bytes = b"",
        corrections: Corrections | None = None,
    ) -> None:
        self._group, self._generator, self._profile = group, generator, profile
        self._device = generator.device.type
        torch = require_torch()
        self._state_dtype = torch.float64 if generator.dtype == torch.float64 else torch.float32
        self._shape = generator.latent_shape(*group.images.generated)
        self._stored, self._stored_rows = stored, classes * group.images.sources
        self._check_stored()
        self._sampler = Sampler(group.recipe)
        self._rows = ConditioningRows(group, conditioning, generator, profile, classes)
        self._corrections = corrections or {}

    def render(self, unit: Unit) -> np.ndarray:
        """Pixels of a unit, uint8 [images of the unit, height, width, 3].

        Raises:
            PixelsError: values that are not finite.
        """
        images = self._group.images
        per_source = images.copies + 1
        sources = sources_of(unit, per_source)
        pixels = round_levels(self.levels(sources))
        for image, source in zip(pixels, sources, strict=True):
            places, levels = self._corrections.get(source, (np.zeros(0, np.int64), np.zeros(0, np.uint8)))
            image.reshape(-1)[places] = levels
        if images.window is not None:
            pixels = window_resize(pixels, images.window.block, images.size)
        if per_source == 1:
            return pixels
        key = self._group.noise_key
        copies = [
            augment_gdd(image, key, class_, source, copy) if copy else image
            for image, (class_, source) in zip(pixels, sources, strict=True)
            for copy in range(per_source)
        ]
        return np.stack(copies)

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
        classes, indices = asked[:, 0], asked[:, 1]
        candidates, streams = torch.from_numpy(indices), torch.from_numpy(classes)

        def draw(n: int) -> Tensor:
            noise = normals_torch(self._group.noise_key, candidates, streams, self._shape, n=n, device=self._device)
            return noise.to(self._state_dtype)

        per_class = self._group.images.sources
        with settings(self._profile, self._device):
            rows = classes * per_class + indices
            clean = self._latents(rows)
            by_class = self._group.conditioning.rows == "class"
            condition = self._rows(classes if by_class else rows)
            state = self._sampler.start(draw(0), clean)
            if perturbation:
                state = state * (1.0 + perturbation)
            if channels_last:
                state = state.contiguous(memory_format=torch.channels_last)
            latents = self._sampler.run(self._denoiser(condition), state, draw, clean)
            return self._decode(latents, len(sources))

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
        torch, record = require_torch(), self._group.recipe.start.stored
        if record is None:
            return None
        if record.coded:
            count, size = self._stored_rows, record.values
            numbers = [coded.decode(self._stored, count, size, "lat", first=row, count=1) for row in rows.tolist()]
            values = np.concatenate(numbers).reshape(-1, *record.shape)
        else:
            blocks = [rows_of(self._stored, record.row_bytes, row, row) for row in rows.tolist()]
            values = latent_rows.decode(b"".join(blocks), len(blocks), record.shape, record.bits)
        latents: Tensor = torch.from_numpy(values).to(self._device, self._state_dtype)
        return latents
