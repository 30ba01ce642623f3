"""Decoded images -> a folder of PNG files, one array file, or a contact sheet.

Every file is written beside and renamed. An output that holds anything else than what would be written is
refused and left as it is. Each writer takes `add(class, number within the class, image)` and `finish()`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.decoder.plan import Plan
from d3codec.errors import OutputError, UsageError
from d3codec.format.file import ClassRecord, D3MFile, save_atomically
from d3codec.format.save import check_writable
from d3codec.labels import quantized

SHEET_CLASSES, SHEET_IMAGES, SHEET_BYTES = 40, 10, 300_000
_TEMPORARY = re.compile(r"\.d3m-[0-9a-f]{16}")
_OTHER = "Choose another output."
_CONTINUE = "Choose another output or make room; finished units are kept, and the same command continues."


def _save(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_atomically(path, data)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be made: {error.strerror}", file=str(path.parent), hint=_CONTINUE
        ) from None
    except OutputError as error:
        error.hint = error.hint or _CONTINUE
        raise


class ImageFolder:
    """DIR/00003/000017.png: class 3, its image 17; `classes.json` and `decode.json` beside the class folders.

    Raises (when made):
        OutputError: the folder holds something else than images of this content, profile and fingerprint.
    """

    def __init__(
        self, folder: Path, file: D3MFile, plan: Plan, records: Sequence[ClassRecord], profile: str, fingerprint: str
    ) -> None:
        self._folder = folder
        self._images = sum(group.images.count for group in file.content.groups)
        self._identity = {"content_id": file.content_id, "profile": profile, "fingerprint": fingerprint}
        self._classes = _json(
            [{"index": number, "id": record.id, "name": record.name} for number, record in enumerate(records)]
        )
        self._leftovers, self._begun = self._check(), False

    def add(self, class_: int, number: int, image: np.ndarray) -> None:
        if not self._begun:
            self._begin()
        path = self._folder / f"{class_:05d}" / f"{number:06d}.png"
        if not _holds(path, image):
            _save(path, png(image))

    def finish(self) -> None:
        self._note(finished=True)

    def _begin(self) -> None:
        """Nothing is written before the first image is there: until then the decode may fail for other
        reasons."""
        for path in self._leftovers:
            with suppress(OSError):
                path.unlink()
        self._note(finished=False)
        _save(self._folder / "classes.json", self._classes)
        self._begun = True

    def _note(self, *, finished: bool) -> None:
        images = sum(1 for _ in self._folder.glob("*/*.png"))
        _save(self._folder / "decode.json", _json(self._identity | {"images": images, "finished": finished}))

    def _check(self) -> list[Path]:
        """Refuse what is not ours; the temporary files of a decode that was killed are returned."""
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputError("the output is a file, a folder is needed", file=str(self._folder), hint=_OTHER)
        there = sorted(self._folder.rglob("*")) if self._folder.exists() else []
        leftovers = [path for path in there if _TEMPORARY.fullmatch(path.name)]
        if there == leftovers:
            return leftovers
        for path in there:
            if path not in leftovers and not self._is_ours(path):
                raise OutputError(
                    "the output holds something else",
                    file=str(self._folder),
                    found=path.relative_to(self._folder).as_posix(),
                    hint=_OTHER,
                )
        try:
            notes = dict(json.loads((self._folder / "decode.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            notes = {}
        for field, value in self._identity.items():
            if notes.get(field) != value:
                raise OutputError(
                    "the output holds another decode",
                    file=str(self._folder),
                    field=field,
                    found=notes.get(field, "nothing"),
                    expected=value,
                    hint=_OTHER,
                )
        return leftovers

    def _is_ours(self, path: Path) -> bool:
        pieces = path.relative_to(self._folder).parts
        if len(pieces) == 1 and pieces[0] in ("classes.json", "decode.json"):
            return path.is_file()
        if not re.fullmatch(r"\d{5,7}", pieces[0], re.ASCII):
            return False
        if len(pieces) == 1:
            return path.is_dir() and int(pieces[0]) < self._classes.count(b'"index"')
        return (
            len(pieces) == 2
            and path.is_file()
            and re.fullmatch(r"\d{6,8}\.png", pieces[1], re.ASCII) is not None
            and int(pieces[1][:-4]) < self._images
        )


class ArrayFile:
    """One .npz file: `images` uint8 [N, height, width, 3], `classes` int64 [N] and, where the dataset stores
    logits, `labels` float32 [N, patches, width]; N in order of class, group and index.

    Raises (when made):
        UsageError: groups whose images or labels have different shapes.
    """

    def __init__(
        self, path: Path, file: D3MFile, plan: Plan, records: Sequence[ClassRecord], profile: str, fingerprint: str
    ) -> None:
        self._path = path
        if path.is_dir():
            raise OutputError("the output is a folder, a file is needed", file=str(path), hint=_OTHER)
        groups = [file.content.groups[number] for number in sorted({group for group, _, _ in plan.images})]
        if len({(group.images.size, group.images.grid, group.labels.kind) for group in groups}) > 1:
            raise UsageError(
                "groups of different shapes do not fit into one array",
                file=file.path,
                hint="Use the format imagefolder.",
            )
        self._places = {
            (class_, plan.number_in_class(group, index)): place
            for place, (group, class_, index) in enumerate(plan.images)
        }
        self._arrays: dict[str, np.ndarray] = {
            "images": np.zeros((len(plan.images), *groups[0].images.size, 3), np.uint8),
            "classes": np.array([class_ for _, class_, _ in plan.images], np.int64),
        }
        if groups[0].labels.kind == "q":
            self._arrays["labels"] = image_labels(file, plan)
        self._refuse_other(("classes", "labels"))

    def add(self, class_: int, number: int, image: np.ndarray) -> None:
        self._arrays["images"][self._places[class_, number]] = image

    def finish(self) -> None:
        self._refuse_other(tuple(self._arrays))
        buffer = io.BytesIO()
        np.savez(buffer, **self._arrays)  # type: ignore[arg-type]
        _save(self._path, buffer.getvalue())

    def _refuse_other(self, names: Sequence[str]) -> None:
        """Refuse a file that is there already unless it holds these arrays."""
        if not self._path.exists():
            return
        try:
            with np.load(self._path, allow_pickle=False) as there:
                same = set(there.files) == set(self._arrays) and all(
                    np.array_equal(there[name], self._arrays[name]) for name in names if name in self._arrays
                )
        except (OSError, ValueError, zipfile.BadZipFile):
            same = False
        if not same:
            raise OutputError("the output exists and holds something else", file=str(self._path), hint=_OTHER)


def image_labels(file: D3MFile, plan: Plan) -> np.ndarray:
    """The stored logits of the plan's images, float32 [images, patches, width] (exact)."""
    tables: dict[int, np.ndarray] = {}
    rows = []
    for number, class_, index in plan.images:
        group = file.content.groups[number]
        if number not in tables:
            patches, labels = group.images.grid[0] * group.images.grid[1], group.labels
            count = file.content.classes.count * group.images.count
            if labels.kind != "q":
                raise UsageError("this group has no stored labels", file=file.path, field=f"group {number}")
            values = quantized.decode(file.section("lab", number), count * patches, labels.width, labels.step)
            tables[number] = values.astype(np.float32).reshape(count, patches, labels.width)
        rows.append(tables[number][class_ * group.images.count + index])
    return np.stack(rows)


