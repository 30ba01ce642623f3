"""Grid: boxes tile the image, assembling undoes cutting, weights of crops and of CutMix are areas."""

from __future__ import annotations

import math

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


# ------------------------------------------------------------------------------- the area rule, pixel by pixel

SMALL_GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def small_layouts(draw: st.DrawFn) -> tuple[int, int, tuple[int, int]]:
    rows, columns = draw(SMALL_GRIDS)
    return rows * draw(st.integers(1, 5)), columns * draw(st.integers(1, 5)), (rows, columns)


@st.composite
def views(draw: st.DrawFn, height: int, width: int) -> geometry.View:
    """Of whole pixels."""
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return geometry.View((top, left, bottom, right), draw(st.booleans()))


@st.composite
def intervals(draw: st.DrawFn, size: int) -> tuple[int, int]:
    """Of whole pixels, perhaps empty."""
    start = draw(st.integers(0, size))
    return start, draw(st.integers(start, size))


def owners(height: int, width: int, grid: tuple[int, int], first: int) -> np.ndarray:
    """The number of the patch of every pixel, counted from `first`."""
    numbers = np.zeros((height, width), int)
    for number, (top, left, bottom, right) in enumerate(geometry.patch_boxes(height, width, grid)):
        numbers[top:bottom, left:right] = first + number
    return numbers


def rendered(pixels: np.ndarray, view: geometry.View, height: int, width: int) -> np.ndarray:
    """The view at a size that is a multiple of its own, each pixel repeated: as numpy does it, not geometry."""
    top, left, bottom, right = map(int, view.box)
    crop = pixels[top:bottom, left:right]
    crop = np.fliplr(crop) if view.flip else crop
    return crop.repeat(height // crop.shape[0], 0).repeat(width // crop.shape[1], 1)


@settings(deadline=None)
@given(st.data(), small_layouts())
def test_cutmix_weights_count_the_pixels_of_the_image(
    data: st.DataObject, layout: tuple[int, int, tuple[int, int]]
) -> None:
    """The image itself is made, with the number of its patch in every pixel, and counted."""
    height, width, grid = layout
    patches = grid[0] * grid[1]
    one, other = data.draw(views(height, width)), data.draw(views(height, width))
    sides = [[int(view.box[axis + 2] - view.box[axis]) for view in (one, other)] for axis in (0, 1)]
    rows, columns = (math.lcm(*pair) for pair in sides)
    (top, bottom), (left, right) = data.draw(intervals(rows)), data.draw(intervals(columns))
    image = rendered(owners(height, width, grid, 0), one, rows, columns)
    image[top:bottom, left:right] = rendered(owners(height, width, grid, patches), other, rows, columns)[
        top:bottom, left:right
    ]
    expected = np.bincount(image.reshape(-1), minlength=2 * patches) / image.size
    part = (top / rows, left / columns, bottom / rows, right / columns)
    found = geometry.cutmix_weights(height, width, grid, one, other, part)
    assert np.concatenate(found) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(st.data(), layouts())
def test_cutmix_weights_are_shares(data: st.DataObject, layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    one, other = (geometry.View(data.draw(boxes(height, width)), data.draw(st.booleans())) for _ in range(2))
    part = data.draw(boxes(1, 1))
    own, others = geometry.cutmix_weights(height, width, grid, one, other, part)
    assert own.shape == others.shape == (grid[0] * grid[1],)
    assert own.dtype == others.dtype == np.float64
    assert (own >= 0).all()
    assert (others >= 0).all()
    assert others.sum() == pytest.approx((part[2] - part[0]) * (part[3] - part[1]), abs=1e-9)
    assert own.sum() + others.sum() == pytest.approx(1.0, abs=1e-9)


def test_what_is_hidden_and_what_is_shown_need_not_be_a_share_of_the_whole() -> None:
    """The part hides all of the upper left patch, and shows the lower right one of a lower half that is mirrored. A mix
    of the whole views by 3/4 and 1/4 would have 3/16 of each patch of the one, 1/8 of two patches of the other."""
    view, pasted = geometry.View((0, 0, 8, 8)), geometry.View((4, 0, 8, 8), flip=True)
    own, others = geometry.cutmix_weights(8, 8, (2, 2), view, pasted, (0, 0, 0.5, 0.5))
    assert own.tolist() == [0.0, 0.25, 0.25, 0.25]
    assert others.tolist() == [0.0, 0.0, 0.0, 0.25]


@settings(deadline=None)
@given(st.data(), layouts())
def test_an_empty_part_and_a_whole_one(data: st.DataObject, layout: tuple[int, int, tuple[int, int]]) -> None:
    height, width, grid = layout
    one, other = (geometry.View(data.draw(boxes(height, width)), data.draw(st.booleans())) for _ in range(2))
    nothing = np.zeros(grid[0] * grid[1])
    whole_one, whole_other = (geometry.crop_weights(height, width, grid, view.box) for view in (one, other))
    own, others = geometry.cutmix_weights(height, width, grid, one, other, (0.5, 0.5, 0.5, 0.75))
    assert own == pytest.approx(whole_one, abs=1e-9)
    assert (others == nothing).all()
    own, others = geometry.cutmix_weights(height, width, grid, one, other, (0, 0, 1, 1))
    assert own == pytest.approx(nothing, abs=1e-9)
    assert others == pytest.approx(whole_other, abs=1e-9)


@settings(deadline=None)
@given(st.data(), layouts())
def test_a_view_pasted_into_itself_changes_nothing(
    data: st.DataObject, layout: tuple[int, int, tuple[int, int]]
) -> None:
    height, width, grid = layout
    view = geometry.View(data.draw(boxes(height, width)), data.draw(st.booleans()))
    own, others = geometry.cutmix_weights(height, width, grid, view, view, data.draw(boxes(1, 1)))
    assert own + others == pytest.approx(geometry.crop_weights(height, width, grid, view.box), abs=1e-9)


@settings(deadline=None)
@given(st.data(), layouts())
def test_weights_turn_with_the_image(data: st.DataObject, layout: tuple[int, int, tuple[int, int]]) -> None:
    """Mirrored collages, boxes and part: the same weights, mirrored. Mirrored views and part: the same weights."""
    height, width, grid = layout

    def mirrored(box: tuple[float, float, float, float], size: float) -> tuple[float, float, float, float]:
        return box[0], size - box[3], box[2], size - box[1]

    def turned(weights: np.ndarray) -> np.ndarray:
        return weights.reshape(grid)[:, ::-1].reshape(-1)

    one, other = (geometry.View(data.draw(boxes(height, width)), data.draw(st.booleans())) for _ in range(2))
    part = data.draw(boxes(1, 1))
    expected = geometry.cutmix_weights(height, width, grid, one, other, part)
    in_mirror = [geometry.View(mirrored(view.box, width), view.flip) for view in (one, other)]
    found = geometry.cutmix_weights(height, width, grid, *in_mirror, mirrored(part, 1))
    assert np.concatenate([turned(weights) for weights in found]) == pytest.approx(np.concatenate(expected), abs=1e-9)
    flipped = [geometry.View(view.box, not view.flip) for view in (one, other)]
    found = geometry.cutmix_weights(height, width, grid, *flipped, mirrored(part, 1))
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), abs=1e-9)
    crop = geometry.crop_weights(height, width, grid, one.box)
    assert turned(geometry.crop_weights(height, width, grid, in_mirror[0].box)) == pytest.approx(crop, abs=1e-9)


