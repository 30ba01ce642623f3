"""May a file promise `exact`? The noise of its own decode, measured, and the values too near to a boundary.

In binary64 the same decode differs by about 1e-13 of a level between machines. A value before rounding that lies
further than EPSILON from every boundary therefore rounds alike everywhere; the few others are listed, and a decoder
takes them from the list (spec section 7). That EPSILON is far above the noise is measured here for every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from d3codec.errors import PixelsError

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer

EPSILON = 1e-7  # of a level
MARGIN = 100  # the noise must be so many times smaller
PERTURBATION = 1e-15  # relative, of the start state: what the last bit of a table could do
PROBED = 12  # images


def boundary_values(levels: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """Places, int64 ascending, of the values of an image [...] in 0 to 255 that lie within epsilon of a rounding
    boundary (k + 1/2). Clamped values, 0 and 255, are far from any."""
    flat = levels.reshape(-1)
    places: np.ndarray = np.flatnonzero(np.abs(flat - np.floor(flat) - 0.5) <= epsilon)
    return places


def decode_noise(renderer: Renderer, sources: Sequence[tuple[int, int]]) -> float:
    """The largest difference before rounding, in levels, between decodes of some (class, source) that should be equal.

    The reference is a batch of all in the usual order of memory; against it stand: one image at a time from a start
    state that is 1e-15 larger; batches of three with the channels last in memory; and batches of two with the plain
    attention. `renderer` is one of the profile `exact`.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    probed = list(sources)
    reference = renderer.levels(probed)
    variants = [_in_batches(renderer, probed, 1, perturbation=PERTURBATION)]
    variants.append(_in_batches(renderer, probed, 3, channels_last=True))
    with sdpa_kernel(SDPBackend.MATH):
        variants.append(_in_batches(renderer, probed, 2))
    return max(float(np.abs(variant - reference).max()) for variant in variants)


def check_noise(noise: float) -> None:
    """Raises PixelsError if a decode is too noisy for the profile `exact`."""
    if noise > EPSILON / MARGIN:
        raise PixelsError(
            "this generator's decode is too noisy for the profile 'exact'",
            field="largest difference between two decodes, in levels",
            found=f"{noise:.2g}",
            expected=f"at most {EPSILON / MARGIN:.0e}",
            hint="Encode with --profile exact-fixed or reproducible.",
        )


def probes(classes: int, sources: int, count: int = PROBED) -> list[tuple[int, int]]:
    """Up to `count` (class, source), spread evenly over all of them."""
    total = classes * sources
    places = sorted({place * total // min(count, total) for place in range(min(count, total))})
    return [(place // sources, place % sources) for place in places]


def _in_batches(
    renderer: Renderer,
    sources: list[tuple[int, int]],
    size: int,
    *,
    perturbation: float = 0.0,
    channels_last: bool = False,
) -> np.ndarray:
    parts = [
        renderer.levels(sources[first : first + size], perturbation=perturbation, channels_last=channels_last)
        for first in range(0, len(sources), size)
    ]
    return np.concatenate(parts)