def png(image: np.ndarray) -> bytes:
    """PNG bytes of one image, uint8 [height, width, 3]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _holds(path: Path, image: np.ndarray) -> bool:
    """Whether the file shows exactly this image."""
    from PIL import Image

    try:
        with Image.open(path) as there:
            return there.mode == "RGB" and np.array_equal(np.asarray(there), image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


# ---------------------------------------------------------------------------------------------- contact sheet


class ContactSheet:
    """Collects the first images of the first classes, small, and draws them in `finish`."""

    def __init__(self, path: Path, names: Sequence[str], grid: tuple[int, int]) -> None:
        check_writable(path, lambda start: start.startswith(b"\x89PNG"))
        self._path, self._names, self._grid = path, names, grid
        self._images: dict[int, dict[int, np.ndarray]] = {}

    def add(self, class_: int, number: int, image: np.ndarray) -> None:
        row = self._images.setdefault(class_, {})
        image = parted(image, self._grid)
        row[number] = image if max(image.shape) <= _CELLS[0] else _fitted(image, _CELLS[0])
        if len(row) > SHEET_IMAGES:
            del row[max(row)]
        if len(self._images) > SHEET_CLASSES:
            del self._images[max(self._images)]

    def finish(self) -> None:
        contact_sheet(
            [
                (self._names[class_], [row[number] for number in sorted(row)])
                for class_, row in sorted(self._images.items())
            ],
            self._path,
        )


def parted(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A collage with a grey line between its patches, so that a person sees where one ends: uint8 [H, W, 3]."""
    rows, columns = grid
    height, width = image.shape[0] // rows, image.shape[1] // columns
    image = np.insert(image, [height * row for row in range(1, rows)], PART_GREY, axis=0)
    return np.insert(image, [width * column for column in range(1, columns)], PART_GREY, axis=1)


