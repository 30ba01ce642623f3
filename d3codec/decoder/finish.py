"""The images of the dataset from those that a generator made or that are stored: levels corrected, window, copies.

Integers from here on, the same for all recipes (spec sections 7.4 and 7.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from d3codec.decoder.output import augment_gdd, window_resize
from d3codec.format.manifest import Group

Source = tuple[int, int]  # class, index of the generated image within it
Corrections = Mapping[Source, tuple[np.ndarray, np.ndarray]]  # places in the image's bytes, levels


def correct(pixels: np.ndarray, sources: Sequence[Source], corrections: Corrections) -> None:
    """Put the listed levels into generated images, uint8 [sources, H, W, 3]."""
    for image, source in zip(pixels, sources, strict=True):
        if source in corrections:
            places, levels = corrections[source]
            image.reshape(-1)[places] = levels


def finished(group: Group, pixels: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """All images of some sources: uint8 [sources, H, W, 3] -> [sources * (copies + 1), height, width, 3]."""
    images = group.images
    if images.window is not None:
        pixels = window_resize(pixels, images.window.block, images.size)
    if images.copies == 0:
        return pixels
    copies = [
        augment_gdd(image, group.noise_key, class_, source, copy) if copy else image
        for image, (class_, source) in zip(pixels, sources, strict=True)
        for copy in range(images.copies + 1)
    ]
    return np.stack(copies)
