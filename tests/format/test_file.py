"""Files as a whole: write, open, read, explain; sizes; golden bytes; what the system says about a path."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from format.craft import (
    SECOND,
    Pieces,
    class_ids,
    coded_draft,
    delta,
    digits_draft,
    euler,
    exact_digits_draft,
    filled,
    group,
    kinds_draft,
    recipe,
    reinject,
    rich_draft,
    sheets,
    stored_draft,
    tokens,
    vectors,
    words,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.errors import HeadError, MissingFileError, SectionError, UsageError
from d3codec.format import canonical, limits
from d3codec.format.file import ClassRecord, ContentDraft, D3MFile, pack_classes, write_d3m
from d3codec.format.manifest import (
    REPRODUCIBLE,
    About,
    AdaptiveLabels,
    Classes,
    DecodeRecipe,
    Exact,
    ExactFixed,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    Start,
    StoredLatents,
    TopkLabels,
    Window,
)

GOLDEN = Path(__file__).parent.parent / "golden"
ABOUT = About(
    citation="A. Author: Digits, 2025",
    claims={"S0, ConvNet": "90 %", "H, ConvNet": "80 %"},
    licence="CC0-1.0",
    method="d3m",
    fingerprint="x86-64, torch 2.13",
    pixels=bytes(range(32)),
    source="digits",
    teacher="ConvNet",
)
SAID = ABOUT.model_copy(update={"pixels": None, "fingerprint": None})  # beside an exact profile
LEAVES = hashlib.sha256(b"leaves").digest()[:20]


def golden(name: str) -> bytes:
    """The files in tests/golden, as they are written today."""
    if name == "small.d3m":
        return write_d3m(digits_draft(), filled(digits_draft()), ABOUT, {"x-leaf": LEAVES, "x-note": b"note"})
    if name == "stored.d3m":
        return write_d3m(stored_draft(), filled(stored_draft()), About(weights=(1, 3, 2)))
    if name == "kinds.d3m":
        return write_d3m(kinds_draft(), filled(kinds_draft()))
    return write_d3m(rich_draft(), filled(rich_draft(), sparse=True))


def test_what_is_written_is_read() -> None:
    for draft in (digits_draft(), rich_draft(), exact_digits_draft(), kinds_draft(), stored_draft(), coded_draft()):
        sections = filled(draft)
        file = D3MFile.open(write_d3m(draft, sections, SAID, {"x-b": b"second", "x-a": b""}))
        file.verify()
        assert_covers(file)
        assert file.path == "<memory>"
        assert file.version == limits.VERSION
        assert file.content.classes == draft.classes
        assert file.content.groups == draft.groups
        assert file.content.profile == draft.profile
        assert {key: file.section(*key) for key in sections} == sections
        assert file.section("x-a") == b""
        assert file.section("x-b") == b"second"
        assert file.about is not None
        assert file.about.citation == ABOUT.citation
        assert file.about.claims == ABOUT.claims
        assert [entry.name for entry in file.about.ancillary or ()] == ["x-a", "x-b"]


def test_an_opened_file_travels_between_processes() -> None:
    file = D3MFile.open(golden("small.d3m"))
    copy = pickle.loads(pickle.dumps(file))
    assert copy.manifest == file.manifest
    assert copy.section("lab", 0) == file.section("lab", 0)


def test_class_records() -> None:
    records = [ClassRecord("n01440764", "tench"), ClassRecord("n01443537", "Goldfisch, süß 金魚\u2028")]
    draft = ContentDraft(Classes(authority="wordnet-3.0", count=2), (group(labels=QuantizedLabels(step=1, width=2)),))
    data = write_d3m(draft, filled(draft) | {("cls", None): pack_classes(records)})
    assert D3MFile.open(data).class_records() == records
    with pytest.raises(SectionError, match=r"^cls line 2: E_SECTION_VALUE"):
        write_d3m(draft, filled(draft) | {("cls", None): pack_classes([records[0], ClassRecord("x", "a\tb")])})
    for wrong in (
        ClassRecord("", "a"),
        ClassRecord("x", ""),
        ClassRecord("x", "\ud800"),
        ClassRecord("x", "tench"),
        ClassRecord("x", "a\nb"),
        ClassRecord("x", "a" * 65_537),
        ClassRecord("n01440764", "other"),
        ClassRecord("i" * 65_537, "a"),
    ):
        with pytest.raises(SectionError, match="E_SECTION_VALUE"):
            write_d3m(draft, filled(draft) | {("cls", None): pack_classes([records[0], wrong])})


def test_a_file_on_disk_equals_one_in_memory(tmp_path: Path) -> None:
    data = golden("small.d3m")
    path = tmp_path / "digits.d3m"
    path.write_bytes(data)
    file = D3MFile.open(path)
    file.verify()
    memory = D3MFile.open(bytearray(data))  # type: ignore[arg-type]  # whatever holds bytes
    assert file.path == str(path)
    assert file.content_id == memory.content_id
    assert file.bytes_total == len(data)
    assert file.section("lab", 0) == memory.section("lab", 0)
    assert file.explain() == memory.explain()
    path.write_bytes(data[:-1] + b"!")  # what is opened may change on disk before a section is read
    with pytest.raises(SectionError, match=r"digits\.d3m: x-note.*E_SECTION_CRC"):
        file.verify()
    path.write_bytes(data[:-30])
    with pytest.raises(SectionError, match="E_SECTION_CRC"):
        file.verify()
    path.unlink()
    with pytest.raises(MissingFileError):
        file.verify()


def test_equal_input_gives_equal_bytes_in_every_process() -> None:
    code = (
        "import hashlib; from format.craft import digits_draft, filled, write_d3m; "
        "draft = digits_draft(); extra = {'x-c': b'c', 'x-b': b'b', 'x-a': b'a'}; "
        "print(hashlib.sha256(write_d3m(draft, filled(draft), None, extra)).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(GOLDEN.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_ancillary_order_and_about_do_not_matter_to_the_content_id() -> None:
    draft, sections = digits_draft(), filled(digits_draft())
    plain = write_d3m(draft, sections)
    one = write_d3m(draft, dict(reversed(sections.items())), ABOUT, {"x-a": b"1", "x-b": b"2"})
    two = write_d3m(draft, sections, ABOUT, {"x-b": b"2", "x-a": b"1"})
    assert one == two
    assert D3MFile.open(one).content_id == D3MFile.open(plain).content_id
    assert D3MFile.open(plain).about is None
    again = D3MFile.open(write_d3m(draft, sections, D3MFile.open(one).about))  # lists exactly what is there
    assert again.about is not None
    assert again.about.ancillary is None


# Shows D3M-066.
def test_recompressing_keeps_the_content_id() -> None:
    data = golden("rich.d3m")
    file = D3MFile.open(data)
    pieces = Pieces.of(data)
    raw = [zstandard.decompress(stored) if codec else stored for codec, stored in pieces.parts]
    assert any(codec for codec, _ in pieces.parts)
    for level in (1, 3, 22):
        parts = tuple(
            (1, zstandard.ZstdCompressor(level=level).compress(part)) if len(part) > 1_000 else (0, part)
            for part in raw
        )
        other = D3MFile.open(pieces.but(parts=parts).build())
        other.verify()
        assert other.content_id == file.content_id
    stored = D3MFile.open(pieces.but(parts=tuple((0, part) for part in raw)).build())
    stored.verify()
    assert stored.bytes_total > file.bytes_total


def test_a_part_is_compressed_only_when_that_is_smaller() -> None:
    noise = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft())))
    assert [part.entry.codec for part in noise.parts] == [1, 0, 0]
    zeros = D3MFile.open(write_d3m(rich_draft(), filled(rich_draft(), sparse=True)))
    for part, size in zip(zeros.parts, zeros.section_sizes(), strict=True):
        assert (part.entry.codec == 1) == (part.entry.stored < part.raw_length)
        assert (size["bytes"], size["raw_bytes"]) == (part.entry.stored, part.raw_length)
        assert (size["name"], size["group"]) == part.key


def test_large_sections_are_cut_into_whole_rows() -> None:
    draft = ContentDraft(
        Classes(authority="none", count=300),
        (
            group(
                images=Images(grid=(2, 2), count=10, size=(64, 64)),
                labels=QuantizedLabels(step=8, width=300),
                conditioning=delta(width=8_192, bits=8),
            ),
        ),
    )
    sections = filled(draft, sparse=True)
    file = D3MFile.open(write_d3m(draft, sections))
    assert [part.raw_length for part in file.parts] == [
        len(sections["cls", None]),
        *[127 * 8_194] * 2,
        46 * 8_194,
        *[3_495 * 300] * 3,
        1_515 * 300,
    ]
    assert {key: file.section(*key) for key in sections} == sections
    assert_covers(file)
    assert "part 6: lab of group 0, rows 6990 to 10484" in "\n".join(text for _, _, text in file.explain())
    bad = sections | {("emb", 0): sections["emb", 0][: 200 * 8_194] + bytes(100 * 8_194)}
    with pytest.raises(SectionError, match="emb of group 0 row 200: E_SECTION_VALUE"):
        write_d3m(draft, bad)


def test_the_head_of_ten_classes_is_small() -> None:
    draft = ContentDraft(
        Classes(authority="none", count=10), (group(noise_key=0),), Exact(pixels=bytes(32), corrections=0)
    )
    file = D3MFile.open(write_d3m(draft, filled(draft)))
    assert len(file.content.groups[0].conditioning.template) == 7
    assert file.head_bytes <= 400
    assert sum(size["bytes"] for size in file.section_sizes()) + file.head_bytes == file.bytes_total


@pytest.mark.parametrize("labels", [QuantizedLabels(step=8, width=10), RankedHeadLabels(width=10)])
def test_the_head_is_small_with_all_labels(labels: QuantizedLabels | RankedHeadLabels) -> None:
    draft = ContentDraft(
        Classes(authority="none", count=10),
        (group(noise_key=0, labels=labels),),
        Exact(pixels=bytes(32), corrections=0),
    )
    assert D3MFile.open(write_d3m(draft, filled(draft))).head_bytes <= 400


# Shows D3M-068.
def test_a_section_of_free_length_is_cut_at_every_mib() -> None:
    """Only the parts that a range lies in are read: damage elsewhere is not met."""
    draft = coded_draft()
    cut = 1 << 20
    long = random.Random(3).randbytes(2 * cut + 12_345)
    sections = filled(draft) | {("lab", 0): long, ("lab", 1): b"", ("emb", 1): long[: 2 * cut]}
    data = write_d3m(draft, sections)
    file = D3MFile.open(data)
    assert [part.raw_length for part in file.parts if part.key == ("lab", 0)] == [cut, cut, 12_345]
    assert [part.raw_length for part in file.parts if part.key == ("emb", 1)] == [cut, cut]
    assert [part.raw_length for part in file.parts if part.key == ("lab", 1)] == [0]
    assert {key: file.section(*key) for key in sections} == sections
    assert {key: file.section_length(*key) for key in sections} == {key: len(raw) for key, raw in sections.items()}
    assert_covers(file)
    texts = [text for _, _, text in file.explain()]
    assert f"part 4: lab of group 0, from byte {2 * cut}, 12345 bytes as they are" in texts
    ranges = [(0, 0), (0, 1), (cut - 1, cut + 1), (5, 2 * cut + 5), (2 * cut, 2 * cut + 12_345), (0, len(long))]
    for start, stop in [*ranges, (len(long) - 3, len(long) + 9), (len(long), len(long) + 1), (9, 3)]:
        assert file.section_range("lab", 0, start, stop) == long[start:stop], (start, stop)
    assert file.section_range("lab", 1, 0, 10) == b""
    middle = next(part for part in file.parts if part.key == ("lab", 0) and part.raw_length == cut and part.number == 3)
    damaged = bytearray(data)
    damaged[middle.offset + 100] ^= 1
    file = D3MFile.open(bytes(damaged))
    assert file.section_range("lab", 0, 0, cut) == long[:cut]
    assert file.section_range("lab", 0, 2 * cut, 2 * cut + 1) == long[2 * cut : 2 * cut + 1]
    for start, stop in ((cut, cut + 1), (cut - 1, cut + 1), (0, len(long))):
        with pytest.raises(SectionError, match="E_SECTION_CRC"):
            file.section_range("lab", 0, start, stop)
    other = Pieces.of(data)
    parts = list(other.parts)
    parts[3] = (0, bytes(cut))
    swapped = D3MFile.open(other.but(parts=tuple(parts)).build())  # with a right CRC
    assert swapped.section_range("lab", 0, 0, cut) == long[:cut]
    with pytest.raises(SectionError, match="E_SECTION_DIGEST"):
        swapped.section_range("lab", 0, cut, cut + 1)
    with pytest.raises(UsageError, match="no section lab of group 3"):
        file.section_range("lab", 3, 0, 1)


# Shows D3M-141.
def test_ranges_of_fixed_rows_have_their_values_checked() -> None:
    draft = ContentDraft(
        Classes(authority="none", count=300), (group(labels=HardLabels(), conditioning=delta(width=8_192, bits=8)),)
    )
    sections = filled(draft, sparse=True)
    good = D3MFile.open(write_d3m(draft, sections))
    assert good.section_range("emb", 0, 8_194, 3 * 8_194) == sections["emb", 0][8_194 : 3 * 8_194]
    raw = [
        good.section("cls"),
        *(good.section_range("emb", 0, first, first + 127 * 8_194) for first in (0, 127 * 8_194, 254 * 8_194)),
    ]
    raw[2] = bytes(8_194) + raw[2][8_194:]
    wrong = Pieces.of(write_d3m(draft, sections))
    manifest = canonical.unpack(canonical.pack(wrong.manifest))
    manifest["c"]["h"] = [hashlib.sha256(part).digest() for part in raw]
    file = D3MFile.open(wrong.but(manifest=manifest, parts=tuple((0, part) for part in raw)).build())
    assert file.section_range("emb", 0, 0, 127 * 8_194) == raw[1]
    with pytest.raises(SectionError, match="emb of group 0 row 127: E_SECTION_VALUE"):
        file.section_range("emb", 0, 200 * 8_194, 201 * 8_194)


def test_sections_that_make_sense_as_a_whole_are_judged_as_a_whole() -> None:
    """Class names and token ids that a cut goes through."""
    names = [ClassRecord("", f"{number} " + "x" * 60_000) for number in range(40)]
    sequences = b"".join(struct.pack("<9H", 8, *range(number & 0xFF, (number & 0xFF) + 8)) for number in range(80_000))
    draft = ContentDraft(
        Classes(authority="none", count=40),
        (group(conditioning=tokens(), labels=HardLabels(), images=Images(grid=(1, 1), count=2_000, size=(8, 8))),),
    )
    sections = {("cls", None): pack_classes(names), ("tok", 0): sequences}
    file = D3MFile.open(write_d3m(draft, sections))
    assert len(file.parts) == 3 + 2
    assert file.class_records() == names
    assert file.section("tok", 0) == sequences
    with pytest.raises(SectionError, match="tok of group 0 row 79999: E_SECTION_VALUE"):
        write_d3m(draft, sections | {("tok", 0): sequences[:-18]})


@pytest.mark.parametrize("name", ["small.d3m", "rich.d3m", "kinds.d3m", "stored.d3m"])
def test_golden_files(name: str) -> None:
    """Bytes written by earlier versions are read, and (with this zstd) are what is written today."""
    path, list_path = GOLDEN / name, GOLDEN / "containers.json"
    if os.environ.get("D3M_REGENERATE") == "1":
        path.write_bytes(golden(name))
        known: dict[str, Any] = json.loads(list_path.read_text()) if list_path.exists() else {}
        known[name] = described(D3MFile.open(path)) | {"zstd": list(zstandard.ZSTD_VERSION)}
        list_path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    assert path.exists(), f"{path} is missing; D3M_REGENERATE=1 writes it"
    expected = json.loads(list_path.read_text())[name]
    zstd = tuple(expected.pop("zstd"))
    file = D3MFile.open(path)
    file.verify()
    assert described(file) == expected
    today = D3MFile.open(golden(name))
    assert described(today)["content_id"] == expected["content_id"]
    assert today.head.manifest == file.head.manifest
    if zstd == zstandard.ZSTD_VERSION:
        assert path.read_bytes() == golden(name)


def described(file: D3MFile) -> dict[str, Any]:
    sections = {f"{part.section}/{part.group}": file.section(*part.key) for part in file.parts}
    return {
        "content_id": file.content_id,
        "bytes": file.bytes_total,
        "manifest": hashlib.sha256(file.head.manifest).hexdigest(),
        "sections": {key: hashlib.sha256(raw).hexdigest() for key, raw in sections.items()},
    }


def test_the_first_bytes_are_those_of_the_specification() -> None:
    head = (GOLDEN / "small.d3m").read_bytes()[:32]
    assert head[:16] == bytes.fromhex("8944334d0d0a1a0a 0000 0900 00000000")
    assert head[20:24] == bytes.fromhex("0500 0000")


def assert_covers(file: D3MFile) -> None:
    offset = 0
    for start, length, text in file.explain():
        assert start == offset
        assert text
        offset += length
    assert offset == file.bytes_total


def test_explain_says_what_each_byte_is() -> None:
    data = golden("small.d3m")
    file = D3MFile.open(data)
    assert_covers(file)
    texts = {text: data[start : start + length] for start, length, text in file.explain()}
    assert texts["content.groups[0].recipe.guidance = 2.0 (key 'g')"] == b"\xa1g\xce\x00\x1e\x84\x80"
    assert texts["content.groups[0].images.grid = 2 rows of 2 patches (key 'g')"] == b"\xa1g\x92\x02\x02"
    assert texts["content.lengths = cls: 90 raw bytes (key 's')"] == b"\xa1s\x91\x5a"
    assert texts["content.groups[0].images.window = none (key 'w')"] == b"\xa1w\xc0"
    entry = file.parts[0].entry
    row = f"part 0: {entry.stored} bytes stored, codec zstd, CRC-32 {entry.crc:08x}"
    assert texts[row] == bytes([entry.stored, 0, 0, 1]) + entry.crc.to_bytes(4, "little")
    assert texts["about.ancillary[1] = x-note, raw length 4"] == b"\x92\xa6x-note\x04"
    assert texts["part 2: lab of group 0, rows 0 to 39, 400 bytes as they are"] == file.section("lab", 0)
    assert texts["part 4: x-note, 4 bytes as they are"] == b"note"
    assert texts["about.claims['S0, ConvNet'] = 90 % (key 'S0, ConvNet')"] == b"\xabS0, ConvNet\xa490 %"
    rich = D3MFile.open(golden("rich.d3m"))
    assert_covers(rich)
    lines = [text for _, _, text in rich.explain()]
    assert "content.groups[1].labels.kind = hard (the class) (key 'k')" in lines
    assert "content.groups[1].conditioning.negative = none (key 'n')" in lines
    assert any(line.startswith("content.digests[3] = ") for line in lines)


def test_explain_knows_every_kind_of_section() -> None:
    data = golden("kinds.d3m")
    file = D3MFile.open(data)
    assert_covers(file)
    texts = {text: data[start : start + length] for start, length, text in file.explain()}
    for line, key in (
        ("part 1: fix, 5 corrections, 10 bytes as they are", ("fix", None)),
        ("part 2: emb of group 0, rows 0 to 3, 32 bytes as they are", ("emb", 0)),
        ("part 5: lat of group 1, rows 0 to 3, 44 bytes as they are", ("lat", 1)),
        ("part 8: emb of group 2, rows 0 to 4, 30 bytes as they are", ("emb", 2)),
        ("part 6: col of group 1, rows 0 to 1, 8 bytes as they are", ("col", 1)),
        ("part 7: lab of group 1, rows 0 to 7, 80 bytes as they are", ("lab", 1)),
        ("part 11: ids of group 3, rows 0 to 1, 8 bytes as they are", ("ids", 3)),
        ("part 13: lab of group 3, rows 0 to 3, 32 bytes as they are", ("lab", 3)),
    ):
        assert texts[line] == file.section(*key)
    assert any(text.startswith("part 4: tok of group 1, ") for text in texts)
    window = (
        "content.groups[1].images.window = block of 12 x 16 at row 4, column 8 of 16 x 24 generated pixels (key 'w')"
    )
    assert texts[window] == b"\xa1w\x92\x92\x10\x18\x94\x04\x08\x0c\x10"
    start = "0.2 * stored + 0.9 * noise, stored latents of 4 x 2 x 3 values of 3 bits"
    assert texts[f"content.groups[2].recipe.start = {start} (key 'z')"].endswith(b"\x95\x03\x00\x04\x02\x03")
    lines = [text for _, _, text in D3MFile.open(write_d3m(coded_draft(), filled(coded_draft()))).explain()]
    for line in (
        "content.groups[0].conditioning.coded = yes, a section of free length (key 'e')",
        "content.groups[1].labels.kind = ranked-head logits (key 'k')",
        "content.groups[1].labels.columns = col (key 'm')",
        "content.groups[0].labels.columns = none (key 'm')",
    ):
        assert line in lines
    assert any("stored latents of 4 x 2 x 3 values of entropy-coded, at most 3 bits" in line for line in lines)
    assert "content.groups[3].labels.kept = 2 logits a patch (key 'n')" in texts


def test_explain_knows_what_is_stored() -> None:
    data = golden("stored.d3m")
    file = D3MFile.open(data)
    assert_covers(file)
    texts = {text: data[start : start + length] for start, length, text in file.explain()}
    for line, key in (
        ("part 2: cnd of group 0, rows 0 to 1, 4 bytes as they are", ("cnd", 0)),
        ("part 4: lat of group 1, rows 0 to 3, 44 bytes as they are", ("lat", 1)),
    ):
        assert texts[line] == file.section(*key)
    assert any(text.startswith("part 5: img of group 2, ") for text in texts)
    for line, value in (
        ("content.groups[0].images.candidates = choices of 3 bits, one a source, among 8 noises (key 'c')", b"\x03"),
        ("content.groups[1].recipe.latents = 4 x 2 x 3 values of 3 bits (key 'z')", b"\x95\x03\x00\x04\x02\x03"),
        ("content.groups[2].recipe.format = png files (key 'f')", b"\xa3png"),
        ("content.groups[2].recipe.per_sheet = 3 images (key 'n')", b"\x03"),
        ("content.groups[2].recipe.columns = 2 images side by side (key 'c')", b"\x02"),
        ("content.groups[2].generator = none (key 'g')", b"\xc0"),
        ("content.groups[2].conditioning.kind = none (key 'k')", b"\xa4none"),
        ("about.weights = 1 : 3 : 2, shares of a training batch (key 'w')", b"\x93\x01\x03\x02"),
    ):
        assert texts[line].endswith(value)
    assert "content.groups[0].labels.kind = adaptive logits (key 'k')" in texts


TOKEN_IDS = st.integers(0, 2**31 - 1)
NEGATIVES = st.just("zeros") | st.lists(TOKEN_IDS, min_size=1, max_size=16).map(tuple)
ROWS = st.sampled_from(["class", "image"])
SLOTS = st.sets(st.integers(0, 6), min_size=1).map(lambda slots: tuple(sorted(slots)))


def seconds(widths: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """A second text encoder with one of these widths, or none."""
    return st.none() | widths.map(lambda width: SECOND.model_copy(update={"width": width}))


conditionings = (
    st.builds(
        delta,
        bits=st.integers(1, 8),
        coded=st.booleans(),
        width=st.integers(1, 40),
        slots=SLOTS,
        negative=NEGATIVES,
        rows=ROWS,
        second=seconds(st.integers(1, 9)),
    )
    | st.builds(words, negative=NEGATIVES, rows=ROWS, second=seconds(st.just(0)))
    | st.builds(tokens, negative=NEGATIVES, rows=ROWS, second=seconds(st.just(0)), padding=st.just((0, 16)))
    | st.builds(
        vectors,
        bits=st.integers(1, 8),
        coded=st.booleans(),
        negative=st.sampled_from(["zeros", "row"]),
        rows=ROWS,
        slots=st.integers(1, 4),
        width=st.integers(1, 9),
    )
    | st.builds(class_ids, negative=TOKEN_IDS)
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
latents = st.builds(StoredLatents, bits=st.integers(1, 8), coding=st.sampled_from([0, 1]), shape=shapes) | st.builds(
    StoredLatents, bits=st.just(0), coding=st.just(2), shape=shapes
)
starts = st.builds(Start, a=st.integers(1, 10**6), b=st.integers(0, 10**6), stored=latents)
plain_or_stored = st.just(Start(a=0, b=10**6, stored=None)) | starts
timesteps = st.sampled_from([("leading", 0), ("leading", 9), ("trailing", 0), ("linspace", 0)])
shared: dict[str, Any] = {
    "timesteps": timesteps,
    "prediction": st.sampled_from(["eps", "v", "sample"]),
    "guidance": st.integers(0, 10**9),
}
recipes = (
    st.builds(recipe, eta=st.integers(0, 10**6), start=plain_or_stored, **shared)
    | st.builds(reinject, start=starts | latents.map(lambda stored: Start(a=0, b=1, stored=stored)), **shared)
    | st.builds(
        euler,
        sampler=st.sampled_from(["euler", "euler-ancestral"]),
        initial=st.sampled_from(["sigma", "root"]),
        sigmas=st.sampled_from(["table", "karras"]),
        start=plain_or_stored,
        **shared,
    )
)


@st.composite
def image_records(draw: st.DrawFn) -> Images:
    window = st.just(Window(generated=(48, 64), block=(16, 0, 32, 64)))
    copies = draw(st.integers(0, 2))
    return Images(
        grid=draw(st.sampled_from([(1, 1), (2, 1), (2, 4)])),
        count=draw(st.integers(1, 3)) * (copies + 1),
        size=(32, 64),
        window=draw(st.none() | window),
        augmentation=GddAugmentation(copies=copies) if copies else None,
        candidates=draw(st.none() | st.integers(1, 16)),
    )


@st.composite
def group_records(draw: st.DrawFn, classes: int) -> Group:
    """Images by a sampler, of latents alone, or stored."""
    images, labels = draw(image_records()), draw(label_records(classes))
    shared: dict[str, Any] = {"labels": labels, "noise_key": draw(st.integers(0, 2**64 - 1))}
    if draw(st.booleans()):
        outside = draw(st.integers(0, 2**40))
        return group(
            conditioning=draw(conditionings), recipe=draw(recipes), images=images, outside_bytes=outside, **shared
        )
    shared |= {"conditioning": NoConditioning(), "images": images.model_copy(update={"candidates": None})}
    if draw(st.booleans()):
        return group(recipe=DecodeRecipe(latents=draw(latents)), **shared)
    count = draw(st.integers(1, 9))
    return group(
        recipe=sheets(per_sheet=count, columns=draw(st.integers(1, count))), generator=None, cast="stored", **shared
    )


def label_records(classes: int) -> st.SearchStrategy[Any]:
    """All kinds, of a teacher with as many columns as classes or more."""

    def of(more: int | None, step: int, k: int) -> st.SearchStrategy[Any]:
        columns: dict[str, Any] = {"width": classes + (more or 0), "columns": None if more is None else "col"}
        return st.sampled_from(
            [
                HardLabels(),
                QuantizedLabels(step=step, **columns),
                Raw16Labels(**columns),
                TopkLabels(k=k, **columns),
                RankedHeadLabels(**columns),
                AdaptiveLabels(**columns),
            ]
        )

    return st.builds(of, st.none() | st.integers(0, 9), st.integers(1, 65_535), st.integers(1, classes)).flatmap(
        lambda kinds: kinds
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[ContentDraft, About | None, dict[str, bytes]]:
    classes = draw(st.integers(1, 20))
    groups = tuple(draw(group_records(classes)) for _ in range(draw(st.integers(1, 4))))
    about = draw(
        st.none()
        | st.builds(
            About,
            method=st.text("abc é", min_size=1),
            claims=st.dictionaries(st.text("abcdefg", min_size=1), st.text("xyz", min_size=1), max_size=20),
        )
    )
    ancillary = draw(
        st.dictionaries(st.text("abc", max_size=3).map(lambda name: f"x-{name}"), st.binary(max_size=50), max_size=3)
    )
    pixels, corrections = draw(st.binary(min_size=32, max_size=32)), draw(st.integers(0, 9))
    profiles = [REPRODUCIBLE, ExactFixed(pixels=pixels), Exact(pixels=pixels, corrections=corrections)]
    profile = draw(st.sampled_from(profiles))
    authority = draw(st.sampled_from(["none", "wordnet-3.0"]))
    return ContentDraft(Classes(authority=authority, count=classes), groups, profile), about, ancillary


@settings(deadline=None, max_examples=30)
@given(files(), st.booleans())
def test_any_file_is_read_back_and_explained(
    case: tuple[ContentDraft, About | None, dict[str, bytes]], sparse: bool
) -> None:
    draft, about, ancillary = case
    sections = filled(draft, sparse=sparse)
    data = write_d3m(draft, sections, about, ancillary)
    assert data == write_d3m(draft, sections, about, ancillary)
    file = D3MFile.open(data)
    file.verify()
    assert {key: file.section(*key) for key in sections} == sections
    assert {name: file.section(name) for name in ancillary} == ancillary
    assert file.content.groups == draft.groups
    assert file.content.profile == draft.profile
    assert_covers(file)


def test_writer_refuses_what_a_reader_would() -> None:
    draft, sections = digits_draft(), filled(digits_draft())
    for wrong in (
        sections | {("new", 0): b""},
        {key: raw for key, raw in sections.items() if key != ("lab", 0)},
        sections | {("fix", None): b""},
    ):
        with pytest.raises(UsageError, match=r"sections: .*expected cls, emb of group 0, lab of group 0"):
            write_d3m(draft, wrong)
    with pytest.raises(SectionError, match=r"E_SECTION_SIZE.*399 bytes.*40 rows of 10 bytes"):
        write_d3m(draft, sections | {("lab", 0): bytes(399)})
    with pytest.raises(SectionError, match=r"emb of group 0 row 0: E_SECTION_VALUE"):
        write_d3m(draft, sections | {("emb", 0): bytes(180)})
    with pytest.raises(HeadError, match=r"E_LIMIT.*4097"):
        write_d3m(draft, sections, None, {f"x-{number}": b"" for number in range(4_094)})
    with pytest.raises(HeadError, match="manifest length: E_LIMIT"):
        write_d3m(
            draft,
            sections,
            About(claims={f"{number}": "é" * 2_048 for number in range(256)}, citation="é" * 2_048),
            {f"x-{number:0>62}": b"" for number in range(200)},
        )


def test_a_section_that_is_not_there() -> None:
    file = D3MFile.open(golden("small.d3m"))
    for key in (("wrd", 0), ("lab", None), ("lab", 1), ("x-leaf", 0)):
        with pytest.raises(UsageError, match=r"no section.*cls, emb of group 0, lab of group 0, x-leaf, x-note"):
            file.section(*key)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        D3MFile.open(tmp_path / "missing.d3m")
    with pytest.raises(UsageError, match="this is a folder"):
        D3MFile.open(tmp_path)
    empty = tmp_path / "empty.d3m"
    empty.touch()
    with pytest.raises(MissingFileError, match="no such file"):
        D3MFile.open(empty / "below")
    with pytest.raises(MissingFileError, match="cannot be read"):
        D3MFile.open(tmp_path / ("x" * 1_000))
    with pytest.raises(MissingFileError):
        D3MFile.open("a\0b")
    with pytest.raises(HeadError, match=r"empty\.d3m: E_SHORT"):
        D3MFile.open(str(empty))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not a regular file"):
        D3MFile.open(pipe)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "locked.d3m"
    path.write_bytes(golden("small.d3m"))
    path.chmod(0)
    code = (
        "import os, sys; from d3codec.errors import *; from d3codec.format.file import D3MFile\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"  # root reads everything
        "try: D3MFile.open(sys.argv[1])\n"
        "except MissingFileError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be read: Permission denied" in done.stdout


def test_opening_needs_neither_numpy_nor_torch_nor_zstandard() -> None:
    code = (
        "import sys; from d3codec.format.file import D3MFile; D3MFile.open(sys.argv[1]).explain(); "
        "print([name for name in ('numpy', 'torch', 'zstandard', 'msgpack') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(GOLDEN / "small.d3m")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
