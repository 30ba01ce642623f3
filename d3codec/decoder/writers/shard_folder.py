"""A part of a dataset as `d3codec join` takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d3codec.decoder.digests import image_digest
from d3codec.decoder.shard import Key, Shard
from d3codec.decoder.writers.image_folder import ImageFolder, picture_name
from d3codec.decoder.writers.output import Decoding
from d3codec.decoder.writers.saving import save

DIGESTS, DATASET = "digests.txt", "dataset.d3m"


class ShardFolder(ImageFolder):
    """An image folder that can be joined without anything else: beside the pictures it holds the `.d3m` file itself
    and, at the end, the SHA-256 of the pixels of each of its images (`HEX  00003/000017`, in order)."""

    def __init__(self, folder: Path, decoding: Decoding, shard: Shard) -> None:
        more = {"shard": str(shard), **decoding.selection}
        super().__init__(folder, decoding, more, beside=(DIGESTS, DATASET))
        self._digests: dict[str, bytes] = {}

    def begin(self) -> None:
        super().begin()
        save(self._folder / DATASET, self._decoding.file.read_all())

    def prepare(self, key: Key, image: np.ndarray) -> tuple[str, bytes]:
        super().prepare(key, image)
        return picture_name(key[1], self._decoding.number(key)).removesuffix(".png"), image_digest(image)

    def add(self, prepared: tuple[str, bytes]) -> None:
        name, digest = prepared
        self._digests[name] = digest

    def finish(self) -> None:
        lines = [f"{digest.hex()}  {name}\n" for name, digest in sorted(self._digests.items())]
        save(self._folder / DIGESTS, "".join(lines).encode())
        super().finish()
