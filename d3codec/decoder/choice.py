"""The arguments of a decode, resolved and checked: which images, which part of them, where they go."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.plan import Extent
from d3codec.decoder.precision import choose_device, fingerprint, has_networks
from d3codec.decoder.shard import Shard
from d3codec.decoder.writers import (
    FORMATS,
    SHEET_CLASSES,
    SHEET_IMAGES,
    ContactSheet,
    Decoding,
    PixelCheck,
    ShardFolder,
    Writer,
)
from d3codec.errors import UsageError
from d3codec.format.file import ClassRecord, D3MFile


@dataclass(frozen=True)
class Choice:
    """Arguments of a decode, resolved: the images, counted until `decoding` lists them, the part of them if any, the
    device. `classes` and `limit` are those asked for (None: all)."""

    file: D3MFile
    extent: Extent
    profile: str
    device: str
    shard: Shard | None
    classes: tuple[int, ...] | None
    limit: int | None

    @classmethod
    def of(
        cls,
        file: D3MFile | str | os.PathLike[str],
        classes: Sequence[int | str] | None,
        limit: int | None,
        shard: Shard | str | None,
        profile: str | None,
        device: str,
        sheet_only: bool = False,
    ) -> Choice:
        """Classes are positions, names or ids; a number that is neither name nor id may stand in a string."""
        file = file if isinstance(file, D3MFile) else D3MFile.open(file)
        device = choose_device(device, has_networks(file.content))
        positions = None if classes is None else class_positions(file, classes)
        extent = Extent.of(file.content, positions, limit)
        if sheet_only:
            shown = extent.classes[:SHEET_CLASSES].tolist()
            extent = Extent.of(file.content, shown, min(limit or SHEET_IMAGES, SHEET_IMAGES))
        shard = Shard.parse(shard) if isinstance(shard, str) else shard
        return cls(
            file,
            extent if shard is None else shard.of(extent),
            profile or file.content.profile.name,
            device,
            shard,
            None if positions is None else tuple(sorted(set(positions))),
            limit,
        )

    @property
    def work(self) -> Work:
        return Work.of(self.extent)

    @cached_property
    def decoding(self) -> Decoding:
        """All images of it as a list: see that there are not too many (`check`) before."""
        here = fingerprint(self.device, self.file.content)
        return Decoding(self.file, self.extent.plan(), self.profile, here, self.classes, self.limit)

    def check(self, budget: Budget | None) -> None:
        """Raises UsageError for more work than the budget allows."""
        if budget is not None:
            budget.check(self.work, self.file.path)

    def writers(
        self, output: str | os.PathLike[str] | None, format: str, contact_sheet: str | os.PathLike[str] | None = None
    ) -> list[Writer]:
        """What takes the images. Nothing is written yet, but outputs that are something else are refused."""
        if self.shard is not None and format != "imagefolder":
            raise shard_error()
        if output is not None and contact_sheet is not None and _inside(contact_sheet, output):
            raise UsageError(
                "the contact sheet would lie among the decoded images",
                field="contact_sheet",
                found=os.fspath(contact_sheet),
                hint="Put it beside the output folder.",
            )
        writers: list[Writer] = []
        if (check := PixelCheck.of(self.decoding)) is not None:
            writers.append(check)  # the first to finish: no output is called finished that differs
        if output is not None:
            path = Path(output)
            shard = self.shard
            writers.append(
                FORMATS[format](path, self.decoding) if shard is None else ShardFolder(path, self.decoding, shard)
            )
        if contact_sheet is not None:
            grids = {group.images.grid for group in self.file.content.groups}
            names = [record.name for record in self.decoding.records]
            writers.append(ContactSheet(Path(contact_sheet), names, grids.pop() if len(grids) == 1 else (1, 1)))
        return writers


def check_format(format: str) -> None:
    if format not in FORMATS:
        raise UsageError("an unknown output format", field="format", found=format, expected=", ".join(FORMATS))


def shard_error() -> UsageError:
    return UsageError(
        "a shard is decoded into a folder of pictures and nothing else",
        field="shard",
        hint="Name a folder for it; d3codec join makes the other outputs from all shards.",
    )


def _inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    place, outer = Path(path).resolve(), Path(folder).resolve()
    return place == outer or outer in place.parents


def class_positions(file: D3MFile, classes: Sequence[int | str]) -> list[int]:
    """Positions of classes given by position, name or id; a number that is neither name nor id may stand in a string.

    UsageError for a string that is none of them.
    """
    records = file.class_records() if any(isinstance(item, str) for item in classes) else []
    return [_position(file, records, item) if isinstance(item, str) else item for item in classes]


def _position(file: D3MFile, records: list[ClassRecord], word: str) -> int:
    found = [number for number, record in enumerate(records) if word and word in (record.name, record.id)]
    if not found and word.isascii() and word.isdecimal() and int(word) < len(records):
        return int(word)
    if len(found) == 1:
        return found[0]
    names = [record.name for record in records]
    near = difflib.get_close_matches(word, names, 3) or names[:5]
    raise UsageError(
        "the name of one class is the id of another" if found else "no such class",
        file=file.path,
        field="classes",
        found=word,
        expected="a name, an id or a position",
        hint="There is: " + ", ".join(near) + (", ..." if len(near) < len(names) else ""),
    )
