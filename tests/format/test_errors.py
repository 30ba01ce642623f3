"""One crafted file for each of the container's error codes, right but for one fault; the order of checks."""

from __future__ import annotations

import copy
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from format.craft import Pieces, digits_draft, filled, rich_draft

from d3codec.errors import FORMAT_CODES, FormatError, HeadError, ManifestError, PackError, SectionError
from d3codec.format.canonical import pack
from d3codec.format.file import D3MFile, write_d3m

DIGITS = write_d3m(digits_draft(), filled(digits_draft()))
RICH = write_d3m(rich_draft(), filled(rich_draft(), sparse=True))
LEAVES = write_d3m(digits_draft(), filled(digits_draft()), ancillary={"x-leaf": bytes(range(20)), "x-note": b"hello"})
RAW = list(filled(digits_draft()).values())  # cls, emb, lab
PIECES = Pieces.of(DIGITS).redigested(RAW)  # no part compressed

SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 30) + bytes(30)


def manifest(change: Callable[[Any], Any], pieces: Pieces = PIECES) -> Pieces:
    value = copy.deepcopy(pieces.manifest)
    change(value)
    return pieces.but(manifest=value)


def raw_bytes(data: bytes) -> Pieces:
    return PIECES.but(manifest_bytes=data)


def frame(raw: bytes, **options: Any) -> bytes:
    return bytes(zstandard.ZstdCompressor(**options).compress(raw))


def labels_as(stored: bytes, raw_length: int = 400) -> Pieces:
    """The labels replaced by a compressed part, which states this raw length in the manifest."""
    pieces = manifest(lambda value: value["c"]["s"][2].__setitem__(2, raw_length))
    return pieces.but(parts=(*PIECES.parts[:2], (1, stored)))


def sections(*names: tuple[str, int | None]) -> Pieces:
    """Other names for the three parts."""
    lengths = [len(raw) for raw in RAW]
    return manifest(
        lambda value: value["c"].update(s=[[*name, length] for name, length in zip(names, lengths, strict=True)])
    )


def values(position: int, raw: bytes) -> Pieces:
    """One section with other bytes, and the digest over them."""
    parts = [*RAW[:position], raw, *RAW[position + 1 :]]
    return manifest(lambda value: value["c"]["s"][position].__setitem__(2, len(raw))).redigested(parts)


def emb(at: int, data: bytes) -> bytes:
    return RAW[1][:at] + data + RAW[1][at + len(data) :]


