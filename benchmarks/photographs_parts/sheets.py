"""Contact sheets in published image codecs: all images of a set as tiles of one picture, at the side and quality that
show them best within a size; and the fill that makes what comes back look like photographs again.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d3codec.training.photo_images import resize_photos

from . import spectrum

Codec = Literal["avif", "webp", "jpeg"]
SIDE_INFORMATION = 4  # bytes beside the picture: number of images, side of a tile
SIDES = (8, 12, 16, 24, 32, 48, 64)
LARGEST_QUALITY = 95

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """A sheet as stored, `data`, and its tiles as students get them, uint8 [N, S, S, 3]; psnr in dB, of all of them."""

    data: bytes
    tiles: Pixels
    side: int
    quality: int
    psnr: float

    @property
    def size(self) -> int:
        return len(self.data) + SIDE_INFORMATION


def best_sheet(originals: Pixels, images: Pixels, codec: Codec, budget: int) -> Sheet | None:
    """The sheet of at most `budget` bytes, SIDE_INFORMATION counted, that shows the images best; None if none fits.

    Arguments:
        originals: the images as their files have them, uint8 [N, P, P, 3].
        images: the same at the side of the students, uint8 [N, S, S, 3]: what PSNR is against.

    Every plausible side of a tile is tried, at the best quality that fits; quality by bisection, because bytes grow
    with it (up to small exceptions, which lose nothing but a little of the budget).
    """
    best = None
    for side in plausible_sides(budget / len(images), images.shape[1]):
        small = resized(originals, side)
        low, high, found = -1, LARGEST_QUALITY + 1, b""
        while high - low > 1:
            middle = (low + high) // 2
            data = pack(small, codec, middle)
            low, high, found = (middle, high, data) if len(data) + SIDE_INFORMATION <= budget else (low, middle, found)
        if low >= 0:
            tiles = resized(cut(found, len(images), side), images.shape[1])
            error = ((tiles.astype(np.float64) - images) ** 2).mean()
            sheet = Sheet(found, tiles, side, low, float(10 * np.log10(255**2 / max(error, 1e-9))))
            best = sheet if best is None or sheet.psnr > best.psnr else best
    return best


def plausible_sides(bytes_an_image: float, side: int) -> tuple[int, ...]:
    """Sides of tiles worth trying: three or four in a row, larger ones for more bytes, none above the students'."""
    first = sum(bytes_an_image >= limit for limit in (14, 30, 60, 150))
    possible = tuple(s for s in SIDES if s <= side)
    return possible[min(first, len(possible) - 2) :][:3]


def resized(images: Pixels, side: int) -> Pixels:
    """Down by averages where the sides divide, else Lanczos; up bicubic: uint8 [N, side, side, 3]."""
    before = images.shape[1]
    if before % side == 0:
        return resize_photos(images, side)
    filter_ = Image.Resampling.LANCZOS if side < before else Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), filter_)) for image in images])


def pack(tiles: Pixels, codec: Codec, quality: int) -> bytes:
    """One picture of all tiles, row by row in an about square sheet; the last tile fills the last row."""
    count, side = tiles.shape[:2]
    columns = columns_of(count)
    rows = -(-count // columns)
    padded = np.concatenate([tiles, np.repeat(tiles[-1:], rows * columns - count, 0)])
    picture = padded.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    picture = picture.reshape(rows * side, columns * side, 3)
    options: dict[str, dict[str, Any]] = {
        "avif": {"speed": 3 if picture.size < 300_000 else 6, "subsampling": "4:2:0", "max_threads": 1},
        "webp": {"method": 6},
        "jpeg": {"optimize": True, "subsampling": "4:2:0"},
    }
    file = io.BytesIO()
    Image.fromarray(picture).save(file, codec.upper(), quality=quality, **options[codec])
    return file.getvalue()


def cut(data: bytes, count: int, side: int) -> Pixels:
    """The tiles of `pack`, uint8 [count, side, side, 3]."""
    with Image.open(io.BytesIO(data)) as file:
        picture = np.asarray(file.convert("RGB"))
    columns = columns_of(count)
    cells = picture.reshape(-1, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(cells.reshape(-1, side, side, 3)[:count])


def columns_of(count: int) -> int:
    return max(1, round(count**0.5))


def spectral_fill(images: Pixels, copies: int, seed: int = 0) -> Pixels:
    """Copies with Gaussian noise that brings every ring of frequencies up to the power that photographs have there.

    Returns uint8 [copies, N, S, S, 3]. An image gets noise in proportion to the root of its own power at low
    frequencies (rings 2 to 6), from a quarter to twice the usual; nothing is taken away where there is enough, and
    mean colours stay.
    """
    natural = spectrum.tables()[f"rings-{images.shape[1]}"]
    known = spectrum.spectra(images)
    ring = spectrum.rings(images.shape[1])
    low = (known[:, :, (ring >= 2) & (ring <= 6)].astype(np.float64) ** 2).sum((1, 2))
    share = np.sqrt(low / max(low.mean(), 1e-9)).clip(0.25, 2)
    share /= np.sqrt((share**2).mean())
    missing = np.maximum(natural - spectrum.ring_means(known.var(0, dtype=np.float64)), 0)
    missing[:, 0] = 0  # how much mean colours vary is the images' own affair, and every codec keeps them
    spread = (np.sqrt(missing)[:, ring] * share[:, None, None, None]).astype(np.float32)
    draw = np.random.default_rng(seed)
    return np.stack(
        [spectrum.pixels(known + spread * draw.standard_normal(known.shape, np.float32)) for _ in range(copies)]
    )
