"""Stored images: contact sheets <-> files in PNG, AVIF or WebP, and the section `img` that holds them (spec section 5).

A sheet shows images of one size as tiles, row after row. Every file is told by its own head before anything is decoded,
so a small file cannot ask for more memory than the records of the dataset promise. What a file says of colour spaces,
orientation or display is not used. Needs numpy and Pillow.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from d3codec.errors import MissingError, SectionError

Pixels = NDArray[np.uint8]

FORMATS = ("png", "avif", "webp")
AVIF_SPEED, AVIF_SPEED_LARGE = 3, 6  # of its encoder
LARGE_PIXELS = 1 << 20  # sheets of more are encoded at the second speed
SPARE = 128  # level of unused tiles
_LIBRARIES = {"png": (), "avif": ("avif",), "webp": ("webp",)}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}


# ------------------------------------------------------------------------------------------------------- section


def join_sheets(files: Sequence[bytes]) -> bytes:
    """The section `img` of the files of a group's sheets, in order: the length of each, 32 bits, then the files.

    Raises ValueError for a file of 4 GiB or more.
    """
    for number, file in enumerate(files):
        if len(file) >= 1 << 32:
            raise ValueError(f"sheet {number} has {len(file)} bytes, 4 GiB or more")
    return struct.pack(f"<{len(files)}I", *map(len, files)) + b"".join(files)


def sheet_bounds(table: bytes, sheets: int, size: int) -> NDArray[np.int64]:
    """Where each sheet begins in the section, and where the last one ends: int64 [sheets + 1].

    Arguments:
        table: the section, of which the first 4 * sheets bytes count.
        size: bytes of the whole section.

    Raises SectionError (E_SECTION_VALUE) for files that do not fill it.
    """
    if len(table) < 4 * sheets:
        raise SectionError(
            "E_SECTION_VALUE", "lengths of its sheets", field="img", found=f"{size} bytes", expected=f">= {4 * sheets}"
        )
    lengths = np.frombuffer(table, "<u4", sheets).astype(np.int64)
    bounds = 4 * sheets + np.concatenate([[0], np.cumsum(lengths)])
    if bounds[-1] != size:
        raise SectionError(
            "E_SECTION_VALUE",
            "sheets that do not fill it",
            field="img",
            found=f"{size} bytes",
            expected=f"{bounds[-1]} by their lengths",
        )
    return bounds


def split_sheets(section: bytes, sheets: int) -> list[bytes]:
    """The files of `join_sheets`. Raises as `sheet_bounds` does."""
    bounds = sheet_bounds(section, sheets, len(section)).tolist()
    return [section[first:last] for first, last in pairwise(bounds)]


# -------------------------------------------------------------------------------------------------------- sheets


def sheet_size(count: int, size: tuple[int, int], columns: int) -> tuple[int, int]:
    """Height and width in pixels of a sheet of `count` images of `size` (height, width)."""
    return -(-count // columns) * size[0], columns * size[1]


def encode_sheet(images: Pixels, columns: int, format: str, quality: int | None = None) -> bytes:
    """One file with all these images on it.

    Arguments:
        images: uint8 [n, height, width, 3].
        columns: tiles side by side.
        format: `png`, which keeps every value, `avif` (4:2:0) or `webp`.
        quality: 0 to 100, of avif and webp.

    The same bytes for the same images with one version of Pillow and its libraries. Raises ValueError for other
    arrays, formats and qualities, MissingError for a Pillow that cannot write the format.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(f"images are uint8 [n, height, width, 3], not {images.dtype} {list(images.shape)}")
    if format not in FORMATS or (quality is None) != (format == "png"):
        raise ValueError(f"no sheets in the format {format} with quality {quality}")
    if quality is not None and not 0 <= quality <= 100:
        raise ValueError(f"a quality is 0 to 100, not {quality}")
    require_format(format)
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    tiles = np.full((rows * columns, height, width, 3), SPARE, np.uint8)
    tiles[: len(images)] = images
    sheet = tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    options: dict[str, Any] = {"optimize": True}
    if format == "webp":
        options = {"quality": quality, "method": 6}
    elif format == "avif":
        speed = AVIF_SPEED_LARGE if sheet.shape[0] * sheet.shape[1] > LARGE_PIXELS else AVIF_SPEED
        # One thread and no tiles of its own, since their number depends on the machine.
        options = {"quality": quality, "subsampling": "4:2:0", "speed": speed, "max_threads": 1, "autotiling": False}
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet)).save(stream, format.upper(), **options)
    return stream.getvalue()


