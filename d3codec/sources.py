"""Labelled images from a folder, a parquet file, scikit-learn's digits or memory.

What the encoder, the training of teachers and the evaluation start from. Reads and decodes, nothing else: no
cropping to squares, no normalisation, no shuffling.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from d3codec.errors import ImagesError, MissingExtraError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
LARGE_SIDE = 2048  # pixels: what is larger is reduced where images are only looked at by networks
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OnError = Literal["refuse", "skip"]


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    images: uint8 (height, width, 3) each, sizes may differ; labels: int64 (N,), positions in class_names;
    source: how the caller named it; skipped: files that could not be read, with the reason.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


Source = str | Path | LabelledImages | tuple[Sequence[np.ndarray], Sequence[int] | np.ndarray, Sequence[str]]


def require_classes(images: LabelledImages) -> None:
    """Raise ImagesError for images of one class, which cannot train a classifier."""
    if len(images.class_names) < 2:
        raise ImagesError(
            "images of one class cannot train a classifier",
            file=images.source,
            field="classes",
            found=f"only {images.class_names[0]!r}",
            expected="two classes or more",
        )


def read_images(source: Source, *, on_error: OnError = "refuse", max_side: int | None = None) -> LabelledImages:
    """Read labelled images from wherever they are.

    Arguments:
        source: a folder with one sub-folder a class (in sorted order; a `classes.json` beside them names
            them), a `.parquet` file in the Hugging Face layout (`image` struct{bytes, path}, `label`), one of
            the words `digits:all`, `digits:train`, `digits:test`, `digits:train:K/5`, `digits:test:K/5`, a
            tuple (images, labels, class_names), or a LabelledImages, which is returned as it is.
        on_error: a file that is no readable image is refused, or skipped and listed in `skipped`.
        max_side: images whose longer side exceeds it are reduced to it (Lanczos), in pixels.

    Returns:
        The images, decoded, upright (EXIF) and in RGB; alpha is dropped, 16 bits are scaled to 8.

    Raises:
        ImagesError: nothing there, not readable, or not in the expected layout; names file and remedy.
        MissingExtraError: pyarrow or scikit-learn is needed and not installed.
    """
    if isinstance(source, LabelledImages):
        return source
    if isinstance(source, tuple):
        return _from_memory(source, max_side)
    name = str(source)
    if name.startswith("digits:"):
        return _read_digits(name)
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, name, on_error, max_side)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _read_parquet(path, name, on_error, max_side)
    if path.exists():
        raise ImagesError(
            "this is neither a folder nor a .parquet file",
            file=name,
            expected="a folder with one sub-folder of images a class, or a .parquet file",
            hint="Put images into one folder a class and name the folder above them.",
        )
    raise ImagesError(
        "no such file or folder",
        file=name,
        expected="a folder with one sub-folder a class, a .parquet file, or digits:train",
        hint="Check the path; it is relative to the current folder.",
    )


def _shrink(image: Image.Image, max_side: int | None) -> Image.Image:
    if max_side is None or max(image.size) <= max_side:
        return image
    factor = max_side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB from any mode. Pillow's own conversion clips 16-bit greys at 255, so those are scaled here."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values from {values.min():g} to {values.max():g} instead of 0 to 65535")
        return Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels of unknown range; save it with 8 or 16 bits")
    if image.mode in ("P", "PA"):  # by way of RGBA: straight to RGB Pillow warns about transparency
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _decode(file: Path | io.BytesIO, max_side: int | None) -> np.ndarray:
    """One file -> uint8 (height, width, 3); ValueError with the reason when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if max_side is not None:
                    image.draft(None, (max_side, max_side))  # a JPEG that is much larger is decoded at 1/2, 1/4 or 1/8
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(_shrink(_to_rgb(image), max_side))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"too many pixels to be decoded safely ({error})") from error
    except UnidentifiedImageError as error:
        raise ValueError("not an image that Pillow knows") from error
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, struct.error) as error:  # Pillow on damage
        raise ValueError(str(error) or type(error).__name__) from error


