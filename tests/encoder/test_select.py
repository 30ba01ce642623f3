import numpy as np
import pytest

from d3codec.encoder.collage import fill_order, make_collages
from d3codec.encoder.relabel import agreement, cross_entropy, label_patches, teacher_logits
from d3codec.encoder.select import ATTEMPTS, crop_box, cut_patch, select_class, select_patches, uniforms
from d3codec.errors import ImagesError, TeacherError
from d3codec.sources import LabelledImages


def likes_bright(images: np.ndarray) -> np.ndarray:
    """A teacher of two classes: the brighter a patch, the more it is class 0."""
    brightness = images.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    return np.stack([8 * brightness, 8 * (1 - brightness)], axis=1).astype(np.float32)


def grey_images(levels: list[int], labels: list[int], side: int = 8) -> LabelledImages:
    images = [np.full((side, side, 3), level, np.uint8) for level in levels]
    return LabelledImages(images, np.array(labels, np.int64), ("bright", "dark"), "test")


def test_the_teachers_favourites_come_first() -> None:
    images = grey_images([10, 200, 90, 250, 130, 20], [0, 0, 0, 0, 1, 1])
    bright = select_class(images, 0, likes_bright, crops=1, crop_scale=(1, 1), side=4)
    assert bright.images.tolist() == [3, 1, 2, 0]
    assert (np.diff(bright.losses) > 0).all()
    np.testing.assert_allclose(bright.losses[0], np.log1p(np.exp(8 - 16 * 250 / 255)), rtol=1e-5)
    assert select_class(images, 1, likes_bright, crops=1, crop_scale=(1, 1), side=4).images.tolist() == [5, 4]


def test_the_best_of_several_crops_is_kept() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :16] = 255  # one bright quarter
    images = LabelledImages([image] * 3, np.zeros(3, np.int64), ("bright", "dark"), "test")
    few = select_class(images, 0, likes_bright, crops=1, crop_scale=(0.05, 0.1), side=8, seed=5)
    many = select_class(images, 0, likes_bright, crops=40, crop_scale=(0.05, 0.1), side=8, seed=5)
    assert many.losses.max() < few.losses.max()
    for top, left, bottom, right in many.boxes:  # forty tries find the bright quarter
        assert image[top:bottom, left:right].mean() == 255
    # the first of the forty crops is the one crop of before
    best = dict(zip(many.images.tolist(), many.losses.tolist(), strict=True))
    assert all(best[i] <= loss for i, loss in zip(few.images.tolist(), few.losses.tolist(), strict=True))


def test_crops_do_not_depend_on_other_classes_or_batches() -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (12, 15, 3), np.uint8) for _ in range(300)]
    labels = np.array([0, 1] * 150)
    whole = LabelledImages(pixels, labels, ("bright", "dark"), "test")
    alone = LabelledImages(pixels[1::2], labels[1::2], ("bright", "dark"), "test")
    a = select_class(whole, 1, likes_bright, side=6, seed=3)
    b = select_class(alone, 1, likes_bright, side=6, seed=3)
    assert (a.images == 2 * b.images + 1).all()
    assert (a.boxes == b.boxes).all()
    assert (a.losses == b.losses).all()
    assert (select_class(whole, 1, likes_bright, side=6, seed=4).boxes != a.boxes).any()


def test_draws_are_those_of_numpys_philox() -> None:
    assert np.array_equal(uniforms(1, 2, 3, 5), uniforms(1, 2, 3, 9)[:5])
    words = np.random.Philox(np.random.SeedSequence([1, 2, 3])).random_raw(4)
    assert uniforms(1, 2, 3, 4).tolist() == [(int(word) >> 11) / 2**53 for word in words]
    assert uniforms(1, 2, 3, 4).tolist() != uniforms(1, 3, 2, 4).tolist()


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((8, 8), (1, 1), (0, 0, 8, 8)),  # the whole image
        ((8, 20), (1, 1), (0, 6, 8, 14)),  # no square of the whole area fits: the central one
        ((9, 8), (1, 1), (0, 0, 8, 8)),  # rounds to 8, so it fits and is placed at random (here: 0)
    ],
)
def test_whole_images(size: tuple[int, int], scale: tuple[float, float], expected: tuple[int, ...]) -> None:
    assert crop_box(*size, scale, np.zeros(3 * ATTEMPTS)) == expected


def test_areas_of_crops_are_uniform() -> None:
    boxes = [crop_box(500, 500, (0.08, 1.0), uniforms(0, 0, k, 3 * ATTEMPTS)) for k in range(2000)]
    shares = np.array([(bottom - top) * (right - left) / 500**2 for top, left, bottom, right in boxes])
    assert shares.min() > 0.079
    assert shares.max() <= 1
    assert abs(shares.mean() - 0.54) < 0.03  # sd of the mean 0.006
    assert all(0 <= top < bottom <= 500 and 0 <= left < right <= 500 for top, left, bottom, right in boxes)
    assert len({box[0] for box in boxes}) > 200


def test_patches_of_the_right_size_are_not_resampled() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(cut_patch(image, (2, 1, 6, 5), 4), image[2:6, 1:5])
    assert cut_patch(image, (0, 0, 8, 8), 5).shape == (5, 5, 3)


def test_select_patches_gives_pixels_and_names_poor_classes() -> None:
    images = grey_images([10, 200, 90, 250, 130, 20], [0, 0, 0, 0, 1, 1])
    patches = select_patches(images, likes_bright, 2, crops=1, crop_scale=(1, 1), side=4)
    assert patches.shape == (2, 2, 4, 4, 3)
    assert patches[:, :, 0, 0, 0].tolist() == [[250, 200], [20, 130]]
    with pytest.raises(ImagesError, match=r"'dark'.*2 images.*at least 3"):
        select_patches(images, likes_bright, 3, side=4)


def test_fill_order_of_rded() -> None:
    # by hand: 3 collages of 2 x 2; the three best patches are the top left cells
    assert fill_order(3, 4).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    patches = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    collages = make_collages(patches, (2, 2))
    assert collages.shape == (3, 4, 4, 3)
    assert collages[:, ::2, ::2, 0].tolist() == [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]]
    with pytest.raises(ValueError, match="11 patches"):
        make_collages(patches[:11], (2, 2))


def test_teachers_that_do_not_fit_are_refused() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    with pytest.raises(TeacherError, match=r"shape \(3, 2\).*shape \(3, 5\)"):
        teacher_logits(likes_bright, images, 5)
    with pytest.raises(TeacherError, match="not finite"):
        teacher_logits(lambda part: np.full((len(part), 2), np.nan), images, 2)


def test_labels_are_in_order_of_image_and_patch() -> None:
    cells = np.arange(8, dtype=np.uint8).reshape(2, 4) * 30
    collages = np.kron(cells.reshape(2, 2, 2), np.ones((1, 3, 3), np.uint8))[..., None].repeat(3, 3)
    logits = label_patches(collages, (2, 2), likes_bright, 2)
    np.testing.assert_array_equal(logits, likes_bright(cells.reshape(8)[:, None, None, None]))
    assert logits.dtype == np.float32


def test_cross_entropy_and_agreement() -> None:
    logits = np.array([[1000.0, 0, 0], [0, 0, 0], [-5, 1, 2]], np.float32)
    np.testing.assert_allclose(cross_entropy(logits, 0), [0, np.log(3), np.log(np.exp([-5, 1, 2]).sum()) + 5])
    shares = agreement(np.array([[1, 0], [0, 1], [0, 1], [0, 1.0]]), np.array([0, 0, 1, 1]), 2)
    assert shares.tolist() == [0.5, 1.0]
