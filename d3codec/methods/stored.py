"""Real images on contact sheets: RDED's collages, or whole images where there is no generator at all."""

from __future__ import annotations

import numpy as np

from d3codec.encoder.rendered import Rendered
from d3codec.encoder.sheets import Format, Sheets, store_images, store_within
from d3codec.methods.made import Frame, Labelling, Made, labelled_file, within
from d3codec.methods.pool import Pool


def make_at(
    pool: Pool, format: Format, quality: int | None, labelling: Labelling, frame: Frame, grid: tuple[int, int] = (1, 1)
) -> Made:
    """A file with all images of the pool, which lie in order of class, equally many of each, at a quality (None: png).

    Raises MissingError for a Pillow without the format.
    """
    return _file(store_images(pool.images, pool.classes, grid, format, quality), pool, labelling, frame)


def make_within(
    pool: Pool, format: Format, labelling: Labelling, frame: Frame, limit: int, grid: tuple[int, int] = (1, 1)
) -> Made:
    """The same at the highest quality for which the file has at most `limit` bytes; UsageError, whose `expected` is the
    least size, if there is none."""

    known: dict[int | None, bytes] = {}

    def build(room: int) -> tuple[Made, int]:
        sheets = store_within(pool.images, pool.classes, grid, format, room, known)
        return _file(sheets, pool, labelling, frame), len(sheets.section)

    patches = len(pool.labels) * grid[0] * grid[1]
    return within(limit, 0 if labelling.judge is None else patches, build)


def _file(sheets: Sheets, pool: Pool, labelling: Labelling, frame: Frame) -> Made:
    rendered = Rendered(sheets.images, np.zeros(0, np.int64), np.zeros(0, np.uint8))
    return labelled_file(sheets.group, {"img": sheets.section}, rendered, pool, labelling, frame)
