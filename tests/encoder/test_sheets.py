"""Images on contact sheets: the best quality within a size, and what a reader gets of it."""

from __future__ import annotations

import numpy as np
import pytest
from photograph_case import NAMES, photographs
from PIL import features

from d3codec.decoder.plan import Plan
from d3codec.decoder.units import decoded_units
from d3codec.encoder import sheets
from d3codec.encoder.pack import class_section
from d3codec.encoder.sheets import Sheets, smallest_format, store_images, store_within
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Classes

PICTURES = np.stack(photographs(count=4, side=16).images)
LOSSY = ["webp", pytest.param("avif", marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF here"))]


def read(stored: Sheets) -> np.ndarray:
    """What a reader of a file with these sheets decodes."""
    sections = {("cls", None): class_section(NAMES, None, "none"), ("img", 0): stored.section}
    file = D3MFile.open(write_d3m(ContentDraft(Classes(authority="none", count=3), (stored.group,)), sections))
    units = decoded_units(file, Plan.of(file.content), profile="reproducible", device="cpu", cache=False)
    return np.concatenate([pixels for _, pixels in units])


def test_png_keeps_every_pixel():
    stored = store_images(PICTURES, 3, (2, 2), "png", None)
    assert (stored.images == PICTURES).all()
    assert (read(stored) == PICTURES).all()
    assert (stored.group.images.count, stored.group.images.grid, stored.group.generator) == (4, (2, 2), None)


@pytest.mark.parametrize("format", LOSSY)
def test_others_decode_to_what_the_encoder_saw(format):
    stored = store_images(PICTURES, 3, (1, 1), format, 70)
    assert (read(stored) == stored.images).all()
    assert np.abs(stored.images.astype(int) - PICTURES).mean() < 15


def test_a_sheet_a_class_where_one_would_be_large(monkeypatch):
    assert store_images(PICTURES, 3, (1, 1), "png", None).group.recipe.per_sheet == 12
    monkeypatch.setattr(sheets, "ONE_SHEET_PIXELS", 12 * 16 * 16 - 1)
    stored = store_images(PICTURES, 3, (1, 1), "png", None)
    assert stored.group.recipe.per_sheet == 4
    assert (read(stored) == PICTURES).all()


def test_sheets_stay_narrower_than_the_format_allows():
    wide = np.zeros((6, 1, 4096, 3), np.uint8)
    assert (read(store_images(wide, 3, (1, 1), "png", None)) == wide).all()


@pytest.mark.parametrize("format", LOSSY)
def test_the_highest_quality_that_fits(format):
    sizes = [len(store_images(PICTURES, 3, (1, 1), format, quality).section) for quality in (0, 50, 100)]
    for limit in (sizes[0], sizes[1], (sizes[1] + sizes[2]) // 2, sizes[2] + 9):
        found = store_within(PICTURES, 3, (1, 1), format, limit)
        assert len(found.section) <= limit
        assert (found.images == read(found)).all()
        if limit == sizes[1]:  # qualities next to each other are not always in order of size
            assert len(found.section) >= 0.95 * sizes[1]
        if limit > sizes[2]:
            assert len(found.section) == sizes[2]


@pytest.mark.parametrize("format", ["png", *LOSSY])
def test_the_smallest_where_nothing_fits(format):
    found = store_within(PICTURES, 3, (1, 1), format, 10)
    assert found.section == store_images(PICTURES, 3, (1, 1), format, None if format == "png" else 0).section


def test_the_smallest_format_is_one_that_can_be_written():
    assert store_images(PICTURES[:3], 3, (1, 1), smallest_format(), 30).section
