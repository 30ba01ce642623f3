"""Vectors that enter the denoiser as they are: kind `vectors` of the format (spec sections 3.3 and 5).

A row, of a class or a source image, is a block of slots * width quantized numbers (quantized.py). Where the
unconditional vectors are stored, they are one more row, the last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.conditioning import quantized


def encode(vectors: ArrayLike, bits: int) -> bytes:
    """Quantize vectors, float [rows, slots, width]; those that came from `decode` are kept exactly.

    Raises ValueError: what quantized.encode refuses, another number of axes.
    """
    values = np.asarray(vectors, np.float64)
    if values.ndim != 3:
        raise ValueError(f"vectors are [rows, slots, width], not {list(values.shape)}")
    return quantized.encode(values.reshape(len(values), values.shape[1] * values.shape[2]), bits).tobytes()


def decode(data: bytes, rows: int, slots: int, width: int, bits: int) -> NDArray[np.float64]:
    """Vectors of a section, float64 [rows, slots, width], exact. Raises like delta.decode."""
    table = quantized.table(data, rows, quantized.row_bytes(slots * width, bits), "emb")
    return quantized.decode(table, slots * width, bits, "emb").reshape(rows, slots, width)
