"""Files that every reader accepts: every kind of labels, profiles, about, names, and what the container allows."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import (
    AdaptiveLabels,
    Exact,
    ExactFixed,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    SoftLabels,
    TopkLabels,
)
from making.accept_methods import D3M, MADE, MINIMAL, TEN, THREE, q_rows
from making.given import RANKED_FILE, RANKED_SHIPPED, given, squeezable
from making.pieces import squeezed
from making.records import LABELS_Q3, MILLION, Sound, Vector, ddim, digest, group, images, sheets, stored_group, words
from making.streams import (
    adaptive_labels,
    blocks,
    corrections,
    half_rows,
    joined,
    png,
    sheet_of,
    tiles,
    top_rows,
    words16,
    words32,
)

PERMUTED = (999, 0, 388, 207)
NAMES = ("naïve café", "猫 / 犬", "дом", "👩🏽‍🚀", "e\u0301", "\u00e9")


def labelled(labels: SoftLabels, raw: bytes, classes: int = 3, columns: tuple[int, ...] = (), rows: int = 1) -> Sound:
    """Some classes, each with `rows` images of one patch and these labels; words as conditioning."""
    sections = {("wrd", 0): words16(*range(300, 300 + 2 * classes)), ("lab", 0): raw}
    if columns:
        sections["col", 0] = words32(*columns)
    record = group(conditioning=words(), images=images(rows), labels=labels)
    return Sound(tuple(f"class {number}" for number in range(classes)), (record,), sections)


def vectors_of_labels() -> Iterator[Vector]:
    """Every kind of labels, with and without columns; hard ones are in other files."""
    yield Vector(
        "labels-q-columns",
        "int8 labels of a teacher with five columns, those of the three classes in another order",
        "labels-q columns",
        labelled(QuantizedLabels(step=65_535, width=5, columns="col"), q_rows("q", 6, 5), 3, (4, 0, 2), 2),
    )
    yield Vector("labels-f", "float16 labels", "labels-f", labelled(Raw16Labels(width=3), half_rows("f", 54), 3, (), 6))
    yield Vector(
        "labels-t",
        "the two largest of a hundred logits, 16-bit columns",
        "labels-t columns",
        labelled(TopkLabels(k=2, width=100, columns="col"), top_rows("t", 6, 100, 2), 3, (99, 98, 97), 2),
    )
    columns = tuple(3 * number + 2 for number in range(11))
    yield Vector(
        "labels-r-statistics",
        "ranked labels with statistics in the section, two blocks, columns",
        "labels-r labels-r-own columns",
        labelled(
            RankedHeadLabels(width=RANKED_FILE["width"], columns="col"), given("ranked-file.bin"), 11, columns, 100
        ),
    )
    yield Vector(
        "labels-r-shipped",
        "ranked labels of 1,000 columns with shipped statistics, columns in another order",
        "labels-r labels-r-shipped columns",
        labelled(
            RankedHeadLabels(width=RANKED_SHIPPED["width"], columns="col"), given("ranked-shipped.bin"), 4, PERMUTED, 3
        ),
    )
    raw = adaptive_labels("a", [column for column in (5, 0, 8) for _ in range(4)], 9, 50)
    yield Vector(
        "labels-a-columns",
        "adaptive labels of nine columns, three classes",
        "labels-a columns",
        labelled(AdaptiveLabels(width=9, columns="col"), raw, 3, (5, 0, 8), 4),
    )
    raw = adaptive_labels("a blocks", [0] * 2_100 + [1] * 2_100, 2, 400, 2)
    yield Vector(
        "labels-a-two-blocks",
        "4,200 adaptive labels: a block of 4,096 and one of the others, in turns of the classes",
        "labels-a",
        labelled(AdaptiveLabels(width=2), raw, 2, (), 2_100),
    )


def vectors_of_profiles() -> Iterator[Vector]:
    """Profiles, about, names."""
    exact = Exact(pixels=digest("corrected"), corrections=5)
    entries = corrections((0, 255), (1, 0), (128, 7), (129, 7), (2 * 64 * 64 * 3 - 1, 254))
    sound = Sound(THREE[:2], MINIMAL.groups, dict(MINIMAL.sections) | {("fix", None): entries}, profile=exact)
    yield Vector(
        "exact-corrections",
        "exact with five corrections, the first and the last position among them",
        "profile fix",
        sound,
    )
    sound = Sound(THREE[:2], MINIMAL.groups, MINIMAL.sections, profile=ExactFixed(pixels=digest("fixed")))
    yield Vector("exact-fixed", "exact-fixed: a pixel digest, no corrections", "profile", sound)
    sound = Sound(THREE[:2], MINIMAL.groups, MINIMAL.sections, about=MADE)
    yield Vector(
        "reproducible-fingerprint", "reproducible, with fingerprint and pixel digest in about", "profile about", sound
    )
    about = MADE | {
        "citation": "A. Författare: « Distilled », 2026",
        "claims": {"H, ConvNet, 3 seeds": "41.2 ± 0.4 %", "label KL at T=1": "0.0123", "label KL at T=20": "0.0001"},
        "licence": "CC0-1.0",
        "method": "d3m",
        "source": "made up",
        "teacher": "ResNet-18, 69.8 %",
        "weights": (7,),
    }
    ancillary = {"x-leaf": bytes(range(80)), "x-note": "ça".encode(), "x-thumb": bytes(300)}
    full = Sound(TEN, D3M.groups, D3M.sections, about=about, ancillary=ancillary)
    yield Vector(
        "about-full",
        "every key of about, three ancillary sections, digests of images cut to 8 bytes",
        "about leaf ancillary",
        full,
        same_content_as="d3m",
    )
    named = Sound(NAMES, (group(conditioning=words()),), {("wrd", 0): words16(*range(12))})
    yield Vector(
        "names-not-ascii",
        "names of classes in several scripts; two that differ only in their code points",
        "cls",
        named,
    )
    ids = tuple(f"n{number:08}" for number in (1_440_764, 2_102_040, 2_979_186))
    wordnet = Sound(THREE, (group(),), {("emb", 0): blocks("wordnet", 3, [4], 2)}, authority="wordnet-3.0", ids=ids)
    yield Vector("class-ids-wordnet", "ids of the classes under an authority", "cls classes", wordnet)


def vectors_of_container() -> Iterator[Vector]:
    """Compression, digests, parts."""
    raw = squeezable()
    labels = QuantizedLabels(step=3, width=10)
    twin = Sound(
        TEN, (group(images=images(20), labels=labels),), {("emb", 0): blocks("twin", 10, [4], 2), ("lab", 0): raw}
    )
    yield Vector("twin-raw", "no part compressed", "content-id", twin)
    for name, stored, how in (
        ("twin-zstd", given("labels.zst"), "labels compressed by a library: Huffman and FSE tables"),
        (
            "twin-zstd-checksum",
            given("labels-checksum.zst"),
            "labels compressed at another level, with a checksum of the frame",
        ),
    ):
        sound = Sound(twin.names, twin.groups, twin.sections, frames={2: stored}, about={"method": "twin"})
        yield Vector(
            name, f"{how}; the same dataset as twin-raw", "frame content-id", sound, same_content_as="twin-raw"
        )
    zeros = Sound(TEN, twin.groups, dict(twin.sections) | {("lab", 0): bytes(1_990) + bytes(range(10))}, pack=squeezed)
    yield Vector("frame-run-length", "labels as a frame of a run-length block and a raw one", "frame", zeros)
    many = Sound(
        THREE,
        (
            group(images=images(5_000, grid=(2, 2)), labels=LABELS_Q3),
            stored_group(images=images(2, (8, 8)), recipe=sheets(per_sheet=6, columns=3)),
        ),
        {
            ("emb", 0): blocks("many", 3, [4], 2),
            ("lab", 0): bytes(180_000),
            ("img", 1): joined([png(sheet_of(tiles("six", 6, (8, 8)), 3))]),
        },
        pack=squeezed,
    )
    yield Vector("digest-a-part", "more than 65,536 raw bytes: a digest for every part", "digests frame", many)
    record = group(
        conditioning=words(rows="image", slots=tuple(range(64)), template=tuple(range(64))),
        images=images(9_000),
        recipe=ddim(guidance=MILLION),
    )
    rows = Sound(THREE[:1], (record,), {("wrd", 0): bytes(1 << 20) + b"\1" * (9_000 * 128 - (1 << 20))}, pack=squeezed)
    yield Vector("two-parts", "words of 9,000 rows: a part of 2^20 bytes and one of the others", "cut digests", rows)
