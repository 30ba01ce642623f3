"""The stored logits of images, as outputs carry them."""

from __future__ import annotations

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.format.file import D3MFile
from d3codec.labels import quantized


class StoredLabels:
    """Logits by image; the section of a group is read when the first of its images is asked for."""

    def __init__(self, file: D3MFile) -> None:
        self._file = file
        self._tables: dict[int, np.ndarray] = {}

    def of(self, key: Key) -> np.ndarray | None:
        """float32 [patches, width] (exact), None where the group has hard labels."""
        number, class_, index = key
        group = self._file.content.groups[number]
        labels = group.labels
        if labels.kind != "q":
            return None
        if number not in self._tables:
            patches = group.images.grid[0] * group.images.grid[1]
            count = self._file.content.classes.count * group.images.count
            values = quantized.decode(self._file.section("lab", number), count * patches, labels.width, labels.step)
            self._tables[number] = values.astype(np.float32).reshape(count, patches, labels.width)
        row: np.ndarray = self._tables[number][class_ * group.images.count + index]
        return row
