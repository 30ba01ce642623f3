"""Of several noises for every image, the one whose pixels the teacher likes best.

Candidate k of source s, k = 0 .. 2^b - 1, has the noise number s * 2^b + k (spec section 3.2). In a group without
choices the noise number of a source is its index, so the candidates of a class are the sources of a group that has
2^b times as many: the renderer of the decoder draws them as it draws any other group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from d3codec.decoder.plan import UNIT_IMAGES, unit_at
from d3codec.encoder.pack import changed
from d3codec.encoder.relabel import Teacher, cross_entropy, label_patches
from d3codec.format.manifest import Group

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer


@dataclass(frozen=True)
class Trial:
    """What the teacher says of the candidates of every source, arrays (classes, sources, candidates).

    scores: float64, mean log-probability of the class over the patches of the image, in nats; hits: int64, patches
    whose largest logit is that of the class.
    """

    scores: np.ndarray
    hits: np.ndarray

    @property
    def choices(self) -> np.ndarray:
        """int64 (classes, sources): the candidate with the highest score, of equal ones the first."""
        best: np.ndarray = self.scores.argmax(axis=2)
        return best


def bits_of(candidates: int) -> int | None:
    """Bits of a choice among so many, a power of two; None where there is nothing to choose."""
    return candidates.bit_length() - 1 or None


def candidate_group(group: Group) -> Group:
    """The record of a group whose sources are the candidates of `group`, in order of source and choice.

    `group` has conditioning rows a class and no stored latents: its candidates differ in nothing but their noise.
    """
    count = group.images.sources << (group.images.candidates or 0)
    return changed(group, images=changed(group.images, augmentation=None, candidates=None, count=count))  # type: ignore[no-any-return]


def try_candidates(
    group: Group,
    renderer: Renderer,
    teacher: Teacher,
    classes: int,
    *,
    saved: Mapping[str, np.ndarray] | None = None,
    save: Callable[[dict[str, np.ndarray]], None] | None = None,
    save_seconds: float = 10.0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Trial:
    """Render every candidate and ask the teacher, a unit of eight images after the other.

    Arguments:
        group: the record whose candidates are tried.
        renderer: of `candidate_group(group)`.
        teacher: as in `relabel.teacher_logits`.
        classes: of the dataset.
        saved: what `save` got in an earlier run with the same arguments.
        save: takes the units finished so far, at least every `save_seconds` and after the last one.
        progress: called with ("candidates", units done, units).

    Raises:
        PixelsError: an image that is not finite.
        TeacherError: logits that do not fit.
    """
    sources, grid = group.images.sources, group.images.grid
    per_class = sources << (group.images.candidates or 0)
    total = classes * per_class
    units = -(-total // UNIT_IMAGES)
    scores, hits, done = np.zeros(total), np.zeros(total, np.int64), 0
    if saved:
        done = len(saved["scores"])
        scores[:done], hits[:done] = saved["scores"], saved["hits"]
    last_save = time.monotonic()
    for number in range(-(-done // UNIT_IMAGES), units):
        unit = unit_at(0, number, per_class, classes)
        logits = label_patches(renderer.render(unit), grid, teacher, classes).reshape(len(unit.classes), -1, classes)
        for place, (label, of_image) in enumerate(zip(unit.classes, logits, strict=True), number * UNIT_IMAGES):
            scores[place] = -cross_entropy(of_image, label).mean()
            hits[place] = np.count_nonzero(of_image.argmax(axis=1) == label)
        done = number * UNIT_IMAGES + len(unit.classes)
        if save and (number + 1 == units or time.monotonic() - last_save >= save_seconds):
            save({"scores": scores[:done], "hits": hits[:done]})
            last_save = time.monotonic()
        if progress:
            progress("candidates", number + 1, units)
    return Trial(scores.reshape(classes, sources, -1), hits.reshape(classes, sources, -1))
