from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from d3codec.errors import ImagesError, UsageError
from d3codec.sources import read_images
from d3codec.training import students
from d3codec.training.students import SMALL_AFFINE, Augmentation, augmented


@pytest.fixture(autouse=True)
def _one_thread():
    with students.one_thread():
        yield


@pytest.fixture(scope="module")
def digits():
    train, test = read_images("digits:train"), read_images("digits:test")
    return np.stack(train.images), train.labels, np.stack(test.images), test.labels


def same_weights(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_a_student_learns_the_digits(digits):
    images, labels, test, test_labels = digits
    net = students.train(images, labels, classes=10, steps=150, seed=0, side=16, augment=SMALL_AFFINE)
    assert students.accuracy(students.predict(net, test), test_labels) > 97


def test_soft_targets_of_the_right_classes_teach_and_shuffled_ones_do_not(digits):
    images, labels, test, test_labels = digits
    soft = np.full((len(labels), 10), 0.02)
    soft[np.arange(len(labels)), labels] = 0.82
    wrong = np.random.default_rng(0).permutation(soft)
    nets = [students.train(images, each, classes=10, steps=80, seed=0, side=16) for each in (soft, wrong)]
    right, useless = (students.accuracy(students.predict(net, test), test_labels) for net in nets)
    assert right > 70
    assert useless < 40


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits):
    images, labels, *_ = digits
    nets = [
        students.train(
            images[:100],
            labels[:100],
            classes=10,
            steps=5,
            seed=seed,
            side=16,
            augment=Augmentation(5, 0.1, 0.1, flip=True),
        )
        for seed in (3, 3, 4)
    ]
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


def test_training_leaves_the_global_random_state_alone(digits):
    images, labels, *_ = digits
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    students.train(images[:20], labels[:20], classes=10, steps=2, seed=0, side=16, augment=SMALL_AFFINE)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_one_thread_puts_the_number_of_threads_back():
    torch.set_num_threads(2)
    with students.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("side", "widths", "parameters"),
    [(8, (32, 32), 10_602), (16, (32, 32, 32), 19_914), (32, (32, 64, 128), 94_986), (64, (32, 64, 128, 256), 391_946)],
)
def test_the_network_of_each_side(side, widths, parameters):
    net = students.empty_network(10, side)
    assert students.block_widths(side) == widths
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 10)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("side", [0, 2, 24, 2048])
def test_a_side_without_a_network_is_refused(side):
    with pytest.raises(UsageError, match="side"):
        students.block_widths(side)


@pytest.mark.parametrize(("smallest", "side"), [(1, 16), (8, 16), (16, 16), (17, 32), (64, 64), (500, 64)])
def test_default_side(smallest, side):
    assert students.default_side(smallest) == side


def test_resize_is_pillows_bicubic_and_leaves_fitting_images_alone(digits):
    images = digits[0]
    resized = students.resize_for_student([images[0], images[1][:6]], 16)
    pillow = Image.fromarray(images[0]).resize((16, 16), Image.Resampling.BICUBIC)
    assert (resized[0] == np.asarray(pillow)).all()
    assert resized.shape == (2, 16, 16, 3)
    assert students.resize_for_student(resized, 16) is resized
    assert (students.resize_for_student(list(resized), 16) == resized).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(image):
    with pytest.raises(ImagesError, match="images\\[0\\]"):
        students.resize_for_student([image], 16)


@pytest.mark.parametrize(
    "targets",
    [
        np.array([0, 1]),
        np.array([0, 1, 3]),
        np.array([0, 1, -1]),
        np.full((3, 3), 0.5),
        np.full((3, 2), 0.5),
        np.full((3, 3), np.nan),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(ImagesError, match="targets"):
        students.train(np.zeros((3, 8, 8, 3), np.uint8), targets, classes=3, steps=1, seed=0, side=8)


def test_no_augmentation_changes_nothing_and_a_shift_moves_by_its_share():
    pixels = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).float()
    draw = torch.Generator().manual_seed(0)
    assert torch.allclose(augmented(pixels, Augmentation(), draw), pixels, atol=1e-3)
    moved = augmented(pixels, Augmentation(shift=0.25), draw)
    steps = moved[:, 0, 8, 8] - pixels[:, 0, 8, 8]  # levels rise by 1 to the right and by 16 downward
    assert (steps.abs() <= 4 + 16 * 4).all()
    assert (steps != 0).all()


def test_flips_mirror_about_half_of_the_images_and_nothing_else():
    pixels = torch.rand(400, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    flipped = augmented(pixels, Augmentation(flip=True), torch.Generator().manual_seed(0))
    mirrored = (flipped - pixels.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    same = (flipped - pixels).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=50)
    for step in range(50):
        assert students.one_cycle(step, 50, 3e-3) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 49:
            schedule.step()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_short_schedules_have_finite_rates(steps):
    assert all(0 < students.one_cycle(step, steps, 3e-3) <= 3e-3 for step in range(steps))


def test_batches_are_whole_permutations_cut_without_a_rest():
    batches = students.shuffled_batches(10, 4, torch.Generator().manual_seed(0))
    order = np.concatenate([next(batches) for _ in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert (order[:10] != order[10:]).any()


def test_progress_and_the_number_of_steps(digits):
    seen = []
    students.train(
        digits[0][:8], digits[1][:8], classes=10, steps=3, seed=0, side=16, progress=lambda *step: seen.append(step)
    )
    assert seen == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]
