"""Files that are legal but rare: sections at the ends of what they can hold."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import (
    AdaptiveLabels,
    DecodeRecipe,
    NoConditioning,
    RankedHeadLabels,
    Raw16Labels,
    StoredLatents,
    TopkLabels,
)
from making.accept_methods import MINIMAL
from making.accept_parts import labelled
from making.given import RANKED_ONE, given
from making.pieces import squeezed
from making.records import MILLION, Sound, Vector, ddim, group, images, sheets, stored_group, vectors, words
from making.streams import adaptive_labels, coded_rows, half, joined, png, sheet_of, tiles, top_rows, words16
from making.unusual_records import HALF_LEAST, HALF_MOST, ONE, transform_of_nothing

TURNING = "\u202egnp.exe\u2066\u200f"
HOSTILE = ("..", "/etc/passwd", "C:\\con", TURNING, "<script>", "$(reboot)", "\ufeff\u2028", "\uffff\U0010ffff", " ")


def vectors_of_names() -> Iterator[Vector]:
    """Section `cls`."""
    long = {"authority": "a" * 64, "ids": ("i" * 65_536,), "pack": squeezed}
    sound = Sound(("n" * 65_536,), MINIMAL.groups, {("wrd", 0): words16(1, 2)}, **long)
    yield Vector(
        "class-name-65536", "a name and an id of 65,536 bytes, an authority of 64", "cls classes digests", sound
    )
    sound = Sound(HOSTILE, (group(conditioning=words()),), {("wrd", 0): words16(*range(18))})
    reason = "names that look like paths, markup or commands, or turn the direction of writing: text, and nothing else"
    yield Vector("class-names-hostile", reason, "cls names", sound)


def vectors_of_labels() -> Iterator[Vector]:
    """Labels."""
    raw = half(-0.0, HALF_MOST, -HALF_MOST, HALF_LEAST, -HALF_LEAST, 0.0)
    sound = labelled(Raw16Labels(width=3, columns="col"), raw, 2, (2, 0))
    yield Vector("labels-f-extremes", "float16 labels: -0.0, the largest and the smallest numbers", "labels-f", sound)
    sound = labelled(TopkLabels(k=3, width=65_537, columns="col"), top_rows("65537", 2, 65_537, 3), 2, (65_536, 0))
    yield Vector("labels-t-65537", "65,537 columns, whose numbers have 32 bits", "labels-t columns", sound)
    sound = labelled(TopkLabels(k=4, width=4, columns="col"), top_rows("all", 2, 4, 4), 2, (3, 1))
    yield Vector("labels-t-all", "all of four logits are kept", "labels-t", sound)
    sound = labelled(RankedHeadLabels(width=1), given("ranked-one.bin"), 1, (), RANKED_ONE["labels"])
    yield Vector("labels-r-one-column", "ranked labels of one column", "labels-r", sound)
    sound = labelled(AdaptiveLabels(width=1), adaptive_labels("one", [0, 0], 1, 65_535), 1, (), 2)
    yield Vector("labels-a-one-column", "adaptive labels of one column: a stream of no symbols", "labels-a", sound)
    raw = adaptive_labels("64", [63, 63, 0, 0], 64, 1, 400)
    sound = labelled(AdaptiveLabels(width=64, columns="col"), raw, 2, (63, 0), 2)
    yield Vector("labels-a-64-columns", "adaptive labels of 64 columns, steps of 1/256 nat", "labels-a columns", sound)
    largest = (1 << 24) - 1
    raw = adaptive_labels("far", [0, 0, 1, 1], 2, 1, fixed=(largest, -largest, 0, -1))
    sound = labelled(AdaptiveLabels(width=2), raw, 2, (), 2)
    yield Vector("labels-a-far", "adaptive labels with the largest and the smallest number", "labels-a", sound)


def vectors_of_rows() -> Iterator[Vector]:
    """Coded rows, latents, sheets."""
    sparse = [1 if number % 97 else number // 97 % 3 for number in range(81_000)]
    for name, slots, width, raw, reason in (
        ("one-level", 1, 64, coded_rows("", 1, 64, (1, 0, 0), [7.0]), "entropy-coded rows of one level: zeros"),
        (
            *("255-levels", 4, 16, coded_rows("255", 2, 64, (255, -128, 127), [HALF_LEAST, HALF_MOST])),
            "255 levels, extremes of the shape of the table and of scales",
        ),
        ("64-lanes", 1_024, 256, coded_rows("", 1, 1 << 18, (1, 0, 0), [1.0]), "a row of 2^18 values in 64 lanes"),
        (
            *("two-blocks", 9, 1_000, coded_rows("", 9, 9_000, (3, 127, 127), [0.5], sparse)),
            "nine rows of 9,000 values in two blocks, of fifteen lanes each",
        ),
    ):
        rows = {"255-levels": 2, "two-blocks": 9}.get(name, 1)
        record = vectors(coded=True, rows="class", negative=None, slots=slots, width=width)
        names = tuple(f"class {row}" for row in range(rows))
        sound = Sound(names, (group(conditioning=record, recipe=ddim(guidance=MILLION)),), {("emb", 0): raw})
        yield Vector(f"coded-{name}", reason, "vectors coded", sound)
    latents = DecodeRecipe(latents=StoredLatents(bits=0, coding=2, shape=(3, 1, 5)))
    record = group(conditioning=NoConditioning(), images=images(2), recipe=latents)
    sound = Sound(ONE, (record,), {("lat", 0): transform_of_nothing(3, 1, 5)})
    yield Vector(
        "latents-nothing-coded", "transform-coded latents, the coarsest step: means alone", "decode transform", sound
    )
    chunks = ((b"gAMA", b"\0\0\xb1\x8f"), (b"sRGB", b"\0"), (b"tRNS", bytes(6)), (b"tEXt", b"Comment\0as stored"))
    sheet = png(sheet_of(tiles("unusual", 5, (7, 5)), 3, 0), chunks, (1, 2, 3, 4, 0))
    record = stored_group(images=images(5, (7, 5)), recipe=sheets(per_sheet=9, columns=3))
    sound = Sound(ONE, (record,), {("img", 0): joined([sheet])})
    reason = "a PNG sheet with every filter, chunks about colours and transparency, and room for four images more"
    yield Vector("sheet-filters", reason, "img img-png stored", sound)
