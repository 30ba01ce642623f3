"""Files that every reader refuses, for names, rows and sizes of their sections, under right digests."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import Exact, QuantizedLabels
from making.accept_methods import D3M, GDD, LD3M, MINIMAL, THREE, q_rows
from making.accept_parts import labelled
from making.accept_recipes import CHOICES
from making.pieces import ZSTD, frame
from making.records import Sound, Vector, class_ids, digest, group, images
from making.reject_container import NOTED, SMALL
from making.streams import blocks, corrections, half, sequences, words32

NAMES = [f"\t{name}" for name in THREE]
NAN, INFINITE = b"\x01\x7e", b"\x00\x7c"
IDS = Sound(THREE, (group(conditioning=class_ids()),), {("ids", 0): words32(1, 2, 3)})
CANDIDATES = Sound(
    THREE, (group(images=images(5, candidates=3)),), {("emb", 0): blocks("cnd", 3, [4], 2), ("cnd", 0): CHOICES}
)
EXACT = MINIMAL.but(profile=Exact(pixels=digest("values"), corrections=3))
ODD = SMALL.but(groups=(group(conditioning=D3M.groups[0].conditioning.model_copy(update={"width": 3, "bits": 1})),))
COLUMNS = labelled(QuantizedLabels(step=9, width=5, columns="col"), q_rows("columns", 3, 5), 3, (4, 0, 2))


def text(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def fixed(raw: bytes) -> Sound:
    return EXACT.with_section("fix", None, raw)


def vectors_of_names() -> Iterator[Vector]:
    """Section `cls`."""
    for name, topics, raw, reason in (
        ("empty", "cls", b"", "no names at all"),
        ("utf-8", "cls", b"\teel\n\tfin\xe7h\n\tgrebe\n", "a name that is not UTF-8"),
        ("surrogate", "cls", b"\teel\n\t\xed\xa0\x80\n\tgrebe\n", "a surrogate in a name"),
        ("two-lines", "cls", text(*NAMES[:2]), "two lines for three classes"),
        ("four-lines", "cls", text(*NAMES, "\tfourth"), "four lines for three classes"),
        ("no-line-feed", "cls", text(*NAMES)[:-1], "a last line without a line feed"),
        ("blank-line", "cls", text(*NAMES) + b"\n", "an empty line behind the last class"),
        ("no-tab", "cls-line", text(*NAMES[:2], "grebe"), "a line without a tab"),
        ("two-tabs", "cls-line", text(*NAMES[:2], "\tgre\tbe"), "a tab in a name"),
        ("carriage-return", "cls-line", text(*(name + "\r" for name in NAMES)), "lines that end in CR LF"),
        ("nul", "cls-line", text(*NAMES[:2], "\tgre\0be"), "a NUL in a name"),
        ("escape", "cls-line", text(*NAMES[:2], "\t\x1b[31m"), "an escape sequence in a name"),
        ("c1", "cls-line", text(*NAMES[:2], "\tgre\x85be"), "a control character above U+007F in a name"),
        ("delete", "cls-line", text(*NAMES[:2], "\tgre\x7f"), "U+007F in a name"),
        ("empty-name", "cls-line", text(*NAMES[:2], "\t"), "an empty name"),
        ("name-65537", "cls-line", text(*NAMES[:2], "\t" + "n" * 65_537), "a name of 65,537 bytes"),
        ("id-65537", "cls-line", text("1\teel", "2\tfinch", "i" * 65_537 + "\tgrebe"), "an id of 65,537 bytes"),
        ("name-twice", "cls-twice", text(*NAMES[:2], NAMES[0]), "a name twice"),
        ("id-unasked", "cls-id", text(*NAMES[:2], "n1\tgrebe"), "an id, and no authority"),
    ):
        authority = "wordnet-3.0" if name == "id-65537" else "none"
        many = SMALL.but(text=raw, pack=frame_if_long, authority=authority)
        yield Vector(f"names-{name}", reason, topics, many, "E_SECTION_VALUE")
    sound = SMALL.but(authority="wordnet-3.0", ids=("n1", "n2", ""))
    yield Vector("names-id-missing", "an authority, and a class without an id", "cls-id", sound, "E_SECTION_VALUE")
    sound = SMALL.but(authority="wordnet-3.0", ids=("n1", "n2", "n1"))
    yield Vector("names-id-twice", "two classes of one id", "cls-twice", sound, "E_SECTION_VALUE")


def frame_if_long(raw: bytes) -> tuple[int, bytes]:
    return (ZSTD, frame(raw)) if len(raw) > 1_000 else (0, raw)


def vectors_of_rows() -> Iterator[Vector]:
    """Sections that no codec is needed for."""
    good = corrections((0, 1), (5, 2), (300, 3))
    total = 2 * 64 * 64 * 3
    for name, topics, sound, reason in (
        ("scale-zero", "scale", SMALL.patched("emb", 0, 0, half(0.0)), "a scale of 0"),
        ("scale-minus-zero", "scale", SMALL.patched("emb", 0, 0, half(-0.0)), "a scale of -0.0"),
        ("scale-negative", "scale", SMALL.patched("emb", 0, 3, half(-1.0)), "a negative scale"),
        ("scale-nan", "scale", SMALL.patched("emb", 0, 6, NAN), "a scale that is a NaN, in the last row"),
        ("scale-infinite", "scale", SMALL.patched("emb", 0, 0, INFINITE), "an infinite scale"),
        ("scale-of-latents", "scale latents", LD3M.patched("lat", 0, 18, bytes(2)), "a scale of 0 in stored latents"),
        ("scale-of-vectors", "scale vectors", LD3M.patched("emb", 0, -14, NAN), "a NaN in the unconditional row"),
        (
            "padding-bits",
            "padding-bits",
            ODD.but(sections={("emb", 0): (half(1.0) + b"\x07") * 2 + half(1.0) + b"\x0f"}),
            "padding bits of a block that are not zero",
        ),
        (
            "choices-padding",
            "candidates",
            CANDIDATES.patched("cnd", 0, 5, b"\x80"),
            "padding bits of choices that are not zero",
        ),
        ("class-id", "ids", IDS.patched("ids", 0, 4, words32(1 << 31)), "a class id of 2^31"),
        ("tokens-none", "tok", GDD.with_section("tok", 0, sequences([[1, 2], []])), "a row of no token ids"),
        (
            "tokens-78",
            "tok",
            GDD.with_section("tok", 0, sequences([[1, 2], [7] * 78])),
            "a row longer than the padded length",
        ),
        (
            "tokens-cut",
            "tok-filled",
            GDD.with_section("tok", 0, sequences([[1, 2], [3, 4]])[:-2]),
            "a row that is cut off",
        ),
        (
            "tokens-odd",
            "tok-filled",
            GDD.with_section("tok", 0, sequences([[1, 2], [3, 4]]) + b"\0"),
            "a byte behind the last row",
        ),
        (
            "tokens-row-more",
            "tok-filled",
            GDD.with_section("tok", 0, sequences([[1], [2], [3]])),
            "a row more than classes",
        ),
        ("tokens-empty", "tok", GDD.with_section("tok", 0, b""), "no rows"),
        ("columns-twice", "columns", COLUMNS.with_section("col", 0, words32(4, 0, 4)), "two classes of one column"),
        ("columns-width", "columns", COLUMNS.with_section("col", 0, words32(4, 0, 5)), "a column beyond the width"),
        ("corrections-less", "fix", fixed(good[:2]), "an entry where three are stated"),
        ("corrections-more", "fix", fixed(good + b"\1\1"), "four entries where three are stated"),
        ("corrections-no-value", "fix", fixed(good[:-1]), "an entry without its value"),
        ("corrections-none", "fix", fixed(b""), "no entries"),
        (
            "corrections-long-form",
            "fix-distance",
            fixed(b"\x80\0\1" + good[2:]),
            "a distance that is not in its shortest form",
        ),
        ("corrections-ten-bytes", "fix-distance", fixed(b"\x80" * 9 + b"\1\1" + good[2:]), "a distance of ten bytes"),
        ("corrections-cut", "fix-distance", fixed(good[:4] + b"\x80"), "a distance that is cut off"),
        ("corrections-twice", "fix-position", fixed(good[:2] + b"\0\2" + b"\1\3"), "a position twice"),
        (
            "corrections-beyond",
            "fix-position",
            fixed(corrections((0, 1), (5, 2), (total, 3))),
            "a position behind the last byte",
        ),
    ):
        yield Vector(name, reason, topics, sound, "E_SECTION_VALUE")
    for name, sizes, reason in (
        ("leaf-odd", {"x-leaf": bytes(25)}, "x-leaf of 25 bytes for twelve images"),
        ("leaf-16", {"x-leaf": bytes(192)}, "x-leaf of 16 bytes an image"),
        ("leaf-empty", {"x-leaf": b""}, "x-leaf of no bytes"),
    ):
        yield Vector(name, reason, "leaf", SMALL.but(ancillary=sizes), "E_SECTION_SIZE")
    pieces = NOTED.pieces()
    manifest = {**pieces.manifest, "a": {**pieces.manifest["a"], "x": [["x-note", 5, 5]]}}
    yield Vector(
        "ancillary-two-parts",
        "an ancillary section of two parts",
        "ancillary-parts",
        pieces.but(manifest=manifest),
        "E_SECTION_SIZE",
    )
