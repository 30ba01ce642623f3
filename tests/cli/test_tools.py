"""`d3codec diff`, `edit`, `repack`, `subset` and the levels of `verify`: each there and back. No torch."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cli.commands import answer, bare_file, call
from format import craft
from format.craft import filled, quick_streams

from d3codec import images
from d3codec.conditioning import candidates, tokens
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.latents import LatentRows
from d3codec.decoder.plan import Extent
from d3codec.decoder.renderers import sheet_renderer
from d3codec.decoder.section_reader import SectionReader
from d3codec.decoder.verify import verify
from d3codec.encoder.kept_rows import Kept, kept_sections
from d3codec.encoder.subset import subset
from d3codec.errors import PixelsError, StrictError, UsageError
from d3codec.format import wire
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    REPRODUCIBLE,
    About,
    Classes,
    Exact,
    HardLabels,
    Images,
    NoConditioning,
    VectorsConditioning,
    conditioning_rows,
    row_section,
)
from d3codec.format.plan import quantized_blocks
from d3codec.format.rewrite import edited, repacked
from d3codec.format.sections import ClassRecord, pack_classes

DRAFTS = {name: getattr(craft, f"{name}_draft") for name in ("rich", "kinds", "stored", "coded")}
SAID = About(licence="CC0-1.0", source="here", method="mine", claims={"S0": "1 %"})


@cache
def made(name: str) -> D3MFile:
    """One of craft's drafts as a reproducible file with real streams."""
    draft, whole = crafted(name)
    about = replace_about(SAID, weights=tuple(range(1, 1 + len(draft.groups))))
    return D3MFile.open(write_d3m(draft, whole, about, {"x-note": b"n"}))


@cache
def crafted(name: str) -> tuple[ContentDraft, dict]:
    draft = replace(DRAFTS[name](), profile=REPRODUCIBLE)
    return draft, quick_streams(draft)


def replace_about(about: About, **values) -> About:
    return About(**{name: getattr(about, name) for name in About.model_fields} | values)


@pytest.fixture(params=DRAFTS)
def each(request, tmp_path):
    file = made(request.param)
    path = tmp_path / f"{request.param}.d3m"
    path.write_bytes(file.data)
    return path


# ------------------------------------------------------------------------------------------------------- verify


def test_levels(tmp_path):
    draft = replace(craft.stored_draft(), profile=REPRODUCIBLE)
    path = tmp_path / "noise.d3m"
    path.write_bytes(write_d3m(draft, filled(draft)))  # its label streams are any bytes
    for level in (0, 1):
        facts = answer("verify", path, "--level", level)
        assert (facts["level"], facts["content_id"]) == (level, D3MFile.open(path).content_id)
    for options in ([], ["--level", 2]):
        assert answer("verify", path, *options, code=3)["error"] == "E_SECTION_VALUE"
    good = tmp_path / "good.d3m"
    good.write_bytes(pictures()[0].data)
    assert answer("verify", good)["level"] == 2
    for options in (["--level", 3], ["--decode", "all"], ["--level", 3, "--decode", "all"]):
        facts = answer("verify", good, *options, "-q")
        assert (facts["level"], facts["pixels"], facts["images_checked"]) == (3, "proved", 12)
    assert answer("verify", good, "--level", 1, "--decode", 2, code=2)["field"] == "level"
    assert call("verify", good, "--level", 4).exit_code == 2
    with pytest.raises(UsageError, match="no such level"):
        verify(good, level=True)


def test_a_machine_with_another_arithmetic_is_found_at_level_1(bare, monkeypatch):
    from d3codec import noise

    noise.normal_table.cache_clear()
    monkeypatch.setattr(noise, "TABLE_SHA256", "0" * 64)
    assert verify(bare, level=0).level == 0
    assert answer("verify", bare, "--level", 1, code=1)["field"] == "noise table"


