"""Contact sheets as PNG, AVIF and WebP files, and what is refused before anything is decoded."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from d3codec import images
from d3codec.errors import SectionError

SIZE = (12, 20)
TILES = np.random.default_rng(1).integers(0, 256, (5, 3, 5, 3), np.uint8).repeat(4, 1).repeat(4, 2)
FORMATS = [("png", None), ("avif", 60), ("webp", 70)]


def saved(picture: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def sheet(columns: int = 2) -> Image.Image:
    """The sheet of the five tiles as a picture."""
    return Image.open(io.BytesIO(images.encode_sheet(TILES, columns, "png")))


def refused(data: bytes, format: str = "png", count: int = 5, size: tuple[int, int] = SIZE, columns: int = 2) -> None:
    """Bytes that are no sheet of the five tiles, to those who look at the head and to those who decode."""
    for look in (images.check_sheet, images.decode_sheet):
        with pytest.raises(SectionError, match="img: E_SECTION_VALUE"):
            look(data, format, count, size, columns)


# --------------------------------------------------------------------------------------------------------- sheets


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_png_keeps_every_value(count, columns, height, width, seed):
    tiles = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    data = images.encode_sheet(tiles, columns, "png")
    images.check_sheet(data, "png", count, (height, width), columns)
    np.testing.assert_array_equal(images.decode_sheet(data, "png", count, (height, width), columns), tiles)


@pytest.mark.parametrize(("format", "quality"), FORMATS)
def test_sheets_of_every_format(format, quality):
    data = images.encode_sheet(TILES, 2, format, quality)
    assert data == images.encode_sheet(TILES, 2, format, quality)
    found = images.decode_sheet(data, format, 5, SIZE, 2)
    assert (found.shape, found.dtype) == (TILES.shape, np.uint8)
    assert np.abs(found.astype(int) - TILES).mean() < (25 if quality else 1e-9)
    if quality is not None:
        assert len(images.encode_sheet(TILES, 2, format, 5)) < len(data)


def test_tiles_stand_in_rows():
    picture = np.asarray(sheet(columns=3))
    assert picture.shape == (2 * 12, 3 * 20, 3)
    np.testing.assert_array_equal(picture[:12, 20:40], TILES[1])
    np.testing.assert_array_equal(picture[12:, :20], TILES[3])
    assert (picture[12:, 40:] == images.SPARE).all()


def test_what_cannot_be_encoded():
    for tiles in (TILES.astype(float), TILES[0], TILES[:0], TILES[..., :1]):
        with pytest.raises(ValueError, match="images are uint8"):
            images.encode_sheet(tiles, 2, "png")
    for format, quality in (("jpeg", 50), ("png", 50), ("avif", None), ("webp", None)):
        with pytest.raises(ValueError, match="no sheets in the format"):
            images.encode_sheet(TILES, 2, format, quality)
    with pytest.raises(ValueError, match="0 to 100"):
        images.encode_sheet(TILES, 2, "webp", 101)


@pytest.mark.parametrize(("format", "quality"), FORMATS)
# Shows D3M-090.
def test_another_size_or_format_is_refused(format, quality):
    data = images.encode_sheet(TILES, 2, format, quality)
    refused(data, format, count=7)
    refused(data, format, columns=1)
    refused(data, format, size=(20, 12))
    for other, _ in FORMATS:
        if other != format:
            refused(data, other)
    refused(b"", format)
    refused(b"GIF89a" + data[6:], format)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGBA", {}), ("L", {}), ("P", {}), ("I;16", {}), ("RGB", {"save_all": True, "append_images": [sheet()]})],
)
# Shows D3M-089.
def test_other_pictures_in_png_are_refused(mode, options):
    picture = sheet() if mode in ("RGB", "L", "RGBA", "P") else Image.new(mode, (40, 36))
    refused(saved(picture.convert(mode) if picture.mode != mode else picture, "PNG", **options))


def test_interlaced_and_deep_png_are_refused():
    data = bytearray(images.encode_sheet(TILES, 2, "png"))
    for at, value in ((24, 16), (25, 6), (26, 1), (27, 1), (28, 1)):  # depth, colours, compression, filter, interlace
        other = data.copy()
        other[at] = value
        other[29:33] = struct.pack(">I", zlib.crc32(other[12:29]))
        refused(bytes(other))


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_alpha_and_animation_are_refused(format):
    picture = sheet()
    refused(saved(picture, format.upper(), save_all=True, append_images=[picture.rotate(180)]), format)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    refused(saved(clear, format.upper()), format)


@pytest.mark.parametrize(("format", "quality"), FORMATS)
def test_damaged_files_are_refused_or_decoded_as_some_picture(format, quality):
    data = images.encode_sheet(TILES, 2, format, quality)
    rng = np.random.default_rng(7)
    for _ in range(60):
        other = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            other[at] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(SectionError):
            assert images.decode_sheet(bytes(other), format, 5, SIZE, 2).shape == TILES.shape
    for length in range(0, len(data), max(1, len(data) // 40)):
        with pytest.raises(SectionError):
            images.decode_sheet(data[:length], format, 5, SIZE, 2)


@pytest.mark.parametrize("format", ["png", "webp"])
# Shows D3M-090.
def test_bombs_are_refused_before_room_is_made(format):
    """Heads that promise 16,000 x 16,000 pixels in a few bytes."""
    data = bytearray(images.encode_sheet(TILES, 2, format, None if format == "png" else 5))
    if format == "png":
        data[16:24] = struct.pack(">II", 60_000, 60_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        data[26:30] = struct.pack("<HH", 16_383, 16_383)
    tracemalloc.start()
    refused(bytes(data), format)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_what_a_file_says_of_display_is_not_used():
    """Orientation, gamma and profiles of colour."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    text = PngImagePlugin.PngInfo()
    text.add(b"gAMA", struct.pack(">I", 100_000))
    data = saved(sheet(), "PNG", exif=exif, pnginfo=text, icc_profile=b"no profile at all")
    np.testing.assert_array_equal(images.decode_sheet(data, "png", 5, SIZE, 2), TILES)
    for format in ("webp", "avif"):
        turned = saved(sheet(), format.upper(), exif=exif, quality=90)
        plain = saved(sheet(), format.upper(), quality=90)
        np.testing.assert_array_equal(
            images.decode_sheet(turned, format, 5, SIZE, 2), images.decode_sheet(plain, format, 5, SIZE, 2)
        )


# -------------------------------------------------------------------------------------------------------- section


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
# Shows D3M-088.
def test_files_are_joined_and_split(files):
    section = images.join_sheets(files)
    assert images.split_sheets(section, len(files)) == files
    bounds = images.sheet_bounds(section[: 4 * len(files)], len(files), len(section))
    assert [section[first:last] for first, last in itertools.pairwise(bounds)] == files
    for wrong in (section[:-1], section + b"\0", section[: 4 * len(files) - 1]):
        if wrong != section:
            with pytest.raises(SectionError, match="img: E_SECTION_VALUE"):
                images.split_sheets(wrong, len(files))


def test_lengths_of_more_sheets_than_there_are_bytes():
    with pytest.raises(SectionError, match="lengths of its sheets"):
        images.sheet_bounds(b"\0\0\0\0", 1 << 40, 4)


def test_versions_of_the_libraries():
    assert [piece.split()[0] for piece in images.codec_versions(["webp", "avif", "webp"])] == [
        "Pillow",
        "libavif",
        "libwebp",
    ]
    assert len(images.codec_versions(["png"])) == 1
