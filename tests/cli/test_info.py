"""`d3codec info`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli.commands import answer, bare_file, call
from format.craft import digits_draft, filled, kinds_draft, stored_draft, write_d3m
from tiny_pipeline import make_group

from d3codec.format.file import ClassRecord, ContentDraft, D3MFile, pack_classes
from d3codec.format.manifest import About, Classes, Exact, ExactFixed, Raw16Labels
from d3codec.labels import raw16


def test_json_has_what_the_contract_names(bare):
    facts, file = answer("info", bare), D3MFile.open(bare)
    assert facts["bytes"] == bare.stat().st_size
    assert facts["bytes"] == facts["head_bytes"] + sum(section["bytes"] for section in facts["sections"])
    assert facts["content_id"] == file.content_id
    assert facts["version"] == "0.9"
    assert (facts["classes"], facts["images_per_class"], facts["images"]) == (3, 4, 12)
    assert (facts["label_kind"], facts["profile"], facts["method"]) == ("int8", "reproducible", None)
    assert (facts["pixel_digest"], facts["corrections"]) == (None, 0)
    assert facts["sizes"] == {"file": facts["bytes"], "file_and_outside": facts["bytes"], "generators": ["00" * 32]}
    assert [set(section) for section in facts["sections"]] == [{"name", "bytes", "raw_bytes", "group"}] * 3
    assert [(section["name"], section["group"]) for section in facts["sections"]] == [
        ("cls", None),
        ("emb", 0),
        ("lab", 0),
    ]
    labels = facts["sections"][2]
    assert labels["raw_bytes"] == 144
    assert labels["bytes"] < 40  # all zeros, and stored sizes are told
    (group,) = facts["groups"]
    assert (group["images_per_class"], group["grid"], group["size"]) == (4, [2, 2], [8, 8])
    assert group["recipe"].startswith("DDIM, 3 steps")


def test_what_the_file_says_of_itself(tmp_path):
    about = About(
        licence="CC0-1.0",
        method="d3m",
        claims={"student": "97 %"},
        source="somewhere",
        fingerprint="a machine",
        pixels=bytes(32),
    )
    path = bare_file(tmp_path / "said.d3m", about=about, labels="h")
    facts = answer("info", path)
    assert (facts["licence"], facts["method"], facts["claims"]) == ("CC0-1.0", "d3m", {"student": "97 %"})
    assert (facts["fingerprint"], facts["pixel_digest"]) == ("a machine", "00" * 32)
    assert facts["label_kind"] == "hard"
    text = call("info", path).stdout
    assert "CC0-1.0" in text
    assert "somewhere" in text


def test_every_kind_of_record(tmp_path):
    draft = kinds_draft()
    path = tmp_path / "kinds.d3m"
    path.write_bytes(write_d3m(draft, filled(draft)))
    facts = answer("info", path)
    assert (facts["profile"], facts["corrections"]) == ("exact", 5)
    assert facts["pixel_digest"] == draft.profile.pixels.hex()
    assert facts["fingerprint"] is None
    size = path.stat().st_size
    generator = draft.groups[0].generator.hex()
    assert facts["sizes"] == {"file": size, "file_and_outside": size + 12_345, "generators": [generator]}
    assert [section["name"] for section in facts["sections"]] == [
        *("cls", "fix", "emb", "lab", "tok", "lat", "col", "lab", "emb", "lat", "lab", "ids", "col", "lab", "wrd")
    ]
    assert [(group["conditioning"], group["recipe"]) for group in facts["groups"]] == [
        ("learned, 1 token an image, 5 + 3 values of 3 bits", "DDIM, 10 steps, guidance 2, predicts v, eta 1"),
        (
            "token ids, one sequence an image",
            "Euler, 10 steps, guidance 2, predicts eps, stored latents of 4x2x3 values of 3 bits",
        ),
        (
            "learned, 2 vectors an image, 5 values of 3 bits",
            "DDIM with re-injection, 10 steps, guidance 2, predicts eps, stored latents of 4x2x3 values of 3 bits",
        ),
        ("class ids, one a class", "Euler ancestral, 10 steps, guidance 2, predicts eps"),
        ("words, 2 tokens an image", "DDIM, 10 steps, guidance 2, predicts sample"),
    ]
    assert [group["label_kind"] for group in facts["groups"]] == ["int8", "fp16", "int8", "top-k", "hard"]
    assert [(group["label_width"], group["teacher_columns"]) for group in facts["groups"]] == [
        *((2, 2), (2, 5), (2, 2), (2, 3), (0, 0))
    ]
    assert [group["copies"] for group in facts["groups"]] == [1, 0, 0, 0, 0]
    assert [group["outside_bytes"] for group in facts["groups"]] == [0, 12_345, 0, 0, 0]
    text = call("info", path).stdout
    assert f"exact, 5 corrections, pixels {facts['pixel_digest']}" in text
    assert f"{size + 12_345:,} bytes, with this dataset's own weights" in text
    assert "of each source 1 augmented copies" in text
    assert "fp16, 2 logits a patch (of 5 of the teacher)" in text
    rows = answer("info", path, "--bytes")
    assert sum(row["length"] for row in rows) == size
    assert rows[-14]["text"].startswith("part 1: fix, 5 corrections")


@pytest.mark.parametrize(
    ("profile", "name"),
    [(Exact(pixels=bytes(32), corrections=0), "exact"), (ExactFixed(pixels=bytes(32)), "exact-fixed")],
)
def test_exact_profiles(tmp_path, profile, name):
    draft = replace(digits_draft(), profile=profile)
    path = tmp_path / "exact.d3m"
    path.write_bytes(write_d3m(draft, filled(draft)))
    facts = answer("info", path)
    assert (facts["profile"], facts["pixel_digest"], facts["corrections"]) == (name, "00" * 32, 0)
    assert [section["name"] for section in facts["sections"]] == ["cls", "emb", "lab"]
    assert f"{name}, " in call("info", path).stdout


def test_view_for_people(bare):
    result = call("info", bare)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    size = bare.stat().st_size
    assert lines[0] == f"{bare}: {size:,} bytes, version 0.9, 3 classes x 4 images"
    for piece in (
        "zero, one, two",
        "4 a class, 8x8 pixels, 2x2 patches",
        "int8, 3 logits a patch",
        "learned, 2 tokens a class",
        "DDIM, 3 steps, guidance 2",
        "00000000 (cast f16)",
        D3MFile.open(bare).content_id,
    ):
        assert piece in result.stdout
    table = {line.split()[0]: line.split()[1] for line in lines[3:7]}
    assert sum(int(cell.replace(",", "")) for cell in table.values()) == size


def test_groups_that_need_no_prompts_or_no_generator(tmp_path):
    draft, path = stored_draft(), tmp_path / "stored.d3m"
    path.write_bytes(write_d3m(draft, filled(draft), About(weights=(1, 3, 2), method="d3m+latents")))
    facts = answer("info", path)
    assert facts["weights"] == [1, 3, 2]
    generator = draft.groups[0].generator.hex()
    assert facts["sizes"]["generators"] == [generator]
    assert [group["generator"] for group in facts["groups"]] == [generator, generator, None]
    assert [group["candidates"] for group in facts["groups"]] == [8, 1, 1]
    assert [group["conditioning"] for group in facts["groups"][1:]] == ["none", "none"]
    assert [group["recipe"] for group in facts["groups"][1:]] == [
        "stored latents of 4x2x3 values of 3 bits, decoded as they are",
        "stored images, PNG sheets of 3 in 2 columns",
    ]
    assert [section["name"] for section in facts["sections"]] == [
        *("cls", "emb", "cnd", "lab", "lat", "img", "col", "lab")
    ]
    text = " ".join(call("info", path).stdout.split())
    for piece in (
        "images 0 3 a class, 64x64 pixels, 2x2 patches, each with one of 8 noises",
        "labels 0 adaptive, 2 logits a patch",
        "labels 2 adaptive, 2 logits a patch (of 9 of the teacher)",
        "generator 2 none is needed",
        "weights 1 : 3 : 2, of the groups in a training batch",
        "the shared generator, named above",
    ):
        assert piece in text, piece
    assert "prompts 0" in text
    assert "prompts 1" not in text


def test_a_file_of_stored_images_alone(tmp_path):
    whole, path = stored_draft(), tmp_path / "stored.d3m"
    draft = ContentDraft(whole.classes, whole.groups[2:], whole.profile)
    path.write_bytes(write_d3m(draft, filled(draft)))
    assert answer("info", path)["sizes"]["generators"] == []
    text = call("info", path).stdout
    assert "no generator: all images are stored in the file" in text
    assert "training batch" not in text


def labelled(path, about=None):
    """Three classes whose fp16 labels agree with the class in 11 of 12."""
    logits = np.zeros((12, 5)) + np.array([-1.0, 0, 0, 0, -1.0])
    columns = np.array([3, 1, 2])
    logits[np.arange(12), columns[np.arange(12) // 4]] += 2
    logits[5] = [0, 0, 9, 0, 9]  # of class 1, and says 2
    group, rows = make_group(Path(), classes=3, ipc=1, generator=bytes(32), labels="h")
    group = type(group)(**dict(group) | {"labels": Raw16Labels(width=5, columns="col")})
    sections = {
        ("cls", None): pack_classes([ClassRecord("", name) for name in "abc"]),
        ("emb", 0): rows,
        ("col", 0): columns.astype("<u4").tobytes(),
        ("lab", 0): raw16.encode(logits),
    }
    path.write_bytes(write_d3m(ContentDraft(Classes(authority="none", count=3), (group,)), sections, about))
    return path


def test_labels(tmp_path):
    claims = {"label KL at T=1": "0.0123", "label KL at T=20": "1.2e-05", "S0": "97 %"}
    path = labelled(tmp_path / "labels.d3m", About(claims=claims))
    facts = answer("info", path, "--labels")
    assert facts["file"] == str(path)
    assert facts["kl_nats"] == {"1": "0.0123", "20": "1.2e-05"}
    (group,) = facts["groups"]
    assert (group["codec"], group["labels"], group["teacher_columns"]) == ("fp16", 12, 5)
    sizes = {section["name"]: section["bytes"] for section in answer("info", path)["sections"]}
    assert (group["payload"], group["side"], group["shipped"]) == (sizes["lab"], sizes["col"], 0)
    assert group["bytes_per_label"] == {"payload": sizes["lab"] / 12, "side": sizes["col"] / 12, "shipped": 0}
    assert group["agreement"] == 11 / 12
    three = np.exp([0.0, 2.0, 0.0])
    three /= three.sum()
    odd = np.exp([0.0, 0.0, 9.0])
    odd /= odd.sum()
    expected = -(11 * (three * np.log(three)).sum() + (odd * np.log(odd)).sum()) / 12
    assert group["entropy_nats"] == pytest.approx(expected)
    result = call("info", path, "--labels")
    assert result.exit_code == 0
    for piece in ("12 of the codec fp16", "91.7 % have their class on top", "0.0123 nats, says the encoder", "T = 20"):
        assert piece in result.stdout
    assert call("info", path, "--labels", "--bytes").exit_code == 2


def test_labels_of_several_groups_and_of_none(tmp_path):
    path = bare_file(tmp_path / "two.d3m", groups=2)
    facts = answer("info", path, "--labels")
    assert [(group["group"], group["codec"], group["labels"]) for group in facts["groups"]] == [
        (0, "int8", 48),
        (1, "int8", 48),
    ]
    assert facts["kl_nats"] == {}
    assert facts["groups"][0]["entropy_nats"] == pytest.approx(np.log(3))  # all zeros
    assert "labels 1" in call("info", path, "--labels").stdout
    hard = answer("info", bare_file(tmp_path / "hard.d3m", labels="h"), "--labels")
    assert (hard["groups"][0]["codec"], hard["groups"][0]["agreement"]) == ("hard", 1.0)


def test_damaged_labels_are_told(tmp_path):
    path = labelled(tmp_path / "labels.d3m")
    file = D3MFile.open(path)
    data = bytearray(path.read_bytes())
    data[file.parts[-1].offset] ^= 1
    path.write_bytes(data)
    result = call("info", path, "--labels")
    assert result.exit_code == 3
    assert "E_SECTION_CRC" in result.stderr


def test_long_lists_of_classes_are_cut(tmp_path):
    path = bare_file(tmp_path / "many.d3m", names=tuple(f"kind {number}" for number in range(40)), ipc=1)
    text = call("info", path).stdout
    assert "kind 11, ..." in text
    assert "kind 12" not in text


def test_every_byte_is_explained(bare):
    rows = answer("info", bare, "--bytes")
    end = 0
    for row in rows:
        assert row["offset"] == end
        assert row["length"] > 0
        assert row["text"]
        end += row["length"]
    assert end == bare.stat().st_size
    text = call("info", bare, "--bytes").stdout
    assert len(text.splitlines()) == len(rows) + 1
    assert "magic" in text


def test_damaged_sections_do_not_hide_the_head(bare):
    data = bytearray(bare.read_bytes())
    data[D3MFile.open(bare).head_bytes] ^= 1  # the first byte of the class names
    bare.write_bytes(data)
    result = call("info", bare)
    assert result.exit_code == 0
    assert "d3codec verify says why" in result.stdout
    assert json.loads(call("info", bare, "--json").stdout)["classes"] == 3
    assert call("verify", bare).exit_code == 3
