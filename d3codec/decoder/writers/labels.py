"""The stored logits of images, as outputs carry them."""

from __future__ import annotations

import threading

import numpy as np

from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.shard import Key
from d3codec.format.file import D3MFile


class StoredLabels:
    """Logits by image. Images are asked for in order of group and class, so the classes around one are decoded
    together and kept until another is asked for. Threads may share it."""

    def __init__(self, file: D3MFile) -> None:
        self._groups = [
            None if group.labels.kind == "h" else GroupLabels(file, number)
            for number, group in enumerate(file.content.groups)
        ]
        self._images = [group.images for group in file.content.groups]
        self._kept: tuple[int, int, np.ndarray] | None = None  # group, first row, logits
        self._reading = threading.Lock()

    def of(self, key: Key) -> np.ndarray | None:
        """float32 [patches, classes] (exact), None where the group has hard labels."""
        number, class_, index = key
        labels, images = self._groups[number], self._images[number]
        if labels is None:
            return None
        patches = images.grid[0] * images.grid[1]
        row = (class_ * images.count + index) * patches
        with self._reading:
            if self._kept is None or self._kept[0] != number or not self._has(row, patches):
                first, last = self._around(labels, class_)
                self._kept = None  # before the next ones take memory
                self._kept = number, first, labels.logits(first, last)
            _, first, logits = self._kept
            return logits[row - first : row - first + patches].copy()

    def _has(self, row: int, patches: int) -> bool:
        assert self._kept is not None
        _, first, logits = self._kept
        return first <= row and row + patches <= first + len(logits)

    def _around(self, labels: GroupLabels, class_: int) -> tuple[int, int]:
        """Rows of this class and of so many next to it that they take about PIECE_BYTES."""
        together = labels.classes_at_once
        start = class_ - class_ % together
        end = min(start + together, labels.classes)
        return start * labels.rows_per_class, end * labels.rows_per_class
