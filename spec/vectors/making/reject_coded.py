"""Files that every reader refuses, for sections that a codec has to judge: coded rows, latents, sheets, labels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from d3codec.format.manifest import AdaptiveLabels, RankedHeadLabels, Raw16Labels, TopkLabels
from making.accept_methods import RDED, THREE, decoded
from making.accept_parts import labelled
from making.given import RANKED_FILE, RANKED_NONE, given
from making.records import MILLION, Sound, Vector, ddim, group, sheets, vectors
from making.reject_container import SMALL
from making.streams import adaptive_labels, coded_rows, half, half_rows, joined, png, sheet_of, tiles, words16, words32

NAN, INFINITE = b"\x01\x7e", b"\x00\x7c"
HALVES = labelled(Raw16Labels(width=3), half_rows("halves", 9), 3)
TOP = labelled(
    TopkLabels(k=2, width=3), words16(2, 0) + half(3, 1) + words16(0, 1) + half(2, 2) + words16(1, 2) + half(1, 0), 3
)
RANKED = labelled(RankedHeadLabels(width=10), given("ranked-none.bin"), 10, (), RANKED_NONE["labels"] // 10)
STATED = labelled(
    RankedHeadLabels(width=RANKED_FILE["width"], columns="col"),
    given("ranked-file.bin"),
    11,
    tuple(3 * number + 2 for number in range(11)),
    RANKED_FILE["labels"] // 11,
)
ADAPTIVE = labelled(AdaptiveLabels(width=3), adaptive_labels("values", [0, 1, 2], 3, 40), 3)
OWN = decoded("transform-own.bin", (1, 2, 2), 3, 100)
TAESD = decoded("transform-taesd.bin", (4, 4, 4), 2, 2)
_CODED = vectors(coded=True, rows="class", negative=None, slots=2, width=4)
CODED = Sound(
    THREE,
    (group(conditioning=_CODED, recipe=ddim(guidance=MILLION)),),
    {("emb", 0): coded_rows("values", 3, 8, (7, 3, 3), [0.5, 1.0, 2.0])},
)
STREAM = 3 + 2 * 3  # where the stream of CODED begins, after shape and scales


def vectors_of_coded() -> Iterator[Vector]:
    """Sections that a codec has to judge: coded rows and latents."""
    raw, own, taesd = CODED.sections["emb", 0], OWN.sections["lat", 0], TAESD.sections["lat", 0]
    one = coded_rows("values", 3, 8, (7, 3, 3), [0.5])
    peaked = bytes([7, 127, 127]) + raw[3:]
    for name, topics, code, changed, reason in (
        ("no-bytes", "coded-size", "SIZE", b"", "no bytes"),
        ("no-scales", "coded-size", "SIZE", raw[:6], "bytes that end within the scales"),
        ("levels-0", "coded-shape", "VALUE", b"\0" + raw[1:], "no levels"),
        ("levels-0-cut", "coded-size order", "SIZE", b"\0\1\1\0\0", "no levels, and bytes that end within the scales"),
        ("levels-1", "coded-shape", "VALUE", b"\1\1\0" + raw[3:STREAM] + words32(1 << 16), "one level with a shape"),
        ("scale-zero", "coded-shape", "VALUE", raw[:7] + bytes(2) + raw[9:], "a scale of 0"),
        ("scale-nan", "coded-shape", "VALUE", raw[:5] + NAN + raw[7:], "a scale that is a NaN"),
        (
            "scale-negative",
            "coded-shape",
            "VALUE",
            raw[:5] + half(-1.0) + raw[7:],
            "a negative scale that is not the first",
        ),
        ("scale-minus-zero", "coded-shape", "VALUE", one[:3] + half(-0.0) + one[5:], "one scale of -0.0"),
        ("no-stream", "stream", "VALUE", raw[:STREAM], "no stream"),
        ("odd", "stream", "VALUE", raw + b"\0", "a stream of an odd length"),
        (
            "low-state",
            "stream",
            "VALUE",
            raw[:STREAM] + words32(0xFFFF) + raw[STREAM + 4 :],
            "an initial state below 2^16",
        ),
        ("cut", "stream", "VALUE", raw[:-2], "a word read beyond the end"),
        ("words-left", "stream", "VALUE", raw + b"\0\0", "a word that is left"),
        ("other-state", "stream", "VALUE", raw[:-1] + bytes([raw[-1] ^ 1]), "a lane that does not end at 2^16"),
        ("other-table", "stream", "VALUE", peaked, "a stream under another table"),
    ):
        yield Vector(
            f"coded-{name}",
            f"entropy-coded rows: {reason}",
            topics,
            CODED.with_section("emb", 0, changed),
            f"E_SECTION_{code}",
        )
    head = 3 + 2 + 2 + 3 + 1  # of transform-own: number, step, a head of statistics, its mean, diagonals, an offset
    assert own[:1] == b"\0"
    for name, code, sound, changed, reason in (
        ("no-bytes", "SIZE", OWN, b"", "no bytes"),
        ("cut-in-step", "SIZE", OWN, own[:2], "bytes that end within the step"),
        ("step", "VALUE", OWN, own[:1] + words16(8_192) + own[3:], "a step of exponent 8,192"),
        ("statistics", "VALUE", TAESD, b"\3" + taesd[1:], "statistics that nobody ships"),
        ("statistics-of-another-shape", "VALUE", OWN, b"\2" + own[1:], "statistics that are shipped for another shape"),
        ("matrix", "VALUE", OWN, own[:3] + b"\2" + own[4:], "a first byte of the statistics of 2"),
        ("matrix-cut", "VALUE", OWN, own[:3] + b"\2", "that byte, and bytes that end after it"),
        ("cut-in-statistics", "SIZE", OWN, own[: head - 1], "bytes that end within the statistics"),
        ("mean", "VALUE", OWN, own[:5] + INFINITE + own[7:], "an infinite mean"),
        ("cut-in-lengths", "SIZE", OWN, own[: head + 2], "bytes that end within the lengths of blocks"),
        (
            "length",
            "VALUE",
            OWN,
            own[:head] + words32(1 << 20) + own[head + 4 :],
            "a block that is longer than the section",
        ),
        (
            "length-less",
            "VALUE",
            OWN,
            own[:head] + words32(int.from_bytes(own[head : head + 4], "little") - 2) + own[head + 4 :],
            "a block that is shorter than its stream",
        ),
        ("cut", "VALUE", TAESD, taesd[:-2], "a word read beyond the end"),
        ("words-left", "VALUE", TAESD, taesd + bytes(2), "a word that is left"),
        ("other-state", "VALUE", TAESD, taesd[:-1] + bytes([taesd[-1] ^ 0x40]), "a lane that does not end at 2^16"),
    ):
        yield Vector(
            f"transform-{name}",
            f"transform-coded latents: {reason}",
            "transform-checks",
            sound.with_section("lat", 0, changed),
            f"E_SECTION_{code}",
        )


def vectors_of_sheets() -> Iterator[Vector]:
    """Section `img`: two sheets, of 16 x 16 and of 16 x 8 pixels."""
    first, second = (sheet_of(some, 2) for some in (tiles("rded", 6, (8, 8))[:4], tiles("rded", 6, (8, 8))[4:]))
    right = [png(first), png(second)]
    grey, deep = np.zeros((16, 16, 1), np.uint8), np.zeros((16, 16, 6), np.uint8)
    clear, animated = np.zeros((16, 16, 4), np.uint8), (b"acTL", struct.pack(">II", 1, 0))
    for name, topics, raw, reason in (
        ("no-bytes", "img-lengths", b"", "no bytes"),
        ("no-lengths", "img-lengths", bytes(7), "bytes that end within the lengths"),
        ("longer", "img-lengths", joined(right) + b"\0", "a byte behind the last sheet"),
        ("shorter", "img-lengths", joined(right)[:-1], "a last sheet without its last byte"),
        ("one-sheet", "img-lengths img", joined([png(first)]) + bytes(4), "one sheet where two are needed"),
        ("size", "img-size", joined([png(first), png(first)]), "a last sheet with rows that it does not need"),
        ("turned", "img-size", joined([png(first), png(second.swapaxes(0, 1).copy())]), "a sheet of the turned size"),
        ("webp", "img-size", joined([given("sheet.webp"), right[1]]), "a sheet in another format"),
        ("jpeg", "img-size", joined([b"\xff\xd8\xff\xe0" + bytes(30), right[1]]), "a sheet that begins as a JPEG"),
        ("grey", "img-png", joined([png(grey, form=b"\x08\0\0\0\0"), right[1]]), "a grey sheet"),
        ("alpha", "img-png", joined([png(clear, form=b"\x08\6\0\0\0"), right[1]]), "a sheet with alpha"),
        ("sixteen-bits", "img-png", joined([png(deep, form=b"\x10\2\0\0\0"), right[1]]), "a sheet of 16 bits a value"),
        ("interlaced", "img-png", joined([png(first, form=b"\x08\2\0\0\1"), right[1]]), "an interlaced sheet"),
        ("animated", "img-png", joined([png(first, (animated,)), right[1]]), "an animated sheet"),
        ("no-end", "img-png", joined([right[0][:-12], right[1]]), "a PNG without its chunk IEND"),
        ("late-head", "img-png", joined([_with_first(right[0]), right[1]]), "a PNG with a chunk before IHDR"),
        ("tail", "img-png", joined([right[0] + b"tail", right[1]]), "a PNG with bytes behind its chunk IEND"),
        ("bit", "img-png", joined([_flipped(right[0], 60), right[1]]), "a PNG with one bit of its pixels flipped"),
    ):
        yield Vector(f"sheet-{name}", reason, topics, RDED.with_section("img", 0, raw), "E_SECTION_VALUE")
    lossy = RDED.but(
        groups=(RDED.groups[0].model_copy(update={"recipe": sheets(format="webp")}),), profile=SMALL.profile
    )
    yield Vector("sheet-png-for-webp", "a PNG where the recipe says WebP", "img-size", lossy, "E_SECTION_VALUE")


def _with_first(data: bytes) -> bytes:
    """The PNG with a chunk of text in front."""
    text = b"tEXtComment\0early"
    return data[:8] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + data[8:]


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def vectors_of_labels() -> Iterator[Vector]:
    """Section `lab`."""
    for name, raw, reason in (
        ("nan", NAN, "a NaN among float16 labels"),
        ("infinite", INFINITE, "an infinity among float16 labels"),
    ):
        yield Vector(f"labels-f-{name}", reason, "labels-f", HALVES.patched("lab", 0, 4, raw), "E_SECTION_VALUE")
    for name, at, raw, reason in (
        ("column-twice", 0, words16(2, 2), "a column twice"),
        ("column-width", 8, words16(3, 1), "a column beyond the width"),
        ("ascending", 4, half(1, 3), "a logit above the one before"),
        ("negative", 12, half(2, -1), "a negative logit"),
        ("minus-zero", 20, half(1, -0.0), "a logit of -0.0"),
        ("nan", 4, NAN, "a logit that is a NaN"),
        ("infinite", 4, INFINITE, "an infinite logit"),
    ):
        yield Vector(
            f"labels-t-{name}",
            f"the largest logits: {reason}",
            "labels-t",
            TOP.patched("lab", 0, at, raw),
            "E_SECTION_VALUE",
        )
    raw = ADAPTIVE.sections["lab", 0]
    for name, changed, reason in (
        ("no-bytes", b"", "no bytes"),
        ("step-0", bytes(2) + raw[2:], "a step of 0"),
        ("no-stream", raw[:2], "a step and no stream"),
        ("byte-left", raw + b"\0", "a byte that is left"),
        ("cut", raw[:-1], "a stream that ends early"),
        ("first-byte-0", raw[:2] + b"\0" + raw[2:], "a stream that begins with 0"),
        ("other-state", raw[:2] + bytes([raw[2] ^ 1]) + raw[3:], "a stream that ends in another state"),
    ):
        sound = ADAPTIVE.with_section("lab", 0, changed)
        yield Vector(f"labels-a-{name}", f"adaptive labels: {reason}", "labels-a-checks", sound, "E_SECTION_VALUE")
    raw = RANKED.sections["lab", 0]
    for name, changed, reason in (
        ("no-bytes", b"", "no bytes"),
        ("head-cut", raw[:11], "bytes that end within the head"),
        ("statistics-kind", b"\3" + raw[1:], "statistics of a kind that nobody knows"),
        ("layers-4", raw[:1] + b"\4" + raw[2:], "four layers"),
        ("own-step-0", raw[:8] + b"\0" + raw[9:], "an own step of 0"),
        ("width", raw[:9] + b"\x0b" + raw[10:], "eleven columns, where the record says ten"),
        ("width-long-form", raw[:9] + b"\x8a\0" + raw[10:], "a number of columns that is not in its shortest form"),
        ("labels", raw[:10] + b"\x29" + raw[11:], "41 labels, where the records say 40"),
        (
            "labels-eight-bytes",
            raw[:10] + b"\xa8" + b"\x80" * 6 + b"\0" + raw[11:],
            "a number of labels in eight bytes",
        ),
        ("shipped-width", b"\2" + raw[1:], "shipped statistics of 1,000 columns for ten"),
        ("layer-step-0", raw[:11] + b"\0" + raw[12:], "a layer with a step of 0"),
        ("layer-none", raw[:13] + b"\0" + raw[14:], "a layer of no corrections"),
        ("layer-10", raw[:13] + b"\x0a" + raw[14:], "a layer of ten corrections, where nine logits can have one"),
        ("layer-value", raw[:14] + b"\x20" + raw[15:], "a layer with corrections of up to 32"),
        ("table-never", raw[:22] + b"\xff\xff\x0f" + raw[25:], "a table that allows no symbol"),
        ("table-filling", raw[:24] + bytes([raw[24] | 0x10]) + raw[25:], "a table whose filling is not 0"),
        ("cut", raw[:-2], "a stream that is cut off"),
        ("words-left", raw + bytes(2), "bytes that no block has"),
    ):
        sound = RANKED.with_section("lab", 0, changed)
        yield Vector(f"labels-r-{name}", f"ranked labels: {reason}", "labels-r-checks", sound, "E_SECTION_VALUE")
    raw, at = STATED.sections["lab", 0], STATED.sections["lab", 0].index(words32(RANKED_FILE["width"]))
    for name, changed, reason in (
        ("statistics-width", raw[:at] + words32(41) + raw[at + 4 :], "statistics of 41 columns for 40"),
        ("statistics-noise-0", raw[: at + 5] + bytes(2) + raw[at + 7 :], "statistics with a noise of 0"),
    ):
        sound = STATED.with_section("lab", 0, changed)
        yield Vector(f"labels-r-{name}", f"ranked labels: {reason}", "labels-r-checks", sound, "E_SECTION_VALUE")
