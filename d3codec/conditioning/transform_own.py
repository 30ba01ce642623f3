"""Statistics of transform-coded latents that stand in the stream (spec/latents.md, section 7)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3codec.conditioning.transform_basis import MATRIX_BITS, Basis, frequencies
from d3codec.conditioning.transform_tables import SCALE_UNIT, STEPS_AN_OCTAVE
from d3codec.errors import SectionError

_HEAD = struct.Struct("<Bb")  # whether there is a matrix, octave of the scales

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OwnStatistics:
    """Statistics in the stream, for latents of any autoencoder: few numbers.

    `mean`: float16 [C]; `diagonals`: int64 [h + w - 1], 0 to 255, and `offsets`: int64 [C], -128 to 127: the scale of
    channel c at frequency v, u is diagonals[v + u] + offsets[c], in 1/32 octave above `octave`; `matrix`: int64 [C, C],
    -128 to 127, in 1/64, rows are coefficients, or None.
    """

    octave: int
    mean: NDArray[np.float16]
    diagonals: _Ints
    offsets: _Ints
    matrix: _Ints | None = None

    def basis(self, shape: tuple[int, int, int]) -> Basis:
        """What the decoder uses."""
        v, u = np.divmod(frequencies(*shape[1:]), shape[2])
        above = (self.diagonals[v + u][:, None] + self.offsets).reshape(-1)
        scales = STEPS_AN_OCTAVE * self.octave + SCALE_UNIT * above
        mean = self.mean.astype(np.float64)[:, None, None]
        return Basis(shape, scales, mean, None if self.matrix is None else self.matrix[None], MATRIX_BITS)

    def pack(self) -> bytes:
        """To the bytes that stand in the stream."""
        parts = [_HEAD.pack(self.matrix is not None, self.octave), self.mean.astype("<f2").tobytes()]
        parts += [self.diagonals.astype(np.uint8).tobytes(), self.offsets.astype(np.int8).tobytes()]
        return b"".join(parts + ([] if self.matrix is None else [self.matrix.astype(np.int8).tobytes()]))

    @staticmethod
    def unpack(data: bytes, shape: tuple[int, int, int], section: str) -> tuple[OwnStatistics, int]:
        """Statistics, and how many bytes they took. Raises SectionError as `transform.decode` does."""
        channels, diagonals = shape[0], shape[1] + shape[2] - 1
        size = _HEAD.size + 2 * channels + diagonals + channels
        if data and data[0] > 1:
            raise SectionError("E_SECTION_VALUE", "unknown statistics", field=section, found=data[0], expected="0 or 1")
        size += channels * channels if data and data[0] else 0
        if len(data) < size:
            raise SectionError("E_SECTION_SIZE", "ends in its statistics", field=section, found=len(data))
        at = _HEAD.size + 2 * channels
        mean = np.frombuffer(data, "<f2", channels, _HEAD.size).astype(np.float16)
        if not np.isfinite(mean).all():
            raise SectionError("E_SECTION_VALUE", "a mean that is not finite", field=section)
        matrix = None
        if data[0]:
            matrix = np.frombuffer(data, np.int8, channels**2, at + diagonals + channels).astype(np.int64)
        return (
            OwnStatistics(
                _HEAD.unpack_from(data)[1],
                mean,
                np.frombuffer(data, np.uint8, diagonals, at).astype(np.int64),
                np.frombuffer(data, np.int8, channels, at + diagonals).astype(np.int64),
                None if matrix is None else matrix.reshape(channels, channels),
            ),
            size,
        )
