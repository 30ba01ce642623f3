"""The stored logits of images, as outputs carry them."""

from __future__ import annotations

import threading

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.format.file import D3MFile
from d3codec.labels import quantized


class StoredLabels:
    """Logits by image, kept as they are stored; the section of a group is read when the first of its images is asked
    for. Threads may share it."""

    def __init__(self, file: D3MFile) -> None:
        self._file = file
        self._tables: dict[int, bytes] = {}
        self._reading = threading.Lock()

    def of(self, key: Key) -> np.ndarray | None:
        """float32 [patches, width] (exact), None where the group has hard labels."""
        number, class_, index = key
        group = self._file.content.groups[number]
        labels = group.labels
        if labels.kind != "q":
            return None
        with self._reading:
            if number not in self._tables:
                self._tables[number] = self._file.section("lab", number)
        patches = group.images.grid[0] * group.images.grid[1]
        size = patches * labels.width
        start = (class_ * group.images.count + index) * size
        return quantized.decode(self._tables[number][start : start + size], patches, labels.width, labels.step).astype(
            np.float32
        )
