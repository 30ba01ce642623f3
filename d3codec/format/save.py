"""Writing a file so that nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from d3codec.errors import OutputError


def save_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Puts `data` at `path`: afterwards the path holds all of it or what it held before, nothing beside it.

    Raises OutputError: no such folder, read-only, full.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise OutputError("this is a folder, not a file to write", file=str(target))
        beside = target.with_name(f".d3m-{os.urandom(8).hex()}")
        try:
            with open(beside, "xb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(target)
        except BaseException:  # an interrupt leaves nothing behind either
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"the file cannot be written: {reason}", file=str(target)) from None
    _sync_folder(target.parent)


def check_writable(path: str | os.PathLike[str], ours: Callable[[bytes], bool]) -> None:
    """Find out before long work that `path` could not be written, or would replace what it should not.

    Makes and removes an empty file beside the target. An existing target must be empty, or `ours` must know its first
    64 bytes. Raises OutputError.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError("this is a folder, not a file to write", file=str(target))
    if not target.parent.is_dir():
        raise OutputError("there is no such folder", file=str(target.parent), hint=f"mkdir -p {target.parent}")
    try:
        if target.exists():
            with open(target, "rb") as handle:
                start = handle.read(64)
            if start and not ours(start):
                raise OutputError(
                    "the output exists and is another kind of file",
                    file=str(target),
                    hint="name another output, or remove it yourself",
                )
        beside = target.with_name(f".d3m-{os.urandom(8).hex()}")
        with open(beside, "xb"):
            pass
        beside.unlink()
    except OSError as error:
        raise OutputError(f"the file cannot be written: {error.strerror}", file=str(target)) from None


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable where the platform can: not on Windows, nor on some network file systems."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
