"""Learned embeddings as quantized differences to a token: kind `delta` of the format (spec sections 3.3, 5).

A row, of a class or a source image, is a block of quantized numbers (quantized.py) for each text encoder, slots *
width of that encoder in each. Adding the token's own embedding is the generator's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.conditioning import quantized


def row_bytes(slots: int, widths: Sequence[int], bits: int) -> int:
    """Bytes of one row; `widths`: of the embeddings of each text encoder. Raises ValueError for bits outside 1 to 8."""
    return sum(quantized.row_bytes(slots * width, bits) for width in widths)


def encode(deltas: ArrayLike, bits: int, second: ArrayLike | None = None) -> bytes:
    """Quantize differences, float [rows, slots, width], and those for a second text encoder, [rows, slots, width 2].

    Differences that came from `decode` are kept exactly. Raises ValueError: what quantized.encode refuses, another
    number of axes, or encoders with other rows or slots.
    """
    encoders = [np.asarray(values, np.float64) for values in (deltas, second) if values is not None]
    for values in encoders:
        if values.ndim != 3 or values.shape[:2] != encoders[0].shape[:2]:
            raise ValueError(f"differences are [rows, slots, width], not {list(values.shape)}")
    flat = [values.reshape(len(values), values.shape[1] * values.shape[2]) for values in encoders]
    return np.concatenate([quantized.encode(values, bits) for values in flat], axis=1).tobytes()


def decode(data: bytes, rows: int, slots: int, widths: Sequence[int], bits: int) -> list[NDArray[np.float64]]:
    """Differences of a section, one array a text encoder: float64 [rows, slots, width], exact.

    Raises SectionError: `E_SECTION_SIZE` for a wrong length; `E_SECTION_VALUE`, naming the row, for a scale
    that is not finite and positive or padding bits that are not zero. ValueError for bits outside 1 to 8.
    """
    table = quantized.table(data, rows, row_bytes(slots, widths, bits), "emb")
    ends = np.cumsum([quantized.row_bytes(slots * width, bits) for width in widths])
    blocks = np.split(table, ends[:-1], axis=1)
    return [
        quantized.decode(block, slots * width, bits, "emb").reshape(rows, slots, width)
        for block, width in zip(blocks, widths, strict=True)
    ]
