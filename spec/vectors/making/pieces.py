"""A file in pieces that can be changed one by one, and zstd frames made by hand.

Frames made here hold raw and run-length blocks alone, so that their bytes depend on no version of a library.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from d3codec.format import canonical
from d3codec.format.limits import MAGIC, VERSION

RAW, ZSTD = 0, 1
FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 128 << 10  # most that a block of a frame stands for
SHORTEST_RUN = 16  # bytes that become a run-length block
WINDOW_8_MIB = 13 << 3  # window descriptors: exponent above 10, eighths of it
WINDOW_9_MIB = 13 << 3 | 1
WINDOW_128_MIB = 17 << 3

Part = tuple[int, bytes]
"""Codec and stored bytes."""


@dataclass(frozen=True)
class Pieces:
    """A file whose fields that are None follow from the others; `build` puts it together.

    `crcs` and `stated`: CRCs and stored lengths, by number of the part, that are not those of the parts.
    """

    manifest: Any
    parts: tuple[Part, ...]
    manifest_bytes: bytes | None = None
    magic: bytes = MAGIC
    version: tuple[int, int] = VERSION
    features: int = 0
    reserved: int = 0
    manifest_length: int | None = None
    count: int | None = None
    file_length: int | None = None
    head_crc: int | None = None
    front: bytes = b""
    tail: bytes = b""
    crcs: Mapping[int, int] = field(default_factory=dict)
    stated: Mapping[int, int] = field(default_factory=dict)

    def build(self) -> bytes:
        """The bytes of the file."""
        manifest = canonical.pack(self.manifest) if self.manifest_bytes is None else self.manifest_bytes
        table = b"".join(
            self.stated.get(number, len(stored)).to_bytes(3, "little")
            + struct.pack("<BI", codec, self.crcs.get(number, zlib.crc32(stored)))
            for number, (codec, stored) in enumerate(self.parts)
        )
        body = b"".join(stored for _, stored in self.parts)
        fixed = struct.pack(
            "<HHIIHHQ",
            *self.version,
            self.features,
            _given(self.manifest_length, len(manifest)),
            _given(self.count, len(self.parts)),
            self.reserved,
            _given(self.file_length, 36 + len(table) + len(manifest) + len(body)),
        )
        head = self.magic + fixed + table + manifest
        head_crc = struct.pack("<I", _given(self.head_crc, zlib.crc32(head)))
        return self.front + head + head_crc + body + self.tail

    def but(self, **changes: Any) -> Pieces:
        """The same with other fields."""
        return replace(self, **changes)

    def with_part(self, number: int, stored: bytes, codec: int = RAW) -> Pieces:
        """The same with one other part."""
        parts = list(self.parts)
        parts[number] = (codec, stored)
        return replace(self, parts=tuple(parts))


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def drawn(seed: str, length: int) -> bytes:
    """Bytes that look random: SHAKE-256 of the seed."""
    return hashlib.shake_256(seed.encode()).digest(length)


# -------------------------------------------------------------------------------------------------------- frames


def frame(
    raw: bytes,
    *,
    window: int | None = None,
    stated: int | None = None,
    size_bytes: int | None = None,
    dictionary: bytes = b"",
    blocks: Sequence[bytes] | None = None,
    flags: int = 0,
) -> bytes:
    """A zstd frame of these bytes.

    Arguments:
        window: byte that describes the window; without it the frame is one segment.
        stated: another content size than that of `raw`.
        size_bytes: of the content size, 0, 1, 2, 4 or 8; without it the fewest possible.
        dictionary: its id, 0, 1, 2 or 4 bytes.
        blocks: others than those of `raw`, without their heads: `block` makes them.
        flags: more bits of the descriptor.
    """
    size = len(raw) if stated is None else stated
    if size_bytes is None:
        fewest = 1 if window is None else 2
        size_bytes = next(n for n in (1, 2, 4, 8) if n >= fewest and (n != 2 or size >= 256) and size < 1 << 8 * n)
    descriptor = {0: 0, 1: 0, 2: 1, 4: 2, 8: 3}[size_bytes] << 6 | (window is None) << 5 | flags
    descriptor |= {0: 0, 1: 1, 2: 2, 4: 3}[len(dictionary)]
    head = FRAME_MAGIC + bytes([descriptor]) + (b"" if window is None else bytes([window])) + dictionary
    head += (size - 256 * (size_bytes == 2)).to_bytes(size_bytes, "little") if size_bytes else b""
    return head + b"".join(_closed(list(_blocks(raw) if blocks is None else blocks)))


def block(data: bytes, repeat: int | None = None, kind: int | None = None) -> bytes:
    """A block that is not the last: these bytes, or one byte so many times; `kind`: another type in its head."""
    size = len(data) if repeat is None else repeat
    head = size << 3 | ((repeat is not None) if kind is None else kind) << 1
    return head.to_bytes(3, "little") + data


def _closed(blocks: list[bytes]) -> list[bytes]:
    last = blocks[-1]
    return [*blocks[:-1], bytes([last[0] | 1]) + last[1:]]


def _blocks(raw: bytes) -> list[bytes]:
    found, at = [], 0
    for run in re.finditer(rb"(.)\1{%d,}" % (SHORTEST_RUN - 1), raw, re.DOTALL):
        found += [block(piece) for piece in _cut(raw[at : run.start()])]
        found += [block(piece[:1], len(piece)) for piece in _cut(run[0])]
        at = run.end()
    found += [block(piece) for piece in _cut(raw[at:])]
    return found or [block(b"")]


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]


def squeezed(raw: bytes) -> Part:
    """A part as a frame made by hand where that is smaller, else as it is."""
    stored = frame(raw) if raw else b""
    return (ZSTD, stored) if raw and len(stored) < len(raw) else (RAW, raw)


def plain(raw: bytes) -> Part:
    """A part as it is."""
    return RAW, raw
