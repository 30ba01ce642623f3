"""The work folder of an encode: what is finished survives a kill and is used if nothing relevant changed.

    options.json   the options that decide the work, the digest of the images, generator and environment
    state.json     SHA-256 of every artefact, seconds spent in every stage
    NAME-*.npz     an artefact: named arrays; the star is the beginning of its SHA-256
    units/         decoded images (`decoder.cache`)

Every file is written beside its place, flushed and renamed. An artefact counts once state.json names it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from d3codec.errors import OutputError, UsageError
from d3codec.format.file import save_atomically

OPTIONS, STATE, LOCK = "options.json", "state.json", "lock"


class WorkFolder:
    """An open work folder; a context manager that holds its lock. Made by `WorkFolder.open`."""

    def __init__(self, path: Path, lock: FileLock, digests: dict[str, str], seconds: dict[str, float]) -> None:
        self.path = path
        self._lock, self._digests, self._seconds = lock, digests, seconds
        self._running: tuple[str, float, float] | None = None  # stage, its seconds before, when it began

    @classmethod
    def open(cls, path: Path, options: Mapping[str, Any], *, restart: bool = False) -> WorkFolder:
        """Open or make the work folder for these options.

        Arguments:
            path: the folder; it is made if it is not there.
            options: JSON values; work done with other ones is not used.
            restart: throw away what is there.

        Raises:
            UsageError: the folder belongs to an encode with other options; names them.
            OutputError: it cannot be written, holds something else, or another process uses it.
        """
        try:
            if (path.exists() and not path.is_dir()) or _foreign(path):
                raise OutputError(
                    "the work folder holds something else",
                    file=str(path),
                    hint="name another one, or remove it yourself",
                )
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK)
            lock.acquire(timeout=0)
            try:
                if restart:
                    _empty(path)
                if (path / OPTIONS).is_file():
                    _refuse_other_options(path, options)
                else:
                    save_atomically(path / OPTIONS, (json.dumps(dict(options), indent=1) + "\n").encode())
            except BaseException:
                lock.release()
                raise
        except Timeout as error:
            raise OutputError(
                "another encode is at work in this folder",
                file=str(path),
                hint="wait for it, or name another output or work folder",
            ) from error
        except OSError as error:
            raise OutputError(
                f"the work folder cannot be written: {error.strerror or error}", file=str(path)
            ) from error
        return cls(path, lock, *_read_state(path / STATE))

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of an artefact, or None if it is not there or not whole."""
        digest = self._digests.get(name, "")
        try:
            data = self._path(name, digest).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, name: str, **arrays: np.ndarray) -> None:
        """Keep an artefact; an older one of this name is good until the new one is. Raises OutputError."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy 2 takes a flag too; no array has its name
        data, old = buffer.getvalue(), self._digests.get(name)
        digest = hashlib.sha256(data).hexdigest()
        save_atomically(self._path(name, digest), data)
        self._digests[name] = digest
        self._save_state()
        if old not in (None, digest):
            self._path(name, old).unlink(missing_ok=True)

    def _path(self, name: str, digest: str) -> Path:
        return self.path / f"{name}-{digest[:16]}.npz"

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Count the seconds of a stage, over all runs that worked on it (those of a killed run since its
        last save are lost).
        """
        self._running = (stage, self._seconds.get(stage, 0.0), time.perf_counter())
        try:
            yield
        finally:
            self._tick()
            self._running = None

    @property
    def seconds(self) -> dict[str, float]:
        return dict(self._seconds)

    def remove(self) -> None:
        """Delete the folder and everything in it, as far as the file system lets us."""
        with suppress(OSError):
            _empty(self.path)
        self._lock.release()
        with suppress(OSError):  # another run may have begun to use it
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def _tick(self) -> None:
        if self._running:
            stage, before, started = self._running
            self._seconds[stage] = before + time.perf_counter() - started

    def _save_state(self) -> None:
        self._tick()
        state = {"artefacts": self._digests, "seconds": {k: round(v, 3) for k, v in self._seconds.items()}}
        save_atomically(self.path / STATE, (json.dumps(state, indent=1) + "\n").encode())


def _read_state(path: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Digests and seconds; nothing if the file is missing or damaged, since then all is simply done again."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return (
            {str(k): str(v) for k, v in state["artefacts"].items()},
            {str(k): float(v) for k, v in state["seconds"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}


def _refuse_other_options(path: Path, options: Mapping[str, Any]) -> None:
    try:
        old = json.loads((path / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    new = json.loads(json.dumps(dict(options)))
    if old == new:
        return
    if not isinstance(old, dict):
        raise OutputError(
            "the work folder's options cannot be read",
            file=str(path / OPTIONS),
            hint="start again with restart=True (--restart)",
        )
    other = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    raise UsageError(
        "unfinished work with other options lies here: " + ", ".join(other),
        file=str(path),
        field=other[0],
        found=f"now {new.get(other[0])!r}",
        expected=f"{old.get(other[0])!r} as before",
        hint="give the same options to continue, or restart=True (--restart) to throw that work away",
    )


def _foreign(path: Path) -> bool:
    """Whether a folder holds something and was not made here; what a killed run left before its options
    counts as ours.
    """
    if not path.is_dir() or (path / OPTIONS).is_file():
        return False
    return any(entry.name != LOCK and not entry.name.startswith(".d3m-") for entry in path.iterdir())


def _empty(path: Path) -> None:
    """Remove all but the lock; the options last, since a folder without them is not known as ours."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == OPTIONS):
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