def test_strict(tmp_path):
    known = {"pixels": bytes(32), "fingerprint": "x"}
    for about, found in (
        (replace_about(SAID, **known), []),
        (replace_about(SAID, **known, claims=None, method=None), []),
        (replace_about(SAID, **known, method=None), ["claims"]),
        (replace_about(SAID, **known, licence=None), ["licence"]),
        (replace_about(SAID), ["pixels"]),
        (None, ["pixels", "licence"]),
    ):
        path = bare_file(tmp_path / "x.d3m", about=about)
        assert call("verify", path).exit_code == 0
        facts = answer("verify", path, "--strict", code=3 if found else 0)
        assert [text.partition(":")[0] for text in facts.get("findings", [])] == found
        assert facts.get("error", "E_STRICT") == "E_STRICT"
    result = call("verify", path, "--strict")
    assert (result.exit_code, result.stdout) == (3, f"{path}: E_STRICT\n")
    assert "licence: no licence and no source stated" in result.stderr


def test_strict_about_sections_claims_and_compression(tmp_path):
    draft, about = craft.digits_draft(), replace_about(SAID, pixels=bytes(32), fingerprint="x")
    file = D3MFile.open(write_d3m(draft, filled(draft, sparse=True), about, {"x-leaf": bytes(20), "x-odd": b"?"}))
    with pytest.raises(StrictError) as error:
        verify(file, strict=True)
    assert error.value.findings == ["section: x-odd is not one of the specification's"]
    loose = D3MFile.open(repacked(file, None))
    with pytest.raises(StrictError, match=f"would save {loose.bytes_total - file.bytes_total} of"):
        verify(loose, strict=True)
    hard = replace(draft, groups=(craft.group(labels=HardLabels()),))
    about = replace_about(about, claims={"label KL at T=1": "0.1"})
    with pytest.raises(StrictError, match="claims: about labels, of a file that has none"):
        verify(D3MFile.open(write_d3m(hard, filled(hard), about)), strict=True)


# --------------------------------------------------------------------------------------------------------- diff


def test_a_file_is_itself(each):
    facts = answer("diff", each, each)
    assert (facts["same"], facts["content"], facts["about"], facts["labels"]) == (True, [], [], [])
    assert {section["verdict"] for section in facts["sections"]} == {"equal"}
    assert f"nothing differs, content id {D3MFile.open(each).content_id}" in call("diff", each, each).stdout


def test_what_differs(tmp_path):
    names = ("zero", "one", "two")
    one = bare_file(tmp_path / "a.d3m", about=SAID)
    other = bare_file(tmp_path / "b.d3m", names=("zero", "uno", "two"), steps=4, seed=1, groups=2)
    facts = answer("diff", one, other, code=1)
    assert not facts["same"]
    assert facts["content_ids"] == [D3MFile.open(path).content_id for path in (one, other)]
    assert {"path": "groups[0].recipe.steps", "a": 3, "b": 4} in facts["content"]
    assert [field["path"] for field in facts["content"]] == ["groups[0].recipe.steps", "groups[1]"]
    assert {"path": "licence", "a": "CC0-1.0"} in facts["about"]
    found = {(section["name"], section["group"]): section for section in facts["sections"]}
    assert found["cls", None]["first_rows"] == [{"row": 1, "a": "one", "b": "uno"}]
    rows = found["emb", 0]
    assert (rows["rows_different"], [row["class"] for row in rows["first_rows"]]) == (3, list(names))
    assert found["lab", 0]["verdict"] == "equal"
    assert found["emb", 1]["verdict"] == "only in B"
    shown = call("diff", one, other).stdout
    for text in ("content groups[0].recipe.steps", "class 1 (one / uno)", "3 rows, 0 (class zero)", "only in B"):
        assert text in shown


def test_labels_that_differ_are_told_in_nats(tmp_path):
    path = bare_file(tmp_path / "a.d3m")  # three classes of four images of 2 x 2 patches, all logits 0
    file = D3MFile.open(path)
    rows = np.zeros((48, 3), np.int8)
    rows[3, 1], rows[20] = 32, 7  # one label moved by 2 nats, and one by a constant, which says nothing
    sections = {(name, group): file.section(name, group) for name, group in (("cls", None), ("emb", 0))}
    other = tmp_path / "b.d3m"
    draft = ContentDraft(file.content.classes, file.content.groups)
    other.write_bytes(write_d3m(draft, sections | {("lab", 0): rows.tobytes()}))
    facts = answer("diff", path, other, code=1)
    (section,) = [section for section in facts["sections"] if section["verdict"] != "equal"]
    assert section["first_rows"] == [
        {"row": 3, "class": "zero", "image": 0, "patch": 3},
        {"row": 20, "class": "one", "image": 1, "patch": 0},
    ]
    assert facts["labels"] == [{"group": 0, "labels": 48, "different": 1, "largest_nats": pytest.approx(4 / 3)}]
    assert "1 of 48 differ, by at most 1.33 nats" in call("diff", path, other).stdout


