"""Stored latents that sampling starts from or returns to (spec sections 3.4 and 5).

A row, of a source image, is a block of C * h * w quantized numbers (quantized.py), row-major.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.conditioning import quantized


def encode(latents: ArrayLike, bits: int) -> bytes:
    """Quantize latents, float [rows, C, h, w]; those that came from `decode` are kept exactly.

    Raises ValueError: what quantized.encode refuses, another number of axes.
    """
    values = np.asarray(latents, np.float64)
    if values.ndim != 4:
        raise ValueError(f"latents are [rows, channels, height, width], not {list(values.shape)}")
    return quantized.encode(values.reshape(len(values), math.prod(values.shape[1:])), bits).tobytes()


def decode(data: bytes, rows: int, shape: Sequence[int], bits: int) -> NDArray[np.float64]:
    """Latents of a section, float64 [rows, *shape], exact. Raises like delta.decode."""
    size = math.prod(shape)
    table = quantized.table(data, rows, quantized.row_bytes(size, bits), "lat")
    return quantized.decode(table, size, bits, "lat").reshape(rows, *shape)
