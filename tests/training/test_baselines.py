from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.errors import ImagesError, UsageError
from d3codec.sources import read_images
from d3codec.training import baselines


@pytest.fixture(scope="module")
def digits():
    read = read_images("digits:train")
    return np.stack(read.images), read.labels


def knows(labels_of):
    """A teacher that looks the image up: logits of 4 for the class that `labels_of` gives."""
    return lambda images: 4.0 * np.eye(10, dtype=np.float32)[labels_of(images)]


@given(
    bits=st.integers(1, 8),
    count=st.integers(1, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_levels_come_back_exactly(bits, count, height, width, seed):
    shape = (count, height, width)
    levels = np.random.default_rng(seed).integers(0, 2**bits, shape)
    images = baselines.grey_images(levels, bits)
    data = baselines.pack_real(images, bits)
    assert (baselines.unpack_real(data, shape, bits) == images).all()
    assert (baselines.grey_levels(images, bits) == levels).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_quantizing_is_the_nearest_level(digits, bits):
    images = digits[0][:50]
    back = baselines.unpack_real(baselines.pack_real(images, bits), images.shape[:3], bits)
    assert np.abs(back.astype(int) - images).max() <= 255 / (2**bits - 1) / 2 + 0.5
    assert len(np.unique(back)) <= 2**bits


def test_colours_become_grey():
    images = np.zeros((1, 1, 4, 3), np.uint8)
    images[0, 0] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]
    assert baselines.grey_levels(images, 8)[0, 0].tolist() == [76, 150, 29, 10]


@pytest.mark.parametrize(("bits", "budget"), [(1, 150), (1, 1300), (2, 700), (4, 300), (4, 1500)])
def test_random_images_fill_the_budget_and_never_exceed_it(digits, bits, budget):
    images, labels = digits
    stored = baselines.fit_to_bytes(images, labels, bits=bits, budget=budget, seed=0)
    data = baselines.pack_real(images[stored.positions], bits)
    assert stored.bytes == len(data) <= budget
    assert stored.bytes > budget * 0.9 - 25
    assert (stored.images == baselines.unpack_real(data, (len(stored.labels), 8, 8), bits)).all()


def test_labels_follow_from_the_number_of_images(digits):
    images, labels = digits
    stored = baselines.fit_to_bytes(images, labels, bits=1, budget=333, seed=1)
    share, more = divmod(len(stored.labels), 10)
    assert (stored.labels == labels[stored.positions]).all()
    assert stored.labels.tolist() == [c for c in range(10) for _ in range(share + (c < more))]
    assert len(set(stored.positions.tolist())) == len(stored.positions)


def test_seeds_pick_other_images_and_the_same_seed_the_same(digits):
    picks = [
        set(baselines.fit_to_bytes(*digits, bits=1, budget=300, seed=seed).positions.tolist()) for seed in (0, 0, 1)
    ]
    assert picks[0] == picks[1] != picks[2]


def test_everything_fits_into_enough_bytes(digits):
    images, labels = digits
    stored = baselines.fit_to_bytes(images, labels, bits=1, budget=10**6, seed=0)
    assert len(stored.labels) == 10 * np.bincount(labels).min()


def test_the_cheap_order_is_cheaper_and_keeps_classes_together(digits):
    images, labels = digits
    order = baselines.cheap_order(images, labels, 1)
    assert sorted(order) == list(range(len(labels)))
    assert (np.diff(labels[order]) >= 0).all()
    by_class = np.argsort(labels, kind="stable")
    assert len(baselines.pack_real(images[order], 1)) < 0.9 * len(baselines.pack_real(images[by_class], 1))


def test_nothing_fits(digits):
    with pytest.raises(UsageError, match="bytes or more"):
        baselines.fit_to_bytes(*digits, bits=4, budget=20, seed=0)


def test_selected_images_are_rightly_named_and_within_the_budget(digits):
    images, labels = digits
    wrong = {image.tobytes() for image in images[::3]}  # the teacher errs on every third image

    def named(batch):
        table = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        return [(table[image.tobytes()] + (image.tobytes() in wrong)) % 10 for image in batch]

    stored = baselines.select_by_teacher(images, labels, knows(named), bits=1, budget=350)
    assert stored.bytes <= 350
    assert stored.bytes > 290
    assert (stored.positions % 3 != 0).all()
    again = baselines.select_by_teacher(images, labels, knows(named), bits=1, budget=350)
    assert (again.positions == stored.positions).all()


def test_a_class_that_the_teacher_never_names_right(digits):
    with pytest.raises(UsageError, match="without usable images"):
        baselines.select_by_teacher(*digits, knows(lambda images: [3] * len(images)), bits=1, budget=350)


def test_central_points_stand_one_in_each_cluster():
    draw = np.random.default_rng(0)
    centres = 10.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    points = (centres[:, None] + draw.normal(size=(4, 25, 2))).reshape(-1, 2)
    assert sorted(baselines.central(points, 4) // 25) == [0, 1, 2, 3]


def test_equal_points_are_taken_once_each():
    assert sorted(baselines.central(np.zeros((5, 2)), 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range(digits, bits):
    with pytest.raises(UsageError, match="bits"):
        baselines.pack_real(digits[0][:1], bits)


def test_images_of_another_form():
    with pytest.raises(ImagesError):
        baselines.pack_real(np.zeros((2, 8, 8), np.uint8), 1)
