"""A group that is in no file yet -> all its images, as a reader will decode them, and what `exact` must list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from d3codec.decoder.digests import image_digest
from d3codec.decoder.finish import finished
from d3codec.decoder.plan import UNIT_IMAGES, sources_of, unit_at
from d3codec.decoder.precision import round_levels
from d3codec.encoder.exact import boundary_values, check_noise, decode_noise, probes
from d3codec.format.manifest import Group

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rendered:
    """images: uint8 [classes * count, height, width, 3], in order of class and index.

    places (int64, ascending), levels (uint8): values near a rounding boundary, by their place in the bytes of all
    generated images of the group; none but in profile `exact`.
    """

    images: np.ndarray
    places: np.ndarray
    levels: np.ndarray

    @property
    def digests(self) -> list[bytes]:
        """SHA-256 of every image."""
        return [image_digest(image) for image in self.images]


def render_group(
    group: Group, renderer: Renderer, classes: int, profile: str, progress: Progress | None = None
) -> Rendered:
    """Decode every image of a group in canonical units.

    Raises PixelsError for a generator whose decode is too noisy for the profile `exact`.
    """
    if profile == "exact":
        check_noise(decode_noise(renderer, probes(classes, group.images.sources)))
    total, per_source = classes * group.images.sources, group.images.copies + 1
    units = range(-(-total // UNIT_IMAGES))
    images, places, levels = [], [], []
    for number in units:
        sources = sources_of(unit_at(0, number, group.images.count, classes, per_source), per_source)
        values = renderer.levels(sources)
        pixels = round_levels(values)
        if profile == "exact" and len(near := boundary_values(values)):
            places.append(near + number * UNIT_IMAGES * values[0].size)
            levels.append(pixels.reshape(-1)[near])
        images.append(finished(group, pixels, sources))
        if progress is not None:
            progress("decode", number + 1, len(units))
    return Rendered(
        np.concatenate(images),
        np.concatenate([np.zeros(0, np.int64), *places]),
        np.concatenate([np.zeros(0, np.uint8), *levels]),
    )
