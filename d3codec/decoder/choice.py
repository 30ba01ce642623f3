"""The arguments of a decode, resolved and checked: which images, which part of them, where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import choose_device, fingerprint
from d3codec.decoder.shard import Shard
from d3codec.decoder.writers import SHEET_CLASSES, SHEET_IMAGES, Decoding
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile


@dataclass(frozen=True)
class Choice:
    """Arguments of a decode, resolved: the images, the part of them if any, the device."""

    decoding: Decoding
    shard: Shard | None
    device: str

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
        file = file if isinstance(file, D3MFile) else D3MFile.open(file)
        device = choose_device(device)
        positions = _positions(file, classes)
        plan = Plan.of(file.content, positions, limit)
        if sheet_only:
            shown = sorted({class_ for _, class_, _ in plan.images})[:SHEET_CLASSES]
            plan = Plan.of(file.content, shown, min(limit or SHEET_IMAGES, SHEET_IMAGES))
        shard = Shard.parse(shard) if isinstance(shard, str) else shard
        chosen = None if positions is None else tuple(sorted(set(positions)))
        decoding = Decoding(
            file,
            plan if shard is None else shard.of(plan),
            profile or file.content.profile.name,
            fingerprint(device),
            chosen,
            limit,
        )
        return cls(decoding, shard, device)


def _positions(file: D3MFile, classes: Sequence[int | str] | None) -> list[int] | None:
    """Positions of classes given by position, name or id."""
    if classes is None:
        return None
    records = file.class_records() if any(isinstance(item, str) for item in classes) else []
    positions = []
    for item in classes:
        found = (
            [number for number, record in enumerate(records) if item and item in (record.name, record.id)]
            if isinstance(item, str)
            else [item]
        )
        if len(found) != 1:
            raise UsageError(
                "no such class" if not found else "the name of one class is the id of another",
                file=file.path,
                field="classes",
                found=item,
            )
        positions += found
    return positions
