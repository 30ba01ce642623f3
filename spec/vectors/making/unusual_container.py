"""Files that are legal but rare: parts, frames, digests and `about` at their limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from d3codec.format.limits import CUT_BYTES, ONE_DIGEST_BYTES, PART_BYTES, PARTS
from making.accept_methods import MINIMAL
from making.pieces import BLOCK_BYTES, WINDOW_8_MIB, block, frame, squeezed
from making.records import Sound, Vector, group, images, tokens, words
from making.streams import words16
from making.unusual_records import ONE, of_words

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-."


def vectors_of_parts() -> Iterator[Vector]:
    """Numbers and lengths of parts."""
    names = [f"x-{first}{second}" for first in LETTERS for second in LETTERS]
    sound = replace(MINIMAL, ancillary=dict.fromkeys(names[: PARTS - 2], b""))
    yield Vector("parts-4096", "as many parts as there may be, nearly all of them empty", "parts ancillary", sound)
    sound = replace(MINIMAL, ancillary={"x-zeros": bytes(PART_BYTES)}, pack=squeezed)
    yield Vector("part-8-mib", "an ancillary part of exactly 8 MiB, in 300 bytes", "parts frame ancillary", sound)
    sound = replace(MINIMAL, ancillary={"x-empty": b"", "x-one": b"\0", "x-none": b""})
    yield Vector("part-empty", "ancillary sections of no bytes", "parts ancillary", sound)
    sound = replace(
        MINIMAL, ancillary={"x-../../etc/passwd": b"root", "x-": b"\0", "x-\u202egnp": b"", "x-" + "n" * 62: b""}
    )
    yield Vector(
        "ancillary-unknown", "unknown ancillary sections, whose names are text alone", "ancillary names", sound
    )
    for name, size, how in (
        ("digest-65536", ONE_DIGEST_BYTES, "65,536 raw bytes: the most under one digest"),
        ("digest-65540", ONE_DIGEST_BYTES + 4, "4 raw bytes more than one digest covers"),
    ):
        rows = (size - len("\televen\n")) // 4
        record = group(conditioning=words(rows="image", slots=(1, 2)), images=images(rows))
        sound = Sound(("eleven",), (record,), {("wrd", 0): bytes(4 * rows)}, pack=squeezed)
        yield Vector(name, how, "digests", sound)
    record = group(conditioning=words(rows="image", slots=(0, 1, 2, 3)), images=images(CUT_BYTES // 8))
    sound = Sound(ONE, (record,), {("wrd", 0): b"\1" * CUT_BYTES}, pack=squeezed)
    yield Vector("part-2-20", "a section of exactly 2^20 bytes, in one part", "cut digests", sound)
    record = group(conditioning=words(rows="image", slots=(0, 1, 2)), images=images(CUT_BYTES // 6 + 1))
    sound = Sound(ONE, (record,), {("wrd", 0): b"\1" * (CUT_BYTES // 6 + 1) * 6}, pack=squeezed)
    yield Vector("part-one-row", "rows of six bytes: a part of 174,762 rows, and one of one row", "cut digests", sound)
    record = group(conditioning=tokens(rows="image", padding=(0, 300)), images=images(2_033))
    sound = Sound(ONE, (record,), {("tok", 0): b"\1" * 516 * 2_033}, pack=squeezed)
    yield Vector(
        "part-cut-in-a-row", "a section of free length whose parts end within a row", "cut tokens digests", sound
    )


def vectors_of_frames() -> Iterator[Vector]:
    """Frames of compressed parts that few compressors write."""
    zeros = {"x-note": bytes(400)}
    tenth = [block(b"\0", 40)] * 10
    for name, stored, reason in (
        ("window-8-mib", frame(bytes(400), window=WINDOW_8_MIB), "a frame that asks for a window of 8 MiB"),
        ("size-8-bytes", frame(bytes(400), size_bytes=8), "a frame whose content size takes 8 bytes"),
        ("dictionary-0", frame(bytes(400), dictionary=bytes(4)), "a frame with a dictionary id of 0: none"),
        ("unused-bit", frame(bytes(400), flags=0x10), "a frame with the bit set that means nothing"),
        ("many-blocks", frame(bytes(400), blocks=tenth), "a frame of ten run-length blocks"),
        ("empty-last", frame(bytes(400), blocks=[*tenth, block(b"")]), "a frame that ends in an empty block"),
    ):
        yield Vector(f"frame-{name}", reason, "frame", replace(MINIMAL, ancillary=zeros, frames={2: stored}))
    ten = frame(b"\7" * 11, blocks=[block(b"\7", 11)])
    sound = replace(MINIMAL, ancillary={"x-note": b"\7" * 11}, frames={2: ten})
    yield Vector("frame-one-byte-less", "a frame of ten bytes for eleven", "frame", sound)
    sound = replace(MINIMAL, ancillary={"x-note": b"\7" * (BLOCK_BYTES + 1)}, pack=squeezed)
    yield Vector("frame-largest-block", "a block of 128 KiB and one of a byte", "frame", sound)


def vectors_of_about() -> Iterator[Vector]:
    """`about`."""
    same = {"same_content_as": "minimal"}
    yield Vector("about-empty", "about without a key", "about content-id", replace(MINIMAL, about={}), **same)
    claims = {f"{number:03}": "?" for number in range(256)}
    about = {"claims": claims, "source": "\u00e9" * 2_048, "licence": "x", "teacher": "\u202e<b>../..\u2066"}
    reason = "256 claims, a string of 4,096 bytes, one that turns the direction of writing"
    yield Vector("about-limits", reason, "about names content-id", replace(MINIMAL, about=about), **same)
    yield Vector("about-no-claims", "an empty map of claims", "about", replace(MINIMAL, about={"claims": {}}), **same)
    one = Sound(ONE, (of_words(),), {("wrd", 0): words16(0, 0)})
    yield Vector("one-class", "a dataset of one class and one image", "classes images", one)
