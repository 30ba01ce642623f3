"""A contact sheet: one small picture with the first images of the first classes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.decoder.writers.saving import save
from d3codec.errors import UsageError
from d3codec.format.save import check_writable

SHEET_CLASSES, SHEET_IMAGES, SHEET_BYTES = 40, 10, 300_000
PART_GREY = 128
_CELLS = (96, 64, 48, 32, 24)  # sides of a cell in pixels, tried until the file is small enough
_GAP, _NAME_WIDTH = 2, 110


class ContactSheet:
    """Collects the first images of the first classes, small, and draws them in `finish`."""

    def __init__(self, path: Path, names: Sequence[str], grid: tuple[int, int]) -> None:
        check_writable(path, lambda start: start.startswith(b"\x89PNG"))
        self._path, self._names, self._grid = path, names, grid
        self._images: dict[int, dict[tuple[int, int], np.ndarray]] = {}  # class -> group, index

    def begin(self) -> None:
        pass

    def prepare(self, key: Key, image: np.ndarray) -> tuple[Key, np.ndarray]:
        image = parted(image, self._grid)
        return key, image if max(image.shape) <= _CELLS[0] else _fitted(image, _CELLS[0])

    def add(self, prepared: tuple[Key, np.ndarray]) -> None:
        (group, class_, index), image = prepared
        row = self._images.setdefault(class_, {})
        row[group, index] = image
        if len(row) > SHEET_IMAGES:
            del row[max(row)]
        if len(self._images) > SHEET_CLASSES:
            del self._images[max(self._images)]

    def finish(self) -> None:
        rows = sorted(self._images.items())
        contact_sheet(
            [(self._names[class_], [row[place] for place in sorted(row)]) for class_, row in rows], self._path
        )

    def abandon(self) -> None:
        pass


def parted(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A collage with a grey line between its patches, so that a person sees where one ends: uint8 [H, W, 3]."""
    rows, columns = grid
    height, width = image.shape[0] // rows, image.shape[1] // columns
    image = np.insert(image, [height * row for row in range(1, rows)], PART_GREY, axis=0)
    return np.insert(image, [width * column for column in range(1, columns)], PART_GREY, axis=1)


def contact_sheet(
    images: Mapping[str, Sequence[np.ndarray]] | Sequence[tuple[str, Sequence[np.ndarray]]], path: str | Path
) -> None:
    """Draw one row a class with its name: at most 40 classes, 10 images each, a PNG below 300 KB.

    Small images are magnified by whole factors without smoothing, large ones reduced.

    Arguments:
        images: class name -> images, uint8 [height, width, 3], as a mapping or as pairs in order.

    Raises:
        OutputError: the file cannot be written. UsageError: no image is given.
    """
    pairs = list(images.items()) if isinstance(images, Mapping) else list(images)
    rows = [(name, list(row)[:SHEET_IMAGES]) for name, row in pairs[:SHEET_CLASSES] if len(row)]
    if not rows:
        raise UsageError("no image to draw", file=str(path))
    data, area = b"", 0
    for columns, cell in product((SHEET_IMAGES, SHEET_IMAGES // 2, 2), _CELLS):
        # Bytes grow about with the area: what would clearly be too large is not drawn.
        if data and len(data) * columns * cell**2 > 1.5 * SHEET_BYTES * area:
            continue
        data, area = _draw([(name, row[:columns]) for name, row in rows], cell), columns * cell**2
        if len(data) < SHEET_BYTES:
            break
    save(Path(path), data)


def _draw(rows: Sequence[tuple[str, Sequence[np.ndarray]]], cell: int) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    fitted = [(name, [_fitted(image, cell) for image in row]) for name, row in rows]
    height = max(max(image.shape[0] for _, row in fitted for image in row), 14) + _GAP
    width = max(image.shape[1] for _, row in fitted for image in row) + _GAP
    columns = max(len(row) for _, row in fitted)
    sheet = Image.new("RGB", (_NAME_WIDTH + columns * width + _GAP, len(rows) * height + _GAP), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for place, (name, row) in enumerate(fitted):
        top = _GAP + place * height
        short = name if len(name) <= 16 else name[:15] + "…"
        if not isinstance(font, ImageFont.FreeTypeFont):
            short = short.encode("latin-1", "replace").decode("latin-1")  # all that the built-in font has
        drawing.text((4, top + height // 2 - 7), short, fill="black", font=font)
        for column, image in enumerate(row):
            sheet.paste(Image.fromarray(image), (_NAME_WIDTH + column * width, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _fitted(image: np.ndarray, cell: int) -> np.ndarray:
    """Magnified by the largest whole factor that fits into the cell, or reduced to fit."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= cell:
        factor = cell // max(height, width)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = cell / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
