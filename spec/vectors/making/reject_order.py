"""Files with two faults: the first in the order of checks counts."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import Raw16Labels
from making.accept_methods import THREE
from making.pieces import ZSTD, Pieces
from making.records import LABELS_Q3, Sound, Vector, class_ids, group
from making.reject_coded import CODED, NAN
from making.reject_container import NOTED, PIECES, SMALL, framed
from making.streams import half_rows, words32


def vectors_of_order() -> Iterator[Vector]:
    """Two faults in a file: the first in the order of checks counts."""
    codec, long = PIECES.with_part(0, PIECES.parts[0][1], 2), {0: (8 << 20) + 1}
    bad = b"\x28\xb5\x2f\xfd\x08"
    labels = NOTED.but(sections={**SMALL.sections, ("lab", 0): bytes(36)}).pieces()
    zstd = labels.with_part(2, bad, ZSTD)
    values = SMALL.patched("emb", 0, 0, bytes(2))
    leaf = values.but(ancillary={"x-leaf": b"\1"})
    two = Sound(
        THREE,
        (
            CODED.groups[0].model_copy(update={"labels": Raw16Labels(width=3)}),
            CODED.groups[0].model_copy(update={"labels": LABELS_Q3}),
            group(conditioning=class_ids()),
        ),
        {
            ("emb", 0): CODED.sections["emb", 0],
            ("lab", 0): half_rows("order", 9),
            ("emb", 1): CODED.sections["emb", 0],
            ("lab", 1): bytes(9),
            ("ids", 2): words32(1, 2, 3),
        },
    )
    early = two.with_section("emb", 0, b"\7")
    schema = {"c": {**PIECES.manifest["c"], "s": []}}
    for code, name, file, reason in (
        (
            "E_VERSION",
            "version-feature",
            PIECES.but(version=(99, 0), features=1),
            "another version and an unknown feature",
        ),
        (
            "E_FEATURE",
            "feature-reserved",
            PIECES.but(features=1, reserved=1),
            "an unknown feature and a reserved field",
        ),
        ("E_RESERVED", "reserved-limit", PIECES.but(reserved=1, count=5_000), "a reserved field and too many parts"),
        (
            "E_LIMIT",
            "limit-short",
            PIECES.but(manifest_length=1 << 30),
            "a manifest above its limit, which the file cannot hold",
        ),
        ("E_SHORT", "short-crc", PIECES.but(head_crc=0).build()[:60], "cut off within the head, whose CRC is wrong"),
        ("E_HEAD_CRC", "crc-codec", codec.but(head_crc=0), "a wrong head CRC and an unknown codec"),
        ("E_CODEC", "codec-length", codec.but(stated=long), "a part of an unknown codec, too long as well"),
        (
            "E_LENGTH",
            "length-codec",
            PIECES.with_part(1, b"", 2).but(stated=long),
            "a part that is too long, then an unknown codec",
        ),
        (
            "E_LENGTH",
            "sum-pack",
            PIECES.but(file_length=7, manifest_bytes=b"\xc1"),
            "a wrong file length and a bad manifest",
        ),
        ("E_PACK_TYPE", "pack-tail", PIECES.but(manifest_bytes=b"\xc1", tail=b"\0"), "a bad manifest and a tail"),
        (
            "E_PACK_TRUNC",
            "pack-schema",
            PIECES.but(manifest_bytes=b"\x92\xc0"),
            "a list that is cut off, and no manifest",
        ),
        ("E_MANIFEST", "schema-parts", PIECES.but(manifest=schema, parts=()), "a length missing, and no parts"),
        ("E_MANIFEST", "schema-tail", PIECES.but(manifest=schema, tail=b"\0"), "a length missing, and a tail"),
        ("E_LENGTH", "tail-budget", _over_budget().but(tail=b"\0"), "a tail, and more than the budget"),
        ("E_BUDGET", "budget-crc", _over_budget().but(crcs={1: 1}), "more than the budget, and a wrong CRC of a part"),
        ("E_ZSTD_HEADER", "frame-crc", zstd.but(crcs={3: 1}), "a bad frame, then a part with a wrong CRC"),
        ("E_SECTION_CRC", "crc-frame", zstd.but(crcs={1: 1}), "a part with a wrong CRC, then a bad frame"),
        ("E_SECTION_CRC", "crc-of-frame", framed(bad).but(crcs={2: 1}), "a bad frame with a wrong CRC"),
        (
            "E_SECTION_CRC",
            "crc-digest",
            labels.with_part(2, b"\1" * 36).but(crcs={4: 1}),
            "a wrong digest, and a wrong CRC of an ancillary part",
        ),
        (
            "E_SECTION_DIGEST",
            "digest-value",
            values.pieces().with_part(0, PIECES.parts[0][1][::-1]),
            "a wrong digest and a scale of 0",
        ),
        ("E_SECTION_SIZE", "size-value", leaf, "x-leaf of another length and a scale of 0"),
        (
            "E_SECTION_VALUE",
            "value-coded",
            early.with_section("ids", 2, words32(1, 1 << 31, 3)),
            "coded rows that end early, and in a later group a class id of 2^31",
        ),
        (
            "E_SECTION_SIZE",
            "coded-labels",
            early.patched("lab", 0, 0, NAN),
            "coded rows that end early, and labels of the same group that are NaN",
        ),
        (
            "E_SECTION_VALUE",
            "labels-coded",
            two.patched("lab", 0, 0, NAN).with_section("emb", 1, b"\7"),
            "labels that are NaN, and in the next group coded rows that end early",
        ),
    ):
        yield Vector(f"order-{name}", reason, "order", file, code)


def _over_budget() -> Pieces:
    pieces = SMALL.but(ancillary={f"x-{number}": b"" for number in range(130)}).pieces()
    manifest = {
        **pieces.manifest,
        "a": {**pieces.manifest["a"], "x": [[name, 8 << 20] for name, _ in pieces.manifest["a"]["x"]]},
    }
    return pieces.but(manifest=manifest, parts=(*pieces.parts[:3], *((ZSTD, b"") for _ in range(130))))
