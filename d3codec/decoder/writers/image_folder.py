"""A folder of PNG files by number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.decoder.writers.output import Decoding, OutputFolder
from d3codec.decoder.writers.saving import png, save


class ImageFolder:
    """DIR/00003/000017.png: class 3, its image 17; `classes.json` and `decode.json` beside the class folders.

    Later decodes of other images of the same dataset add to it; pictures that are there are kept.

    Raises (when made):
        OutputError: the folder holds something else than images of this content, profile and fingerprint.
    """

    def __init__(
        self, folder: Path, decoding: Decoding, more: dict[str, Any] | None = None, beside: tuple[str, ...] = ()
    ) -> None:
        self._decoding, self._beside = decoding, beside
        self._images = sum(group.images.count for group in decoding.file.content.groups)
        self._folder = folder
        self._output = OutputFolder(folder, decoding.identity | (more or {}), self._is_ours)

    def begin(self) -> None:
        self._output.begin(self._count(), {"classes.json": self._decoding.classes_json()})

    def prepare(self, key: Key, image: np.ndarray) -> Any:
        """Save the picture unless it is there."""
        path = self._folder / picture_name(key[1], self._decoding.number(key))
        if not _holds(path, image):
            save(path, png(image))

    def add(self, prepared: Any) -> None:
        pass

    def finish(self) -> None:
        self._output.note(self._count(), finished=True)

    def abandon(self) -> None:
        pass

    def _count(self) -> int:
        return sum(1 for _ in self._folder.glob("*/*.png"))

    def _is_ours(self, path: Path, pieces: tuple[str, ...]) -> bool:
        if len(pieces) == 1 and pieces[0] in ("classes.json", *self._beside):
            return path.is_file()
        if not re.fullmatch(r"\d{5,7}", pieces[0], re.ASCII):
            return False
        if len(pieces) == 1:
            return path.is_dir() and int(pieces[0]) < self._decoding.file.content.classes.count
        return (
            len(pieces) == 2
            and path.is_file()
            and re.fullmatch(r"\d{6,8}\.png", pieces[1], re.ASCII) is not None
            and int(pieces[1][:-4]) < self._images
        )


def picture_name(class_: int, number: int) -> str:
    return f"{class_:05d}/{number:06d}.png"


def read_picture(path: Path) -> np.ndarray | None:
    """Pixels of an RGB picture, uint8 [height, width, 3]; None if there is none."""
    from PIL import Image

    try:
        with Image.open(path) as there:
            return np.asarray(there) if there.mode == "RGB" else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _holds(path: Path, image: np.ndarray) -> bool:
    there = read_picture(path)
    return there is not None and np.array_equal(there, image)
