#!/usr/bin/env python3
"""Makes hand_made.d3m, one small file of version 0.9, from the text of d3m-1.0.md alone (the section of each step is
named beside it); it knows no reader and needs the standard library only.

    python hand_made.py [FILE]

Two classes of three stored images each, 6 x 4 pixels, cut by a window out of tiles of 9 x 7 on two PNG sheets; the
labels are hard, the profile is `exact`, `about` has a licence, and `x-leaf` four bytes an image. The sheets have tiles
that nobody uses, a colour profile that means nothing (`gAMA`), and rows with the filters 0 and 1 of PNG.
"""
import hashlib
import struct
import sys
import zlib
from pathlib import Path

CLASSES = [("vogel-1", "Zaunkönig"), ("鳥-2", "ミソサザイ – pe\u0301ndulo")]  # nothing is normalised (0.2)
SOURCES, SHEET, COLUMNS = 3, 4, 3  # a class; on a sheet; tiles side by side on a sheet
TILE, WINDOW, SIZE = (9, 7), (1, 2, 6, 4), (6, 4)  # height, width; top, left, height, width
HEAD = 32  # bytes before the table


def pack(value: object) -> bytes:
    """Canonical msgpack (section 2), as far as this manifest needs it."""
    if value is None:
        return b"\xC0"
    if isinstance(value, int):
        for first, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
            if value < 128:
                return bytes([value])
            if value < 1 << 8 * size:
                return bytes([first]) + value.to_bytes(size, "big")
    if isinstance(value, str):
        data = value.encode()
        return (bytes([0xA0 + len(data)]) if len(data) < 32 else bytes([0xD9, len(data)])) + data
    if isinstance(value, bytes):
        return bytes([0xC4, len(value)]) + value
    if isinstance(value, list):
        return bytes([0x90 + len(value)]) + b"".join(map(pack, value))
    if isinstance(value, dict):  # keys ascend by their UTF-8 bytes
        keys = sorted(value, key=str.encode)
        return bytes([0x80 + len(keys)]) + b"".join(pack(key) + pack(value[key]) for key in keys)
    raise TypeError(repr(value))


def pixel(source: int, row: int, column: int) -> bytes:
    """Red, green and blue of a tile; `source` counts over all classes."""
    return bytes((37 * source + 11 * row * channel + 29 * column + 83 * channel + row * column) % 256
                 for channel in range(3))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def sheet(sources: list[int]) -> bytes:
    """One PNG (section 5, `img`): columns * width x rows * height, with the rows that it needs."""
    rows = -(-len(sources) // COLUMNS)
    height, width = rows * TILE[0], COLUMNS * TILE[1]
    lines = b""
    for y in range(height):
        line = b""
        for x in range(width):
            tile = y // TILE[0] * COLUMNS + x // TILE[1]
            used = tile < len(sources)
            line += pixel(sources[tile], y % TILE[0], x % TILE[1]) if used else b"\xFF\x00\xFF"  # means nothing
        if y % 2:  # filter 1: the difference to the pixel on the left
            line = bytes((a - b) % 256 for a, b in zip(line, bytes(3) + line))
        lines += bytes([y % 2]) + line
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # depth 8, colour type 2, methods 0, no interlace
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"gAMA", struct.pack(">I", 100000))
            + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b""))


def image(source: int) -> bytes:
    """What becomes of a source: a window of the size of the group is copied (7.5)."""
    top, left, height, width = WINDOW
    return b"".join(pixel(source, top + i, left + j) for i in range(height) for j in range(width))


def make() -> bytes:
    total = len(CLASSES) * SOURCES
    # Section 5: raw bytes
    cls = "".join(f"{key}\t{name}\n" for key, name in CLASSES).encode()
    files = [sheet(list(range(first, min(first + SHEET, total)))) for first in range(0, total, SHEET)]
    img = struct.pack(f"<{len(files)}I", *map(len, files)) + b"".join(files)
    digests = [hashlib.sha256(image(source)).digest() for source in range(total)]  # 7.7, in order of class and image
    leaf = b"".join(digest[:4] for digest in digests)
    critical = [cls, img]  # file order; each is free text of less than 2^20 bytes, so one part
    assert sum(map(len, critical)) <= 65536
    # Section 3: the manifest
    group = {
        "c": {"k": "none"},
        "d": "stored",
        "g": None,
        "i": {"a": None, "c": None, "g": [2, 2], "n": SOURCES, "s": list(SIZE), "w": [list(TILE), list(WINDOW)]},
        "k": 0,
        "l": {"k": "h"},
        "o": 0,
        "r": {"c": COLUMNS, "f": "png", "n": SHEET, "s": "stored"},
    }
    content = {
        "c": {"a": "hand-made", "n": len(CLASSES)},
        "g": [group],
        "h": hashlib.sha256(b"".join(critical)).digest(),
        "p": {"d": hashlib.sha256(b"".join(digests)).digest(), "f": 0, "k": "exact"},
        "s": [len(cls), len(img)],
    }
    about = {
        "h": hashlib.sha256(leaf).digest(),
        "l": "CC0-1.0",
        "s": "made by hand, from the text alone",
        "x": [["x-leaf", len(leaf)]],
    }
    manifest = pack({"a": about, "c": content})
    # Section 1: table, head, parts, all of codec 0
    parts = [*critical, leaf]
    table = b"".join(len(p).to_bytes(3, "little") + b"\0" + zlib.crc32(p).to_bytes(4, "little") for p in parts)
    length = HEAD + len(table) + len(manifest) + 4 + sum(map(len, parts))
    start = struct.pack("<8sHHIIHHQ", b"\x89D3M\r\n\x1a\n", 0, 9, 0, len(manifest), len(parts), 0, length)
    head = start + table + manifest
    # Section 4
    print("content id", hashlib.sha256(b"d3m-content-0\0" + pack(content)).hexdigest())
    print("pixel digest", content["p"]["d"].hex())
    return head + zlib.crc32(head).to_bytes(4, "little") + b"".join(parts)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent / "hand_made.d3m")
    target.write_bytes(make())
    print(target, target.stat().st_size, "bytes")