PART_GREY = 128
_CELLS = (96, 64, 48, 32, 24)  # sides of a cell in pixels, tried until the file is small enough
_GAP, _NAME_WIDTH = 2, 110


def contact_sheet(
    images: Mapping[str, Sequence[np.ndarray]] | Sequence[tuple[str, Sequence[np.ndarray]]], path: str | Path
) -> None:
    """Draw one row a class with its name: at most 40 classes, 10 images each, a PNG below 300 KB.

    Small images are magnified by whole factors without smoothing, large ones reduced.

    Arguments:
        images: class name -> images, uint8 [height, width, 3], as a mapping or as pairs in order.

    Raises:
        OutputError: the file cannot be written. UsageError: no image is given.
    """
    pairs = list(images.items()) if isinstance(images, Mapping) else list(images)
    rows = [(name, list(row)[:SHEET_IMAGES]) for name, row in pairs[:SHEET_CLASSES] if len(row)]
    if not rows:
        raise UsageError("no image to draw", file=str(path))
    data, area = b"", 0
    for columns, cell in product((SHEET_IMAGES, SHEET_IMAGES // 2, 2), _CELLS):
        # Bytes grow about with the area: what would clearly be too large is not drawn.
        if data and len(data) * columns * cell**2 > 1.5 * SHEET_BYTES * area:
            continue
        data, area = _draw([(name, row[:columns]) for name, row in rows], cell), columns * cell**2
        if len(data) < SHEET_BYTES:
            break
    _save(Path(path), data)


def _draw(rows: Sequence[tuple[str, Sequence[np.ndarray]]], cell: int) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    fitted = [(name, [_fitted(image, cell) for image in row]) for name, row in rows]
    height = max(max(image.shape[0] for _, row in fitted for image in row), 14) + _GAP
    width = max(image.shape[1] for _, row in fitted for image in row) + _GAP
    columns = max(len(row) for _, row in fitted)
    sheet = Image.new("RGB", (_NAME_WIDTH + columns * width + _GAP, len(rows) * height + _GAP), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for place, (name, row) in enumerate(fitted):
        top = _GAP + place * height
        short = name if len(name) <= 16 else name[:15] + "…"
        if not isinstance(font, ImageFont.FreeTypeFont):
            short = short.encode("latin-1", "replace").decode("latin-1")  # all that the built-in font has
        drawing.text((4, top + height // 2 - 7), short, fill="black", font=font)
        for column, image in enumerate(row):
            sheet.paste(Image.fromarray(image), (_NAME_WIDTH + column * width, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _fitted(image: np.ndarray, cell: int) -> np.ndarray:
    """Magnified by the largest whole factor that fits into the cell, or reduced to fit."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= cell:
        factor = cell // max(height, width)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = cell / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
