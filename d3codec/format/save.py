"""Writing a file so that nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import os
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


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable where the platform can: not on Windows, nor on some network file systems."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