def test_streams_that_differ_are_told_by_their_first_byte(tmp_path):
    draft, whole = crafted("coded")
    paths = []
    for change in (0, 1):
        sections = dict(whole)
        sections["img", 3] = sections["img", 3][:-1] + bytes([sections["img", 3][-1] ^ change])
        paths.append(tmp_path / f"{change}.d3m")
        paths[-1].write_bytes(write_d3m(draft, sections))
    facts = answer("diff", *paths, code=1)
    (section,) = [section for section in facts["sections"] if section["verdict"] != "equal"]
    assert section["first_byte"] == section["bytes"][0] - 1
    assert "the first difference at byte" in call("diff", *paths).stdout


def test_damage_and_nothing_there_are_no_differences(bare, tmp_path):
    damaged = tmp_path / "damaged.d3m"
    damaged.write_bytes(bare.read_bytes()[:-1] + b"\xff")
    assert answer("diff", bare, damaged, code=3)["error"] == "E_SECTION_CRC"
    assert answer("diff", bare, tmp_path / "none.d3m", code=4)["error"] == "E_MISSING_FILE"


# --------------------------------------------------------------------------------------------------------- edit


def test_edit_changes_what_is_said_and_nothing_else(each, tmp_path):
    output, before = tmp_path / "out.d3m", D3MFile.open(each)
    facts = answer(
        "edit", each, "-o", output, "--set", "licence=MIT", "--set", "citation=a = b", "--unset", "source",
        "--claim", "S0=", "--claim", "S1=50 %",
    )  # fmt: skip
    assert facts["content_id"] == before.content_id
    assert facts["about"] == {
        "licence": "MIT", "source": None, "citation": "a = b", "method": "mine", "teacher": None,
        "claims": {"S1": "50 %"},
    }  # fmt: skip
    found = answer("diff", each, output, code=1)
    changed = sorted(field["path"] for field in found["about"])
    assert changed == ["citation", "claims.S0", "claims.S1", "licence", "source"]
    assert found["content"] == []
    assert {section["verdict"] for section in found["sections"]} == {"equal"}
    after = D3MFile.open(output)
    assert after.stored_parts() == before.stored_parts()
    assert (after.about.weights, after.about.ancillary) == (before.about.weights, before.about.ancillary)


def test_edit_in_place_and_back(bare):
    data = bare.read_bytes()
    assert call("edit", bare, "--set", "teacher=me").exit_code == 0
    assert D3MFile.open(bare).about.teacher == "me"
    assert call("edit", bare, "--unset", "teacher").exit_code == 0
    assert bare.read_bytes() == data


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--set", "pixels=00"], "pixels"),
        (["--unset", "fingerprint"], "fingerprint"),
        (["--set", "weights=1"], "weights"),
        (["--set", "content=x"], "content"),
        (["--set", "claims=x"], "claims"),
        (["--set", "licence=x", "--unset", "licence"], "licence"),
        (["--claim", "S0=x", "--unset", "claims"], "claims"),
        (["--claim", "S0="], "claims"),
        (["--set", "licence="], "About.licence"),
        (["--set", "licence=a\x1b[31m"], "About.licence"),
    ],
)
def test_what_cannot_be_edited(bare, arguments, field):
    data = bare.read_bytes()
    facts = answer("edit", bare, *arguments, code=2)
    assert (facts["error"], facts["field"]) == ("E_USAGE", field)
    assert bare.read_bytes() == data


@pytest.mark.parametrize("arguments", [[], ["--set", "licence"], ["--set", "=x"], ["--set", "a=1", "--set", "a=2"]])
def test_edit_is_misused(bare, arguments):
    assert call("edit", bare, *arguments).exit_code == 2


