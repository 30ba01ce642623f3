"""Decoded pixels -> teacher logits, one row a patch. The teacher is only ever asked here.

Knows nothing of how logits become bytes (`labels/`) or of where they are stored (`encoder/pack.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from d3codec import grid as geometry
from d3codec.errors import TeacherError

Teacher = Callable[[np.ndarray], np.ndarray]
TEACHER_BATCH = 256  # images a call; fixed, since the last bits of a network's output may depend on it


def teacher_logits(teacher: Teacher, images: np.ndarray, classes: int) -> np.ndarray:
    """The teacher's logits of images, asked in batches of TEACHER_BATCH.

    Arguments:
        teacher: uint8 (N, height, width, 3) -> logits (N, classes), before the softmax.
        images: uint8 (N, height, width, 3).
        classes: how many logits an image the caller needs.

    Returns:
        float32 (N, classes).

    Raises:
        TeacherError: another shape than that, or logits that are not finite.
    """
    batches = [np.zeros((0, classes), np.float32)]
    for first in range(0, len(images), TEACHER_BATCH):
        part = images[first : first + TEACHER_BATCH]
        logits = np.asarray(teacher(part))
        if logits.shape != (len(part), classes):
            raise TeacherError(
                "the teacher's logits do not fit the classes",
                found=f"shape {logits.shape}",
                expected=f"shape ({len(part)}, {classes}): one logit a class",
                hint="the teacher must be trained on these classes, in this order",
            )
        if not np.isfinite(logits).all():
            raise TeacherError("the teacher gives logits that are not finite", found="infinite or NaN")
        batches.append(logits.astype(np.float32))
    return np.concatenate(batches)


def cross_entropy(logits: np.ndarray, label: int) -> np.ndarray:
    """Cross-entropy of logits (N, classes) with one class, in nats: float64 (N,)."""
    losses: np.ndarray = -_log_softmax(logits.astype(np.float64))[:, label]
    return losses


def label_patches(images: np.ndarray, grid: tuple[int, int], teacher: Teacher, classes: int) -> np.ndarray:
    """Logits of every patch of collages (D3M, arXiv 2403.07142, section 3.3).

    Arguments:
        images: collages uint8 (N, height, width, 3), as a reader decodes them.
        grid: rows and columns of patches in a collage.
        teacher, classes: as in `teacher_logits`.

    Returns:
        float32 (N * rows * columns, classes), in order of image and patch (row-major).
    """
    patches = geometry.cut(images, grid)
    return teacher_logits(teacher, patches.reshape(-1, *patches.shape[2:]), classes)


def agreement(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of patches whose largest logit is that of their class, for every class: float64 (classes,) in 0
    to 1.
    """
    hits = logits.argmax(axis=1) == labels
    counts = np.bincount(labels, minlength=classes)
    return np.bincount(labels, weights=hits, minlength=classes) / np.maximum(counts, 1)


def divergence(logits: np.ndarray, stored: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence in nats of softmax(stored) from softmax(logits), both (N, classes), N > 0."""
    log_p, log_q = (_log_softmax(values.astype(np.float64)) for values in (logits, stored))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    below = logits - logits.max(axis=1, keepdims=True)
    logs: np.ndarray = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return logs
