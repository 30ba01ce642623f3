"""The photographs: what methods may store, what choices are made on, what students are tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import MissingFileError, UsageError
from d3codec.format.wire import pack_part
from d3codec.sources import LabelledImages, read_images
from d3codec.training.photo_images import resize_photos

VALIDATION_A_CLASS = 50
UNRELATED = "tiny_imagenet_no_nette_64_train.parquet"  # photographs of other classes: statistics and the control

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class DataSet:
    """The files of a data set. The first VALIDATION_A_CLASS images a class of `held` are the validation part; the pool
    is the rest of all of `train`.

    settings_from: where the settings of its rows are chosen: on itself ("") or on another data set.
    """

    name: str
    title: str
    train: tuple[str, ...]
    held: str
    test: str
    pixels: int
    settings_from: str = ""


DATA_SETS = {
    "imagenette": DataSet(
        "imagenette",
        "ImageNette",
        ("imagenette_64_train.parquet", "imagenette_64_train_extra.parquet"),
        "imagenette_64_train_extra.parquet",
        "imagenette_64_val.parquet",
        64,
    ),
    "cifar10": DataSet(
        "cifar10",
        "CIFAR-10",
        ("cifar10_32_train.parquet",),
        "cifar10_32_train.parquet",
        "cifar10_32_test.parquet",
        32,
        settings_from="imagenette",
    ),
}


@dataclass(frozen=True)
class Part:
    """Images, uint8 [N, side, side, 3], with their classes, int64 [N]."""

    images: Pixels
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Material:
    """A data set at the side of its students.

    pool, validation, test: at `side`; originals: the pool as the files have it, uint8 [N, pixels, pixels, 3], for
    codecs that store images of other sides; class_bytes: what the list of classes costs in a file.
    """

    name: str
    title: str
    side: int
    class_names: tuple[str, ...]
    originals: Pixels
    pool: Part
    validation: Part
    test: Part

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def class_bytes(self) -> int:
        return class_list_bytes(self.class_names)


def material(name: str, side: int, data: Path) -> Material:
    """Read a data set of DATA_SETS from the folder `data` and reduce it to `side` pixels.

    Raises MissingFileError, naming the file, and UsageError for a side that the files do not divide by.
    """
    files = DATA_SETS[name]
    if side > files.pixels or files.pixels % side:
        raise UsageError("no such side", field="--side", found=side, expected=f"a divisor of {files.pixels}")
    parts = {file: read_part(data, file) for file in files.train}
    test = read_part(data, files.test)
    images, labels, held = [], [], None
    for file, part in parts.items():
        chosen = first_of_each(part.labels, VALIDATION_A_CLASS) if file == files.held else np.zeros(len(part), bool)
        everything = np.stack(part.images)
        if file == files.held:
            held = Part(resize_photos(everything[chosen], side), part.labels[chosen])
        images.append(everything[~chosen])
        labels.append(part.labels[~chosen])
    assert held is not None
    originals = np.concatenate(images)
    return Material(
        name,
        files.title,
        side,
        test.class_names,
        originals,
        Part(resize_photos(originals, side), np.concatenate(labels)),
        held,
        Part(resize_photos(np.stack(test.images), side), test.labels),
    )


def unrelated(data: Path, side: int, count: int | None = None) -> Pixels:
    """Photographs of 197 other classes (the first `count`), uint8 [N, side, side, 3]."""
    return resize_photos(np.stack(read_part(data, UNRELATED).images[:count]), side)


def read_part(data: Path, name: str) -> LabelledImages:
    if not (data / name).is_file():
        raise MissingFileError(
            "no such file of photographs",
            file=str(data / name),
            hint="Name the folder of the parquet files with --data or D3CODEC_DATA.",
        )
    return read_images(data / name)


def first_of_each(labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which rows are among the first `count` of their class."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:count]] = True
    return chosen


def class_list_bytes(names: tuple[str, ...]) -> int:
    """Bytes of a `.d3m`'s list of these classes (names without ids): opponents carry the same."""
    return len(pack_part("".join(f"\t{name}\n" for name in names).encode())[1])
