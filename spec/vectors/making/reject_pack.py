"""Files that every reader refuses, for the bytes of their manifest: what is not canonical msgpack."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format import canonical
from making.records import Vector
from making.reject_container import PIECES

RIGHT = canonical.pack(PIECES.manifest)
COUNT = b"\xa1n\x03"  # `n`: three classes


def vectors_of_msgpack() -> Iterator[Vector]:
    """One fault each; where there could be two, the first one counts."""
    for code, topics, faults in (
        ("E_PACK_TRUNC", "pack-truncated", _TRUNCATED),
        ("E_PACK_TYPE", "pack-type", _TYPES),
        ("E_PACK_NONMINIMAL", "pack-shortest", _LONG),
        ("E_PACK_ORDER", "pack-order", _ORDER),
        ("E_PACK_KEY", "pack-key", _KEYS),
        ("E_PACK_UTF8", "pack-utf-8", _TEXT),
        ("E_PACK_FLOAT", "pack-float", _FLOATS),
        ("E_PACK_DEPTH", "pack-depth", _DEEP),
        ("E_PACK_NODES", "pack-nodes", _NODES),
        ("E_PACK_TRAILING", "pack-trailing", _TRAILING),
    ):
        for name, (data, reason) in faults.items():
            yield Vector(f"pack-{name}", reason, topics, PIECES.but(manifest_bytes=data), code)
    for name, data, reason in (
        ("pack-65536-nodes", b"\x91" + _ZEROS, "65,536 nodes, the most that there may be, but not a manifest"),
        ("pack-8-deep", b"\x91" * 7 + b"\xc0", "depth 8, the most that there may be, but not a manifest"),
    ):
        yield Vector(name, reason, "pack-nodes pack-depth records", PIECES.but(manifest_bytes=data), "E_MANIFEST")


def about(data: bytes) -> bytes:
    """A manifest whose `about` is these bytes."""
    return b"\x82\xa1a" + data + RIGHT[1:]


_ZEROS = b"\xdc\xff\xfe" + bytes(65_534)  # an array, 65,535 nodes
_TRUNCATED = {
    "cut": (RIGHT[:-1], "a manifest without its last byte"),
    "cut-in-length": (b"\x81\xa1c\xda\x01", "cut off within the length of a str"),
    "cut-in-str": (b"\x81\xa1c\xd9\xff" + b"x" * 254, "a str that is shorter than it states"),
    "cut-in-float": (about(b"\x81\xa1b\xcb\x3f\xf0")[:9], "cut off within a float"),
    "entries-missing": (b"\xdf"[:0] + b"\xde\xff\xff\xa1a\xc0", "a map of 65,535 entries that ends after one"),
    "bytes-2-32": (b"\x81\xa1c\xc6\xff\xff\xff\xff" + bytes(8), "a bin of 2^32 - 1 bytes that ends after eight"),
}
_TYPES = {
    "c1": (about(b"\x81\xa1b\xc1"), "the first byte that msgpack never uses"),
    "extension": (about(b"\x81\xa1b\xd4\x05\x00"), "an extension type of one byte"),
    "extension-8": (about(b"\x81\xa1b\xc7\x01\x05\x00"), "an extension type with a length"),
    "timestamp": (about(b"\x81\xa1b\xd6\xff\x00\x00\x00\x00"), "a timestamp"),
    "float32": (about(b"\x81\xa1b\xca\x3f\x80\x00\x00"), "a float32"),
    "array32": (about(b"\xdd\x00\x01\x00\x00"), "an array with a length of four bytes"),
    "map32": (about(b"\xdf\x00\x00\x00\x00"), "a map with a length of four bytes"),
}
_LONG = {
    "uint8": (RIGHT.replace(COUNT, b"\xa1n\xcc\x03"), "a small integer in two bytes"),
    "int8": (RIGHT.replace(COUNT, b"\xa1n\xd0\x03"), "a small integer of the signed family"),
    "uint64": (RIGHT.replace(COUNT, b"\xa1n\xcf" + bytes(7) + b"\3"), "a small integer in nine bytes"),
    "int16": (RIGHT.replace(COUNT, b"\xa1n\xd1\x00\x80"), "128 in the signed family"),
    "negative": (RIGHT.replace(COUNT, b"\xa1n\xd0\xe0"), "-32 in two bytes"),
    "str8": (b"\x81\xd9\x01c" + RIGHT[3:], "a short str with a length of its own"),
    "bin16": (about(b"\x81\xa1h\xc5\x00\x20" + bytes(32)), "a short bin with a length of two bytes"),
    "array16": (about(b"\x81\xa1w\xdc\x00\x01\x01"), "a short array with a length of two bytes"),
    "map16": (b"\xde\x00\x01" + RIGHT[1:], "a short map with a length of two bytes"),
    "str8-cut": (b"\x81\xd9\x05", "a short str in a long form that is cut off, too"),
}
_ORDER = {
    "order": (b"\x82" + RIGHT[1:] + b"\xa1a\x80", "keys in another order"),
    "key-twice": (b"\x82" + RIGHT[1:] + RIGHT[1:], "the same key twice"),
    "order-in-record": (
        RIGHT.replace(b"\xa1a\xa4none" + COUNT, COUNT + b"\xa1a\xa4none"),
        "keys of a record in another order",
    ),
    "order-then-type": (b"\x82\xa1c\xc0\xa1a\xc1", "a key in the wrong place, before a value that no value is"),
    "order-longer": (about(b"\x82\xa2bb\xa0\xa1b\xa0"), "a key before the one that is its beginning"),
}
_KEYS = {
    "key-integer": (b"\x81\x01" + RIGHT[3:], "a key that is an integer"),
    "key-bin": (b"\x81\xc4\x01c" + RIGHT[3:], "a key that is a bin"),
    "key-nil": (b"\x82\xc0\xc0" + RIGHT[1:], "a key that is nil"),
    "key-c1": (b"\x81\xc1" + RIGHT[3:], "a key that is no value at all"),
    "key-then-cut": (b"\x81\xcb", "a key that is a float, and is cut off"),
}
_TEXT = {
    "utf-8-byte": (about(b"\x81\xa1b\xa1\xff"), "a str that is not UTF-8"),
    "utf-8-surrogate": (about(b"\x81\xa1b\xa3\xed\xa0\x80"), "a surrogate"),
    "utf-8-overlong": (about(b"\x81\xa1b\xa2\xc1\x81"), "an overlong form"),
    "utf-8-beyond": (about(b"\x81\xa1b\xa4\xf4\x90\x80\x80"), "a code point above U+10FFFF"),
    "utf-8-key": (b"\x82" + RIGHT[1:] + b"\xa1\xff\xc0", "a key that is not UTF-8"),
    "utf-8-cut": (about(b"\x81\xa1b\xa2a\xc3"), "a str that ends within a character"),
}
_FLOATS = {
    "nan": (RIGHT.replace(COUNT, b"\xa1n\xcb\x7f\xf8" + bytes(6)), "a NaN"),
    "infinity": (RIGHT.replace(COUNT, b"\xa1n\xcb\x7f\xf0" + bytes(6)), "an infinity"),
    "minus-zero": (RIGHT.replace(COUNT, b"\xa1n\xcb\x80" + bytes(7)), "-0.0"),
}
_DEEP = {
    "9-deep": (about(b"\x91" * 8 + b"\xc0"), "arrays in about, to depth 10"),
    "9-deep-alone": (b"\x91" * 8 + b"\xc0", "depth 9"),
    "9-deep-key": (b"\x81\xa1a" * 8 + b"\xc0", "a key at depth 9"),
    "9-deep-then-cut": (b"\x91" * 8, "depth 9, where the bytes end, too"),
    "deep": (b"\x91" * 2_000, "arrays in arrays, 2,000 deep"),
}
_NODES = {"65537-nodes": (b"\x92" + _ZEROS + b"\xc1", "65,537 nodes, the last of which is no value, either")}
_TRAILING = {
    "trailing-byte": (RIGHT + b"\xc0", "a nil behind the manifest"),
    "trailing-newline": (RIGHT + b"\n", "a line feed behind the manifest"),
    "twice": (RIGHT * 2, "the manifest twice"),
}
