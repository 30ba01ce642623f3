"""Augmented datasets: labels are those of the pixels, items depend on seed, epoch and index alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from d3codec.augmented import TRIES, AugmentedDataset, paste_box, random_resized_box, uniforms
from d3codec.errors import ImagesError, UsageError
from d3codec.grid import assemble
from d3codec.training import students

COUNT, GRID, CLASSES, SIDE = 10, (2, 2), 5, 16
PATCHES = GRID[0] * GRID[1]
IDENTITY = {"scale": (1, 1), "ratio": (1, 1), "size": SIDE}  # every view is the whole image, pixel by pixel


def arrays(count=COUNT):
    """Noise and random logits."""
    rng = np.random.default_rng(count)
    return {
        "images": rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
        "patch_logits": rng.normal(0, 3, (count, PATCHES, CLASSES)).astype(np.float32),
        "classes": np.arange(count) % CLASSES,
        "grid": GRID,
        "class_count": CLASSES,
    }


def told_apart(count=COUNT):
    """Each patch of each image is one grey level of its own, and its label is sure of a class of its own."""
    levels = np.arange(count * PATCHES, dtype=np.uint8).reshape(count, PATCHES)
    patches = np.broadcast_to(levels[..., None, None, None], (*levels.shape, SIDE // 2, SIDE // 2, 3))
    return {
        "images": assemble(patches, GRID),
        "patch_logits": np.where(np.eye(levels.size) == 1, 0.0, -np.inf).reshape(count, PATCHES, -1),
        "classes": np.arange(count) * PATCHES,
        "grid": GRID,
        "class_count": levels.size,
    }


def passed(dataset, **options):
    """All images and labels of one pass over a loader."""
    batches = list(DataLoader(dataset, **options))
    return [torch.cat([batch[field] for batch in batches]) for field in (0, 1)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("flip", [False, True])
def test_labels_count_the_pixels_that_are_seen(flip):
    """Without a crop nothing is blended: every pixel tells which patch of which image it is from."""
    dataset = AugmentedDataset(**told_apart(), **IDENTITY, cutmix=1.0, flip=flip, as_float=False)
    partners = 0
    for epoch in range(10):
        dataset.set_epoch(epoch)
        for index, (image, label) in enumerate(dataset):
            counted = np.bincount(image[0].reshape(-1), minlength=len(label)) / SIDE**2
            assert label.numpy() == pytest.approx(counted, abs=1e-6)
            partners += set(np.flatnonzero(counted) // PATCHES) != {index}
    assert partners > 60  # of 100; some parts are too small, or come from the image itself


@pytest.mark.parametrize("size", [8, 24])
def test_labels_of_crops_are_those_of_their_pixels(size):
    """The mean level of a crop is that of its patches; a resize moves it by what it blends at seams and borders."""
    case = told_apart()
    dataset = AugmentedDataset(**case, size=size, cutmix=0.5, flip=True, as_float=False)
    levels = torch.arange(case["class_count"], dtype=torch.float32)
    errors = []
    for epoch in range(10):
        dataset.set_epoch(epoch)
        for image, label in dataset:
            assert label.sum().item() == pytest.approx(1, abs=1e-6)
            errors.append((image.float().mean() - label @ levels).item())
    assert np.abs(errors).max() < 1.0  # patches of one image differ by 1 to 3, images by up to 39
    assert abs(np.mean(errors)) < 0.1


def test_probabilities_are_mixed_at_the_temperature_and_not_logits():
    case = arrays()
    for temperature in (1.0, 20.0):
        dataset = AugmentedDataset(**case, **IDENTITY, temperature=temperature)
        powers = np.exp(case["patch_logits"].astype(np.float64) / temperature)
        expected = (powers / powers.sum(2, keepdims=True)).mean(1)
        found = passed(dataset, batch_size=COUNT)[1]
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hard_labels_are_mixed_by_what_is_visible():
    case = arrays() | {"patch_logits": None}
    plain = AugmentedDataset(**case, size=8)
    assert torch.equal(passed(plain)[1], torch.eye(CLASSES)[torch.tensor(case["classes"])])
    for index, (_, label) in enumerate(AugmentedDataset(**case, size=8, cutmix=1.0)):
        assert label.sum().item() == pytest.approx(1)
        assert (label > 0).sum() <= 2
        draws = uniforms(0, 0, index)
        top, left, bottom, right = paste_box(8, draws[2, 1])
        if int(draws[2, 0, 1] * COUNT) % CLASSES != index % CLASSES:
            assert label[index % CLASSES].item() == pytest.approx(1 - (bottom - top) * (right - left) / 64)


def test_large_logits_and_impossible_classes():
    case = arrays()
    case["patch_logits"][:] = -np.inf
    case["patch_logits"][..., 1], case["patch_logits"][..., 3] = 5000, 5000
    label = AugmentedDataset(**case, size=8, cutmix=1.0)[0].label
    assert label.tolist() == pytest.approx([0, 0.5, 0, 0.5, 0])


# ------------------------------------------------------------------------------------------------- images


def test_without_crop_flip_and_cutmix_items_are_the_images():
    case = arrays()
    image, _ = passed(AugmentedDataset(**case, **IDENTITY, as_float=False))
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image, case["images"].transpose(0, 3, 1, 2))
    image, _ = passed(AugmentedDataset(**case, **IDENTITY))
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image, case["images"].transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_half_of_the_views_are_mirrored():
    case = arrays()
    upright = torch.from_numpy(case["images"].transpose(0, 3, 1, 2).copy())
    dataset = AugmentedDataset(**case, **IDENTITY, flip=True, as_float=False)
    mirrored = 0
    for epoch in range(30):
        dataset.set_epoch(epoch)
        image, _ = passed(dataset, batch_size=COUNT)
        now = (image == upright.flip(3)).flatten(1).all(1)
        assert (now | (image == upright).flatten(1).all(1)).all()
        mirrored += int(now.sum())
    assert 110 < mirrored < 190  # of 300: 150, and 8.7 for one standard deviation


def test_a_crop_holds_nothing_of_its_neighbours():
    """One bright pixel in the dark: either it is cut out, or it is not seen at all, however strong the blur."""
    case = arrays(1) | {"images": np.zeros((1, SIDE, SIDE, 3), np.uint8)}
    case["images"][0, 5, 5] = 255
    dataset = AugmentedDataset(**case, size=4, scale=(0.2, 0.6), as_float=False)
    for epoch in range(100):
        dataset.set_epoch(epoch)
        draws = uniforms(0, epoch, 0)
        top, left, bottom, right = random_resized_box(SIDE, SIDE, (0.2, 0.6), (3 / 4, 4 / 3), draws[0, :TRIES])
        assert bool(dataset[0].image.any()) == (top <= 5 < bottom and left <= 5 < right)


# ------------------------------------------------------------------------------------------------- determinism


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_items_depend_on_neither_workers_nor_batches():
    dataset = AugmentedDataset(**arrays(), size=8, seed=3, cutmix=0.5, flip=True)
    plain = passed(dataset, batch_size=4)
    for options in ({"batch_size": 1}, {"batch_size": 7}, {"num_workers": 1, "batch_size": 4}, {"num_workers": 2}):
        assert same(passed(dataset, **options), plain)
    order = [7, 2, 2, 9]
    assert same(passed(dataset, sampler=order), [field[order] for field in plain])
    assert same(dataset[-1], [field[-1] for field in plain])
    with pytest.raises(IndexError):
        dataset[COUNT]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("context", "workers", "persistent"), [("fork", 2, True), ("fork", 1, False), ("spawn", 1, True)]
)
def test_epochs_reach_the_workers(context, workers, persistent):
    dataset = AugmentedDataset(**arrays(), size=8, cutmix=0.5, flip=True)
    expected = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        expected.append(passed(dataset, batch_size=4))
    assert not same(expected[0], expected[1])
    loader = DataLoader(
        dataset, batch_size=4, num_workers=workers, persistent_workers=persistent, multiprocessing_context=context
    )
    for epoch in (0, 1, 2, 1):
        dataset.set_epoch(epoch)
        batches = list(loader)
        found = [torch.cat([batch[field] for batch in batches]) for field in (0, 1)]
        assert same(found, expected[epoch])


def test_seeds_differ_and_no_other_generator_is_touched():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    case = arrays()
    one, again, other = (passed(AugmentedDataset(**case, size=8, cutmix=0.5, seed=seed)) for seed in (1, 1, 2))
    passed(AugmentedDataset(**case, size=8, seed=2**64 - 1))
    assert same(one, again)
    assert not same(one, other)
    case["patch_logits"] = case["patch_logits"] + 1  # labels play no part in the views
    assert torch.equal(passed(AugmentedDataset(**case, size=8, cutmix=0.5, seed=1))[0], one[0])
    # DataLoader draws a seed for its workers from torch's own generator; items do not
    state = torch.random.get_rng_state()
    AugmentedDataset(**case, size=8, cutmix=1.0)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_cutmix_changes_nothing_but_what_it_pastes():
    case = arrays()
    plain, mixed = (AugmentedDataset(**case, size=8, flip=True, cutmix=share) for share in (0.0, 1.0))
    for index in range(COUNT):
        top, left, bottom, right = paste_box(8, uniforms(0, 0, index)[2, 1])
        differs = (plain[index].image != mixed[index].image).any(0)
        differs[top:bottom, left:right] = False
        assert not differs.any()


def test_cutmix_is_as_frequent_as_asked():
    dataset = AugmentedDataset(**told_apart(), **IDENTITY, cutmix=0.3)
    mixed = 0
    for epoch in range(40):
        dataset.set_epoch(epoch)
        labels = passed(dataset, batch_size=COUNT)[1]
        mixed += int((labels.reshape(COUNT, COUNT, PATCHES).sum(2) > 0).sum(1).ne(1).sum())
    # of 400: 0.3 are mixed, 9 of 10 with another image, and 19 of 20 or so of the parts have a pixel
    assert 70 < mixed < 135


def test_draws_are_pinned():
    """Philox under key 5, counter (block, item, epoch, 3 << 24 | who): from the reference implementation in noise.py,
    which is tested against published vectors. A change here changes every training run."""
    draws = uniforms(5, 2, 7)
    assert draws.shape == (3, TRIES + 1, 4)
    assert (draws >= 0).all()
    assert (draws < 1).all()
    assert (draws[0, 0] * 2**32).tolist() == [2346648189, 2749283196, 3253299603, 251942124]
    assert (draws[2, 1] * 2**32).tolist() == [4460302, 2845468592, 4264339551, 600960638]


# ------------------------------------------------------------------------------------------------- boxes

FRACTIONS = st.integers(0, 2**32 - 1).map(lambda word: word / 2**32)
DRAWS = st.lists(st.tuples(*[FRACTIONS] * 4), min_size=TRIES, max_size=TRIES)
SIDES = st.integers(1, 300)


@settings(deadline=None)
@given(SIDES, SIDES, st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted), DRAWS)
def test_random_boxes_lie_inside(height, width, scale, draws):
    top, left, bottom, right = random_resized_box(height, width, tuple(scale), (3 / 4, 4 / 3), draws)
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width


def test_random_boxes_have_the_areas_and_shapes_that_were_asked_for():
    boxes = np.array(
        [
            random_resized_box(400, 400, (0.25, 0.75), (3 / 4, 4 / 3), uniforms(0, 0, item)[0, :TRIES])
            for item in range(2000)
        ]
    )
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, ratios = heights * widths / 400**2, widths / heights
    assert areas.min() == pytest.approx(0.25, abs=0.005)
    assert areas.max() == pytest.approx(0.75, abs=0.005)
    assert areas.mean() == pytest.approx(0.5, abs=0.02)  # spread 0.144 over root 2000
    assert ratios.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratios.max() == pytest.approx(4 / 3, abs=0.02)
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.02)
    inner = heights < 400
    places = boxes[inner, 0] / (400 - heights[inner])
    assert places.mean() == pytest.approx(0.5, abs=0.03)
    assert (places.min(), places.max()) == pytest.approx((0, 1), abs=0.01)


def test_an_image_that_no_crop_fits_gives_its_centre():
    draws = uniforms(0, 0, 0)[0, :TRIES]
    assert random_resized_box(10, 400, (1, 1), (3 / 4, 4 / 3), draws) == (0, 193, 10, 206)
    assert random_resized_box(400, 10, (1, 1), (3 / 4, 4 / 3), draws) == (193, 0, 206, 10)


@settings(deadline=None)
@given(st.integers(1, 300), st.tuples(*[FRACTIONS] * 3))
def test_paste_boxes_lie_inside_and_are_no_larger_than_drawn(size, draws):
    top, left, bottom, right = paste_box(size, draws)
    assert 0 <= top <= bottom <= size
    assert 0 <= left <= right <= size
    assert max(bottom - top, right - left) <= size * math.sqrt(draws[0])


# ------------------------------------------------------------------------------------------------- use


def test_a_student_learns_from_the_loader():
    """Collages of coloured noise: red, green, blue, each image of one class."""
    classes = np.arange(30) % 3
    rng = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    images = (colours[classes][:, None, None] + rng.normal(0, 40, (30, SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    logits = np.repeat(8.0 * np.eye(3)[classes][:, None], PATCHES, 1)
    dataset = AugmentedDataset(
        images, logits, classes, GRID, class_count=3, size=SIDE, cutmix=0.5, flip=True, as_float=False
    )
    generator = torch.Generator().manual_seed(0)

    def batches():
        for epoch in range(30):
            dataset.set_epoch(epoch)
            yield from DataLoader(dataset, batch_size=10, shuffle=True, generator=generator)

    with students.one_thread():
        net = students.fit(students.fresh(3, SIDE, images, generator), batches(), steps=60, generator=generator)
        assert students.accuracy(students.predict(net, images), classes) > 90


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("cutmix", 1.5),
        ("scale", (0, 1)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.5, 1.2)),
        ("ratio", (0, 1)),
        ("ratio", (2, 1)),
    ],
)
def test_numbers_out_of_range(field, value):
    with pytest.raises(UsageError) as caught:
        AugmentedDataset(**arrays(), **({"size": 8} | {field: value}))
    assert caught.value.field == field


def test_epochs_out_of_range():
    dataset = AugmentedDataset(**arrays(), size=8)
    for epoch in (-1, 2**32):
        with pytest.raises(UsageError, match="epoch"):
            dataset.set_epoch(epoch)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", np.zeros((COUNT, SIDE, SIDE), np.uint8)),
        ("images", np.zeros((COUNT, SIDE, SIDE, 3), np.float32)),
        ("patch_logits", np.zeros((COUNT, PATCHES, CLASSES + 1))),
        ("classes", np.zeros(COUNT - 1, np.int64)),
        ("classes", np.full(COUNT, CLASSES)),
        ("grid", (3, 2)),
        ("grid", (0, 2)),
    ],
)
def test_arrays_that_do_not_fit_together(field, value):
    with pytest.raises(ImagesError) as caught:
        AugmentedDataset(**(arrays() | {field: value}), size=8)
    assert caught.value.field == field


def test_no_images_are_fine():
    dataset = AugmentedDataset(**arrays(0), size=8)
    assert len(dataset) == 0
    assert list(DataLoader(dataset)) == []