def cls(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


NAMES = [f"\tclass {number}" for number in range(10)]
HALF = PIECES.but(parts=(*PIECES.parts[:2], (0, RAW[2][:200]), (0, RAW[2][200:])))
ODD = manifest(lambda value: value["c"]["g"][0]["c"].update(b=1, w=3))  # 3 bits of codes: 5 bits of padding
ODD_EMB = b"".join(struct.pack("<e", 0.5) + b"\x07" for _ in range(10))

CASES: dict[str, tuple[Pieces | bytes, str]] = {
    "empty": (b"", "E_SHORT"),
    "31 bytes": (DIGITS[:31], "E_SHORT"),
    "cut in the manifest": (DIGITS[:200], "E_SHORT"),
    "cut in the head CRC": (DIGITS[: D3MFile.open(DIGITS).head_bytes - 1], "E_SHORT"),
    "another magic": (PIECES.but(magic=b"\x89PNG\r\n\x1a\n"), "E_MAGIC"),
    "newlines converted": (DIGITS.replace(b"\r\n", b"\n"), "E_MAGIC"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "E_MAGIC"),
    "next minor": (PIECES.but(version=(0, 2)), "E_VERSION"),
    "minor 0": (PIECES.but(version=(0, 0)), "E_VERSION"),
    "major 1": (PIECES.but(version=(1, 1)), "E_VERSION"),
    "feature": (PIECES.but(features=1 << 31), "E_FEATURE"),
    "reserved field": (PIECES.but(reserved=1), "E_RESERVED"),
    "reserved byte of a part": (PIECES.but(zeros={1: (1, 0)}), "E_RESERVED"),
    "reserved word of a part": (PIECES.but(zeros={1: (0, 1)}), "E_RESERVED"),
    "no manifest": (PIECES.but(manifest_bytes=b""), "E_LIMIT"),
    "manifest above 1 MiB": (PIECES.but(manifest_length=(1 << 20) + 1), "E_LIMIT"),
    "4,097 parts": (PIECES.but(count=4_097), "E_LIMIT"),
    "head CRC": (PIECES.but(head_crc=0), "E_HEAD_CRC"),
    "codec 2": (PIECES.but(parts=((2, RAW[0]), *PIECES.parts[1:])), "E_CODEC"),
    "part above 8 MiB": (PIECES.but(stated={0: (8 << 20) + 1}), "E_LENGTH"),
    "sum of lengths": (PIECES.but(stated={0: 31}), "E_LENGTH"),
    "file length": (PIECES.but(file_length=1_000), "E_LENGTH"),
    "tail": (PIECES.but(tail=b"\0"), "E_LENGTH"),
    "cut in the parts": (DIGITS[:-1], "E_LENGTH"),
    "one part too many": (PIECES.but(parts=(*PIECES.parts, (0, b""))), "E_LENGTH"),
    "one part too few": (PIECES.but(parts=PIECES.parts[:2]), "E_LENGTH"),
    "raw part of another length": (manifest(lambda value: value["c"]["s"][2].__setitem__(2, 401)), "E_LENGTH"),
    "compressed part that is no smaller": (labels_as(frame(RAW[2])), "E_LENGTH"),
    "compressed empty part": (labels_as(frame(b""), 0), "E_LENGTH"),
    "manifest cut off": (raw_bytes(pack(PIECES.manifest)[:-1]), "E_PACK_TRUNC"),
    "extension type": (raw_bytes(b"\xd4\x00\x00"), "E_PACK_TYPE"),
    "long integer": (raw_bytes(pack(PIECES.manifest).replace(b"\xa1n\x0a", b"\xa1n\xcc\x0a")), "E_PACK_NONMINIMAL"),
    "keys out of order": (raw_bytes(b"\x82\xa1c\xc0\xa1a\xc0"), "E_PACK_ORDER"),
    "key twice": (raw_bytes(b"\x82\xa1c\xc0\xa1c\xc0"), "E_PACK_ORDER"),
    "integer key": (raw_bytes(b"\x81\x01\xc0"), "E_PACK_KEY"),
    "not UTF-8": (raw_bytes(b"\x81\xa1\xff\xc0"), "E_PACK_UTF8"),
    "NaN": (raw_bytes(b"\x81\xa1a\xcb\x7f\xf8\0\0\0\0\0\0"), "E_PACK_FLOAT"),
    "deep": (raw_bytes(b"\x91" * 100), "E_PACK_DEPTH"),
    "many nodes": (raw_bytes(b"\x92" + pack([0] * 65_534) + b"\0"), "E_PACK_NODES"),
    "manifest twice": (raw_bytes(pack(PIECES.manifest) * 2), "E_PACK_TRAILING"),
    "manifest is a list": (raw_bytes(b"\x90"), "E_MANIFEST"),
    "guidance below 0": (manifest(lambda value: value["c"]["g"][0]["r"].update(g=-1)), "E_MANIFEST"),
    "raw length above 8 MiB": (manifest(lambda value: value["c"]["s"][2].__setitem__(2, (8 << 20) + 1)), "E_MANIFEST"),
    "digest a part of a small file": (manifest(lambda value: value["c"].update(h=[bytes(32)] * 3)), "E_MANIFEST"),
    "labels before embeddings": (sections(("cls", None), ("lab", 0), ("emb", 0)), "E_SECTION_ORDER"),
    "labels missing": (manifest(lambda value: value["c"]["s"].pop()).but(parts=PIECES.parts[:2]), "E_SECTION_ORDER"),
    "section twice": (sections(("cls", None), ("emb", 0), ("emb", 0)), "E_SECTION_ORDER"),
    "unknown section": (sections(("cls", None), ("emb", 0), ("new", 0)), "E_SECTION_UNKNOWN"),
    "section of another group": (sections(("cls", None), ("emb", 0), ("lab", 1)), "E_SECTION_UNKNOWN"),
    "ancillary name among the critical": (sections(("cls", None), ("emb", 0), ("x-lab", None)), "E_SECTION_UNKNOWN"),
    "labels that nothing calls for": (
        manifest(lambda value: value["c"]["g"][0].update(l={"k": "h"})),
        "E_SECTION_UNKNOWN",
    ),
    "section CRC": (PIECES.but(crcs={2: 1}), "E_SECTION_CRC"),
    "not a zstd frame": (labels_as(b"not a frame"), "E_ZSTD_HEADER"),
    "empty frame": (labels_as(b""), "E_ZSTD_HEADER"),
    "skippable frame": (labels_as(SKIPPABLE), "E_ZSTD_HEADER"),
    "skippable frame that states the raw length": (labels_as(SKIPPABLE[:4] + struct.pack("<I", 400)), "E_ZSTD_HEADER"),
    "no stated size": (labels_as(frame(bytes(400), write_content_size=False)), "E_ZSTD_HEADER"),
    "another stated size": (labels_as(frame(bytes(399))), "E_ZSTD_HEADER"),
    "states 2^60": (labels_as(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + b"\x01\0\0"), "E_ZSTD_HEADER"),
    "dictionary": (labels_as(b"\x28\xb5\x2f\xfd\x61\x07" + struct.pack("<H", 144) + b"\x03\0\0"), "E_ZSTD_HEADER"),
    "window of 128 MiB": (
        labels_as(b"\x28\xb5\x2f\xfd\x40\x88" + struct.pack("<H", 144) + b"\x03\x0c\0a"),
        "E_ZSTD_HEADER",
    ),
    "frame cut off": (labels_as(frame(bytes(400))[:-1]), "E_ZSTD_DATA"),
    "bytes after the frame": (labels_as(frame(bytes(400)) + b"tail"), "E_ZSTD_DATA"),
    "two frames": (labels_as(frame(bytes(400)) * 2), "E_ZSTD_DATA"),
    "shorter than stated": (labels_as(b"\x28\xb5\x2f\xfd\x60\x90\0\x23\x03\0a"), "E_ZSTD_DATA"),
    "digest": (PIECES.but(parts=(*PIECES.parts[:2], (0, bytes(400)))), "E_SECTION_DIGEST"),
    "labels one row short": (values(2, RAW[2][:-10]), "E_SECTION_SIZE"),
    "labels in two parts": (
        manifest(lambda value: value["c"]["s"][2].__setitem__(slice(2, 3), [200, 200]), HALF),
        "E_SECTION_SIZE",
    ),
    "class names in two parts": (
        manifest(lambda value: value["c"]["s"][0].append(0)).but(parts=(PIECES.parts[0], (0, b""), *PIECES.parts[1:])),
        "E_SECTION_SIZE",
    ),
    "2^52 label rows": (
        manifest(lambda value: value["c"]["g"][0]["i"].update(n=1 << 20, g=[4_096] * 2, s=[4_096] * 2)),
        "E_SECTION_SIZE",
    ),
    "scale 0": (values(1, emb(0, bytes(2))), "E_SECTION_VALUE"),
    "scale below 0": (values(1, emb(0, struct.pack("<e", -1))), "E_SECTION_VALUE"),
    "scale NaN": (values(1, emb(162, b"\xff\x7f")), "E_SECTION_VALUE"),
    "scale infinite": (values(1, emb(162, b"\x00\x7c")), "E_SECTION_VALUE"),
    "padding bits": (
        manifest(lambda value: value["c"]["s"][1].__setitem__(2, 30), ODD).redigested(
            [RAW[0], ODD_EMB[:-1] + b"\x0f", RAW[2]]
        ),
        "E_SECTION_VALUE",
    ),
    "names not UTF-8": (values(0, b"\t\xff\n" * 10), "E_SECTION_VALUE"),
    "nine names": (values(0, cls(*NAMES[:9])), "E_SECTION_VALUE"),
    "eleven names": (values(0, cls(*NAMES, "\tlast")), "E_SECTION_VALUE"),
    "no last line feed": (values(0, cls(*NAMES)[:-1]), "E_SECTION_VALUE"),
    "no tab": (values(0, cls(*NAMES[:9], "name")), "E_SECTION_VALUE"),
    "two tabs": (values(0, cls(*NAMES[:9], "\tna\tme")), "E_SECTION_VALUE"),
    "carriage return": (values(0, cls(*NAMES[:9], "\tname\r")), "E_SECTION_VALUE"),
    "C1 control": (values(0, cls(*NAMES[:9], "\tna\x85me")), "E_SECTION_VALUE"),
    "empty name": (values(0, cls(*NAMES[:9], "\t")), "E_SECTION_VALUE"),
    "name twice": (values(0, cls(*NAMES[:9], NAMES[0])), "E_SECTION_VALUE"),
    "id without authority": (values(0, cls(*NAMES[:9], "id\tname")), "E_SECTION_VALUE"),
    "authority without id": (manifest(lambda value: value["c"]["c"].update(a="wordnet-3.0")), "E_SECTION_VALUE"),
}


def opened(file: Pieces | bytes) -> D3MFile:
    data = file if isinstance(file, bytes) else file.build()
    result = D3MFile.open(data)
    result.verify()
    return result


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_code(name: str) -> None:
    file, code = CASES[name]
    with pytest.raises(FormatError) as error:
        opened(file)
    assert error.value.code == code
    assert error.value.file == "<memory>"
    expected = (
        PackError
        if code.startswith("E_PACK")
        else ManifestError
        if code == "E_MANIFEST"
        else SectionError
        if code.startswith(("E_SECTION", "E_ZSTD"))
        else HeadError
    )
    assert type(error.value) is expected


def test_every_code_has_a_file() -> None:
    assert {code for _, code in CASES.values()} | {"E_BUDGET"} == set(FORMAT_CODES)


def test_the_crafted_files_are_right_but_for_their_fault() -> None:
    assert D3MFile.open(PIECES.build()).content_id == D3MFile.open(DIGITS).content_id
    for data in (DIGITS, LEAVES, RICH):
        assert Pieces.of(data).build() == data
    opened(PIECES)
    opened(values(2, bytes(400)))
    opened(values(0, cls(*NAMES)))
    opened(labels_as(frame(bytes(400))).redigested([RAW[0], RAW[1], bytes(400)]))
    opened(manifest(lambda value: value["c"]["s"][1].__setitem__(2, 30), ODD).redigested([RAW[0], ODD_EMB, RAW[2]]))


def test_budget() -> None:
    total = sum(map(len, RAW))
    assert D3MFile.open(DIGITS, budget=total).bytes_total == len(DIGITS)
    with pytest.raises(HeadError, match=f"E_BUDGET.*{total} bytes.*{total - 1}"):
        D3MFile.open(DIGITS, budget=total - 1)


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        (PIECES.but(version=(0, 2), features=1), "E_VERSION"),
        (PIECES.but(features=1, reserved=1), "E_FEATURE"),
        (PIECES.but(reserved=1, count=5_000), "E_RESERVED"),
        (PIECES.but(count=5_000, head_crc=0), "E_LIMIT"),
        (PIECES.but(head_crc=0, zeros={0: (1, 1)}), "E_HEAD_CRC"),
        (PIECES.but(zeros={0: (1, 1)}, parts=(PIECES.parts[0], (2, RAW[1]), PIECES.parts[2])), "E_RESERVED"),
        (PIECES.but(zeros={0: (1, 1)}, parts=((2, RAW[0]), *PIECES.parts[1:])), "E_CODEC"),
        (PIECES.but(file_length=1, manifest_bytes=b"\x90"), "E_LENGTH"),
        (PIECES.but(manifest_bytes=b"\x90", tail=b"0"), "E_MANIFEST"),
        (sections(("lab", 0), ("cls", None), ("new", 0)), "E_SECTION_UNKNOWN"),
        (sections(("lab", 0), ("cls", None), ("emb", 0)).but(parts=PIECES.parts[:2]), "E_SECTION_ORDER"),
        (PIECES.but(parts=PIECES.parts[:2], tail=b"0"), "E_LENGTH"),
        (PIECES.but(crcs={2: 0}, parts=((0, bytes(len(RAW[0]))), *PIECES.parts[1:])), "E_SECTION_CRC"),
        (labels_as(b"x" * 10).but(crcs={2: 0}), "E_SECTION_CRC"),
        (values(2, RAW[2][:-10]).but(parts=(*PIECES.parts[:2], (0, bytes(390)))), "E_SECTION_DIGEST"),
        (values(0, b"\xff").redigested([b"\xff", RAW[1], RAW[2][:-10]]), "E_LENGTH"),
    ],
)
def test_of_two_faults_the_first_in_order_counts(pieces: Pieces, code: str) -> None:
    with pytest.raises(FormatError) as error:
        opened(pieces)
    assert error.value.code == code


