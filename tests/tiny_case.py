"""A case for the encoder: noisy images of three greys, a teacher that knows them, options."""

from __future__ import annotations

from typing import Any

import numpy as np

LEVELS = (64, 120, 180)
OPTIONS: dict[str, Any] = {
    "labels": "int8",
    "ipc": 4,
    "template": "a *",
    "initial_token": "b",
    "guidance": 2.0,
    "steps": 3,
    "resolution": 8,
    "inversion_steps": 12,
    "learning_rate": 0.1,
    "leaf_bytes": 4,
    "licence": "CC0-1.0",
    "source": "three greys",
}


def three_greys() -> tuple[list[np.ndarray], list[int], list[str]]:
    """30 images of 8 x 8, ten a class, with their labels and the names a, b and c."""
    rng = np.random.default_rng(0)
    labels = [number % 3 for number in range(30)]
    images = [np.clip(rng.normal(LEVELS[label], 30, (8, 8, 3)), 0, 255).astype(np.uint8) for label in labels]
    return images, labels, ["a", "b", "c"]


def grey_teacher(images: np.ndarray) -> np.ndarray:
    """Logits by the distance of the mean level to those of the classes."""
    means = images.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    return np.stack([-40 * (means - level / 255) ** 2 for level in LEVELS], axis=1).astype(np.float32)