def test_damaged_files_are_not_edited_or_repacked(bare):
    data = bytearray(bare.read_bytes())
    data[-1] ^= 1
    bare.write_bytes(data)
    for arguments in (["edit", "--set", "source=x"], ["repack"], ["subset", "--ipc", "1", "-o", bare]):
        assert answer(arguments[0], bare, *arguments[1:], code=3)["error"] == "E_SECTION_CRC"
    assert bare.read_bytes() == data


# ------------------------------------------------------------------------------------------------------- repack


def test_repack_keeps_the_dataset(each, tmp_path):
    data, output = each.read_bytes(), tmp_path / "out.d3m"
    sizes = {}
    for level in (0, 1, 19):
        facts = answer("repack", each, "-o", output, "--level", level)
        assert facts["content_id"] == D3MFile.open(each).content_id
        assert (facts["bytes_before"], facts["bytes"]) == (len(data), output.stat().st_size)
        assert answer("diff", each, output)["same"]
        sizes[level] = facts["bytes"]
    assert output.read_bytes() == data  # what the writer gives
    assert sizes[0] >= sizes[1] >= sizes[19]
    assert all(codec == wire.RAW for codec, _ in D3MFile.open(repacked(D3MFile.open(each), None)).stored_parts())
    assert call("repack", output, "--level", 0).exit_code == 0
    assert call("repack", output).exit_code == 0
    assert output.read_bytes() == data
    with pytest.raises(UsageError):
        repacked(D3MFile.open(each), 23)


# ------------------------------------------------------------------------------------------------------- subset


def values(file: D3MFile) -> dict:
    """What every image of a file is made of, by (group, class name, index): conditioning, choice, latent or stored
    tile, logits of the file's classes by name."""
    names, found = [record.name for record in file.class_records()], {}
    for number, group in enumerate(file.content.groups):
        classes, sources, per_source = len(names), group.images.sources, group.images.copies + 1
        rows = _conditioning(file, number)
        of_class = getattr(group.conditioning, "rows", "class") == "class"
        choices = np.zeros((classes, sources), int)
        if (bits := group.images.candidates) is not None:
            choices = candidates.unpack(file.section("cnd", number), classes, sources, bits)
        kept = None
        if (stored := group.recipe.start.stored) is not None:
            latents = LatentRows(stored, classes * sources, SectionReader(file, "lat", number))
            kept = latents.run(0, classes * sources)
        elif group.generator is None:
            kept = sheet_renderer(file, number).tiles(range(classes * sources))
        labels = None if isinstance(group.labels, HardLabels) else GroupLabels(file, number)
        patches = group.images.grid[0] * group.images.grid[1]
        for class_, name in enumerate(names):
            for index in range(group.images.count):
                source, row = index // per_source, (class_ * group.images.count + index) * patches
                place = class_ * sources + source
                found[number, name, index] = (
                    None if rows is None else rows[class_ if of_class else place],
                    int(choices[class_, source]),
                    None if kept is None else kept[place],
                    None if labels is None else dict(zip(names, labels.logits(row, row + patches).T, strict=True)),
                )
    return found


def _conditioning(file: D3MFile, number: int):
    """The rows of a group's conditioning, decoded or as they are stored."""
    group, classes = file.content.groups[number], file.content.classes.count
    if (name := row_section(group)) is None:
        return None
    data, rows = file.section(name, number), conditioning_rows(group, classes)
    if name == "tok":
        return tokens.decode(data, rows)
    if getattr(group.conditioning, "coded", False):
        from d3codec.conditioning import coded

        return coded.decode(data, rows, sum(quantized_blocks(group)), name)
    return np.frombuffer(data, np.uint8).reshape(rows, -1)


def same(one, other) -> bool:
    if isinstance(one, dict):
        return all(same(one[name], other[name]) for name in one)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize("name", DRAFTS)
