"""Shards -> one output: every picture is checked, nothing may be missing, and parts must belong together.

A shard is what `decode(..., shard="i/n")` leaves: pictures, their digests, decode.json and the `.d3m` file. Needs
neither torch nor the generator.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.decoder.background import Background
from d3codec.decoder.digests import image_digest
from d3codec.decoder.plan import Plan
from d3codec.decoder.renderers import Progress
from d3codec.decoder.shard import Key, image_keys
from d3codec.decoder.writers import FORMATS, Decoding, Writer
from d3codec.decoder.writers.image_folder import picture_name, read_picture
from d3codec.decoder.writers.output import read_notes
from d3codec.decoder.writers.promise import check_whole, images_in_all, promised_digest
from d3codec.decoder.writers.shard_folder import DATASET, DIGESTS
from d3codec.errors import FormatError, MissingError, MissingFileError, PixelsError, UsageError
from d3codec.format.file import D3MFile

_LINE = re.compile(r"([0-9a-f]{64})  (\d{5,7}/\d{6,8})")
_NAMED = 10  # ranges of missing images that a message names
IDENTITY = ("content_id", "profile", "fingerprint", "classes", "limit")


@dataclass(frozen=True)
class JoinReport:
    """What a join made. `pixels` is 'proved' if the set has the digest that the file states, else 'unproved': the
    file states none for this profile, fingerprint or part of the dataset."""

    content_id: str
    images: int
    profile: str
    fingerprint: str | None
    folders: int
    output: str
    format: str
    pixels: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """A shard on disk: what its decode.json says, and SHA-256 by picture (empty while it is unfinished)."""

    folder: Path
    notes: dict[str, Any]
    digests: dict[str, bytes]


def join(
    folders: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    format: str = "imagefolder",
    progress: Progress | None = None,
) -> JoinReport:
    """Join the shards of a decode into one output. Interrupted, the same call continues.

    Arguments:
        folders: the shards, in any order; they may overlap if they agree.
        output, format: as for `decode`.
        progress: called with ('join', done, total).

    Raises:
        MissingError: images are in none of the folders; PixelsError: a picture without the pixels that its shard
        made, shards that disagree, or a set that differs from what the file promises; UsageError: folders that are
        no shards, or shards of different decodes; MissingFileError: no folder; OutputError: as for `decode`.
    """
    parts = [_read(Path(folder)) for folder in folders]
    if not parts:
        raise UsageError("no shard is given", field="DIR")
    if format not in FORMATS:
        raise UsageError("an unknown output format", field="format", found=format, expected=", ".join(FORMATS))
    _agree(parts)
    decoding = _decoding(parts[0])
    where = _owners(decoding, parts)
    expected = promised_digest(decoding)
    whole = len(where) == images_in_all(decoding.file.content)
    if whole and expected is not None:
        check_whole(decoding, {key: part.digests[name] for key, (part, name) in where.items()}, expected)
    writer: Writer = FORMATS[format](Path(output), decoding)
    _write(decoding, where, writer, progress)
    return JoinReport(
        decoding.file.content_id,
        len(where),
        decoding.profile,
        parts[0].notes["fingerprint"],
        len(parts),
        os.fspath(output),
        format,
        "proved" if whole and expected is not None else "unproved",
    )


def _read(folder: Path) -> Part:
    if not folder.is_dir():
        what = "a file, a folder is needed" if folder.exists() else "there is no such folder"
        raise MissingFileError(what, file=str(folder))
    notes = read_notes(folder)
    if not isinstance(notes.get("shard"), str) or any(name not in notes for name in IDENTITY):
        raise UsageError(
            "not a folder that decode --shard made", file=str(folder), hint="d3codec decode FILE --shard 0/4 -o DIR"
        )
    path = folder / DIGESTS
    try:
        lines = path.read_text("ascii").splitlines() if notes.get("finished") else []
    except (OSError, ValueError):
        lines = []
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise PixelsError("damaged list of digests", file=str(path), hint="Decode this shard again.")
    return Part(folder, notes, {match[2]: bytes.fromhex(match[1]) for match in found if match})


def _agree(parts: list[Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        for field in IDENTITY:
            if part.notes[field] != first.notes[field]:
                raise UsageError(
                    f"these are shards of different decodes: {first.folder} has another {field.replace('_', ' ')}",
                    file=str(part.folder),
                    field=field,
                    found=part.notes[field] if part.notes[field] is not None else "none",
                    expected=first.notes[field] if first.notes[field] is not None else "none",
                )


def _decoding(part: Part) -> Decoding:
    notes, path = part.notes, part.folder / DATASET
    try:
        file = D3MFile.open(path)
        sound = file.content_id == notes["content_id"]
    except (FormatError, MissingFileError):
        sound = False
    if not sound:
        raise PixelsError(
            "the shard's copy of the dataset is missing or damaged", file=str(path), hint="Decode this shard again."
        )
    plan = Plan.of(file.content, notes["classes"], notes["limit"])
    classes = None if notes["classes"] is None else tuple(notes["classes"])
    return Decoding(file, plan, notes["profile"], notes["fingerprint"] or "", classes, notes["limit"])


def _owners(decoding: Decoding, parts: list[Part]) -> dict[Key, tuple[Part, str]]:
    """The part that has each image, and the image's name there."""
    where: dict[Key, tuple[Part, str]] = {}
    missing: dict[int, list[int]] = {}
    for key in decoding.plan.images:
        name = picture_name(key[1], decoding.number(key)).removesuffix(".png")
        owners = [part for part in parts if name in part.digests]
        if not owners:
            missing.setdefault(key[1], []).append(decoding.number(key))
            continue
        for other in owners[1:]:
            if other.digests[name] != owners[0].digests[name]:
                raise PixelsError(
                    f"two shards disagree: {owners[0].folder} has other pixels",
                    file=str(other.folder),
                    field=name,
                    found=other.digests[name].hex(),
                    expected=owners[0].digests[name].hex(),
                )
        where[key] = owners[0], name
    if missing:
        raise _incomplete(missing, parts)
    return where


