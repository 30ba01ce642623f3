"""Bytes <-> head, part table, manifest bytes and parts (spec/d3m-1.0.md section 1, in the order of 8)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d3codec.errors import HeadError, SectionError
from d3codec.format.limits import (
    CRC_BYTES,
    ENTRY_BYTES,
    HEAD_BYTES,
    MAGIC,
    MANIFEST_BYTES,
    PART_BYTES,
    PARTS,
    VERSION,
    WINDOW_BYTES,
)

RAW, ZSTD = 0, 1
CODECS = {RAW: "raw", ZSTD: "zstd"}
LEVEL = 19
FIXED = struct.Struct("<8sHHIIHHQ")
ENTRY = struct.Struct("<II")  # stored length u24 with the codec above it, CRC-32
_FETCH_AGAIN = "The file was damaged on the way. Fetch it again."
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # skippable frames have others


@dataclass(frozen=True)
class Entry:
    """A row of the part table: length of the stored bytes, codec, CRC-32 of the stored bytes."""

    stored: int
    codec: int
    crc: int


@dataclass(frozen=True)
class Head:
    """Everything that is not a part. `size` is its own length, `file_length` what it states of the file."""

    entries: tuple[Entry, ...]
    manifest: bytes
    file_length: int
    size: int


def read_head(read: Callable[[int, int], bytes], size: int) -> Head:
    """Reads and checks a head up to and including the sum of the lengths, so before the manifest is decoded.

    `read(offset, length)` gives the bytes of a file of `size` bytes. Raises HeadError.
    """
    fixed = read(0, HEAD_BYTES)
    if len(fixed) < HEAD_BYTES:
        raise HeadError("E_SHORT", found=f"{len(fixed)} bytes", expected=f"at least {HEAD_BYTES}")
    manifest_length, parts, file_length = _fixed_fields(fixed)
    table_length = ENTRY_BYTES * parts
    length = HEAD_BYTES + table_length + manifest_length + CRC_BYTES
    head = read(0, length) if size >= length else b""
    if len(head) < length:
        raise HeadError("E_SHORT", found=f"{size} bytes", expected=f"a head of {length} bytes")
    if zlib.crc32(head[:-CRC_BYTES]) != int.from_bytes(head[-CRC_BYTES:], "little"):
        raise HeadError("E_HEAD_CRC", hint=_FETCH_AGAIN)
    entries = tuple(
        _entry(number, row)
        for number, row in enumerate(ENTRY.iter_unpack(head[HEAD_BYTES : HEAD_BYTES + table_length]))
    )
    total = length + sum(entry.stored for entry in entries)
    if total != file_length:
        raise HeadError(
            "E_LENGTH",
            "head and parts do not add up to the file length",
            field="file length",
            found=file_length,
            expected=total,
        )
    return Head(entries, head[HEAD_BYTES + table_length : -CRC_BYTES], file_length, length)


def _fixed_fields(fixed: bytes) -> tuple[int, int, int]:
    """Checks the first 32 bytes; returns manifest length, number of parts and file length."""
    magic, major, minor, features, manifest_length, parts, reserved, file_length = FIXED.unpack(fixed)
    if magic != MAGIC:
        raise HeadError("E_MAGIC", hint=_magic_hint(fixed))
    if (major, minor) != VERSION:
        newer = (major, minor) > VERSION
        raise HeadError(
            "E_VERSION",
            field="version",
            found=f"{major}.{minor}",
            expected=".".join(map(str, VERSION)),
            hint="A newer d3codec reads it." if newer else "The release of d3codec that wrote it reads it.",
        )
    if features:
        raise HeadError("E_FEATURE", field="required features", found=f"{features:#010x}", expected=0)
    if reserved:
        raise HeadError("E_RESERVED", field="reserved", found=reserved, expected=0)
    if not 1 <= manifest_length <= MANIFEST_BYTES:
        raise HeadError("E_LIMIT", field="manifest length", found=manifest_length, expected=f"1 to {MANIFEST_BYTES}")
    if parts > PARTS:
        raise HeadError("E_LIMIT", field="number of parts", found=parts, expected=f"at most {PARTS}")
    return manifest_length, parts, file_length


def _magic_hint(fixed: bytes) -> str | None:
    if fixed.startswith(b"version https://git-lfs"):
        return "This is a Git LFS pointer, not the file itself: run 'git lfs pull'."
    if fixed[1:4] == MAGIC[1:4]:
        return "The file went through a text or newline conversion. Fetch it again as a binary file."
    return None


def _entry(number: int, row: tuple[int, int]) -> Entry:
    codec, stored = divmod(row[0], 1 << 24)
    field = f"part {number}"
    if codec not in CODECS:
        raise HeadError("E_CODEC", field=field, found=codec, expected="0 or 1")
    if stored > PART_BYTES:
        raise HeadError("E_LENGTH", "stored", field=field, found=stored, expected=f"at most {PART_BYTES}")
    return Entry(stored, codec, row[1])


def check_raw_length(entry: Entry, raw_length: int, field: str) -> None:
    """Stored against raw length (E_LENGTH): a raw part is stored as it is, a compressed one is smaller."""
    if entry.codec == RAW and entry.stored != raw_length:
        raise HeadError(
            "E_LENGTH", "a raw part", field=field, found=f"{entry.stored} bytes stored", expected=f"{raw_length}"
        )
    if entry.codec == ZSTD and entry.stored >= raw_length:
        raise HeadError(
            "E_LENGTH",
            "a compressed part",
            field=field,
            found=f"{entry.stored} bytes stored",
            expected=f"fewer than {raw_length}",
        )


def unpack_part(stored: bytes, entry: Entry, raw_length: int, field: str) -> bytes:
    """The raw bytes of a part, exactly `raw_length`; it allocates no more. Raises SectionError."""
    if len(stored) != entry.stored or zlib.crc32(stored) != entry.crc:
        raise SectionError("E_SECTION_CRC", field=field, hint=_FETCH_AGAIN)
    if entry.codec == RAW:
        return stored
    import zstandard  # here, because opening a file does without

    # It allocates what the frame states, whatever limit it is given: so the frame's header comes first.
    try:
        header = zstandard.get_frame_parameters(stored)
    except zstandard.ZstdError:
        raise SectionError("E_ZSTD_HEADER", "not a zstd frame", field=field) from None
    if stored[:4] != _ZSTD_MAGIC:
        raise SectionError("E_ZSTD_HEADER", "not a zstd frame", field=field)
    if header.content_size != raw_length:
        raise SectionError("E_ZSTD_HEADER", "stated size", field=field, found=header.content_size, expected=raw_length)
    if header.dict_id or header.window_size > WINDOW_BYTES:
        raise SectionError("E_ZSTD_HEADER", "a dictionary or a large window", field=field)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
    try:
        raw = decompressor.decompress(stored, max_output_size=raw_length, allow_extra_data=False)
    except zstandard.ZstdError:
        raw = b""
    if len(raw) != raw_length:
        raise SectionError("E_ZSTD_DATA", field=field)
    return raw


def pack_part(raw: bytes, level: int | None = LEVEL) -> tuple[int, bytes]:
    """Codec and stored bytes of a part: one zstd frame of this level when that is smaller, else the bytes themselves.

    With None they are never compressed.
    """
    if not raw or level is None:
        return RAW, raw
    import zstandard

    compressor = zstandard.ZstdCompressor(
        level=level, write_checksum=False, write_content_size=True, write_dict_id=False
    )
    frame = compressor.compress(raw)
    return (ZSTD, frame) if len(frame) < len(raw) else (RAW, raw)


def build(manifest: bytes, parts: Sequence[tuple[int, bytes]]) -> bytes:
    """The bytes of a file from its canonical manifest and its parts, each a codec with its stored bytes.

    Raises HeadError (E_LIMIT) for more than the format can hold.
    """
    if len(manifest) > MANIFEST_BYTES:
        raise HeadError("E_LIMIT", field="manifest length", found=len(manifest), expected=f"1 to {MANIFEST_BYTES}")
    if len(parts) > PARTS:
        raise HeadError("E_LIMIT", field="number of parts", found=len(parts), expected=f"at most {PARTS}")
    table = b"".join(ENTRY.pack(codec << 24 | len(stored), zlib.crc32(stored)) for codec, stored in parts)
    size = HEAD_BYTES + len(table) + len(manifest) + CRC_BYTES
    file_length = size + sum(len(stored) for _, stored in parts)
    head = FIXED.pack(MAGIC, *VERSION, 0, len(manifest), len(parts), 0, file_length) + table + manifest
    return b"".join([head, zlib.crc32(head).to_bytes(CRC_BYTES, "little"), *(stored for _, stored in parts)])
