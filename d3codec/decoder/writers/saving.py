"""Files that are whole or not there, also where two processes write the same folder."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from d3codec.errors import OutputError

CONTINUE = "Choose another output or make room; finished units are kept, and the same command continues."
_PNG_LEVEL = 6  # of zlib: a tenth fewer bytes than 1 for half as much time again; 9 gives nothing more


def save(path: Path, data: bytes) -> None:
    """Put `data` at `path`, beside and renamed, and make its folder. Raises OutputError."""
    with saved_beside(path) as handle:
        handle.write(data)


@contextmanager
def saved_beside(path: Path) -> Iterator[BinaryIO]:
    """A file to fill; at the end it stands at `path`, after an error nowhere. Makes the folder. Raises OutputError."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "this is a folder, not a file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside, handle = _create_beside(path)
        with handle:
            try:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
                beside.replace(path)
            except BaseException:
                with suppress(OSError):
                    beside.unlink()
                raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says while `path` is written, as OutputError."""
    try:
        yield
    except OSError as error:
        message = f"the file cannot be written: {error.strerror or error}"
        raise OutputError(message, file=str(path), hint=CONTINUE) from None


def remove_leftover(path: Path) -> None:
    """Remove the temporary file of a process that is gone; one that is being written is locked, and stays."""
    with suppress(OSError), open(path, "rb") as handle:
        _lock(handle)
        path.unlink()


def _create_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked before another process could have taken it for a leftover."""
    while True:
        beside = path.with_name(f".d3m-{os.urandom(8).hex()}")
        handle = open(beside, "xb")  # noqa: SIM115
        try:
            _lock(handle)
            if beside.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                return beside, handle
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:  # a file system without locks
            return beside, handle
        handle.close()


def _lock(handle: BinaryIO) -> None:
    """Mark a file as in use until it is closed. Raises BlockingIOError if it is."""
    try:
        import fcntl
    except ImportError:  # Windows, which does not remove open files anyway
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def png(image: np.ndarray) -> bytes:
    """PNG bytes of one image, uint8 [height, width, 3]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
