"""One array file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.output import OTHER, Decoding
from d3codec.decoder.writers.saving import saved_beside
from d3codec.errors import OutputError, UsageError


class ArrayFile:
    """One .npz file: `images` uint8 [N, height, width, 3], `classes` int64 [N] and, where the dataset stores
    logits, `labels` float32 [N, patches, width]; N in order of class, group and index. All of it lies in memory.

    Raises (when made):
        UsageError: groups whose images or labels have different shapes.
    """

    def __init__(self, path: Path, decoding: Decoding) -> None:
        self._path = path
        if path.is_dir():
            raise OutputError("the output is a folder, a file is needed", file=str(path), hint=OTHER)
        file, plan = decoding.file, decoding.plan
        groups = [file.content.groups[number] for number in sorted({group for group, _, _ in plan.images})]
        if len({(group.images.size, group.images.grid, group.labels.kind) for group in groups}) > 1:
            raise UsageError(
                "groups of different shapes do not fit into one array",
                file=file.path,
                hint="Use the format imagefolder.",
            )
        self._places = {key: place for place, key in enumerate(plan.images)}
        self._arrays: dict[str, np.ndarray] = {
            "images": np.zeros((len(plan.images), *groups[0].images.size, 3), np.uint8),
            "classes": np.array([class_ for _, class_, _ in plan.images], np.int64),
        }
        labels = StoredLabels(file)
        rows = [row for key in plan.images if (row := labels.of(key)) is not None]
        if rows:
            self._arrays["labels"] = np.stack(rows)
        self._refuse_other(("classes", "labels"))

    def begin(self) -> None:
        pass

    def prepare(self, key: Key, image: np.ndarray) -> tuple[Key, np.ndarray]:
        return key, image

    def add(self, prepared: tuple[Key, np.ndarray]) -> None:
        key, image = prepared
        self._arrays["images"][self._places[key]] = image

    def finish(self) -> None:
        self._refuse_other(tuple(self._arrays))
        with saved_beside(self._path) as handle:
            np.savez(handle, **self._arrays)  # type: ignore[arg-type]

    def abandon(self) -> None:
        pass

    def _refuse_other(self, names: Sequence[str]) -> None:
        """Refuse a file that is there already unless it holds these arrays."""
        if not self._path.exists():
            return
        try:
            with open(self._path, "rb") as handle:
                there = np.load(handle, allow_pickle=False)
                same = (
                    isinstance(there, np.lib.npyio.NpzFile)
                    and set(there.files) == set(self._arrays)
                    and all(np.array_equal(there[name], self._arrays[name]) for name in names if name in self._arrays)
                )
        except Exception:  # what a damaged or a strange file raises depends on where it is so
            same = False
        if not same:
            raise OutputError("the output exists and holds something else", file=str(self._path), hint=OTHER)