def test_sizes_come_before_values() -> None:
    short = values(2, RAW[2][:-10])
    both = short.redigested([b"\xff" * len(RAW[0]), RAW[1], RAW[2][:-10]])
    with pytest.raises(SectionError, match="E_SECTION_SIZE"):
        opened(both)


def test_one_digest_a_part_above_64_kib() -> None:
    pieces = Pieces.of(RICH)
    assert isinstance(pieces.manifest["c"]["h"], list)
    last = len(pieces.manifest["c"]["h"]) - 1

    def swap(value: Any) -> None:
        value["c"]["h"][last] = bytes(32)

    with pytest.raises(SectionError, match=r"wrd of group 1 \(part 3\).*E_SECTION_DIGEST"):
        opened(manifest(swap, pieces))
    file = D3MFile.open(manifest(swap, pieces).build())
    assert file.section("lab", 0)  # what has nothing to do with the damage can be read
    with pytest.raises(SectionError, match="E_SECTION_DIGEST"):
        file.section("wrd", 1)
    for change in (
        lambda value: value["c"]["h"].pop(),
        lambda value: value["c"].update(h=bytes(32)),
        lambda value: value["c"]["h"].append(bytes(32)),
    ):
        with pytest.raises(ManifestError):
            opened(manifest(change, pieces))