def _decode_all(
    files: Iterable[tuple[str, Path | io.BytesIO, int]],
    class_names: tuple[str, ...],
    source: str,
    on_error: OnError,
    max_side: int | None,
) -> LabelledImages:
    """Decode (name, file, label) one by one."""
    images, labels, skipped = [], [], []
    for name, file, label in files:
        try:
            images.append(_decode(file, max_side))
            labels.append(label)
        except ValueError as error:
            if on_error == "refuse":
                hint = "Repair or remove it, or ask for unreadable images to be skipped."
                raise ImagesError("not a readable image", file=name, found=str(error), hint=hint) from error
            skipped.append(f"{name}: {error}")
    counts = np.bincount(np.array(labels, np.int64), minlength=len(class_names))
    if not counts.all():  # only a parquet file or skipping leads here
        empty = class_names[int(counts.argmin())]
        raise ImagesError(
            "a class has no readable image" if images else "no readable image",
            file=source,
            field=empty if images else None,
            found=f"{len(skipped)} unreadable, the first {skipped[0]}" if skipped else 0,
            expected="at least one image a class",
            hint="Add images of this class, or remove the class.",
        )
    return LabelledImages(images, np.array(labels, np.int64), class_names, source, tuple(skipped))


def _read_folder(root: Path, source: str, on_error: OnError, max_side: int | None) -> LabelledImages:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        loose = sum(_is_image(p, root) for p in root.iterdir())
        raise ImagesError(
            "no class folders",
            file=source,
            found=f"{loose} images directly in it" if loose else "no folders and no images",
            expected="one sub-folder of images a class",
            hint=f"Move them into sub-folders, as in {root / 'cats'} and {root / 'dogs'}.",
        )
    files: list[tuple[str, Path | io.BytesIO, int]] = []
    for label, folder in enumerate(folders):
        entries = sorted(p for p in folder.rglob("*") if p.is_file())
        found = [p for p in entries if _is_image(p, folder)]
        if not found:
            raise ImagesError(
                "a class folder has no images",
                file=str(folder),
                found=f"{len(entries)} other files" if entries else "an empty folder",
                expected=" ".join(EXTENSIONS),
                hint="Add images of this class, or remove its folder.",
            )
        files += [(str(path), path, label) for path in found]
    names = _folder_names(root / "classes.json", [folder.name for folder in folders])
    return _decode_all(files, names, source, on_error, max_side)


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in EXTENSIONS and path.is_file()


