"""Finished units on disk, so that an interrupted decode continues and a second one takes no time.

A unit's pixels are a function of the file where it promises them everywhere, else of file, profile and fingerprint.
Any number of processes may use one cache: files are written beside and renamed, and whoever comes second writes the
same bytes. A cache with a limit removes the units that were used longest ago, but none of a decode that protects its
own; a use touches the file's time of modification, since many systems keep none of access.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3codec.decoder.plan import Unit
from d3codec.decoder.precision import DECODE_VERSION
from d3codec.errors import OutputError, UsageError
from d3codec.format.file import save_atomically
from d3codec.format.manifest import Content
from d3codec.generators.weights import home

__all__ = [
    "CacheEntry",
    "UnitCache",
    "cache_entries",
    "cache_key",
    "cache_limit",
    "home",
    "make_room",
    "remove_cached",
    "stored_bytes",
]

GIGABYTES = 10.0  # unless D3CODEC_CACHE_GB or a caller says otherwise
NEWEST = 32  # units that always stay: other processes may be about to read them
_SHAPE = struct.Struct("<3I")  # images, height, width
_DIGEST_BYTES = 32
_TEMPORARY_SECONDS = 3600  # a temporary file that is older was left by a process that was killed
_FOLDER = re.compile(r"(.+?)(?:-r\d+|-[0-9a-f]{12})?")


def cache_key(content_id: str, profile: str, machine: str | None) -> str:
    """Folder of the units of one dataset, relative to `home()`: under one profile and what its pixels depend on besides
    (`precision.machine`), or where that is nothing, one version of this decoder, which may have had a fault."""
    if machine is None:
        return f"decoded/{content_id}/{profile}-r{DECODE_VERSION}"
    return f"decoded/{content_id}/{profile}-{hashlib.sha256(machine.encode()).hexdigest()[:12]}"


def cache_limit(gigabytes: float | None = None) -> int:
    """Bytes that the cache may take: those given, else D3CODEC_CACHE_GB, else 10 GB. Raises UsageError."""
    text = (os.environ.get("D3CODEC_CACHE_GB") or GIGABYTES) if gigabytes is None else gigabytes
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        field = "D3CODEC_CACHE_GB" if gigabytes is None else "cache_gigabytes"
        raise UsageError("not a size of the cache in GB", field=field, found=text, expected="0 or more")
    return int(value * 1e9)


def stored_bytes(content: Content, units: Sequence[Unit]) -> int:
    """What units take in the cache."""
    sizes = [3 * group.images.size[0] * group.images.size[1] for group in content.groups]
    return sum(_DIGEST_BYTES + _SHAPE.size + len(unit.classes) * sizes[unit.group] for unit in units)


class UnitCache:
    """Units below the folder `home / key`, a file each: SHA-256 of all that follows and of the unit's name, shape,
    pixels. With a `limit` in bytes the least recently used units below `home` make room for new ones, but none of this
    key if it is to `protect` them."""

    def __init__(self, home: str | Path, key: str, limit: int | None = None, protect: bool = False) -> None:
        self._home, self._folder, self._limit = Path(home), Path(home) / key, limit
        self._protected = self._folder if protect else None
        self._room: int | None = None  # bytes until the folder is looked at again

    def path(self, unit: Unit) -> Path:
        return self._folder / f"{unit.group:02d}-{unit.number:06d}.unit"

    def get(self, unit: Unit) -> np.ndarray | None:
        """Pixels of a unit, uint8 [images, height, width, 3], or None if it is absent or damaged in any way."""
        path = self.path(unit)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if _digest(unit, payload) != digest or len(payload) < _SHAPE.size:
            return None
        count, height, width = _SHAPE.unpack_from(payload)
        if count != len(unit.classes) or len(payload) != _SHAPE.size + count * height * width * 3:
            return None
        if self._limit is not None:
            with suppress(OSError):  # a cache that can only be read is still one
                os.utime(path)
        return np.frombuffer(payload, np.uint8, offset=_SHAPE.size).reshape(count, height, width, 3)

    def put(self, unit: Unit, pixels: np.ndarray) -> None:
        """Keep a unit. Raises OutputError if it cannot be written, ValueError for pixels of another shape or type."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != len(unit.classes):
            raise ValueError(f"not the pixels of {len(unit.classes)} images: {pixels.dtype} {pixels.shape}")
        payload = _SHAPE.pack(*pixels.shape[:3]) + pixels.tobytes()
        path = self.path(unit)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder cannot be made: {error.strerror}", file=str(path.parent)) from None
        save_atomically(path, _digest(unit, payload) + payload)
        if self._limit is not None:
            self._account(len(payload), self._limit)

    def clear(self) -> None:
        """Remove the units of this key. Raises OutputError."""
        _remove_folder(self._folder)

    def _account(self, size: int, limit: int) -> None:
        """Look at the whole cache when what was written since the last look may have filled it; that is every
        twentieth of the limit at the latest, since other processes write too."""
        if self._room is None or self._room < size:
            self._room = min(limit - make_room(self._home, limit, self._protected), max(limit // 20, size))
        else:
            self._room -= size


def _digest(unit: Unit, payload: bytes) -> bytes:
    """Covers the unit too, so that a renamed file is not taken for another unit."""
    return hashlib.sha256(repr(unit).encode() + payload).digest()


# ------------------------------------------------------------------------------------------ the cache as a whole


@dataclass(frozen=True)
class CacheEntry:
    """The units of one dataset under one profile (and fingerprint); `last_used` in seconds since 1970."""

    content_id: str
    profile: str
    folder: Path
    units: int
    bytes: int
    last_used: float


def make_room(home: str | Path, limit: int, protected: Path | None = None) -> int:
    """Remove temporary files of killed processes and, beyond `limit` bytes, the units used longest ago, those in the
    folder `protected` excepted, until nine tenths of the limit are taken. Returns the bytes that are left."""
    units, now = [], time.time()
    for path, facts in _files(Path(home) / "decoded"):
        if path.suffix == ".unit":
            units.append((facts.st_mtime, facts.st_size, path))
        elif now - facts.st_mtime > _TEMPORARY_SECONDS:
            _remove(path)
    total = sum(size for _, size, _ in units)
    if total <= limit:
        return total
    for _, size, path in sorted(units)[:-NEWEST]:
        if total <= 0.9 * limit:
            break
        if path.parent == protected:
            continue
        _remove(path)
        total -= size
        with suppress(OSError):  # empty folders go, others stay
            path.parent.rmdir()
            path.parent.parent.rmdir()
    return total


def cache_entries(home: str | Path) -> list[CacheEntry]:
    """What the cache holds, most recently used first."""
    found: dict[Path, list[os.stat_result]] = {}
    for path, facts in _files(Path(home) / "decoded"):
        if path.suffix == ".unit":
            found.setdefault(path.parent, []).append(facts)
    entries = [
        CacheEntry(
            folder.parent.name,
            _profile(folder),
            folder,
            len(units),
            sum(facts.st_size for facts in units),
            max(facts.st_mtime for facts in units),
        )
        for folder, units in found.items()
    ]
    return sorted(entries, key=lambda entry: -entry.last_used)


def remove_cached(home: str | Path, prefix: str | None) -> list[CacheEntry]:
    """Remove the units of the dataset whose content id begins with `prefix` (None: of all). Returns what went; raises
    UsageError if nothing or more than one dataset is meant, OutputError if something cannot be removed."""
    if prefix == "":
        raise UsageError("the content id is empty", field="content id", hint="d3codec cache rm --all removes all.")
    entries = [entry for entry in cache_entries(home) if entry.content_id.startswith(prefix or "")]
    datasets = sorted({entry.content_id for entry in entries})
    if prefix is not None and len(datasets) != 1:
        raise UsageError(
            "no cached dataset has such a content id" if not datasets else "several content ids begin so",
            field="content id",
            found=prefix,
            expected=", ".join(name[:16] for name in datasets) or None,
            hint="d3codec cache ls shows what there is.",
        )
    _remove_folder(Path(home) / "decoded" if prefix is None else Path(home) / "decoded" / datasets[0])
    return entries


def _remove_folder(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"the cache cannot be removed: {error.strerror}", file=str(folder)) from None


def _profile(folder: Path) -> str:
    found = _FOLDER.fullmatch(folder.name)
    return found[1] if found else folder.name


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of the cache; those that other processes remove meanwhile are left out."""
    for path in folder.glob("*/*/*"):
        with suppress(OSError):
            yield path, path.stat()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
