"""From the generator's 8-bit images to those of the dataset: cut, resize, augment (spec section 7).

uint8 in, uint8 out, integers between: every machine gives the same bytes. Wherever a step divides, it does so
once and rounds half to even. Nothing here knows a generator or a file.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from d3codec import portable
from d3codec.noise import AUGMENTATION, philox4x32

Pixels = NDArray[np.uint8]
_Integers = NDArray[np.int64]

_MILLION = 1_000_000
_ANGLE_BITS = 16  # of the sines and cosines of a rotation
_DEGREE = Fraction("0.0174532925199432957692369076848861271344287188854172545609719144")  # in radians
_DRAWS = 9


def window_resize(images: Pixels, block: tuple[int, int, int, int], size: tuple[int, int]) -> Pixels:
    """Cut one block out of every image and resize it by the area rule.

    Arguments:
        images: uint8 [N, H, W, 3].
        block: (top, left, height, width) in pixels, inside the image.
        size: (h, w) of the result, smaller or larger than the block, in any ratio.

    Returns uint8 [N, h, w, 3]. Output pixel (i, j) is the mean of the block, taken as constant on each of its
    pixels, over the rectangle from (i * height / h, j * width / w) to ((i + 1) * height / h, (j + 1) * width / w),
    rounded half to even once. So: the sum over block pixels (p, q) of value * a(i, p) * b(j, q), divided by
    height * width, where the overlaps are the integers

        a(i, p) = max(0, min((i + 1) * height, (p + 1) * h) - max(i * height, p * h))

    and b likewise across. A block of the size of the result is copied. Sides up to 4,096 stay below 2^53.
    Raises ValueError for a block that is empty or leaves the image, or an empty size.
    """
    top, left, height, width = block
    if top < 0 or left < 0 or height < 1 or width < 1:
        raise ValueError(f"the block {block} is not inside an image")
    if top + height > images.shape[1] or left + width > images.shape[2]:
        raise ValueError(f"the block {block} leaves the image of {images.shape[1]} x {images.shape[2]}")
    if min(size) < 1:
        raise ValueError(f"a size of {size[0]} x {size[1]}")
    cut = images[:, top : top + height, left : left + width]
    if tuple(size) == (height, width):
        return cut.copy()
    resized = np.empty((len(images), *size, images.shape[3]), np.uint8)
    for image, result in zip(cut, resized, strict=True):  # one at a time: eight bytes a value
        sums = _area_sums(_area_sums(image.astype(np.int64), size[0], 0), size[1], 1)
        result[:] = _rounded(sums, height * width)
    return resized


def augment_gdd(image: Pixels, key: int, stream: int, source: int, copy: int) -> Pixels:
    """One augmented copy of an image, uint8 [h, w, 3], as GDD's post data augmentation makes it.

    `key` is the group's noise key, `stream` the class position, `source` the index of the image, `copy` its number;
    copy 0 is the image itself. Philox4x32-10 under the key gives the words w0 .. w8, which are words 0 .. 8 of
    blocks 0, 1 and 2 with the counters (block, source, stream, 1 << 24 | copy). A word w *happens* with
    probability n / 10 if 10 * w < n * 2^32, and *picks* from a to b the number a + ((b - a + 1) * w >> 32). All nine
    are drawn for every copy, whatever happens. In this order:

    1. w0 happens with 8/10: columns are reversed.
    2. w1 happens with 8/10: rows are reversed.
    3. w2 happens with 5/10: contrast c = w3 picks 800,000 .. 1,200,000 and brightness b = w4 picks -200,000 ..
       200,000, in millionths; a value v becomes R((c * v + b * 255) / 1,000,000), clamped to 0 .. 255.
    4. w5 happens with 8/10: rotation (`rotate`) by d = w6 picks -60 .. 60 degrees.
    5. w7 happens with 5/10: gamma g = w8 picks 80 .. 120, in hundredths; v becomes R(255 * (v / 255)^(g / 100)).

    R rounds the exact number to the nearest integer, half to even. Raises ValueError for numbers out of range
    (key 64 bits, source and stream 32, copy 24) or another shape or dtype.

    Reference: Su et al., "Generative dataset distillation based on diffusion model", arXiv 2408.08610, as its
    published code runs it: albumentations HorizontalFlip(0.8), VerticalFlip(0.8), RandomBrightnessContrast(0.5),
    Rotate(60, 0.8), RandomGamma(0.5) with the defaults of that time (1.4.10): limits 0.2, brightness of the largest
    value, bilinear with border reflect 101, gamma 80 to 120. That library draws angle and gamma from a continuum and
    cuts off fractions of a value; its random crop has the size of the image. Nothing there is seeded.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"an image is uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    words = _words(key, stream, source, copy)
    if copy == 0:
        return image.copy()
    if _happens(words[0], 8):
        image = image[:, ::-1]
    if _happens(words[1], 8):
        image = image[::-1]
    if _happens(words[2], 5):
        contrast = _pick(words[3], 800_000, 1_200_000)
        brightness = _pick(words[4], -200_000, 200_000)
        image = contrast_table(contrast, brightness)[image]
    if _happens(words[5], 8):
        image = rotate(image, _pick(words[6], -60, 60))
    if _happens(words[7], 5):
        image = gamma_table(_pick(words[8], 80, 120))[image]
    return image.copy()


def contrast_table(contrast: int, brightness: int) -> Pixels:
    """What each value becomes, uint8 [256]: R((contrast * v + brightness * 255) / 1,000,000), clamped to 0 .. 255."""
    levels = np.arange(256, dtype=np.int64) * contrast + brightness * 255
    return np.clip(_rounded(levels, _MILLION), 0, 255).astype(np.uint8)


