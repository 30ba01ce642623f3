"""RDED: its algorithm written once more, labels of the decoded regions, sizes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from photograph_case import COLOURS, NAMES, colour_teacher, photographs
from PIL import Image

import d3codec
from d3codec.decoder.verify import verify
from d3codec.encoder.select import ATTEMPTS, PADDING, crop_box, uniforms
from d3codec.errors import D3MError, ImagesError, TeacherError, UsageError
from d3codec.methods.rded import encode
from d3codec.sources import LabelledImages

IMAGES = photographs(count=12, side=24)


def teacher_of_brightness(images: np.ndarray) -> np.ndarray:
    """Another class than the colour for bright crops, so that choices matter."""
    return np.ascontiguousarray(colour_teacher(images) + 3 * (images.mean((1, 2, 3))[:, None] / 90 - [0, 1, 2]))


def centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(-1, keepdims=True)


def by_hand(images: LabelledImages, teacher, ipc: int, grid: int, side: int) -> np.ndarray:
    """The published code in a few lines: five crops an image, the best one is kept, the best of a class fill collages.

    The teacher sees a crop in the middle of a canvas as large as the collage.
    """
    patch, collages = side // grid, []
    for label in range(3):
        rows = np.flatnonzero(images.labels == label)
        found = []
        for rank, row in enumerate(rows):
            for draw in uniforms(0, label, rank, 5 * 3 * ATTEMPTS).reshape(5, -1):
                top, left, bottom, right = crop_box(*images.images[row].shape[:2], (0.08, 1.0), draw)
                crop = Image.fromarray(images.images[row][top:bottom, left:right])
                small = np.asarray(crop.resize((patch, patch), Image.Resampling.BICUBIC))
                canvas = np.full((side, side, 3), PADDING, np.uint8)
                middle = slice((side - patch) // 2, (side - patch) // 2 + patch)
                canvas[middle, middle] = small
                logits = teacher(canvas[None]).astype(np.float64)[0]
                loss = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]
                found.append((rank, loss, small))
        best = [min((loss, at) for at, (rank, loss, _) in enumerate(found) if rank == one) for one in range(len(rows))]
        order = [found[at][2] for _, at in sorted(best)]
        for number in range(ipc):  # patch k of collage n is number k * ipc + n
            cells = [order[cell * ipc + number] for cell in range(grid * grid)]
            rows_of_cells = [np.concatenate(cells[first : first + grid], 1) for first in range(0, len(cells), grid)]
            collages.append(np.concatenate(rows_of_cells))
    return np.stack(collages)


def test_it_is_the_published_algorithm(tmp_path):
    path = tmp_path / "x.d3m"
    report = encode(IMAGES, path, teacher=teacher_of_brightness, ipc=2, grid=2, image_format="png")
    found = d3codec.load(path)
    np.testing.assert_array_equal(found.images(), by_hand(IMAGES, teacher_of_brightness, 2, 2, 24))
    assert (report.profile, report.images, report.patches, report.labels) == ("exact", 6, 24, "adaptive")
    assert verify(found.file, decode="all").pixels == "proved"
    assert (found.groups[0].generator, found.grid, found.about.method) == (None, (2, 2), "rded")


@pytest.mark.parametrize("image_format", ["png", "webp", "avif"])
def test_every_region_has_the_label_of_its_decoded_pixels(image_format, tmp_path):
    path = tmp_path / "x.d3m"
    report = encode(IMAGES, path, teacher=colour_teacher, ipc=2, grid=2, image_format=image_format, quality=None)
    found = d3codec.load(path)
    images, logits = found.images(), found.labels.logits()
    assert logits.shape == (6, 4, 3)
    for image, rows in zip(images, logits, strict=True):
        regions = np.stack([image[y : y + 12, x : x + 12] for y in (0, 12) for x in (0, 12)])
        assert np.abs(centred(colour_teacher(regions)) - centred(rows)).max() < 2 * 200 / 256  # two steps
    hits = colour_teacher(np.concatenate([images[:, y : y + 12, x : x + 12] for y in (0, 12) for x in (0, 12)]))
    assert report.agreement_percent == pytest.approx(100 * (hits.argmax(1) == np.tile(found.labels.hard(), 4)).mean())


def test_only_some_images_of_a_class_are_looked_at(tmp_path):
    seen = []

    def teacher(images):
        seen.append(len(images))
        return colour_teacher(images)

    encode(IMAGES, tmp_path / "x.d3m", teacher=teacher, ipc=1, grid=1, images_per_class=4, labels="hard")
    assert seen[0] == 1  # whether it fits
    assert seen[1:4] == [4 * 5] * 3
    seen.clear()
    encode(IMAGES, tmp_path / "x.d3m", teacher=teacher, ipc=8, grid=1, images_per_class=4, crops=2, labels="hard")
    assert seen[1:4] == [8 * 2] * 3  # as many as are needed


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    options = {"teacher": teacher_of_brightness, "ipc": 2, "labels": "hard"}
    files = [tmp_path / name for name in ("one", "two", "three")]
    for path, seed in zip(files, (3, 3, 4), strict=True):
        encode(IMAGES, path, **options, seed=seed, image_format="png")
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


# ---------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("labels", ["hard", "int8", None])
def test_a_size_is_never_exceeded_and_filled(labels, tmp_path):
    path = tmp_path / "x.d3m"
    for limit in (900, 2200):
        report = encode(
            IMAGES, path, teacher=colour_teacher, ipc=3, labels=labels, max_bytes=limit, image_format="webp"
        )
        assert report.bytes_total == path.stat().st_size
        assert 0.9 * limit <= report.bytes_total <= limit  # webp has coarse qualities


def test_the_least_size_is_named_and_can_be_had(tmp_path):
    path, options = tmp_path / "x.d3m", {"teacher": colour_teacher, "ipc": 3, "image_format": "webp"}
    for change in ({}, {"labels": "hard"}, {"image_format": "png"}, {"quality": 90}):
        with pytest.raises(UsageError) as error:
            encode(IMAGES, path, **(options | change), max_bytes=50)
        assert (error.value.field, error.value.found) == ("bytes", 50)
        assert not path.exists()
        report = encode(IMAGES, path, **(options | change), max_bytes=error.value.expected)
        assert report.bytes_total == error.value.expected
        path.unlink()


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"ipc": 4}, ImagesError, r"'ash' has too few images .found 12 images, expected at least 16"),
        ({"ipc": 0}, UsageError, "ipc"),
        ({"grid": 0}, UsageError, "grid"),
        ({"resolution": 25}, UsageError, "resolution"),
        ({"resolution": 100_000}, UsageError, "resolution"),
        ({"grid": 25}, UsageError, "resolution"),
        ({"quality": 101}, UsageError, "quality"),
        ({"quality": 60, "image_format": "png"}, UsageError, "quality"),
        ({"image_format": "jpeg"}, UsageError, "image_format"),
        ({"crops": 0}, UsageError, "crops"),
        ({"crop_scale": (0.5, 0.2)}, UsageError, "crop_scale"),
        ({"labels": "loud"}, UsageError, "labels"),
        ({"labels": "hard", "label_step": 3}, UsageError, "label_step"),
        ({"licence": "x" * 100_000}, UsageError, "licence"),
        ({"class_ids": ["a"], "authority": "ours"}, UsageError, "class_ids"),
        ({"teacher": lambda images: np.zeros((len(images), 2))}, TeacherError, "shape"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(change, kind, message, tmp_path):
    asked = {"teacher": colour_teacher, "ipc": 2} | change
    with pytest.raises(kind, match=message):
        encode(IMAGES, tmp_path / "x.d3m", **asked, progress=lambda *_: pytest.fail("it has begun"))
    assert not list(tmp_path.iterdir())


def test_its_report(tmp_path):
    path, report = tmp_path / "x.d3m", tmp_path / "x.json"
    seen = []
    ids = {"class_ids": ["n1", "n2", "n3"], "authority": "ours", "licence": "CC0-1.0"}
    tell = {"progress": lambda *event: seen.append(event)}
    found = encode(IMAGES, path, teacher=colour_teacher, ipc=1, report=report, **ids, **tell)
    assert json.loads(report.read_text()) == json.loads(json.dumps(found.as_json()))
    assert seen == [("select", 1, 3), ("select", 2, 3), ("select", 3, 3), ("pack", 1, 1)]
    for part in (str(path), f"{found.bytes_total:,} bytes", found.content_id, "3 images of 3 classes, 12 patches"):
        assert part in found.as_text()
    dataset = d3codec.load(path)
    assert [(info.id, info.name) for info in dataset.classes] == list(zip(["n1", "n2", "n3"], NAMES, strict=True))
    assert dataset.about.licence == "CC0-1.0"
    with pytest.raises(D3MError, match="replace"):
        encode(IMAGES, path, teacher=colour_teacher, ipc=1, report=path)


def test_the_case_can_be_told_apart():
    """What the tests above rest on: the teacher knows the images, and crops differ in what they show."""
    assert (colour_teacher(np.stack(IMAGES.images)).argmax(1) == IMAGES.labels).mean() > 0.9
    assert len(COLOURS) == 3
