"""Stored latents of a group: rows of section `lat` -> numbers, whichever way they are coded (spec section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d3codec.conditioning import coded
from d3codec.conditioning import latents as latent_rows
from d3codec.decoder.rows import rows_of
from d3codec.decoder.section_reader import Read
from d3codec.format.limits import FREE_BYTES
from d3codec.format.manifest import BLOCKS, VALUES, StoredLatents

TRANSFORM_ROWS = 256  # that are coded together, and so are decoded and kept together (spec/latents.md)
KEPT_VALUES = 1 << 26  # enough for so many of any transform-coded latents


class LatentRows:
    """The latents of a group, decoded when they are asked for, no more than is needed.

    Arguments:
        record: how they are stored. rows: how many there are. read: their section.
    """

    def __init__(self, record: StoredLatents, rows: int, read: Read) -> None:
        self._record, self._rows, self._read = record, rows, read
        self._stream: bytes | None = None
        self._kept: tuple[int, NDArray[np.float64]] = 0, np.zeros((0, *record.shape))

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The latents of some rows, float64 [len(rows), C, h, w], exact, in the order given; a row may stand twice.

        Raises SectionError for bytes that the codec refuses.
        """
        wanted, places = np.unique(rows, return_inverse=True)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        runs = [self.run(int(run[0]), len(run)) for run in np.split(wanted, starts[1:])]
        return np.concatenate(runs)[places]

    def run(self, first: int, count: int) -> NDArray[np.float64]:
        """The latents of `count` rows from `first` on: float64 [count, C, h, w]. Raises as a call does."""
        record = self._record
        if record.coding == BLOCKS:
            size = record.row_bytes
            part = rows_of(self._read(first * size, (first + count) * size), size, 0, count - 1)
            return latent_rows.decode(part, count, record.shape, record.bits)
        start, kept = self._kept
        if not start <= first <= first + count <= start + len(kept):
            together = coded.BLOCK_VALUES // record.values if record.coding == VALUES else TRANSFORM_ROWS
            if together < 2 or together * record.values > KEPT_VALUES:
                return self._decoded(first, count)
            start, stop = first - first % together, -(-(first + count) // together) * together
            self._kept = start, kept = start, self._decoded(start, min(stop, self._rows) - start)
        return kept[first - start : first - start + count]

    def _decoded(self, first: int, count: int) -> NDArray[np.float64]:
        record = self._record
        if self._stream is None:
            self._stream = self._read(0, FREE_BYTES)
        if record.coding == VALUES:
            found = coded.decode(self._stream, self._rows, record.values, "lat", first=first, count=count)
            return found.reshape(count, *record.shape)
        from d3codec.conditioning import transform

        return transform.decode(self._stream, self._rows, record.shape, "lat", first=first, rows=count)