def test_ancillary_sections_are_checked() -> None:
    pieces = Pieces.of(LEAVES)
    assert opened(pieces).section("x-note") == b"hello"

    def about(**changes: Any) -> Pieces:
        return manifest(lambda value: value["a"].update(changes), pieces)

    wrong = {
        "E_SECTION_DIGEST": [about(h=bytes(32))],
        "E_SECTION_CRC": [pieces.but(crcs={4: 1})],
        "E_LENGTH": [about(x=[["x-leaf", 21], ["x-note", 5]])],
        "E_SECTION_SIZE": [about(x=[["x-leaf", 20, 5]]), about(x=[["x-note", 20], ["x-leaf", 5]])],
        "E_MANIFEST": [
            about(x=[["leaf", 20], ["x-note", 5]]),
            about(x=[["x-a", 20], ["x-a", 5]]),
            about(x=[]),
            about(x=[["x-leaf"], ["x-note"]]),
            about(x="x-leaf"),
        ],
    }
    for code, files in wrong.items():
        for file in files:
            with pytest.raises(FormatError, match=code):
                opened(file)
    for size in (2, 4, 8):
        assert write_d3m(digits_draft(), filled(digits_draft()), ancillary={"x-leaf": bytes(10 * size)})
    with pytest.raises(SectionError, match=r"x-leaf: E_SECTION_SIZE.*30 bytes.*2, 4 or 8 for each of 10 images"):
        write_d3m(digits_draft(), filled(digits_draft()), ancillary={"x-leaf": bytes(30)})


@pytest.mark.parametrize("name", ["states 2^60", "many nodes", "deep", "2^52 label rows", "manifest above 1 MiB"])
def test_bombs_cost_little(name: str) -> None:
    file, code = CASES[name]
    data = file if isinstance(file, bytes) else file.build()
    tracemalloc.start()
    with pytest.raises(FormatError, match=code):
        opened(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


def test_errors_name_field_and_file_and_say_what_to_do() -> None:
    with pytest.raises(ManifestError) as error:
        opened(CASES["guidance below 0"][0])
    assert error.value.field == "content.groups[0].recipe.guidance"
    assert error.value.found == "-1"
    with pytest.raises(HeadError, match="git lfs pull"):
        opened(CASES["Git LFS pointer"][0])
    with pytest.raises(HeadError, match="newline conversion"):
        opened(CASES["newlines converted"][0])
    with pytest.raises(HeadError, match="newer d3codec"):
        opened(CASES["next minor"][0])
    for name in ("dictionary", "window of 128 MiB"):
        with pytest.raises(SectionError, match="a dictionary or a large window"):
            opened(CASES[name][0])
