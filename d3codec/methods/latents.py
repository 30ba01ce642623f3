"""Selected real images as quantized latents of a shared autoencoder, with soft labels of what is decoded.

The images of a class are the medoids of those that the teacher is sure of (`encoder/diverse.py`), coded together at
the finest step that the size allows.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from d3codec.conditioning import transform
from d3codec.decoder.precision import compute_dtype
from d3codec.decoder.render import Renderer
from d3codec.encoder.invert import encode_collages
from d3codec.encoder.rendered import render_group
from d3codec.errors import GeneratorError, UsageError
from d3codec.format.manifest import TRANSFORM, DecodeRecipe, Group, HardLabels, Images, NoConditioning, StoredLatents
from d3codec.generators.load import load_generator
from d3codec.methods.made import Frame, Labelling, Made, labelled_file, within
from d3codec.methods.pool import Pool

if TYPE_CHECKING:
    from d3codec.generators.latent import LatentGenerator

COARSEST = 2.0**31  # step at which nothing is left of any latent
EXACT_ROUNDS = 3  # in which corrections and labels of exact pixels are brought into the size


@dataclass(frozen=True)
class Autoencoder:
    """A loaded autoencoder and its identity; `network` in the dtype of the profile, `encoder` in float32."""

    id: bytes
    cast: Literal["f16", "stored"]
    network: LatentGenerator
    encoder: LatentGenerator

    @classmethod
    def load(
        cls, folder: Path, profile: str, device: str = "cpu", cast: Literal["f16", "stored"] = "f16"
    ) -> Autoencoder:
        """The autoencoder in a folder. Raises as `load_generator` does."""
        from d3codec.generators.weights import describe

        record = describe(folder, cast)
        network = load_generator(folder, cast=cast, dtype=compute_dtype(profile), device=device)
        encoder = network
        if profile != "reproducible":
            encoder = load_generator(folder, cast=cast, dtype=compute_dtype("reproducible"), device=device)
        return cls(record.id, cast, network, encoder)


def make(
    pool: Pool, rows: NDArray[np.int64], autoencoder: Autoencoder, labelling: Labelling, frame: Frame, *, limit: int
) -> Made:
    """A file of at most `limit` bytes.

    Arguments:
        pool: where the images are. rows: which ones, in order of class, equally many of each.
        autoencoder: loaded for the profile of `frame`.

    Raises:
        UsageError: no such file fits; `expected` is the least size.
        GeneratorError: an autoencoder whose latents cannot be stored.
        PixelsError: one whose decode is too noisy for the profile `exact`.
    """
    chosen = pool.taken(rows)
    latents = encode_collages(autoencoder.encoder, chosen.images).astype(np.float64)
    least = _least(latents)
    group = _group(chosen, autoencoder, latents.shape[1:])

    labels = 0 if labelling.judge is None else len(rows)

    def build(room: int, network: LatentGenerator, profile: str) -> tuple[Made, int]:
        section = transform.encode(latents, room) if room > len(least) else least
        renderer = Renderer(group, b"", network, profile, chosen.classes, stored=section)
        rendered = render_group(group, renderer, chosen.classes, profile)
        return labelled_file(group, {"lat": section}, rendered, chosen, labelling, frame), len(section)

    def exactly(room: int) -> tuple[Made, int]:
        return build(room, autoencoder.network, frame.profile)

    if autoencoder.encoder is not autoencoder.network:
        # An exact decode takes long, and sizes hardly depend on it: they are met with float32 pixels first.
        taken: dict[int, int] = {}

        def quickly(room: int) -> tuple[Made, int]:
            made, used = build(room, autoencoder.encoder, "reproducible")
            taken[len(made.data)] = used
            return made, used

        with suppress(UsageError):  # too small: the exact size is told below
            room = taken[len(within(limit, labels, quickly).data)]
            for _ in range(EXACT_ROUNDS):
                made, used = exactly(room)
                if (spare := limit - len(made.data)) >= 0:
                    return made
                room = used + spare
    return within(limit, labels, exactly)


def _least(latents: NDArray[np.float64]) -> bytes:
    """The smallest section of these latents. GeneratorError for latents that cannot be stored."""
    try:
        section: bytes = transform.encode_at(latents, COARSEST)
        return section
    except ValueError as error:
        raise GeneratorError("this autoencoder's latents of these images cannot be stored", found=str(error)) from error


def _group(pool: Pool, autoencoder: Autoencoder, shape: tuple[int, ...]) -> Group:
    channels, height, width = shape
    return Group(
        conditioning=NoConditioning(),
        cast=autoencoder.cast,
        generator=autoencoder.id,
        images=Images(grid=(1, 1), count=len(pool.labels) // pool.classes, size=(pool.side, pool.side)),
        noise_key=0,
        labels=HardLabels(),
        recipe=DecodeRecipe(latents=StoredLatents(bits=0, coding=TRANSFORM, shape=(channels, height, width))),
    )