def _incomplete(missing: dict[int, list[int]], parts: list[Part]) -> MissingError:
    gaps = [f"class {class_}: {text}" for class_, numbers in missing.items() for text in _ranges(numbers)]
    more = f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
    unfinished = [f"{part.folder} (shard {part.notes['shard']})" for part in parts if not part.notes.get("finished")]
    return MissingError(
        f"{sum(map(len, missing.values())):,} images are in none of the shards",
        field="DIR",
        found="; ".join(gaps[:_NAMED]) + more,
        hint=f"Not finished: {', '.join(unfinished)}. The command that made it continues there."
        if unfinished
        else f"There is: shard {', '.join(part.notes['shard'] for part in parts)}.",
    )


def _ranges(numbers: list[int]) -> list[str]:
    """Ascending numbers as `images 0 to 7`, `image 9`."""
    texts, start = [], 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            one = numbers[start] == numbers[place - 1]
            texts.append(f"image {numbers[start]}" if one else f"images {numbers[start]} to {numbers[place - 1]}")
            start = place
    return texts


def _write(decoding: Decoding, where: dict[Key, tuple[Part, str]], writer: Writer, progress: Progress | None) -> None:
    done = 0
    with Background() as background, ExitStack() as stack:
        stack.callback(writer.abandon)
        writer.begin()
        for key in (key for unit in decoding.plan.units for key in image_keys(unit) if key in where):
            background.do(partial(_prepare, writer, key, *where[key]), writer.add)
            done += 1
            if progress:
                progress("join", done, len(where))
        background.finish()
        writer.finish()


def _prepare(writer: Writer, key: Key, part: Part, name: str) -> Any:
    path = part.folder / f"{name}.png"
    image: np.ndarray | None = read_picture(path)
    if image is None or (found := image_digest(image)) != part.digests[name]:
        raise PixelsError(
            "no picture is there, or it is damaged" if image is None else "not the pixels that this shard made",
            file=str(path),
            found=None if image is None else found.hex(),
            expected=part.digests[name].hex(),
            hint="Decode this shard again, which repairs it.",
        )
    return writer.prepare(key, image)