def test_a_subset_of_everything_is_the_same_dataset(name):
    file = made(name)
    assert D3MFile.open(subset(file)).content_id == file.content_id
    kept = Kept(np.arange(file.content.classes.count), dict(Extent.of(file.content).wanted))
    original = {(part.section, part.group) for part in file.parts if part.section != "x-note"}
    assert kept_sections(file, kept) == {key: file.section(*key) for key in original}  # also of streams coded again


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("rich", "all three"),  # many images
        *(
            (name, part)
            for name in ("kinds", "stored", "coded")
            for part in ("classes", "images", "groups", "all three")
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*other batches")
def test_what_stays_is_the_same(name, part):
    file = made(name)
    content = file.content
    classes = [0] if part in ("classes", "all three") else None
    ipc = 2 if part in ("images", "all three") else None
    groups = [0, 1, 2] if name == "coded" else None  # the fourth is of lossy sheets, which stay whole
    if part in ("groups", "all three"):
        groups = [1]
    made_of = D3MFile.open(subset(file, classes=classes, ipc=ipc, groups=groups))
    wanted = Extent.of(content, classes, ipc, groups)
    assert made_of.content.classes.count == len(wanted.classes)
    assert [group.images.count for group in made_of.content.groups] == [count for _, count in wanted.wanted]
    before, after = values(file), values(made_of)
    assert len(after) == wanted.images
    for (number, class_, index), found in after.items():
        group, _ = wanted.wanted[number]
        assert all(map(same, found, before[group, class_, index]))
    about = made_of.about
    assert (about.licence, about.method, about.claims, about.ancillary) == ("CC0-1.0", "mine", None, None)
    assert about.weights == tuple(1 + group for group, _ in wanted.wanted)


def test_the_unconditional_row_stays():
    """It is the last of the table, whatever classes there are."""
    images_, none = Images(grid=(1, 1), count=2, size=(8, 8)), HardLabels()
    for rows in ("class", "image"):
        group = craft.group(conditioning=craft.vectors(rows=rows), images=images_, labels=none)
        draft = ContentDraft(Classes(authority="none", count=4), (group,))
        file = D3MFile.open(write_d3m(draft, filled(draft)))
        with pytest.warns(UserWarning, match="other batches"):
            part = D3MFile.open(subset(file, classes=["0-1"], ipc=1))
        assert isinstance(part.content.groups[0].conditioning, VectorsConditioning)
        tables = [_conditioning(each, 0) for each in (file, part)]
        assert np.array_equal(tables[0][-1], tables[1][-1])
        assert len(tables[1]) == 3


@pytest.mark.filterwarnings("ignore:.*other batches")
def test_classes_that_are_not_the_first_ones(tmp_path):
    """They would have other noise; not where there is none."""
    path = tmp_path / "stored.d3m"
    path.write_bytes(made("stored").data)
    facts = answer("subset", path, "-o", tmp_path / "x.d3m", "--classes", "1", code=2)
    assert (facts["field"], facts["found"], facts["expected"]) == ("classes", "1", "the first ones, 0-0")
    assert "counted by class position" in facts["hint"]
    assert not (tmp_path / "x.d3m").exists()
    facts = answer("subset", path, "-o", tmp_path / "x.d3m", "--classes", "class 1", "--groups", "1,2", "-q")
    assert (facts["classes"], facts["groups"], facts["profile"], facts["pixel_digest"]) == (1, 2, "reproducible", None)
    before, after = values(D3MFile.open(path)), values(D3MFile.open(tmp_path / "x.d3m"))
    for (number, name, index), found in after.items():
        assert all(map(same, found, before[number + 1, name, index]))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--classes", "7"], "classes"),
        (["--classes", "1-0"], "classes"),
        (["--classes", "0-2"], "classes"),
        (["--groups", "5"], "groups"),
        (["--ipc", "99"], "ipc"),
        (["--ipc", "3", "--groups", "0"], "ipc"),  # a source without its copy
        (["--profile", "exact"], "profile"),
    ],
)
def test_a_subset_that_there_is_not(tmp_path, options, field):
    path = tmp_path / "kinds.d3m"
    path.write_bytes(made("kinds").data)
    assert answer("subset", path, "-o", tmp_path / "x.d3m", *options, code=2)["field"] == field


@pytest.mark.parametrize("options", [["--groups", "a"], ["--ipc", "0"], []])
def test_subset_is_misused(bare, options):
    assert call("subset", bare, *([] if not options else ["-o", "x.d3m"]), *options).exit_code == 2


