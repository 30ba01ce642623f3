"""Where the bytes of a file come from: a path, memory, or whatever else can read ranges (`Source`)."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from d3codec.errors import MissingFileError, UsageError

Span = tuple[int, int]
"""Offset and length."""


class Reader(Protocol):
    """A file of `size` bytes while it is being read."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, cut off at the end of the file."""

    def expect(self, spans: Iterable[Span]) -> None:
        """What will be read soon; where reading is slow it may be fetched together."""


class Source(Reader, Protocol):
    """A file that lies neither on a disk of this machine nor in memory: `d3codec.remote` has one behind a URL.

    Its `read` raises a D3MError for bytes that cannot be had.
    """

    @property
    def name(self) -> str:
        """What messages call it, and what another process opens it by."""

    @property
    def fetched(self) -> tuple[int, int]:
        """Requests made and bytes received so far."""

    def whole(self) -> bytes | None:
        """All its bytes if they are here, without fetching any."""


class _Handle:
    """A `Reader` of an open file or of bytes."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.size = handle.seek(0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        self._handle.seek(offset)
        return self._handle.read(length)

    def expect(self, spans: Iterable[Span]) -> None:
        pass


@contextlib.contextmanager
def opened(path: str, source: bytes | Source | None) -> Iterator[Reader]:
    """What reads a file: the one at `path` if `source` is None. What the system says about it comes as an error of
    ours: MissingFileError (not there, unreadable), UsageError (a folder or a device)."""
    if isinstance(source, bytes):
        yield _Handle(io.BytesIO(source))
        return
    if source is not None:
        yield source
        return
    if "\0" in path:
        raise MissingFileError("no such file", file=repr(path))
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe or a device could keep us waiting for ever
            raise UsageError(
                "this is a folder" if stat.S_ISDIR(mode) else "not a regular file", file=path, expected="a .d3m file"
            )
        with open(path, "rb") as handle:
            yield _Handle(handle)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("no such file", file=path) from None
    except OSError as error:
        raise MissingFileError(f"the file cannot be read: {error.strerror}", file=path) from None