def decode_sheet(data: bytes, format: str, count: int, size: tuple[int, int], columns: int) -> Pixels:
    """The images of a sheet, uint8 [count, height, width, 3].

    Arguments:
        format: that it must have. count: its images. size: their height and width. columns: tiles side by side.

    Raises SectionError (E_SECTION_VALUE) for bytes that are not exactly such a sheet, MissingError for a Pillow that
    cannot read the format.
    """
    image = _opened(data, format, sheet_size(count, size, columns))
    with _refused(format):
        sheet = np.asarray(image)
    height, width = size
    tiles = sheet.reshape(-1, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    images: Pixels = tiles[:count].copy()
    return images


def check_sheet(data: bytes, format: str, count: int, size: tuple[int, int], columns: int) -> None:
    """Raises as `decode_sheet` does, for what the head of the file tells; no pixel is decoded."""
    _opened(data, format, sheet_size(count, size, columns))


def supported(format: str) -> bool:
    """Whether this Pillow reads and writes a format."""
    return all(features.check(library) for library in _LIBRARIES[format])


def require_format(format: str) -> None:
    """MissingError if this Pillow neither reads nor writes a format."""
    if not supported(format):
        raise MissingError(
            f"this Pillow has no {format.upper()}",
            field="format",
            found=codec_versions(())[0],
            hint="pip install 'pillow>=11.3'",
        )


def codec_versions(formats: Sequence[str]) -> list[str]:
    """Pillow and the libraries that it reads these formats with, `name version` each."""
    libraries = [library for format in sorted(set(formats)) for library in _LIBRARIES[format]]
    return [f"Pillow {features.version('pil')}", *(f"lib{name} {features.version(name)}" for name in libraries)]


# --------------------------------------------------------------------------------------------------------- files


def _opened(data: bytes, format: str, size: tuple[int, int]) -> Image.Image:
    """A file whose head says that it is what it must be, not decoded."""
    require_format(format)
    if (stated := _STATED.get(format)) is not None:  # before the library, which makes room at once
        _check_size(format, stated(data), size)
    with _refused(format):
        image = Image.open(io.BytesIO(data), formats=[format.upper()])
    single = image.mode == "RGB" and getattr(image, "n_frames", 1) == 1
    _check_size(format, (image.height, image.width) if single else None, size)
    return image


def _check_size(format: str, found: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    if found != expected:
        raise SectionError(
            "E_SECTION_VALUE",
            "a sheet of another format or size",
            field="img",
            found=None if found is None else f"{found[0]} x {found[1]} pixels",
            expected=f"one {format} image of {expected[0]} x {expected[1]} pixels, 8 bits of red, green and blue",
        )


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a whole PNG of 8-bit red, green and blue, not interlaced, without animation; else None.

    Pillow loads one whose pixels have a wrong CRC, and whatever stands behind the end.
    """
    if len(data) < 33 or data[:8] != _PNG or data[12:16] != b"IHDR":
        return None
    width, height, *form = struct.unpack_from(">IIBBBBB", data, 16)
    at, bytes_ = 8, memoryview(data)
    while form == [8, 2, 0, 0, 0] and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        crc = int.from_bytes(bytes_[end : end + 4], "big")
        if kind in _PNG_ANIMATION or end + 4 > len(data) or zlib.crc32(bytes_[at + 4 : end]) != crc:
            return None
        at = end + 4
        if kind == b"IEND":
            return (height, width) if at == len(data) else None
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a WebP without alpha and animation; else None."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind, flags = data[12:16], data[20]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X" and not flags & 0x12:
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    return None


_STATED: dict[str, Callable[[bytes], tuple[int, int] | None]] = {"png": _png_size, "webp": _webp_size}


@contextmanager
def _refused(format: str) -> Iterator[None]:
    """Pillow has many classes of errors for files that are damaged or something else."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise SectionError("E_SECTION_VALUE", f"not a {format} image ({type(error).__name__})", field="img") from error