@settings(deadline=None)
@given(st.data(), layouts(), st.integers(2, 7), st.integers(2, 7))
def test_a_resized_collage_has_the_same_weights(
    data: st.DataObject, layout: tuple[int, int, tuple[int, int]], taller: int, wider: int
) -> None:
    """The same crop of a collage of another size, and so a resize of the collage before the crop."""
    height, width, grid = layout
    box = data.draw(boxes(height, width))
    top, left, bottom, right = box
    larger = top * taller, left * wider, min(bottom * taller, height * taller), min(right * wider, width * wider)
    found = geometry.crop_weights(height * taller, width * wider, grid, larger)
    assert found == pytest.approx(geometry.crop_weights(height, width, grid, box), abs=1e-9)
    whole = geometry.crop_weights(height, width, grid, (0, 0, height, width))
    assert whole == pytest.approx(np.full(grid[0] * grid[1], 1 / (grid[0] * grid[1])))


@settings(deadline=None)
@given(st.data(), layouts(), st.floats(0.01, 0.99), st.booleans())
def test_the_halves_of_a_crop_add_up(
    data: st.DataObject, layout: tuple[int, int, tuple[int, int]], share: float, across: bool
) -> None:
    height, width, grid = layout
    top, left, bottom, right = box = data.draw(boxes(height, width))
    if across:
        middle = left + share * (right - left)
        halves, share = ((top, left, bottom, middle), (top, middle, bottom, right)), (middle - left) / (right - left)
    else:
        middle = top + share * (bottom - top)
        halves, share = ((top, left, middle, right), (middle, left, bottom, right)), (middle - top) / (bottom - top)
    first, second = (geometry.crop_weights(height, width, grid, half) for half in halves)
    whole = geometry.crop_weights(height, width, grid, box)
    assert share * first + (1 - share) * second == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize(
    "part", [(0.5, 0, 0.25, 1), (0, 0.5, 1, 0.25), (-0.1, 0, 1, 1), (0, 0, 1.1, 1), (0, float("nan"), 1, 1)]
)
def test_parts_that_leave_the_view_are_refused(part: tuple[float, float, float, float]) -> None:
    view = geometry.View((0, 0, 4, 4))
    with pytest.raises(ValueError, match="leaves the view"):
        geometry.cutmix_weights(8, 8, (2, 2), view, view, part)


def test_views_that_leave_the_image_are_refused() -> None:
    good, bad = geometry.View((0, 0, 4, 4)), geometry.View((0, 0, 4, 9))
    for one, other in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="is empty or leaves"):
            geometry.cutmix_weights(8, 8, (2, 2), one, other, (0, 0, 1, 1))