def pictures(form: str = "png", *, exact: bool = True, leaf_bytes: int = 0) -> tuple[D3MFile, np.ndarray]:
    """Four classes of three stored images, three to a sheet."""
    found = np.random.default_rng(5).integers(0, 256, (4, 3, 8, 8, 3), np.uint8)
    quality = None if form == "png" else 60
    sheets = [images.encode_sheet(of_class, 2, form, quality) for of_class in found]
    names = pack_classes([ClassRecord(f"n{number}", name) for number, name in enumerate("abcd")])
    group = craft.group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=None,
        images=Images(grid=(1, 1), count=3, size=(8, 8)),
        labels=HardLabels(),
        recipe=craft.sheets(format=form),
    )
    digests = [image_digest(image) for image in found.reshape(-1, 8, 8, 3)]
    profile = Exact(pixels=pixel_digest(digests), corrections=0) if exact else REPRODUCIBLE
    draft = ContentDraft(Classes(authority="ours", count=4), (group,), profile)
    leaves = {"x-leaf": b"".join(digest[:leaf_bytes] for digest in digests)} if leaf_bytes else {}
    data = write_d3m(draft, {("cls", None): names, ("img", 0): images.join_sheets(sheets)}, SAID, leaves)
    return D3MFile.open(data), found


@pytest.mark.parametrize("leaf_bytes", [0, 4])
def test_an_exact_subset_of_stored_images(tmp_path, leaf_bytes):
    file, found = pictures(leaf_bytes=leaf_bytes)
    path = tmp_path / "x.d3m"
    path.write_bytes(file.data)
    output = tmp_path / "part.d3m"
    facts = answer("subset", path, "-o", output, "--classes", "b,n3", "--ipc", "2", "-q")
    digests = [image_digest(image) for image in found[[1, 3], :2].reshape(-1, 8, 8, 3)]
    assert facts["pixel_digest"] == pixel_digest(digests).hex()
    part = D3MFile.open(output)
    assert verify(part, decode="all").pixels == "proved"
    assert part.class_records() == [ClassRecord("n1", "b"), ClassRecord("n3", "d")]
    if leaf_bytes:
        assert part.section("x-leaf") == b"".join(digest[:4] for digest in digests)
    assert (
        "2 classes x 2 images, profile exact"
        in call("subset", path, "-o", output, "--classes", "b,d", "--ipc", 2).stdout
    )
    whole_sheets = D3MFile.open(subset(file, classes=["c"]))
    assert images.split_sheets(whole_sheets.section("img", 0), 1) == [images.split_sheets(file.section("img", 0), 4)[2]]
    low = D3MFile.open(subset(file, classes=["c"], profile="reproducible"))
    assert (low.content.profile.name, low.about.pixels) == ("reproducible", None)
    told = D3MFile.open(subset(file, classes=["c"], profile="reproducible", digest=True))
    assert verify(told, decode="all").pixels == "proved"


@pytest.mark.parametrize("leaf_bytes", [0, 8])
def test_an_exact_file_that_lies_has_no_subset(leaf_bytes, monkeypatch):
    """Whatever goes wrong on the way, other pixels are never written."""
    from d3codec.encoder import subset as module

    file, _ = pictures(leaf_bytes=leaf_bytes)
    right = kept_sections(file, Kept(np.array([0]), {0: 3}))
    wrong = kept_sections(file, Kept(np.array([1]), {0: 3}))
    monkeypatch.setattr(module, "kept_sections", lambda *_: right | {("img", 0): wrong["img", 0]})
    with pytest.raises(PixelsError) as error:
        subset(file, classes=[0])
    assert error.value.field == "class 0, image 0"


def test_lossy_sheets_stay_whole():
    file, _ = pictures("webp", exact=False)
    part = D3MFile.open(subset(file, classes=["b", "c"], digest=True))
    assert images.split_sheets(part.section("img", 0), 2) == images.split_sheets(file.section("img", 0), 4)[1:3]
    assert verify(part, decode="all").pixels == "proved"
    with pytest.raises(UsageError, match="stored as webp again") as error:
        subset(file, ipc=2)
    assert "whole sheets: 3 images" in error.value.hint


def test_edited_files_say_the_same_after_a_subset_of_everything():
    file = made("coded")
    again = D3MFile.open(edited(D3MFile.open(subset(file)), values={"teacher": "x"}))
    assert again.content_id == file.content_id
    assert json.dumps(again.about.claims) == json.dumps(SAID.claims)
