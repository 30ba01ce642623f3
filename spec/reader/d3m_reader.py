#!/usr/bin/env python3
"""A reader of `.d3m` files, written from the specification alone: d3m-1.0.md, version 0.9, and its annexes.

    python d3m_reader.py FILE [--level 0|1|2] [--data FOLDER] [--budget BYTES] [--work STEPS]
    python d3m_reader.py --selftest

It prints one JSON object. The levels are those of section 10. Level 0 makes the checks 1 to 19 of section 8, level 1
adds the tables of the samplers, level 2 makes check 20 and digests the values of all critical sections, little-endian:
`float64` (embeddings, vectors, latents), `float32` (labels in all the teacher's columns), and, of which the text states
no form, `int64` (choices, not candidates; token counts before their ids) or `uint8` (classes). Of sheets it checks the
heads and chunks of `png`, not the pixels; it has no codec for `avif` and `webp`, and says so.

Exit 0: a good file; 3: a bad one, with its error code and the reason on stderr; 2: wrong usage, or no verdict (a file
that cannot be read, a normative table that is missing, more work than this reader does). Needs the standard library,
`zstandard` and `d3m_coding.py` beside it. One-letter keys of records are those of the specification.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

import d3m_coding as coding
from d3m_coding import MILLION, Cursor, D3mError, NoVerdict, Record, Resources, ceil_div, check, sane

VERSION = (0, 9)
PART = 1 << 23  # the largest part, stored or raw, and the largest zstd window
BUDGET = 1 << 30  # raw bytes of a file that this reader accepts
WORK = 1 << 25  # steps (of about 0.15 microseconds) of decoding values; 64 a byte of the file are added

def rule(ok: bool, reason: str) -> None:
    check(ok, "E_MANIFEST", reason)

# ---- Canonical msgpack (d3m, section 2)

SIZED = {0xC4: ("bin", 1, 0), 0xC5: ("bin", 2, 256), 0xC6: ("bin", 4, 65536),  # kind, bytes of length, least length
         0xD9: ("str", 1, 32), 0xDA: ("str", 2, 256), 0xDB: ("str", 4, 65536), 0xDC: ("array", 2, 16),
         0xDE: ("map", 2, 16)}

@dataclass
class Unpacker(Cursor):
    """Decodes one value; `child` is where the last child of the outermost array or map begins."""
    nodes: int = 0
    child: int = 0

    def value(self, depth: int = 1, is_key: bool = False) -> Any:
        self.nodes += 1
        check(self.nodes <= 65536, "E_PACK_NODES", "more than 65,536 nodes")
        check(depth <= 8, "E_PACK_DEPTH", "deeper than 8")
        self.child = self.pos if depth == 2 else self.child
        lead = self.take(1)[0]
        check(not is_key or 0xA0 <= lead < 0xC0 or 0xD9 <= lead <= 0xDB, "E_PACK_KEY", f"a key of type {lead:02x}")
        if lead < 0x80 or lead >= 0xE0:
            return lead if lead < 0x80 else lead - 256
        if lead in (0xC0, 0xC2, 0xC3):
            return None if lead == 0xC0 else lead == 0xC3
        if lead == 0xCB:
            number = struct.unpack(">d", self.take(8))[0]
            check(math.isfinite(number) and str(number) != "-0.0", "E_PACK_FLOAT", str(number))
            return number
        if 0xCC <= lead <= 0xD3:
            size, signed = 1 << (lead & 3), lead >= 0xD0
            number = int.from_bytes(self.take(size), "big", signed=signed)
            least, most = (128, -33) if size == 1 else (1 << 4 * size, -(1 << 4 * size - 1) - 1)
            check(number <= most if signed else number >= least, "E_PACK_NONMINIMAL", f"integer {number}")
            return number
        if lead < 0xC0:
            kind, size = ("str", lead & 31) if lead >= 0xA0 else ("array" if lead >= 0x90 else "map", lead & 15)
        else:
            check(lead in SIZED, "E_PACK_TYPE", f"byte {lead:02x}")
            kind, width, least = SIZED[lead]
            size = int.from_bytes(self.take(width), "big")
            check(size >= least, "E_PACK_NONMINIMAL", f"length {size}")
        if kind == "bin":
            return self.take(size)
        if kind == "str":
            return utf8(self.take(size), "E_PACK_UTF8")
        if kind == "array":
            return [self.value(depth + 1) for _ in range(size)]
        result: Record = {}
        last = ""
        for _ in range(size):  # code points order strings as UTF-8 bytes do
            key = self.value(depth + 1, is_key=True)
            check(not result or key > last, "E_PACK_ORDER", f"key {key!r}")
            result[key], last = self.value(depth + 1), key
        return result

def utf8(data: bytes, code: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise D3mError(f"{code}: {error}") from None

# ---- Schema of the manifest (d3m, section 3): what a value must be by itself

Fits = Callable[[Any], bool]

def whole(low: int, high: int) -> Fits:
    return lambda v: type(v) is int and low <= v <= high

def one(*allowed: Any) -> Fits:
    return lambda v: any(type(v) is type(item) and v == item for item in allowed)

def either(*kinds: Fits) -> Fits:
    return lambda v: any(fits(v) for fits in kinds)

def array(*kinds: Fits) -> Fits:
    return lambda v: type(v) is list and len(v) == len(kinds) and all(fits(x) for fits, x in zip(kinds, v))

def many(kind: Fits, low: int, high: int) -> Fits:
    return lambda v: type(v) is list and low <= len(v) <= high and all(map(kind, v))

def record(**keys: Fits) -> Fits:
    return lambda v: type(v) is dict and v.keys() == keys.keys() and all(fits(v[k]) for k, fits in keys.items())

def text(most: int) -> Fits:
    return lambda v: type(v) is str and 1 <= len(v.encode()) <= most and not has_controls(v)

def has_controls(value: str) -> bool:
    return any(unicodedata.category(letter) == "Cc" for letter in value)

def digest(v: Any) -> bool:
    return type(v) is bytes and len(v) == 32

NIL, FLAG, SHARE, TOKEN, BITS = one(None), one(False, True), whole(0, MILLION), whole(0, (1 << 31) - 1), whole(1, 8)
U64, SIDE, COUNT, WIDTH = whole(0, (1 << 64) - 1), whole(1, 4096), whole(1, 1 << 20), whole(1, 8192)
IDS, ROWS, PAD = many(TOKEN, 1, 1024), one("class", "image"), array(TOKEN, whole(1, 1024))
NEGATIVE = either(NIL, one("zeros"), IDS)
TIMES = many(whole(0, 65535), 6, 6)
SLOTS = dict(i=IDS, s=many(whole(0, 1023), 1, 64))
CONDITIONING = either(
    record(k=one("delta"), n=NEGATIVE, p=PAD, r=ROWS, **SLOTS, a=TOKEN, b=BITS, e=FLAG, w=WIDTH,
           x=either(NIL, record(p=TOKEN, t=TIMES, w=WIDTH))),
    record(k=one("words"), n=NEGATIVE, p=PAD, r=ROWS, **SLOTS, x=either(NIL, record(p=TOKEN, t=TIMES, w=one(0)))),
    record(k=one("tokens"), n=NEGATIVE, p=PAD, r=ROWS, x=either(NIL, record(p=TOKEN, t=TIMES, w=one(0)))),
    record(k=one("vectors"), n=one(None, "zeros", "row"), r=ROWS, b=BITS, e=FLAG, s=whole(1, 1024), w=WIDTH),
    record(k=one("class-id"), n=either(NIL, TOKEN), r=one("class")),
    record(k=one("none")))
STORED = either(array(BITS, whole(0, 1), whole(1, 64), SIDE, SIDE), array(one(0), one(2), *3 * [whole(1, 64)]))
SAMPLER = dict(b=array(one("linear", "scaled"), whole(1, 999_999), whole(1, 999_999), whole(1, 10_000)),
               g=whole(0, 1000 * MILLION), n=whole(1, 1000), p=one("eps", "v", "sample"),
               t=array(one("leading", "trailing", "linspace"), whole(0, 9999)),
               z=array(SHARE, SHARE, either(NIL, STORED)))
RECIPE = either(
    record(s=one("ddim"), e=SHARE, f=one("first", "one"), **SAMPLER),
    record(s=one("ddim-reinject"), f=one("first", "one"), **SAMPLER),
    record(s=one("euler", "euler-ancestral"), i=one("sigma", "root"), q=one("table", "karras"), **SAMPLER),
    record(s=one("decode"), z=STORED),
    record(s=one("stored"), c=COUNT, f=one("png", "avif", "webp"), n=COUNT))
COLUMNS = dict(m=one(None, "col"), w=COUNT)
LABELS = either(record(k=one("h")), record(k=one("q"), s=whole(1, 65535), **COLUMNS), record(k=one("f"), **COLUMNS),
                record(k=one("t"), n=whole(1, 1024), **COLUMNS), record(k=one("r"), **COLUMNS),
                record(k=one("a"), m=one(None, "col"), w=whole(1, 64)))
IMAGES = record(a=either(NIL, record(k=one("gdd"), c=whole(1, 255))), c=either(NIL, whole(1, 16)), g=array(SIDE, SIDE),
                n=COUNT, s=array(SIDE, SIDE),
                w=either(NIL, array(array(SIDE, SIDE), array(*2 * [whole(0, 4095)], SIDE, SIDE))))
GROUP = record(c=CONDITIONING, d=one("f16", "stored"), g=either(NIL, digest), i=IMAGES, k=U64, l=LABELS,
               o=whole(0, 1 << 40), r=RECIPE)
PROFILE = either(record(k=one("reproducible")), record(k=one("exact"), d=digest, f=whole(0, 1 << 22)),
                 record(k=one("exact-fixed"), d=digest))
CONTENT = record(c=record(a=text(64), n=COUNT), g=many(GROUP, 1, 16), h=either(digest, many(digest, 1, 65535)),
                 p=PROFILE, s=many(whole(0, 1 << 36), 1, 65535))
ABOUT = dict.fromkeys("bflmst", text(4096)) | dict(
    c=lambda v: type(v) is dict and len(v) <= 256 and all(map(text(4096), chain(v, v.values()))), h=digest, p=digest,
    w=many(whole(1, 255), 1, 16), x=many(lambda v: type(v) is list and many(whole(0, PART), 1, 65535)(v[1:])
                                         and text(64)(v[0]) and v[0].startswith("x-"), 1, 65535))

# ---- Manifest (d3m, sections 3 and 5): what values must be together, and the sections that follow from them

@dataclass(frozen=True)
class Group:
    conditioning: Record
    recipe: Record
    labels: Record
    key: int  # of the noise
    sources: int  # a class
    rows: int  # labels a class: patches of images
    choice: int  # bits of the choice of a candidate, 0 without candidates
    made: tuple[int, int]  # height and width of a generated image
    latents: tuple[int, ...]  # bits, coding, C, h, w of stored latents, or nothing

    @property
    def blocks(self) -> list[int]:
        """Values of each block of a row of `emb`."""
        c = self.conditioning
        if c["k"] == "vectors":
            return [c["s"] * c["w"]]
        return [len(c["s"]) * width for width in (c["w"], c["x"]["w"] if c["x"] else 0) if width]

@dataclass(frozen=True)
class Section:
    name: str
    group: int | None
    length: int  # raw bytes
    part: int  # raw bytes of every part but the last
    rows: int = 0
    stated: tuple[int, ...] = ()  # of ancillary sections: the raw bytes of their parts, as `about` has them

    @property
    def parts(self) -> int:
        return len(self.stated) or max(1, ceil_div(self.length, self.part))

    @property
    def raws(self) -> list[int]:
        return list(self.stated) or [min(self.part, self.length - i * self.part) for i in range(self.parts)]

@dataclass(frozen=True)
class Manifest:
    content: Record
    about: Record
    groups: tuple[Group, ...]
    critical: tuple[Section, ...]
    ancillary: tuple[Section, ...]

def parse_manifest(value: Any) -> Manifest:
    rule(type(value) is dict and value.keys() in ({"c"}, {"a", "c"}), "the keys of the manifest")
    content, about = value["c"], value.get("a", {})
    rule(CONTENT(content), "`content` does not follow its schema")
    rule(type(about) is dict and all(k in ABOUT and ABOUT[k](v) for k, v in about.items()), "`about`")
    rule(("f" in about) == ("p" in about) and ("h" in about) == ("x" in about), "`about`: what belongs together")
    if content["p"]["k"] != "reproducible":
        rule("p" not in about, "pixels twice")
        rule(all(g["r"].get("f") not in ("avif", "webp") for g in content["g"]), "lossy sheets and exact pixels")
    rule(len(about.get("w", content["g"])) == len(content["g"]), "a weight a group")
    names = [name for name, *_ in about.get("x", [])]
    rule(len(set(names)) == len(names), "two ancillary sections of one name")
    classes = content["c"]["n"]
    groups = tuple(parse_group(group, classes) for group in content["g"])
    critical = tuple(plan_sections(classes, groups, content["p"].get("f", 0), content["s"]))
    single = sum(section.length for section in critical) <= 65536
    count = 32 if single else sum(section.parts for section in critical)
    rule(isinstance(content["h"], bytes) == single and len(content["h"]) == count, "the critical digest")
    ancillary = tuple(Section(name, None, sum(stated), 1, 0, tuple(stated)) for name, *stated in about.get("x", []))
    return Manifest(content, about, groups, critical, ancillary)

def parse_group(value: Record, classes: int) -> Group:
    c, r, i, labels, made = value["c"], value["r"], value["i"], value["l"], value["i"]["s"]
    kind, choice, copies = r["s"], i["c"] or 0, i["a"]["c"] if i["a"] else 0
    rule((value["g"] is None) == (kind == "stored"), "generator and recipe")
    rule(kind != "stored" or (value["d"], value["o"]) == ("stored", 0), "cast or outside bytes of stored images")
    sources, rows = i["n"] // (copies + 1), i["n"] * i["g"][0] * i["g"][1]
    rule(i["n"] % (copies + 1) == 0 and sources << choice <= 1 << 32, "copies, or candidates")
    rule(made[0] % i["g"][0] == 0 and made[1] % i["g"][1] == 0, "the size is no multiple of the grid")
    if i["w"]:
        made, (top, left, height, width) = i["w"]
        rule(top + height <= made[0] and left + width <= made[1], "the window is outside of the image")
    latents = tuple(r.get("z") or ()) if kind == "decode" else ()
    if kind == "stored":
        height, width = made[0] * ceil_div(r["n"], r["c"]), made[1] * r["c"]
        rule(r["c"] <= r["n"] and max(height, width) <= 16383 and height * width <= 1 << 26, "the sheets")
    elif kind != "decode":
        (_, _, _, count), steps, (spacing, offset), (a, _, stored) = r["b"], r["n"], r["t"], r["z"]
        rule((2 if kind == "ddim-reinject" else 1) <= steps <= count, "the number of steps")
        rule(offset < (count - (steps - 1) * (count // steps) if spacing == "leading" else 1), "the offset")
        rule(coding.alpha_bars(*r["b"])[-1] >= 2.0**-64, "the last alpha-bar is below 2^-64")
        rule(bool(stored) if kind == "ddim-reinject" else bool(stored) == (a > 0), "the start state")
        latents = tuple(stored or ())
    rule((c["k"] == "none") == (kind in ("decode", "stored")) and not (c["k"] == "none" and choice), "no conditioning")
    rule(c["k"] == "none" or c["n"] is not None or r["g"] == MILLION, "guidance without a negative")
    if "p" in c:
        negative = c["n"] if isinstance(c["n"], list) else []
        rule(max(len(negative), len(c.get("i", []))) <= c["p"][1], "ids longer than the padded length")
    if "i" in c:
        rule(all(a < b for a, b in pairwise([*c["s"], len(c["i"])])), "slots that do not ascend in the template")
    if labels["k"] != "h":
        rule(labels["w"] >= classes if labels["m"] else labels["w"] == classes, "the columns of labels")
        rule(labels.get("n", 0) <= labels["w"], "more kept than columns")
        rule(labels["k"] not in "ra" or classes * rows <= 1 << 26, "more than 2^26 coded labels")
    group = Group(c, r, labels, value["k"], sources, rows, choice, tuple(made), latents)
    stored_blocks = [(classes * sources, latents[0], latents[1], [math.prod(latents[2:])])] if latents else []
    row_blocks = [(condition_rows(group, classes), c["b"], c["e"], group.blocks)] if "b" in c else []
    for count, bits, coded, blocks in stored_blocks + row_blocks:
        rule(block_bytes(blocks, bits) <= PART, "a row that does not fit a part")
        rule(not coded or count * sum(blocks) <= 1 << 32, "a coded section of more than 2^32 values")
    return group

def block_bytes(blocks: list[int], bits: int) -> int:
    return sum(2 + ceil_div(size * bits, 8) for size in blocks)

def condition_rows(group: Group, classes: int) -> int:
    c = group.conditioning
    return classes * (group.sources if c["r"] == "image" else 1) + int(c["k"] == "vectors" and c["n"] == "row")

def plan_sections(classes: int, groups: tuple[Group, ...], fixes: int, free: list[int]) -> Iterator[Section]:
    """The critical sections in file order; `free` are the lengths that do not follow from the records."""
    plan: list[tuple[str, int | None, int, int]] = [("cls", None, 0, 0)]  # name, group, rows, row bytes (0: free)
    plan += [("fix", None, 0, 0)] if fixes else []
    for index, g in enumerate(groups):
        c, kind, width, sources = g.conditioning, g.labels["k"], g.labels.get("w", 0), classes * g.sources
        name = {"delta": "emb", "vectors": "emb", "words": "wrd", "tokens": "tok", "class-id": "ids"}.get(c["k"])
        row = {"emb": 0, "wrd": 2 * len(c.get("s", [])) if c["k"] == "words" else 0, "ids": 4}.get(name or "", 0)
        if "b" in c and not c["e"]:
            row = block_bytes(g.blocks, c["b"])
        plan += [(name, index, condition_rows(g, classes), row)] if name else []
        plan += [("cnd", index, classes, ceil_div(g.sources * g.choice, 8))] if g.choice else []
        if g.latents:
            row = 0 if g.latents[1] else block_bytes([math.prod(g.latents[2:])], g.latents[0])
            plan.append(("lat", index, sources, row))
        plan += [("img", index, 0, 0)] if g.recipe["s"] == "stored" else []
        plan += [("col", index, classes, 4)] if g.labels.get("m") else []
        row = {"q": width, "f": 2 * width, "t": g.labels.get("n", 0) * (4 if width <= 65536 else 6)}.get(kind, 0)
        plan += [("lab", index, classes * g.rows, row)] if kind != "h" else []
    rule(len(free) == sum(row == 0 for *_, row in plan), "the number of free lengths")
    lengths = iter(free)
    for name, owner, rows, row in plan:
        length = rows * row if row else next(lengths)
        rule(name not in ("cls", "fix") or length <= PART, f"{name} of {length} bytes")
        yield Section(name, owner, length, row * max(1, (1 << 20) // row) if row else 1 << 20, rows)

# ---- Container (d3m, sections 1, 4 and 8)

@dataclass(frozen=True)
class Part:
    offset: int
    stored: int
    raw: int
    codec: int
    crc: int

@dataclass(frozen=True)
class Archive:
    """A file whose head is good."""
    file: BinaryIO
    size: int
    content_id: str
    manifest: Manifest
    sections: tuple[tuple[Section, list[Part]], ...]

def open_archive(file: BinaryIO, budget: int) -> Archive:
    """Checks the head, in the order of section 8, and the budget."""
    size, _ = file.seek(0, os.SEEK_END), file.seek(0)
    start = file.read(32)
    check(len(start) == 32, "E_SHORT", "the file ends inside the head")
    magic, major, minor, features, length, count, reserved, total = struct.unpack("<8sHHIIHHQ", start)
    check(magic == b"\x89D3M\r\n\x1a\n", "E_MAGIC", "not a .d3m file")
    check((major, minor) == VERSION, "E_VERSION", f"version {major}.{minor}")
    check(features == 0, "E_FEATURE", f"required features {features:#x}")
    check(reserved == 0, "E_RESERVED", "a reserved field is not zero")
    check(1 <= length <= 1 << 20 and count <= 4096, "E_LIMIT", f"manifest of {length} bytes, {count} parts")
    rest = file.read(8 * count + length + 4)
    check(len(rest) == 8 * count + length + 4, "E_SHORT", "the file ends inside the head")
    check(zlib.crc32(start + rest[:-4]) == int.from_bytes(rest[-4:], "little"), "E_HEAD_CRC", "the head is damaged")
    rows = [(word & 0xFFFFFF, word >> 24, crc) for word, crc in struct.iter_unpack("<II", rest[: 8 * count])]
    for stored, codec, _ in rows:
        check(codec <= 1, "E_CODEC", f"codec {codec}")
        check(stored <= PART, "E_LENGTH", f"a part of {stored} stored bytes")
    offsets = list(accumulate((stored for stored, _, _ in rows), initial=32 + len(rest)))
    check(offsets[-1] == total, "E_LENGTH", "the parts do not end at the file length")

    unpacker = Unpacker(rest[8 * count : -4], "E_PACK_TRUNC")
    value = unpacker.value()
    check(unpacker.left == 0, "E_PACK_TRAILING", "bytes after the manifest")
    manifest = parse_manifest(value)
    content = unpacker.data[unpacker.child :]  # since keys ascend, the last value of the manifest
    planned = (*manifest.critical, *manifest.ancillary)
    expected = sum(section.parts for section in planned)
    check(count == expected, "E_LENGTH", f"{count} parts instead of {expected}")
    table, sections = zip(offsets, rows), []
    for section in planned:
        parts = [Part(offset, stored, raw, codec, crc)
                 for raw, (offset, (stored, codec, crc)) in zip(section.raws, table)]
        for p in parts:
            good = p.raw <= PART and (p.stored < p.raw if p.codec else p.stored == p.raw)
            check(good, "E_LENGTH", f"a part of {p.raw} raw and {p.stored} stored bytes")
        sections.append((section, parts))
    check(size == total, "E_LENGTH", f"a file of {size} bytes instead of {total}")
    check(sum(section.length for section in planned) <= budget, "E_BUDGET", f"more than {budget} raw bytes")
    return Archive(file, size, hashlib.sha256(b"d3m-content-0\0" + content).hexdigest(), manifest, tuple(sections))

def read_part(file: BinaryIO, part: Part) -> bytes:
    file.seek(part.offset)
    stored = file.read(part.stored)
    check(zlib.crc32(stored) == part.crc, "E_SECTION_CRC", f"the part at {part.offset} is damaged")
    if part.codec == 0:
        return stored
    check(zstd_content_size(stored) == part.raw, "E_ZSTD_HEADER", "the frame's content size is not the raw length")
    try:  # the output is no larger than the content size
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise D3mError(f"E_ZSTD_DATA: {error}") from None

def zstd_content_size(frame: bytes) -> int:
    """The content size of a zstd frame, whose header (RFC 8878, 3.1.1.1) must follow the rules of section 1."""
    cursor = Cursor(frame, "E_ZSTD_HEADER")
    magic, flags = cursor.unpack("IB")
    check(magic == 0xFD2FB528 and not flags & 8, "E_ZSTD_HEADER", "not a zstd frame")
    single = flags >> 5 & 1
    window = 0 if single else cursor.take(1)[0]
    check((8 + (window & 7)) << (7 + (window >> 3)) <= PART, "E_ZSTD_HEADER", "a window above 8 MiB")
    check(not any(cursor.take((0, 1, 2, 4)[flags & 3])), "E_ZSTD_HEADER", "a dictionary")
    size = (single, 2, 4, 8)[flags >> 6]
    check(size > 0, "E_ZSTD_HEADER", "no content size")
    return int.from_bytes(cursor.take(size), "little") + (256 if size == 2 else 0)

def verify_parts(archive: Archive) -> list[Record]:
    """Checks every part, then the digests, then the sizes of ancillary sections; describes the sections."""
    content, about, critical = archive.manifest.content, archive.manifest.about, len(archive.manifest.critical)
    totals, singles, report = (hashlib.sha256(), hashlib.sha256()), [], []
    for index, (section, parts) in enumerate(archive.sections):
        total = hashlib.sha256()
        for raw in (read_part(archive.file, part) for part in parts):
            total.update(raw)
            if index >= critical or isinstance(content["h"], bytes):
                totals[index >= critical].update(raw)
            else:
                singles.append(hashlib.sha256(raw).digest())
        report.append({"name": section.name, "group": section.group, "bytes": section.length,
                       "sha256": total.hexdigest()})
    found = totals[0].digest() if isinstance(content["h"], bytes) else singles
    check(content["h"] == found, "E_SECTION_DIGEST", "critical parts")
    check(about.get("h") in (None, totals[1].digest()), "E_SECTION_DIGEST", "ancillary parts")
    images = content["c"]["n"] * sum(group["i"]["n"] for group in content["g"])
    for section in archive.manifest.ancillary:
        check(section.parts == 1, "E_SECTION_SIZE", f"{section.name} of {section.parts} parts")
        good = section.name != "x-leaf" or section.length in (2 * images, 4 * images, 8 * images)
        check(good, "E_SECTION_SIZE", f"x-leaf of {section.length} bytes")
    return report

# ---- Values of sections (d3m, section 5)

def bit_codes(data: bytes, bits: int, count: int) -> list[int]:
    """Codes packed from the least significant bit of each byte upward."""
    data, mask, codes = data + bytes(-len(data) % bits), (1 << bits) - 1, []
    for i in range(0, len(data), bits):
        word = int.from_bytes(data[i : i + bits], "little")
        codes += [word >> shift & mask for shift in range(0, 8 * bits, bits)]
    sane(not any(codes[count:]), "padding that is not zero")
    return codes[:count]

def block_rows(raws: Iterable[bytes], sizes: list[int], bits: int) -> Iterator[list[float]]:
    for cursor in map(Cursor, raws):
        while cursor.left:
            for size in sizes:
                scale = cursor.unpack("e")[0]
                sane(0 < scale < math.inf, "an impossible scale")
                codes = bit_codes(cursor.take(ceil_div(size * bits, 8)), bits, size)
                yield [(code - ((1 << bits) - 1) / 2) * scale for code in codes]

def class_lines(data: bytes, classes: int, authority: str) -> bytes:
    lines = utf8(data, "E_SECTION_VALUE").split("\n")
    sane(len(lines) == classes + 1 and not lines[-1], "another number of classes")
    keys, names = set(), set()
    for key, tab, name in (line.partition("\t") for line in lines[:-1]):
        sane(tab != "" and not has_controls(key + name), "a line without TAB, or with other control characters")
        sane((key == "") == (authority == "none"), "class ids and their authority")
        sane(1 <= len(name.encode()) <= 65536 and len(key.encode()) <= 65536, "a name of impossible length")
        keys.add(key)
        names.add(name)
    sane(len(names) == classes and (authority == "none" or len(keys) == classes), "a name or an id twice")
    return data

def corrections(data: bytes, count: int, total: int) -> Iterator[tuple[int, int]]:
    cursor, position = Cursor(data), 0
    for index in range(count):
        distance = cursor.leb128(9)
        position += distance
        sane((distance > 0 or index == 0) and position < total, "an impossible position")
        yield position, cursor.take(1)[0]
    sane(cursor.left == 0, "bytes after the corrections")

def token_rows(data: bytes, rows: int, longest: int) -> Iterator[tuple[int, ...]]:
    cursor = Cursor(data)
    for _ in range(rows):
        count = cursor.unpack("H")[0]
        sane(1 <= count <= longest, "an impossible number of tokens")
        yield (count, *cursor.unpack(f"{count}H"))
    sane(cursor.left == 0, "bytes after the rows")

def largest_labels(raws: Iterable[bytes], kept: int, width: int) -> Iterator[list[float]]:
    for row in chain(*(struct.iter_unpack(f"<{kept}{'H' if width <= 65536 else 'I'}{kept}e", raw) for raw in raws)):
        columns, values, logits = row[:kept], row[kept:], [0.0] * width
        sane(len(set(columns)) == kept and max(columns) < width, "impossible columns")
        sane(all(0 <= v < math.inf and str(v) != "-0.0" for v in values), "an impossible logit")
        sane(all(a >= b for a, b in pairwise(values)), "logits that ascend")
        for column, value in zip(columns, values):
            logits[column] = value
        yield logits

def label_values(group: Group, rows: int, raws: Iterable[bytes], columns: Sequence[int] | None, resources: Resources
                 ) -> Iterator[Sequence[float]]:
    kind, width = group.labels["k"], group.labels["w"]
    resources.spend(rows * width * {"t": 1, "r": 8, "a": 120 + 3 * width}.get(kind, 0))
    if kind == "q":
        yield from ([q * group.labels["s"] / 256 for q in struct.unpack(f"{len(raw)}b", raw)] for raw in raws)
    elif kind == "f":
        for raw in raws:
            values = struct.unpack(f"<{len(raw) // 2}e", raw)
            sane(all(map(math.isfinite, values)), "a logit that is not finite")
            yield values
    elif kind == "t":
        yield from largest_labels(raws, group.labels["n"], width)
    else:
        classes = [column for column in columns or range(rows // group.rows) for _ in range(group.rows)]
        data = b"".join(raws)
        if kind == "r":
            yield from coding.ranked_labels(data, classes, width, resources)
        else:
            yield from coding.adaptive_labels(data, classes, width)

def section_values(archive: Archive, section: Section, raws: Iterable[bytes], columns: Sequence[int] | None,
                   resources: Resources) -> Iterator[Sequence[float] | bytes]:
    """The values of a section, in chunks; `columns` are those of section `col` of its group, if there is one."""
    content, name = archive.manifest.content, section.name
    classes, groups = content["c"]["n"], archive.manifest.groups
    if section.group is None:
        if name == "cls":
            yield class_lines(b"".join(raws), classes, content["c"]["a"])
        else:
            total = sum(classes * g.sources * 3 * math.prod(g.made) for g in groups)
            yield from corrections(b"".join(raws), content["p"]["f"], total)
        return
    group = groups[section.group]
    if name in ("emb", "lat"):
        c, (bits, coded, *shape) = group.conditioning, group.latents or (0, 0, 0, 0, 0)
        if name == "emb":
            bits, coded = c["b"], int(c["e"])
        sizes = group.blocks if name == "emb" else [math.prod(shape)]
        resources.spend(section.rows * (16 + sum(sizes) * (0, 12, 16 + sum(shape))[coded]) if coded else 0)
        if coded == 0:
            yield from block_rows(raws, sizes, bits)
        elif coded == 1:
            yield from coding.coded_rows(b"".join(raws), section.rows, sum(sizes))
        else:
            yield from coding.transform_latents(b"".join(raws), section.rows, (shape[0], shape[1], shape[2]), resources)
    elif name == "wrd":
        yield from (struct.unpack(f"<{len(raw) // 2}H", raw) for raw in raws)
    elif name in ("ids", "col"):
        for raw in raws:
            numbers = struct.unpack(f"<{len(raw) // 4}I", raw)
            sane(max(numbers) < (1 << 31 if name == "ids" else group.labels["w"]), "an impossible id or column")
            yield numbers
    elif name == "tok":
        yield from token_rows(b"".join(raws), section.rows, group.conditioning["p"][1])
    elif name == "cnd":
        for cursor in map(Cursor, raws):
            while cursor.left:
                yield bit_codes(cursor.take(ceil_div(group.sources * group.choice, 8)), group.choice, group.sources)
    elif name == "lab":
        yield from label_values(group, section.rows, raws, columns, resources)
    else:
        check_sheets(group, classes * group.sources, b"".join(raws))

def check_sheets(group: Group, sources: int, data: bytes) -> None:
    """Sheets fill the section; the heads and chunks of `png`, the first bytes of `avif` and `webp`."""
    count, across, (height, width) = group.recipe["n"], group.recipe["c"], group.made
    cursor = Cursor(data)
    lengths = cursor.unpack(f"{ceil_div(sources, count)}I")
    sane(sum(lengths) == cursor.left, "sheets that do not fill the section")
    for index, length in enumerate(lengths):
        down, file = ceil_div(min(count, sources - index * count), across), cursor.take(length)
        if group.recipe["f"] == "png":
            check_png(file, across * width, down * height)
        else:
            begins = file[:4] + file[8:12] == b"RIFFWEBP" if group.recipe["f"] == "webp" else file[4:12] == b"ftypavif"
            sane(begins, "a sheet of another format")

def check_png(file: bytes, width: int, height: int) -> None:
    """An RGB image of 8 bits and this size, not animated; what its other chunks hold is not looked at."""
    cursor, kind = Cursor(file), b""
    sane(cursor.take(8) == b"\x89PNG\r\n\x1a\n", "a sheet that is no PNG")
    while kind != b"IEND":
        first, (size, kind) = kind == b"", struct.unpack(">I4s", cursor.take(8))
        body, crc = cursor.take(size), int.from_bytes(cursor.take(4), "big")
        good = not first or (kind, body) == (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        sane(good, "a PNG of another kind or size")
        sane(zlib.crc32(kind + body) == crc, "a damaged chunk of a PNG")
        sane(kind not in (b"acTL", b"fcTL", b"fdAT"), "an animated PNG")
    sane(cursor.left == 0, "bytes after a PNG")

# ---- Reports and the command line

FORMS = {"emb": "d", "lat": "d", "lab": "f", "cls": "B"}  # of the others int64

def last_step(group: Group | None, name: str) -> bool:
    """Whether section 8 has the values of this section in step 20, not 19."""
    coded = {"lat": group.latents[1:2] == (0,), "emb": not group.conditioning.get("e")} if group else {}
    return name in ("img", "lab") or not coded.get(name, True)

def check_values(archive: Archive, level: int, resources: Resources) -> list[Record]:
    """Steps 19 and, for level 2, 20; describes the values."""
    groups = archive.manifest.groups
    columns: dict[int, list[Any]] = {}  # of the groups that have them in a section
    todo = [(None if s.group is None else groups[s.group], s, parts) for s, parts in archive.sections]
    todo = todo[: len(archive.manifest.critical)]
    reports: dict[tuple[str, int | None], Record] = {(s.name, s.group): {} for _, s, _ in todo}  # in file order
    for last, (group, section, parts) in sorted(((last_step(g, s.name), (g, s, p)) for g, s, p in todo),
                                                key=lambda item: item[0]):
        if last and level < 2:
            break
        name, index, form = section.name, section.group or 0, FORMS.get(section.name, "q")
        count, sha, listed = 0, hashlib.sha256(), columns.setdefault(index, []) if name == "col" else None
        for chunk in section_values(archive, section, read_parts(archive, parts, resources), columns.get(index),
                                    resources):
            if level >= 2:
                sha.update(chunk if isinstance(chunk, bytes) else struct.pack(f"<{len(chunk)}{form}", *chunk))
            count += len(chunk)
            if listed is not None:
                listed += chunk
        sane(listed is None or len(set(listed)) == len(listed), "a column of two classes")
        forms = {"d": "float64", "f": "float32", "q": "int64", "B": "uint8"}
        report = {"form": forms[form], "count": count, "sha256": sha.hexdigest()}
        if group and name == "img":
            seen = "heads of sheets" if group.recipe["f"] == "png" else "lengths and first bytes of sheets: no codec"
            report = {"format": group.recipe["f"], "checked": seen}
        reports[name, section.group] = {"name": name, "group": section.group} | report
    return list(reports.values())

def read_parts(archive: Archive, parts: list[Part], resources: Resources) -> Iterator[bytes]:
    for part in parts:
        resources.spend(8 * part.raw)
        yield read_part(archive.file, part)

def read(path: Path, level: int, budget: int, resources: Resources) -> Record:
    with path.open("rb") as file:
        archive = open_archive(file, budget)
        resources.work += 64 * archive.size
        report: Record = {"content_id": archive.content_id, "version": list(VERSION), "bytes": archive.size}
        report["sections"] = verify_parts(archive)
        values = check_values(archive, level, resources)
        if level >= 1:
            samplers = [(i, g) for i, g in enumerate(archive.manifest.groups) if "b" in g.recipe]
            report["tables"] = [{"group": i} | coding.sampler_tables(g.recipe, g.key) for i, g in samplers]
        return report | ({"values": values} if level >= 2 else {})

def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--level", type=int, choices=(0, 1, 2), default=2)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent / "data",
                        help="folder of the normative tables")
    parser.add_argument("--budget", type=int, default=BUDGET, help="raw bytes that a file may have")
    parser.add_argument("--work", type=int, default=WORK, help="inner steps of decoding, besides 64 a byte of the file")
    parser.add_argument("--selftest", action="store_true", help="check the vectors that the text states")
    arguments = parser.parse_args()
    resources = Resources(arguments.data, arguments.work)
    try:
        if arguments.selftest:
            import d3m_vectors
            d3m_vectors.selftest(resources)
        elif arguments.file is None:
            parser.error("no file")
        else:
            print(json.dumps(read(arguments.file, arguments.level, arguments.budget, resources), indent=1))
    except D3mError as error:
        print(error, file=sys.stderr)
        return 3
    except (NoVerdict, OSError, MemoryError) as error:
        print(f"d3m_reader: no verdict: {str(error) or 'not enough memory'}", file=sys.stderr)
        return 2
    return 0

if __name__ == "__main__":
    sys.exit(main())
