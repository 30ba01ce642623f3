"""Grid: boxes tile the image, assembling undoes cutting, crop weights are areas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec import grid as geometry

GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))
CELLS = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, tuple[int, int]]:
    (rows, columns), (cell_height, cell_width) = draw(GRIDS), draw(CELLS)
    return rows * cell_height, columns * cell_width, (rows, columns)


@st.composite
def boxes(draw: st.DrawFn, height: float, width: float) -> tuple[float, float, float, float]:
    def interval(size: float) -> tuple[float, float]:
        start = draw(st.floats(0, size * 0.9))
        return start, draw(st.floats(min(start + size * 0.01, size), size))

    (top, bottom), (left, right) = interval(height), interval(width)
    return top, left, bottom, right


def images(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height * 64 + width).integers(0, 256, (count, height, width, 3), np.uint8)


def test_boxes_of_a_two_by_three_grid() -> None:
    assert geometry.patch_boxes(4, 9, (2, 3)) == [
        (0, 0, 2, 3),
        (0, 3, 2, 6),
        (0, 6, 2, 9),
        (2, 0, 4, 3),
        (2, 3, 4, 6),
        (2, 6, 4, 9),
    ]


@settings(deadline=None)
@given(layouts())
def test_boxes_tile_the_image(layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    covered = np.zeros((height, width), int)
    for top, left, bottom, right in geometry.patch_boxes(height, width, grid):
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


@settings(deadline=None)
@given(layouts())
def test_patches_are_the_pixels_of_their_boxes(layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    pictures = images(height, width)
    patches = geometry.cut(pictures, grid)
    found = geometry.patch_boxes(height, width, grid)
    assert patches.shape[1] == len(found)
    for number, (top, left, bottom, right) in enumerate(found):
        assert (patches[:, number] == pictures[:, top:bottom, left:right]).all()


@settings(deadline=None)
@given(layouts())
def test_assemble_undoes_cut(layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    pictures = images(height, width)
    assert (geometry.assemble(geometry.cut(pictures, grid), grid) == pictures).all()


def test_no_images_are_fine() -> None:
    assert geometry.cut(images(4, 6, 0), (2, 3)).shape == (0, 6, 2, 2, 3)
    assert geometry.assemble(geometry.cut(images(4, 6, 0), (2, 3)), (2, 3)).shape == (0, 4, 6, 3)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(5, 4, (2, 2)), (4, 5, (2, 2)), (4, 4, (0, 2)), (4, 4, (2, -1)), (0, 4, (2, 2)), (1, 1, (2, 1))],
)
def test_a_grid_that_does_not_divide_the_image_is_refused(height: int, width: int, grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        geometry.patch_boxes(height, width, grid)
    with pytest.raises(ValueError, match="does not divide"):
        geometry.cut(images(height, width), grid)
    with pytest.raises(ValueError, match="does not divide"):
        geometry.crop_weights(height, width, grid, (0, 0, 1, 1))


def test_too_few_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="3 patches do not fill"):
        geometry.assemble(np.zeros((1, 3, 2, 2, 3), np.uint8), (2, 2))


def test_crop_weights_of_a_known_crop() -> None:
    # rows 1 to 4 lie in the upper half; of the columns 3 to 7 one lies in the left half, three in the right
    assert geometry.crop_weights(8, 8, (2, 2), (1, 3, 4, 7)).tolist() == [0.25, 0.75, 0.0, 0.0]
    assert geometry.crop_weights(8, 8, (2, 2), (2, 2, 6, 6)).tolist() == [0.25] * 4
    assert geometry.crop_weights(8, 8, (1, 1), (0.5, 3, 4, 7.25)).tolist() == [1.0]


@settings(deadline=None)
@given(st.data(), layouts())
def test_crop_weights_are_shares(data: st.DataObject, layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    weights = geometry.crop_weights(height, width, grid, data.draw(boxes(height, width)))
    assert weights.shape == (grid[0] * grid[1],)
    assert weights.dtype == np.float64
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)  # at most 16 terms, each rounded a few times


@settings(deadline=None)
@given(st.data(), layouts())
def test_crop_weights_of_whole_pixels_count_pixels(
    data: st.DataObject, layout: tuple[int, int, tuple[int, int]]
) -> None:
    height, width, grid = layout
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    owner = np.zeros((height, width), int)
    for number, (y0, x0, y1, x1) in enumerate(geometry.patch_boxes(height, width, grid)):
        owner[y0:y1, x0:x1] = number
    counted = np.bincount(owner[top:bottom, left:right].reshape(-1), minlength=grid[0] * grid[1])
    expected = counted / counted.sum()
    assert geometry.crop_weights(height, width, grid, (top, left, bottom, right)) == pytest.approx(expected)


@settings(deadline=None)
@given(st.data(), layouts())
def test_a_crop_inside_a_cell_belongs_to_it(data: st.DataObject, layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    cells = geometry.patch_boxes(height, width, grid)
    number = data.draw(st.integers(0, len(cells) - 1))
    top, left, bottom, right = cells[number]
    inner = data.draw(boxes(bottom - top, right - left))
    box = (top + inner[0], left + inner[1], min(top + inner[2], bottom), min(left + inner[3], right))
    assert geometry.crop_weights(height, width, grid, box)[number] == 1.0


@settings(deadline=None)
@given(st.floats(0, 0.95), st.floats(0, 1))
def test_crop_weights_are_linear_in_the_place_of_the_crop(start: float, part: float) -> None:
    """As long as no edge of the crop passes an edge of a cell: here the lower one stays in the second row."""

    def at(top: float) -> np.ndarray:
        return geometry.crop_weights(8, 12, (2, 3), (top, 2.5, top + 5, 9.5))

    begin, end = start, 3.0
    between = at(begin + part * (end - begin))
    assert between == pytest.approx((1 - part) * at(begin) + part * at(end), abs=1e-12)
    assert at(begin)[0] > at(end)[0]


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 4), (2, 3, 1, 4), (-0.1, 0, 4, 4), (0, 0, 4, 8.5), (0, 0, 9, 4), (float("nan"), 0, 4, 4)]
)
def test_boxes_that_are_empty_or_leave_the_image_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="is empty or leaves"):
        geometry.crop_weights(8, 8, (2, 2), box)
