"""Changes of a manifest, for files whose only fault is in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from making.pieces import Pieces
from making.records import Sound

Change = Callable[[Any], object]
"""Changes a manifest, as msgpack has it, in place."""


def changed(sound: Sound, change: Change) -> Pieces:
    """The file with another manifest."""
    pieces = sound.pieces()
    manifest = copy.deepcopy(pieces.manifest)
    change(manifest)
    return pieces.but(manifest=manifest)


def content(**values: object) -> Change:
    return lambda manifest: manifest["c"].update(values)


def in_group(record: str | None = None, number: int = 0, **values: object) -> Change:
    """Other values in a record of a group, or in the group itself."""

    def change(manifest: Any) -> None:
        group = manifest["c"]["g"][number]
        (group if record is None else group[record]).update(values)

    return change


def said(**values: object) -> Change:
    """Another `about`, in what it says."""
    return lambda manifest: manifest.update(a={**manifest.get("a", {}), **values})


def without(*path: object) -> Change:
    """A key less."""

    def change(manifest: Any) -> None:
        for step in path[:-1]:
            manifest = manifest[step]
        del manifest[path[-1]]

    return change
