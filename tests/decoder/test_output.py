"""Output: resizing against exact fractions, augmentation against the text of its rules and stored bytes."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_noise import philox_one

from d3codec.decoder.output import augment_gdd, contrast_table, gamma_table, rotate, window_resize

SIDE = st.integers(1, 13)
DEGREES = st.integers(-60, 60)
KEY = 0x0123456789ABCDEF


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def half_even(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, half to even


def whole(images: np.ndarray) -> tuple[int, int, int, int]:
    return (0, 0, images.shape[1], images.shape[2])


# ------------------------------------------------------------------------------------------------- resize


def area_mean(image: np.ndarray, size: tuple[int, int], i: int, j: int, channel: int) -> Fraction:
    """The mean over one output pixel in fractions of pixels, from its definition as a rectangle."""
    height, width = image.shape[:2]
    total = Fraction(0)
    for p in range(height):
        low, high = Fraction(i * height, size[0]), Fraction((i + 1) * height, size[0])
        down = max(Fraction(0), min(high, Fraction(p + 1)) - max(low, Fraction(p)))
        for q in range(width if down else 0):
            low, high = Fraction(j * width, size[1]), Fraction((j + 1) * width, size[1])
            across = max(Fraction(0), min(high, Fraction(q + 1)) - max(low, Fraction(q)))
            total += down * across * int(image[p, q, channel])
    return total / (Fraction(height, size[0]) * Fraction(width, size[1]))


@settings(deadline=None, max_examples=60)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 2**32 - 1))
# Shows D3M-123.
def test_resizing_is_the_rounded_exact_mean(height: int, width: int, h: int, w: int, seed: int) -> None:
    image = picture(height, width, seed)
    found = window_resize(image[None], (0, 0, height, width), (h, w))
    assert found.shape == (1, h, w, 3)
    assert found.dtype == np.uint8
    channel = seed % 3
    for i in range(h):
        for j in range(w):
            assert found[0, i, j, channel] == half_even(area_mean(image, (h, w), i, j, channel))


def test_halves_go_to_the_even_side() -> None:
    rows = np.array([[0, 1], [1, 2], [2, 3], [254, 255]], np.uint8)
    images = np.repeat(rows[:, None, :, None], 3, axis=3)
    assert window_resize(images, (0, 0, 1, 2), (1, 1))[:, 0, 0, 0].tolist() == [0, 2, 2, 254]


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (7, 50), (64, 64), (96, 65), (128, 1)])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_images_stay_constant(value: int, size: tuple[int, int]) -> None:
    images = np.full((2, 64, 48, 3), value, np.uint8)
    found = window_resize(images, whole(images), size)
    assert found.shape == (2, *size, 3)
    assert (found == value).all()


def test_whole_ratios_are_means_and_repeats_of_pixels() -> None:
    images = picture(12, 20)[None]
    halved = images.reshape(1, 6, 2, 10, 2, 3).astype(int).sum((2, 4))
    expected = np.vectorize(lambda total: half_even(Fraction(int(total), 4)))(halved)
    assert np.array_equal(window_resize(images, whole(images), (6, 10)), expected)
    grown = window_resize(images, whole(images), (36, 40))
    assert np.array_equal(grown, images.repeat(3, axis=1).repeat(2, axis=2))
    assert np.array_equal(window_resize(grown, whole(grown), (12, 20)), images)


@settings(deadline=None, max_examples=40)
@given(SIDE, SIDE, SIDE, SIDE)
def test_resizing_knows_no_direction(height: int, width: int, h: int, w: int) -> None:
    """Flipped or transposed images give flipped or transposed results."""
    image = picture(height, width)
    result = window_resize(image[None], (0, 0, height, width), (h, w))[0]
    flipped = window_resize(image[None, ::-1, ::-1], (0, 0, height, width), (h, w))[0]
    assert np.array_equal(flipped, result[::-1, ::-1])
    turned = window_resize(image.swapaxes(0, 1)[None], (0, 0, width, height), (w, h))[0]
    assert np.array_equal(turned, result.swapaxes(0, 1))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_block_is_all_that_counts(data: st.DataObject) -> None:
    height, width = data.draw(SIDE), data.draw(SIDE)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    size = (data.draw(SIDE), data.draw(SIDE))
    images = np.stack([picture(height, width, seed) for seed in (1, 2)])
    cut = images[:, top:bottom, left:right]
    found = window_resize(images, (top, left, bottom - top, right - left), size)
    assert np.array_equal(found, window_resize(cut, whole(cut), size))
    assert np.array_equal(found[1:], window_resize(images[1:], (top, left, bottom - top, right - left), size))


def test_a_block_of_the_right_size_is_copied() -> None:
    images = picture(9, 9)[None]
    found = window_resize(images, (2, 3, 4, 5), (4, 5))
    assert np.array_equal(found, images[:, 2:6, 3:8])
    assert not np.shares_memory(found, images)


def test_the_largest_sides_do_not_overflow() -> None:
    images = np.full((1, 4096, 4096, 1), 255, np.uint8)
    images[0, 0, 0] = 0
    found = window_resize(images, whole(images), (4095, 3))
    assert found[0, 1:].min() == found[0, :, 1:].min() == 255
    # the rectangle of the first one holds 4096 / 4095 x 4096 / 3 pixels, one of them black
    assert found[0, 0, 0, 0] == half_even(255 * (1 - Fraction(4095 * 3, 4096 * 4096)))
    wide = window_resize(images[:, :, :1], (0, 0, 4096, 1), (1, 4096))
    assert (wide == half_even(255 * Fraction(4095, 4096))).all()


@pytest.mark.parametrize(
    ("block", "size", "message"),
    [
        ((0, 0, 5, 4), (2, 2), "leaves the image of 4 x 6"),
        ((0, 3, 4, 4), (2, 2), "leaves the image of 4 x 6"),
        ((-1, 0, 4, 4), (2, 2), "not inside"),
        ((0, 0, 0, 4), (2, 2), "not inside"),
        ((0, 0, 4, 4), (2, 0), "a size of 2 x 0"),
    ],
)
def test_impossible_blocks_are_refused(block: tuple[int, int, int, int], size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_resize(picture(4, 6)[None], block, size)


# ------------------------------------------------------------------------------------------------- tables


@settings(deadline=None, max_examples=60)
@given(st.integers(800_000, 1_200_000), st.integers(-200_000, 200_000))
@example(1_000_000, 0)
@example(1_500_000, 0)
def test_contrast_tables_are_exact(contrast: int, brightness: int) -> None:
    found = contrast_table(contrast, brightness)
    assert found.dtype == np.uint8
    for value in range(256):
        exact = Fraction(contrast, 10**6) * value + Fraction(brightness, 10**6) * 255
        assert found[value] == min(max(half_even(exact), 0), 255)


@pytest.mark.parametrize("gamma", [1, 50, 80, 93, 99, 100, 101, 120, 300])
def test_gamma_tables_are_the_nearest_integers(gamma: int) -> None:
    found = gamma_table(gamma)
    with localcontext() as context:
        context.prec = 60
        for value in range(1, 256):
            exact = 255 * (Decimal(value) / 255) ** (Decimal(gamma) / 100)
            assert found[value] == int(exact.to_integral_value())
    assert (found[0], found[255]) == (0, 255)


def test_a_gamma_of_one_changes_nothing() -> None:
    assert gamma_table(100).tolist() == [*range(256)]
    assert not gamma_table(100).flags.writeable
    with pytest.raises(ValueError, match="a gamma of 0"):
        gamma_table(0)


# ----------------------------------------------------------------------------------------------- rotation


def mirrored(index: int, length: int) -> int:
    """Reflect 101 by walking: ... 2 1 0 1 2 ... n-2 n-1 n-2 ..."""
    while not 0 <= index < length:
        index = -index if index < 0 else 2 * (length - 1) - index
        if length == 1:
            return 0
    return index


def rotated_pixel(image: np.ndarray, degrees: int, x: int, y: int) -> list[int]:
    """One pixel in fractions, as the docstring of `rotate` states it."""
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    cosine, sine = (Fraction(round(65536 * value), 65536) for value in (math.cos(angle), math.sin(angle)))
    across, down = x - Fraction(width - 1, 2), y - Fraction(height - 1, 2)
    place_x = Fraction(width - 1, 2) + cosine * across - sine * down
    place_y = Fraction(height - 1, 2) + sine * across + cosine * down
    left, top = math.floor(place_x), math.floor(place_y)
    e, f = place_x - left, place_y - top
    totals = [Fraction(0)] * 3
    for column, weight_x in ((left, 1 - e), (left + 1, e)):
        for row, weight_y in ((top, 1 - f), (top + 1, f)):
            values = image[mirrored(row, height), mirrored(column, width)]
            totals = [total + weight_x * weight_y * int(value) for total, value in zip(totals, values, strict=True)]
    return [half_even(total) for total in totals]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), DEGREES, st.integers(0, 99))
@example(1, 9, 60, 0)
@example(9, 2, -45, 0)
def test_rotation_is_exact(height: int, width: int, degrees: int, seed: int) -> None:
    image = picture(height, width, seed)
    expected = [[rotated_pixel(image, degrees, x, y) for x in range(width)] for y in range(height)]
    found = rotate(image, degrees)
    assert found.dtype == np.uint8
    assert found.tolist() == expected


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), DEGREES)
def test_rotation_is_symmetric(height: int, width: int, degrees: int) -> None:
    image = picture(height, width)
    found = rotate(image, degrees)
    assert np.array_equal(rotate(image[::-1, ::-1], degrees), found[::-1, ::-1])  # by 180 degrees
    assert np.array_equal(rotate(image[:, ::-1], -degrees), found[:, ::-1])
    assert np.array_equal(rotate(image[::-1], -degrees), found[::-1])
    assert np.array_equal(rotate(image.swapaxes(0, 1), -degrees), found.swapaxes(0, 1))


def test_rotation_is_counterclockwise() -> None:
    image = picture(16, 16)
    for quarter in range(-3, 4):
        assert np.array_equal(rotate(image, 90 * quarter), np.rot90(image, quarter))
    assert np.array_equal(rotate(image, 0), image)


@pytest.mark.parametrize("degrees", [-60, -7, 33, 60])
def test_rotating_a_constant_image_changes_nothing(degrees: int) -> None:
    image = np.full((20, 31, 3), 77, np.uint8)
    assert np.array_equal(rotate(image, degrees), image)


# ------------------------------------------------------------------------------------------- augmentation


def words_of(key: int, stream: int, source: int, copy: int) -> list[int]:
    """The nine words of a copy, by the Philox of Python integers."""
    words = [word for block in range(3) for word in philox_one([block, source, stream, 1 << 24 | copy], key)]
    return words[:9]


def pick(word: int, first: int, last: int) -> int:
    return first + math.floor(Fraction(word, 2**32) * (last - first + 1))


def by_the_text(image: np.ndarray, words: list[int]) -> np.ndarray:
    """The five steps as the docstring counts them."""
    if Fraction(words[0], 2**32) < Fraction(8, 10):
        image = np.fliplr(image)
    if Fraction(words[1], 2**32) < Fraction(8, 10):
        image = np.flipud(image)
    if Fraction(words[2], 2**32) < Fraction(5, 10):
        image = contrast_table(pick(words[3], 800_000, 1_200_000), pick(words[4], -200_000, 200_000))[image]
    if Fraction(words[5], 2**32) < Fraction(8, 10):
        image = rotate(image, pick(words[6], -60, 60))
    if Fraction(words[7], 2**32) < Fraction(5, 10):
        image = gamma_table(pick(words[8], 80, 120))[image]
    return image


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**24 - 1))
# Shows D3M-124.
def test_augmentation_follows_its_text(key: int, stream: int, source: int, copy: int) -> None:
    image = picture(6, 5)
    found = augment_gdd(image, key, stream, source, copy)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, by_the_text(image, words_of(key, stream, source, copy)))
    assert np.array_equal(image, picture(6, 5))


def test_copy_zero_is_the_image() -> None:
    image = picture(8, 8)
    found = augment_gdd(image, KEY, 3, 5, 0)
    assert np.array_equal(found, image)
    assert not np.shares_memory(found, image)


def test_every_coordinate_counts() -> None:
    image = picture(16, 16)
    arguments = [(KEY, 3, 5, 1), (KEY + 1, 3, 5, 1), (KEY, 4, 5, 1), (KEY, 3, 6, 1), (KEY, 3, 5, 2), (KEY, 5, 3, 1)]
    assert len({augment_gdd(image, *numbers).tobytes() for numbers in arguments}) == len(arguments)


def test_frequencies_are_those_of_the_method() -> None:
    """Each step as often as stated, within five standard deviations; parameters over their whole ranges."""
    count = 4000
    words = np.array([words_of(KEY, n % 10, n // 10, 1 + n % 4) for n in range(count)], dtype=object)
    for column, tenths in ((0, 8), (1, 8), (2, 5), (5, 8), (7, 5)):
        share = Fraction(sum(10 * int(word) < tenths << 32 for word in words[:, column]), count)
        assert abs(share - Fraction(tenths, 10)) < 5 * math.sqrt(tenths * (10 - tenths) / 100 / count)
    assert {pick(int(word), -60, 60) for word in words[:, 6]} == {*range(-60, 61)}
    assert {pick(int(word), 80, 120) for word in words[:, 8]} == {*range(80, 121)}


@pytest.mark.parametrize(
    "numbers", [(2**64, 0, 0, 1), (-1, 0, 0, 1), (0, 2**32, 0, 1), (0, 0, 2**32, 1), (0, 0, 0, 2**24), (0, 0, 0, -1)]
)
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="outside 0 to"):
        augment_gdd(picture(4, 4), *numbers)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"an image is uint8 \[h, w, 3\]"):
        augment_gdd(image, 0, 0, 0, 1)


# ------------------------------------------------------------------------------------------ stored bytes


def ramp(height: int, width: int) -> np.ndarray:
    """A picture from integers alone, the same on every machine and with every numpy."""
    y, x, c = np.indices((height, width, 3))
    return ((x * x * 7 + y * 13 + x * y * 3 + c * 85) % 256).astype(np.uint8)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


GOLDEN = {
    "resize 48x40 -> 32x32": lambda: window_resize(ramp(64, 64)[None], (8, 16, 48, 40), (32, 32)),
    "resize 24x24 -> 64x50": lambda: window_resize(ramp(24, 24)[None], (0, 0, 24, 24), (64, 50)),
    "gamma tables": lambda: np.stack([gamma_table(g) for g in range(80, 121)]),
    "rotations": lambda: np.stack([rotate(ramp(20, 20), d) for d in range(-60, 61)]),
    "copies of 32x32": lambda: np.stack([augment_gdd(ramp(32, 32), KEY, 7, s, c) for s in range(8) for c in range(5)]),
}
DIGESTS = {
    "resize 48x40 -> 32x32": "dacff523ecdf9093",
    "resize 24x24 -> 64x50": "e3e4e1f222c01f79",
    "gamma tables": "8cf926674b620b40",
    "rotations": "df0737f6880c4d59",
    "copies of 32x32": "50fd9600568bc928",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_bytes(name: str) -> None:
    assert digest(GOLDEN[name]()) == DIGESTS[name]
