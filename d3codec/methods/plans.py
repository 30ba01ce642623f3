"""What a file of a size may be made of: methods and numbers of images that are worth trying.

Images from prompts cost their bytes once and win below 1 KB (of ten classes), stored latents win above, both together
between, where one image in four of a training batch is a generated one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

METHODS = ("latents", "d3m", "images")
IMAGE_BYTES = (40, 27, 60, 85)  # of a stored image with its label; the first is the usual one
GENERATED_IPC = 40  # more of them add little, and their noises cost bytes
GENERATED_BYTES = 50  # a class, about
MIXED_FROM, MIXED_TO = 120, 1_500  # bytes a class between which both kinds are tried in one file
HEAD_BYTES = 350  # about: head and names of the classes


@dataclass(frozen=True)
class Plan:
    """Methods of a file, one a group, and how many images of a class are stored (or generated, without stored ones)."""

    methods: tuple[str, ...]
    per_class: int

    @property
    def name(self) -> str:
        """Of the method, as a file states it."""
        return "+".join(self.methods)


def plans(
    size: int, classes: int, most: int, *, methods: tuple[str, ...], autoencoder: bool, prompts: bool, ipc: int | None
) -> Iterator[Plan]:
    """Plans for a file of `size` bytes, the usual ones first.

    Arguments:
        most: images of the poorest class.
        methods: those that may be used. autoencoder, prompts: whether there are generators for latents and for d3m.
        ipc: stored images a class, if they are given.
    """
    prompts, latents = prompts and "d3m" in methods, autoencoder and "latents" in methods
    if latents and prompts and MIXED_FROM * classes <= size <= MIXED_TO * classes:
        for count in _counts(size - GENERATED_BYTES * classes, classes, most, ipc):
            yield Plan(("d3m", "latents"), count)
    if latents:
        for count in _counts(size, classes, most, ipc):
            yield Plan(("latents",), count)
    if prompts:
        yield Plan(("d3m",), GENERATED_IPC)
    if "images" in methods and not latents:
        for count in _counts(size, classes, most, ipc):
            yield Plan(("images",), count)


def _counts(size: int, classes: int, most: int, ipc: int | None) -> list[int]:
    if ipc is not None:
        return [ipc]
    room = max(0, size - HEAD_BYTES) / classes
    return list(dict.fromkeys(min(most, max(1, round(room / each))) for each in IMAGE_BYTES))