@cache
def gamma_table(hundredths: int) -> Pixels:
    """What each value becomes, uint8 [256], read-only: R(255 * (v / 255)^(hundredths / 100)), exactly.

    With g hundredths, k is the result if k - 1/2 and k + 1/2 lie on both sides of the power; 100th powers of both
    sides make that a comparison of integers, (2 k + 1)^100 * 255^g with v^g * 510^100. The left one is odd, the
    right one even, so no half occurs. Raises ValueError for g < 1.
    """
    if hundredths < 1:
        raise ValueError(f"a gamma of {hundredths} hundredths")
    table, result = [], 0
    for value in range(256):
        power = value**hundredths * 510**100
        while (2 * result + 1) ** 100 * 255**hundredths < power:  # values rise, so do results
            result += 1
        table.append(result)
    made = np.array(table, np.uint8)
    made.setflags(write=False)
    return made


def rotate(image: Pixels, degrees: int) -> Pixels:
    """The image turned about its centre by whole degrees, counterclockwise, same size, uint8 [h, w, 3].

    With C and S the integers nearest to 65,536 times cosine and sine, dx = 2 x - (w - 1) and dy = 2 y - (h - 1), the
    pixel (x, y) is found in the original at, in units of 2^-17 pixels,

        X = (w - 1) * 65,536 + C * dx - S * dy,  Y = (h - 1) * 65,536 + S * dx + C * dy

    by bilinear interpolation: with X = 2^17 * l + e and Y = 2^17 * t + f (0 <= e, f < 2^17), the sum of the values at
    (l, t), (l + 1, t), (l, t + 1) and (l + 1, t + 1) weighted by (2^17 - e)(2^17 - f), e (2^17 - f), (2^17 - e) f and
    e f, divided by 2^34 and rounded half to even. Beyond the border the image is mirrored at its outermost pixels
    (reflect 101): column i stands for m = i mod 2 (w - 1), or 2 (w - 1) - m where m exceeds w - 1; rows likewise.
    """
    height, width = image.shape[:2]
    one, half = 1 << (_ANGLE_BITS + 1), 1 << _ANGLE_BITS
    sine, cosine = _sine_cosine(degrees)
    dx = 2 * np.arange(width, dtype=np.int64) - (width - 1)
    dy = 2 * np.arange(height, dtype=np.int64)[:, None] - (height - 1)
    left, e = np.divmod((width - 1) * half + cosine * dx - sine * dy, one)
    top, f = np.divmod((height - 1) * half + sine * dx + cosine * dy, one)
    columns = [_reflected(left + step, width) for step in (0, 1)]
    rows = [_reflected(top + step, height) for step in (0, 1)]
    sums = np.zeros(image.shape, np.int64)
    for row, down in zip(rows, (one - f, f), strict=True):
        for column, across in zip(columns, (one - e, e), strict=True):
            sums += image[row, column] * (down * across)[..., None]
    return _rounded(sums, one * one).astype(np.uint8)


@cache
def _sine_cosine(degrees: int) -> tuple[int, int]:
    """The integers nearest to 2^16 times sine and cosine."""
    cut = portable.BITS - _ANGLE_BITS
    sine, cosine = (
        (value + (1 << (cut - 1))) >> cut for value in portable.sine_cosine(portable.fixed(degrees * _DEGREE))
    )
    return sine, cosine


def _area_sums(values: _Integers, size: int, axis: int) -> _Integers:
    """Sums along an axis of n values under the overlaps of `window_resize`: `size` of them, of weight n each."""
    length = values.shape[axis]
    shape = [1] * values.ndim
    shape[axis] = size + 1
    # The integral up to i * n / size, in units of 1 / size: whole values by a running sum, a part of the next.
    whole, part = np.divmod(np.arange(size + 1, dtype=np.int64) * length, size)
    before = np.cumsum(values, axis=axis) - values
    last = np.minimum(whole, length - 1)
    integral = np.take(before, last, axis) * size
    integral += np.take(values, last, axis) * np.where(whole == length, size, part).reshape(shape)
    sums: _Integers = np.diff(integral, axis=axis)
    return sums


def _rounded(numerators: _Integers, denominator: int) -> _Integers:
    """Quotients rounded half to even."""
    quotients, rests = np.divmod(numerators, denominator)
    rounded: _Integers = quotients + ((2 * rests + (quotients & 1)) > denominator)
    return rounded


def _reflected(index: _Integers, length: int) -> _Integers:
    if length == 1:
        return np.zeros_like(index)
    within = index % (2 * (length - 1))
    return np.minimum(within, 2 * (length - 1) - within)


def _words(key: int, stream: int, source: int, copy: int) -> list[int]:
    """The nine words of one copy."""
    for name, value, bits in (("stream", stream, 32), ("source", source, 32), ("copy", copy, 24)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} is {value}, outside 0 to 2^{bits} - 1")
    counter = np.empty((-(-_DRAWS // 4), 4), np.uint32)
    counter[:, 0] = np.arange(len(counter))
    counter[:, 1:] = source, stream, AUGMENTATION << 24 | copy
    words: list[int] = philox4x32(counter, key).reshape(-1)[:_DRAWS].tolist()
    return words


def _happens(word: int, tenths: int) -> bool:
    return 10 * word < tenths << 32


def _pick(word: int, first: int, last: int) -> int:
    return first + ((last - first + 1) * word >> 32)
