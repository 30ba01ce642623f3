"""What all writers share: what they write, and which folders they take for their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from d3codec.decoder.cache import cache_key
from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import machine
from d3codec.decoder.shard import Key
from d3codec.decoder.writers.saving import as_json, remove_leftover, save
from d3codec.errors import OutputError
from d3codec.format.file import ClassRecord, D3MFile

OTHER = "Choose another output."
_TEMPORARY = re.compile(r"\.d3m-[0-9a-f]{16}")


@dataclass(frozen=True)
class Decoding:
    """What is written: the images of `plan`, decoded from `file` under `profile` and `fingerprint`. `classes` and
    `limit` are the selection that made the plan (None: everything)."""

    file: D3MFile
    plan: Plan
    profile: str
    fingerprint: str
    classes: tuple[int, ...] | None = None
    limit: int | None = None

    @cached_property
    def records(self) -> list[ClassRecord]:
        return self.file.class_records()

    @property
    def identity(self) -> dict[str, Any]:
        """What the pixels depend on: no machine, if the file promises them everywhere."""
        where = machine(self.profile, self.file.content.profile.name, self.fingerprint)
        return {"content_id": self.file.content_id, "profile": self.profile, "fingerprint": where}

    @property
    def cache_key(self) -> str:
        return cache_key(*self.identity.values())

    @property
    def selection(self) -> dict[str, Any]:
        """What an output that is made as a whole depends on besides."""
        return {"classes": None if self.classes is None else list(self.classes), "limit": self.limit}

    def number(self, key: Key) -> int:
        """Number of an image among all of its class."""
        return self.plan.number_in_class(key[0], key[2])

    def classes_json(self) -> bytes:
        return as_json(
            [{"index": number, "id": record.id, "name": record.name} for number, record in enumerate(self.records)]
        )


class Writer(Protocol):
    """Refuses an output that is not its own when it is made, and writes nothing before `begin`.

    `prepare` runs on several threads at once and must not depend on the order of images; `add` takes what it returned,
    in the order of the decode, one at a time. Either `finish` ends it or `abandon`, which leaves no temporary file.
    """

    def begin(self) -> None: ...
    def prepare(self, key: Key, image: np.ndarray) -> Any: ...
    def add(self, prepared: Any) -> None: ...
    def finish(self) -> None: ...
    def abandon(self) -> None: ...


class OutputFolder:
    """A folder that one decode makes: decode.json says which, and nothing that it would not write is in it.

    Arguments:
        identity: what decode.json must say.
        is_ours: whether a file or folder, given by the pieces of its name below `folder`, may be there.

    Raises (when made):
        OutputError: the folder holds something else.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], is_ours: Callable[[Path, tuple[str, ...]], bool]
    ) -> None:
        self.folder, self._identity, self._is_ours = folder, dict(identity), is_ours
        self._leftovers = self._check()

    def begin(self, images: int, files: Mapping[str, bytes]) -> None:
        """Write decode.json and some files; until the first image is there the decode may fail for other reasons."""
        for path in self._leftovers:
            remove_leftover(path)
        self.note(images, finished=False)
        for name, data in files.items():
            save(self.folder / name, data)

    def note(self, images: int, *, finished: bool) -> None:
        save(self.folder / "decode.json", as_json(self._identity | {"images": images, "finished": finished}))

    def _check(self) -> list[Path]:
        """Refuse what is not ours; the temporary files of a decode that was killed are returned."""
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError("the output is a file, a folder is needed", file=str(self.folder), hint=OTHER)
        there = sorted(self.folder.rglob("*")) if self.folder.exists() else []
        leftovers = {path for path in there if _TEMPORARY.fullmatch(path.name)}
        if len(there) == len(leftovers):
            return list(leftovers)
        for path in there:
            pieces = path.relative_to(self.folder).parts
            if path not in leftovers and pieces != ("decode.json",) and not self._is_ours(path, pieces):
                raise OutputError(
                    "the output holds something else", file=str(self.folder), found="/".join(pieces), hint=OTHER
                )
        notes = read_notes(self.folder)
        for field in [*self._identity, *sorted(notes.keys() - self._identity.keys() - {"images", "finished"})]:
            if field not in notes or notes[field] != self._identity.get(field, "nothing"):
                raise OutputError(
                    "the output holds another decode",
                    file=str(self.folder),
                    field=field,
                    found=notes.get(field, "nothing"),
                    expected=self._identity.get(field, "nothing"),
                    hint=OTHER,
                )
        return list(leftovers)


def read_notes(folder: Path) -> dict[str, Any]:
    """What decode.json says; nothing if it cannot be read."""
    try:
        return dict(json.loads((folder / "decode.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
