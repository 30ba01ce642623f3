"""Digests of pixels (spec/d3m-1.0.md, section 7): one an image, one over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def image_digest(image: np.ndarray) -> bytes:
    """SHA-256 of the bytes of one image, uint8 (height, width, 3), row-major. Else ValueError."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 (height, width, 3), not {image.dtype} {image.shape}")
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def pixel_digest(digests: Iterable[bytes]) -> bytes:
    """SHA-256 of the images' digests in order of class and image, and within a class group after group."""
    return hashlib.sha256(b"".join(digests)).digest()