def _folder_names(path: Path, folders: list[str]) -> tuple[str, ...]:
    if not path.exists():
        return tuple(folders)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise TypeError(f"a {type(entries).__name__}")
        numbered = [entry for entry in entries if isinstance(entry, dict) and "index" in entry]
        indexed = {entry["index"]: str(entry["name"]) for entry in numbered}
        if indexed and all(folder.isdecimal() and int(folder) in indexed for folder in folders):
            return tuple(indexed[int(folder)] for folder in folders)  # a decoded dataset, or some classes of one
        names = tuple(str(entry["name"]) if isinstance(entry, dict) else str(entry) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise ImagesError(
            "not a list of class names",
            file=str(path),
            found=str(error),
            expected='["cat", "dog"] or [{"name": "cat"}, {"name": "dog"}]',
        ) from error
    if len(names) != len(folders):
        raise ImagesError(
            "the number of names is not the number of class folders",
            file=str(path),
            found=len(names),
            expected=len(folders),
            hint="Give one name for every folder, in the sorted order of the folders.",
        )
    return names


def _read_parquet(path: Path, source: str, on_error: OnError, max_side: int | None) -> LabelledImages:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("encode") from error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ImagesError("not a readable parquet file", file=source, found=str(error)) from error
    kinds = {field.name: field.type for field in table.schema}
    image, label = kinds.get("image"), kinds.get("label")
    good = image is not None and pyarrow.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not good or label is None or not pyarrow.types.is_integer(label):
        raise ImagesError(
            "the columns are not those of labelled images",
            file=source,
            field="label" if good else "image",
            found=", ".join(f"{name}: {kind}" for name, kind in kinds.items()) or "no columns",
            expected="image: struct<bytes: binary, path: string>, label: an integer",
            hint="Hugging Face datasets write this layout; rename or cast the columns.",
        )
    if not len(table):
        raise ImagesError("no rows", file=source, found=0, expected="at least one image")
    labels = table["label"].drop_null().to_numpy()
    if len(labels) < len(table) or labels.min() < 0:
        raise ImagesError(
            "unlabelled images",
            file=source,
            field="label",
            found="null or negative labels",
            expected="0, 1, 2, ...",
            hint="Test parts often have no labels.",
        )
    names = _parquet_names(table.schema.metadata or {}, source)
    names = names or tuple(str(number) for number in range(int(labels.max()) + 1))
    if labels.max() >= len(names):
        raise ImagesError(
            "a label has no class name",
            file=source,
            field="label",
            found=int(labels.max()),
            expected=f"0 to {len(names) - 1}",
        )

    def rows() -> Iterator[tuple[str, io.BytesIO, int]]:
        number = 0
        for batch in table.to_batches(max_chunksize=256):  # few at a time: not all bytes twice in memory
            for row, kind in zip(batch["image"].to_pylist(), batch["label"].to_pylist(), strict=True):
                yield f"{source} row {number}", io.BytesIO((row or {}).get("bytes") or b""), kind
                number += 1

    return _decode_all(rows(), names, source, on_error, max_side)


def _parquet_names(metadata: dict[bytes, bytes], source: str) -> tuple[str, ...] | None:
    try:
        if b"class_names" in metadata:
            return tuple(str(name) for name in json.loads(metadata[b"class_names"]))
        if b"huggingface" in metadata:
            label = json.loads(metadata[b"huggingface"])["info"]["features"].get("label", {})
            return tuple(str(name) for name in label.get("names") or ()) or None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImagesError(
            "class names in the metadata are unreadable",
            file=source,
            field="class_names",
            found=f"{type(error).__name__} {error}",
            expected="a JSON list",
        ) from error
    return None


def _read_digits(source: str) -> LabelledImages:
    """scikit-learn's digits; the splits are drawn once and for all, so that every tool sees the same."""
    match = re.fullmatch(r"digits:(?:(all)|(train|test)(?::([0-4])/5)?)", source)
    if not match:
        raise ImagesError(
            "no such part of the digits",
            file=source,
            expected="digits:all, digits:train, digits:test, digits:train:K/5, digits:test:K/5 with K from 0 to 4",
        )
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import StratifiedKFold, train_test_split
    except ImportError as error:
        raise MissingExtraError("demo") from error
    levels, labels = load_digits(return_X_y=True)
    part, fold = match[2], match[3]
    chosen = np.arange(len(labels))
    if part and fold:
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(levels, labels))
        chosen = folds[int(fold)][part == "test"]
    elif part:
        halves = train_test_split(chosen, test_size=0.2, stratify=labels, random_state=0)
        chosen = np.sort(halves[part == "test"])
    grey = np.rint(levels[chosen] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    return LabelledImages(list(grey.repeat(3, 3)), labels[chosen].astype(np.int64), DIGIT_NAMES, source)


def _from_memory(source: tuple[Any, ...], max_side: int | None) -> LabelledImages:
    if len(source) != 3:
        raise ImagesError(
            "images in memory come with their labels and class names",
            found=f"a tuple of {len(source)}",
            expected="(images, labels, class_names)",
        )
    arrays, labels, names = source[0], np.asarray(source[1]), tuple(str(name) for name in source[2])
    if not len(arrays):
        raise ImagesError("no images", file="memory", found=0, expected="at least one image")
    if labels.shape != (len(arrays),) or not np.issubdtype(labels.dtype, np.integer):
        raise ImagesError(
            "labels that do not fit the images",
            file="memory",
            field="labels",
            found=f"{labels.dtype} {labels.shape}",
            expected=f"integers ({len(arrays)},)",
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise ImagesError(
            "a label has no class name",
            file="memory",
            field="labels",
            found=f"{labels.min()} to {labels.max()}",
            expected=f"0 to {len(names) - 1}",
        )
    images = []
    for number, array in enumerate(arrays):
        image = np.asarray(array)
        if image.ndim == 2:
            image = image[:, :, None].repeat(3, 2)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImagesError(
                "this array is not an image",
                file="memory",
                field=f"images[{number}]",
                found=f"{image.dtype} {image.shape}",
                expected="uint8 (height, width, 3) or (height, width)",
            )
        images.append(np.asarray(_shrink(Image.fromarray(image), max_side)))
    return LabelledImages(images, labels.astype(np.int64), names, "memory")
