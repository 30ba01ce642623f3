"""A file with one group of stored images, brought to a size: images first, then labels of what is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3codec import corrections
from d3codec.decoder.digests import pixel_digest
from d3codec.decoder.labels import decode_labels
from d3codec.decoder.precision import fingerprint
from d3codec.encoder import pack
from d3codec.encoder.labels import LabelChoice, StoredLabels, store_labels
from d3codec.encoder.rendered import Rendered
from d3codec.errors import ManifestError, UsageError
from d3codec.format.file import ContentDraft, write_d3m
from d3codec.format.manifest import About, Classes, Group, HardLabels
from d3codec.grid import cut
from d3codec.methods.pool import Judge, Pool
from d3codec.training.photo_students import PhotoGroup

ROUNDS = 6  # in which the sizes of images and labels are brought to agree
HEAD_GUESS, LABEL_GUESS = 350, 2.7  # bytes of head and classes, and of a label, before they are known
LABEL_SPARE = 4  # bytes by which the labels may grow from one round to the next
CLOSE = 8  # bytes below the limit that are not worth another round
TOO_SMALL = "Take more bytes, fewer or smaller images, or --labels hard."

Sections = Mapping[str, bytes]


@dataclass(frozen=True)
class Frame:
    """What a file says beside its images: section `cls`, authority of the class ids, profile, `about`.

    device: where it is decoded, which a reproducible file states with its pixel digest; None for a file that only
    students see, which states neither.
    """

    class_section: bytes
    authority: str
    profile: str
    about: About
    device: str | None = None


@dataclass(frozen=True)
class Labelling:
    """Who gives the labels of decoded images, and how they are stored; judge None: hard labels."""

    judge: Judge | None
    choice: LabelChoice


@dataclass(frozen=True)
class Made:
    """A file with one group, and what students get of it: images, their classes, logits of every patch (in order of
    image and patch) as they are stored, None with hard labels."""

    data: bytes
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32] | None

    def group(self, weight: int = 1) -> PhotoGroup:
        """Images of one patch and their labels for students."""
        return PhotoGroup(self.images, self.labels, self.logits, weight)


def labelled_file(
    group: Group, sections: Sections, rendered: Rendered, pool: Pool, labelling: Labelling, frame: Frame
) -> Made:
    """The file of a group whose images are decoded.

    Arguments:
        group: its record, with hard labels. sections: its sections by name.
        rendered: its images, which are those of `pool` in the same order, and what `exact` must list.
    """
    stored, grid = StoredLabels(HardLabels(), {}, {}), group.images.grid
    of_patch = np.repeat(pool.labels, grid[0] * grid[1])
    if labelling.judge is not None:
        patches = cut(rendered.images, grid)
        logits = labelling.judge.soft_labels(patches.reshape(-1, *patches.shape[2:]), pool.classes)
        stored = store_labels(logits, of_patch, labelling.choice)
    pixels = pack.Pixels(frame.profile, pixel_digest(rendered.digests), None, (rendered.places, rendered.levels))
    every: dict[tuple[str, int | None], bytes] = {("cls", None): frame.class_section}
    every |= {(name, 0): data for name, data in {**sections, **stored.sections}.items()}
    if len(rendered.places):
        every["fix", None] = corrections.encode(rendered.places, rendered.levels)
    group = pack.changed(group, labels=stored.record)
    draft = ContentDraft(Classes(authority=frame.authority, count=pool.classes), (group,), pixels.record())
    about = frame.about
    if frame.profile == "reproducible" and frame.device is not None:
        about = pack.changed(about, pixels=pixels.digest, fingerprint=fingerprint(frame.device, draft))
    data = write_d3m(draft, every, about)
    told = None
    if not isinstance(stored.record, HardLabels):
        told = decode_labels(stored.record, stored.sections["lab"], of_patch)
    return Made(data, rendered.images, pool.labels, told)


def within(limit: int, labels: int, build: Callable[[int], tuple[Made, int]]) -> Made:
    """The largest file of at most `limit` bytes that `build` gives.

    Arguments:
        labels: how many soft labels there will be.
        build: takes the bytes that the images may take, gives the file and the bytes that they took: those of the
            smallest possible ones where there are none so small.

    Raises:
        UsageError: no such file; `expected` is the size of the smallest, which can be had by asking for it.
    """
    room, best = limit - HEAD_GUESS - int(labels * LABEL_GUESS), None
    for number in range(ROUNDS):
        made, used = build(max(room, 0))
        spare = limit - len(made.data)
        if spare >= 0 and (best is None or len(made.data) > len(best.data)):
            best = made
        if 0 <= spare <= close_to(limit):
            break
        # Labels of other images are longer or shorter: a little less than what was too much, and less every time.
        following = used + spare - (LABEL_SPARE << number if spare < 0 else 0)
        if (spare > 0 and following <= room) or (spare < 0 and used > room):  # nothing finer, nothing smaller
            break
        room = following
    if best is None:
        smallest, _ = build(0)
        if len(smallest.data) > limit:
            raise UsageError(
                "this size is too small", field="bytes", found=limit, expected=len(smallest.data), hint=TOO_SMALL
            )
        best = smallest
    return best


def close_to(limit: int) -> int:
    """Bytes below a limit that are not worth another round."""
    return max(CLOSE, limit // 500)


def statement(method: str, licence: str | None, source: str | None, authority: str) -> About:
    """What a file says of its origin. UsageError for a text that it cannot hold, the authority of class ids too."""
    try:
        Classes(authority=authority, count=1)
        return About(method=method, licence=licence, source=source)
    except ManifestError as error:
        raise UsageError(
            "a text that a file cannot hold", field=error.field, found=error.found, expected=str(error)
        ) from error
