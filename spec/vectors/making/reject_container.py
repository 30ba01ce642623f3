"""Files that every reader refuses, for their head, table, frames or digests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from d3codec.format.limits import MANIFEST_BYTES, PART_BYTES, PARTS, VERSION
from d3codec.format.manifest import QuantizedLabels
from making.accept_methods import MINIMAL, THREE, q_rows
from making.given import given, squeezable
from making.pieces import BLOCK_BYTES, FRAME_MAGIC, WINDOW_9_MIB, WINDOW_128_MIB, ZSTD, Pieces, block, frame
from making.records import LABELS_Q3, Sound, Vector, group, images
from making.streams import blocks

SMALL = Sound(
    THREE,
    (group(images=images(4), labels=LABELS_Q3),),
    {("emb", 0): blocks("small", 3, [4], 2), ("lab", 0): q_rows("small", 12, 3)},
)
PIECES = SMALL.pieces()
BYTES = SMALL.build()
HEAD = 36 + 8 * len(PIECES.parts) + int.from_bytes(BYTES[16:20], "little")
NOTED = SMALL.but(ancillary={"x-note": b"hello", "x-thumb": b"pixel"})
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108020000009077 53de".replace(" ", ""))
ZIP_MEMBER = struct.pack("<4s5HIIIHH", b"PK\3\4", 10, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
ZIP_END = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
OTHER_VERSIONS = (
    *((0, minor) for minor in (*range(10), 65_535)),
    *((1, 0), (1, VERSION[1] or 1), (VERSION[1] or 2, 0), (256, 0), (65_535, 65_535)),
)


def vectors_of_head() -> Iterator[Vector]:
    """The first 32 bytes, and the head as a whole."""
    for name, length, reason in (
        ("empty", 0, "no bytes at all"),
        ("magic-alone", 8, "the magic and nothing else"),
        ("cut-31", 31, "cut off after 31 bytes"),
        ("cut-table", 50, "cut off within the part table"),
        ("cut-manifest", 120, "cut off within the manifest"),
        ("cut-head-crc", HEAD - 1, "cut off before the last byte of the head CRC"),
    ):
        yield Vector(name, reason, "short", BYTES[:length], "E_SHORT")
    for name, data, reason in (
        ("magic-png", b"\x89PNG\r\n\x1a\n" + BYTES[8:], "the magic of PNG"),
        ("magic-lower-case", b"\x89d3m\r\n\x1a\n" + BYTES[8:], "the magic in lower case"),
        ("crlf-to-lf", BYTES.replace(b"\r\n", b"\n"), "CR LF converted to LF"),
        ("lf-to-crlf", BYTES.replace(b"\n", b"\r\n"), "LF converted to CR LF"),
        ("seven-bits", bytes(byte & 0x7F for byte in BYTES), "the high bit of every byte lost"),
        ("latin-to-utf-8", BYTES.decode("latin-1").encode(), "taken for Latin-1 and written as UTF-8"),
        ("byte-order-mark", b"\xef\xbb\xbf" + BYTES, "a byte order mark in front"),
        ("zip-in-front", ZIP_MEMBER + BYTES, "a member of a zip archive in front"),
        ("png-in-front", PNG + BYTES, "the beginning of a PNG in front"),
        ("git-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
    ):
        yield Vector(name, reason, "magic", data, "E_MAGIC")
    for version in dict.fromkeys(OTHER_VERSIONS):
        if version != VERSION:
            text = "{}.{}".format(*version)
            other = PIECES.but(version=version)
            yield Vector(f"version-{text.replace('.', '-')}", f"version {text}", "version", other, "E_VERSION")
    for name, value, reason in (("feature-0", 1, "the lowest"), ("feature-31", 1 << 31, "the highest")):
        yield Vector(
            name, f"{reason} bit of the required features", "features", PIECES.but(features=value), "E_FEATURE"
        )
    for value in (1, 0x8000):
        reason = f"the reserved field is {value}"
        yield Vector(f"reserved-{value}", reason, "reserved", PIECES.but(reserved=value), "E_RESERVED")
    for name, pieces, reason in (
        ("manifest-length-0", PIECES.but(manifest_bytes=b""), "no manifest"),
        ("manifest-length-2-20", PIECES.but(manifest_length=MANIFEST_BYTES + 1), "a manifest of more than 1 MiB"),
        ("manifest-length-2-32", PIECES.but(manifest_length=(1 << 32) - 1), "a manifest of 4 GiB"),
        ("parts-4097", PIECES.but(count=PARTS + 1), "4,097 parts"),
    ):
        yield Vector(name, reason, "limits", pieces, "E_LIMIT")
    flipped = bytearray(BYTES)
    flipped[HEAD - 20] ^= 1
    for name, data, reason in (
        ("head-crc-0", PIECES.but(head_crc=0), "a head CRC of 0"),
        ("head-bit", bytes(flipped), "one bit of the manifest flipped"),
        (
            "head-crc-big-endian",
            BYTES[: HEAD - 4] + BYTES[HEAD - 4 : HEAD][::-1] + BYTES[HEAD:],
            "a big-endian head CRC",
        ),
    ):
        yield Vector(name, reason, "head-crc", data, "E_HEAD_CRC")


def vectors_of_lengths() -> Iterator[Vector]:
    """Codecs and lengths that do not fit together."""
    for codec in (2, 255):
        pieces = PIECES.with_part(0, PIECES.parts[0][1], codec)
        yield Vector(f"codec-{codec}", f"a part of codec {codec}", "codec", pieces, "E_CODEC")
    raw = PIECES.parts
    two = (*raw[:2], (0, raw[2][1][:18]), (0, raw[2][1][18:]))
    one_row_less = SMALL.with_section("lab", 0, bytes(36)).pieces().with_part(2, bytes(33))
    for name, topics, data, reason in (
        ("stored-8-mib", "stored-length", PIECES.but(stated={0: PART_BYTES + 1}), "a stored length of more than 8 MiB"),
        ("sum-less", "sum", PIECES.but(stated={0: 1}), "lengths whose sum is below the file length"),
        ("sum-more", "sum", PIECES.but(stated={0: 200}), "lengths whose sum is above the file length"),
        ("file-length-0", "file-length", PIECES.but(file_length=0), "a file length of 0"),
        ("file-length-2-64", "file-length", PIECES.but(file_length=(1 << 64) - 1), "a file length of 2^64 - 1"),
        ("tail-byte", "file-length", PIECES.but(tail=b"\0"), "a byte behind the last part"),
        ("tail-line-feed", "file-length", PIECES.but(tail=b"\n"), "a line feed behind the last part"),
        ("tail-zip", "file-length", PIECES.but(tail=ZIP_MEMBER + ZIP_END), "a zip archive behind the last part"),
        ("tail-twice", "file-length", BYTES * 2, "the file twice"),
        ("cut-after-head", "file-length", BYTES[:HEAD], "a head without its parts"),
        ("cut-in-part", "file-length", BYTES[: HEAD + 10], "cut off within the first part"),
        ("cut-last-byte", "file-length", BYTES[:-1], "the last byte is missing"),
        ("part-more", "count", PIECES.but(parts=(*raw, (0, b""))), "an empty part more than sections call for"),
        ("part-less", "count", PIECES.but(parts=raw[:2]), "no part for the labels"),
        ("part-none", "count", PIECES.but(parts=()), "no parts"),
        ("part-cut-otherwise", "count cut", PIECES.but(parts=two), "labels in two parts, where one is the rule"),
        ("raw-longer", "raw-length", PIECES.with_part(2, bytes(37)), "a raw part one byte too long"),
        ("raw-row-less", "raw-length", one_row_less, "labels of one row less than classes times images"),
        ("raw-empty", "raw-length", PIECES.with_part(2, b""), "an empty raw part for labels of 36 bytes"),
        (
            "zstd-not-smaller",
            "zstd-length",
            framed(frame(bytes(36)) + bytes(26)),
            "a compressed part as long as its bytes",
        ),
        (
            *("zstd-empty", "zstd-length"),
            SMALL.but(ancillary={"x-none": b""}).pieces().with_part(3, b"", ZSTD),
            "an empty part that claims to be compressed",
        ),
    ):
        yield Vector(name, reason, topics, data, "E_LENGTH")
    bombs = SMALL.but(ancillary={f"x-{number:03}": b"" for number in range(256)}).pieces()
    manifest = {**bombs.manifest, "a": {**bombs.manifest["a"]}}
    manifest["a"]["x"] = [[name, PART_BYTES] for name, _ in bombs.manifest["a"]["x"]]
    parts = (*bombs.parts[:3], *((ZSTD, b"") for _ in range(256)))
    reason = "256 ancillary parts of 8 MiB: 2 GiB in 5 kB, above the default budget of 1 GiB"
    yield Vector("budget", reason, "budget bomb", bombs.but(manifest=manifest, parts=parts), "E_BUDGET")


def framed(stored: bytes) -> Pieces:
    """Labels of 36 zeros as this frame."""
    return SMALL.with_section("lab", 0, bytes(36)).pieces().with_part(2, stored, ZSTD)


def vectors_of_frames() -> Iterator[Vector]:
    """CRCs, frames, digests."""
    for name, pieces, reason in (
        ("part-crc", PIECES.but(crcs={2: 1}), "a CRC that is not that of its part"),
        ("part-bit", BYTES[:-1] + bytes([BYTES[-1] ^ 0x10]), "one bit of the last part flipped"),
        ("part-crc-zstd", framed(frame(bytes(36))).but(crcs={2: 0}), "a CRC that is not that of a compressed part"),
        ("part-crc-ancillary", NOTED.pieces().but(crcs={4: 1}), "a CRC that is not that of an ancillary part"),
        (
            "part-swap",
            PIECES.but(parts=(PIECES.parts[0], PIECES.parts[1], (0, PIECES.parts[2][1][::-1])), crcs=_crcs()),
            "labels back to front",
        ),
    ):
        yield Vector(name, reason, "part-crc", pieces, "E_SECTION_CRC")
    whole = frame(bytes(36))
    for name, topics, stored, reason in (
        ("no-frame", "frame-header", b"no frame at all", "bytes that are no zstd frame"),
        ("no-bytes", "frame-header", b"", "a compressed part of no bytes"),
        ("cut-in-magic", "frame-header", FRAME_MAGIC[:3], "a frame cut off in its magic"),
        ("cut-in-header", "frame-header", frame(bytes(36), size_bytes=8)[:9], "a frame cut off in its header"),
        ("skippable", "frame-header", b"\x50\x2a\x4d\x18" + struct.pack("<I", 8) + bytes(8), "a skippable frame"),
        ("skippable-36", "frame-header", b"\x50\x2a\x4d\x18" + struct.pack("<I", 36), "a skippable frame of 36 bytes"),
        ("skippable-first", "frame-header", b"\x51\x2a\x4d\x18" + bytes(4) + whole, "a skippable frame in front"),
        ("version-0-7", "frame-header", b"\x27" + whole[1:], "the magic of zstd 0.7"),
        ("reserved-bit", "frame-header", frame(bytes(36), flags=8), "a frame header with its reserved bit set"),
        ("size-missing", "frame-size", frame(bytes(36), window=0, size_bytes=0), "a frame without content size"),
        ("size-35", "frame-size", frame(bytes(35)), "a frame that states a byte less"),
        ("size-37", "frame-size", frame(bytes(36), stated=37), "a frame that states a byte more"),
        ("size-2-60", "frame-size", frame(bytes(36), stated=1 << 60), "a frame that states 2^60 bytes"),
        ("dictionary", "frame-window", frame(bytes(36), dictionary=b"\x07"), "a frame that names a dictionary"),
        ("window-9-mib", "frame-window", frame(bytes(36), window=WINDOW_9_MIB), "a window of 9 MiB"),
        ("window-128-mib", "frame-window", frame(bytes(36), window=WINDOW_128_MIB), "a window of 128 MiB"),
    ):
        topics += " bomb" if name == "size-2-60" else ""
        yield Vector(f"frame-{name}", reason, topics, framed(stored), "E_ZSTD_HEADER")
    more = [block(b"\0", BLOCK_BYTES)] * 5
    for name, stored, reason in (
        ("cut-in-block", whole[:-1], "a frame cut off in its last block"),
        ("no-block", whole[:6], "a frame header and no block"),
        ("tail", whole + b"\0", "a byte behind the frame"),
        ("two", frame(bytes(36), blocks=[block(b"\0", 18)]) + frame(bytes(18)), "two frames that are right together"),
        ("twice", whole * 2, "the frame twice"),
        ("skippable-behind", whole + b"\x50\x2a\x4d\x18" + bytes(4), "a skippable frame behind the frame"),
        ("shorter", frame(bytes(36), blocks=[block(b"\0", 35)]), "a frame of a byte less than it states"),
        ("longer", frame(bytes(36), blocks=[block(b"\0", 37)]), "a frame of a byte more than it states"),
        ("bomb", frame(bytes(36), window=WINDOW_9_MIB - 1, blocks=more), "640 KiB in a frame that states 36 bytes"),
        ("reserved-block", frame(bytes(36), blocks=[block(b"\0", 36, kind=3)]), "a block of the reserved type"),
        ("garbage", frame(bytes(36), blocks=[block(b"\xff" * 9, kind=2)]), "a compressed block that is none"),
        ("no-checksum", frame(bytes(36), flags=4), "a frame that promises a checksum and has none"),
    ):
        topics = "frame-data bomb" if name == "bomb" else "frame-data"
        yield Vector(f"frame-{name}", reason, topics, framed(stored), "E_ZSTD_DATA")
    labels = group(images=images(20), labels=QuantizedLabels(step=3, width=10))
    names = tuple(f"class {number}" for number in range(10))
    stored = given("labels-checksum.zst")
    sections = {("emb", 0): blocks("ten", 10, [4], 2), ("lab", 0): squeezable()}
    checked = Sound(names, (labels,), sections, frames={2: stored[:-1] + bytes([stored[-1] ^ 1])})
    yield Vector("frame-checksum", "a checksum of the frame that does not fit", "frame-data", checked, "E_ZSTD_DATA")
    yield from _digests()


def _crcs() -> dict[int, int]:
    return {2: int.from_bytes(BYTES[32 + 8 * 2 + 4 :][:4], "little")}


def _digests() -> Iterator[Vector]:
    zeros = replace(PIECES, manifest={"c": {**PIECES.manifest["c"], "h": bytes(32)}})
    many = SMALL.but(groups=(group(images=images(10_000), labels=LABELS_Q3),)).with_section("lab", 0, bytes(90_000))
    pieces = many.pieces()
    digests = [*pieces.manifest["c"]["h"][:2], bytes(32)]
    one_of_three = pieces.but(
        manifest={"c": {**pieces.manifest["c"], "h": digests}}, parts=(*pieces.parts[:2], (ZSTD, frame(bytes(90_000))))
    )
    note = NOTED.pieces()
    for name, pieces, reason in (
        ("digest-zero", zeros, "a critical digest of zeros"),
        ("digest-labels", PIECES.with_part(2, bytes(36)), "labels that the critical digest does not cover"),
        ("digest-one-part", one_of_three, "a digest that is not that of its part, of several"),
        (
            "digest-ancillary",
            note.with_part(3, b"hallo"),
            "an ancillary section that the digest of about does not cover",
        ),
        (
            "digest-swapped",
            note.but(parts=(*note.parts[:3], *note.parts[:2:-1])),
            "two ancillary parts of one length swapped",
        ),
        (
            "digest-noted",
            MINIMAL.but(ancillary={"x-a": b"1"}).pieces().with_part(1, MINIMAL.sections["wrd", 0][::-1]),
            "words back to front",
        ),
    ):
        yield Vector(name, reason, "digest", pieces, "E_SECTION_DIGEST")
