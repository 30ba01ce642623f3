"""Finished units on disk, so that an interrupted decode continues and a second one takes no time.

A unit's pixels are a function of file, profile and fingerprint, which is what the key is made of. Any number
of processes may use one cache: files are written beside and renamed, and whoever comes second writes the same
bytes.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np

from d3codec.decoder.plan import Unit
from d3codec.errors import OutputError
from d3codec.format.file import save_atomically
from d3codec.generators.weights import home

__all__ = ["UnitCache", "cache_key", "home"]

_SHAPE = struct.Struct("<3I")  # images, height, width
_DIGEST_BYTES = 32


def cache_key(content_id: str, profile: str, fingerprint: str) -> str:
    """Folder of the units of one dataset under one profile and fingerprint, relative to `home()`."""
    return f"decoded/{content_id}/{profile}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}"


class UnitCache:
    """Units below the folder `home / key`, a file each: SHA-256 of all that follows and of the unit's name,
    shape, pixels."""

    def __init__(self, home: str | Path, key: str) -> None:
        self._folder = Path(home) / key

    def path(self, unit: Unit) -> Path:
        return self._folder / f"{unit.group:02d}-{unit.number:06d}.unit"

    def get(self, unit: Unit) -> np.ndarray | None:
        """Pixels of a unit, uint8 [images, height, width, 3], or None if it is absent or damaged in any
        way."""
        try:
            data = self.path(unit).read_bytes()
        except OSError:
            return None
        digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if _digest(unit, payload) != digest or len(payload) < _SHAPE.size:
            return None
        count, height, width = _SHAPE.unpack_from(payload)
        if count != len(unit.classes) or len(payload) != _SHAPE.size + count * height * width * 3:
            return None
        return np.frombuffer(payload, np.uint8, offset=_SHAPE.size).reshape(count, height, width, 3)

    def put(self, unit: Unit, pixels: np.ndarray) -> None:
        """Keep a unit. Raises OutputError if it cannot be written, ValueError for pixels of another shape or
        type."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != len(unit.classes):
            raise ValueError(f"not the pixels of {len(unit.classes)} images: {pixels.dtype} {pixels.shape}")
        payload = _SHAPE.pack(*pixels.shape[:3]) + pixels.tobytes()
        path = self.path(unit)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder cannot be made: {error.strerror}", file=str(path.parent)) from None
        save_atomically(path, _digest(unit, payload) + payload)


def _digest(unit: Unit, payload: bytes) -> bytes:
    """Covers the unit too, so that a renamed file is not taken for another unit."""
    return hashlib.sha256(repr(unit).encode() + payload).digest()
