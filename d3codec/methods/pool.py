"""Real images and the teacher that judges them: what all methods start from that store real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from d3codec.encoder.diverse import medoids
from d3codec.encoder.relabel import cross_entropy, teacher_logits
from d3codec.errors import ImagesError
from d3codec.methods.prepare import given_teacher
from d3codec.sources import LabelledImages
from d3codec.training.photo_images import resize_photos

if TYPE_CHECKING:
    from d3codec.encoder.relabel import Teacher
    from d3codec.training.ensemble import Ensemble

VALIDATION_SHARE, VALIDATION_MOST = 10, 50  # of each class one image in ten, at most fifty
VALIDATION_LEAST = 3  # images a class, below which nothing can be chosen by them

Progress = Callable[[str, int, int], None]
Pixels = NDArray[np.uint8]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Images of one side with their classes: uint8 [N, side, side, 3] and int64 [N]."""

    images: Pixels
    labels: Classes
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, images: LabelledImages, side: int) -> Pool:
        """Images of any sizes, squashed to squares of `side` pixels."""
        return cls(resize_photos(images.images, side), np.asarray(images.labels, np.int64), images.class_names)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def side(self) -> int:
        """Pixels of an image."""
        return int(self.images.shape[1])

    def taken(self, rows: NDArray[Any]) -> Pool:
        """Some of the images."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def split_validation(images: LabelledImages, needed: int = 1) -> tuple[LabelledImages, LabelledImages | None]:
    """The images to distil, and those that choices are made on: the last of each class, one in ten, at most fifty.

    None in place of the second where a class has fewer than thirty images, or would keep fewer than are needed.
    """
    labels = np.asarray(images.labels)
    counts = np.bincount(labels, minlength=len(images.class_names))
    shares = np.minimum(counts // VALIDATION_SHARE, VALIDATION_MOST)
    if shares.min() < VALIDATION_LEAST or (counts - shares).min() < needed:
        return images, None
    held = np.zeros(len(labels), bool)
    for label, share in enumerate(shares.tolist()):
        held[np.flatnonzero(labels == label)[-share:]] = True
    return _some(images, ~held), _some(images, held)


def _some(images: LabelledImages, chosen: NDArray[np.bool_]) -> LabelledImages:
    rows = np.flatnonzero(chosen).tolist()
    return replace(images, images=[images.images[row] for row in rows], labels=np.asarray(images.labels)[chosen])


@dataclass(frozen=True)
class Judge:
    """A teacher as these methods use it. `trained`: it was made here, from these very images."""

    teacher: Teacher | Ensemble
    name: str
    trained: bool = False

    def assess(self, pool: Pool) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Features float32 [N, d] (logits of a teacher that shows no features) and losses in nats [N]."""
        teacher: Any = self.teacher
        if hasattr(teacher, "losses"):
            return teacher.features(pool.images), teacher.losses(pool.images, pool.labels)
        logits = teacher_logits(teacher, pool.images, pool.classes)
        features = teacher.features(pool.images) if hasattr(teacher, "features") else logits
        losses = np.empty(len(logits))
        for label in range(pool.classes):
            losses[pool.labels == label] = cross_entropy(logits[pool.labels == label], label)
        return features, losses

    def soft_labels(self, images: Pixels, classes: int) -> NDArray[np.float32]:
        """Logits of images uint8 [N, h, w, 3]: float32 [N, classes], mean-free; an ensemble looks at several views."""
        if hasattr(self.teacher, "labels"):
            found: NDArray[np.float32] = self.teacher.labels(images)
            return found
        logits = teacher_logits(self.teacher, images, classes)
        centred: NDArray[np.float32] = logits - logits.mean(1, keepdims=True)
        return centred

    def select(
        self, pool: Pool, per_class: Sequence[int] | int, assessed: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> NDArray[np.int64]:
        """Positions of diverse images of which the teacher is sure, in order of class; `assessed`: if it was done."""
        features, losses = assessed or self.assess(pool)
        return medoids(features, losses, pool.labels, per_class, pool.classes)


def given_judge(teacher: Teacher | str | Path, images: LabelledImages, side: int) -> Judge:
    """The caller's teacher, asked once about an image of `side` pixels: TeacherError if it does not fit the images."""
    loaded, name = given_teacher(teacher, images.class_names)
    teacher_logits(loaded, resize_photos(images.images[:1], side), len(images.class_names))
    return Judge(loaded, name)


def trained_judge(images: LabelledImages, folder: Path, *, side: int, processes: int, progress: Progress) -> Judge:
    """An ensemble of three small networks trained on the images and kept in a folder."""
    from d3codec.training.ensemble import train_ensemble

    made = train_ensemble(images, folder, side=side, processes=processes, progress=progress)
    return Judge(made, f"sha256:{made.digest}", trained=True)


def require_images(images: LabelledImages, per_class: int, for_what: str) -> None:
    """ImagesError for a class with fewer images."""
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    poorest = int(counts.argmin())
    if counts[poorest] < per_class:
        raise ImagesError(
            f"class {images.class_names[poorest]!r} has too few images",
            field=images.class_names[poorest],
            found=f"{counts[poorest]} images",
            expected=f"at least {per_class}: {for_what}",
        )
