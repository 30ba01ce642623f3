"""`d3codec info`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cli.commands import answer, bare_file, call
from format.craft import digits_draft, filled, kinds_draft, write_d3m

from d3codec.format.file import D3MFile
from d3codec.format.manifest import About, Exact, ExactFixed


def test_json_has_what_the_contract_names(bare):
    facts, file = answer("info", bare), D3MFile.open(bare)
    assert facts["bytes"] == bare.stat().st_size
    assert facts["bytes"] == facts["head_bytes"] + sum(section["bytes"] for section in facts["sections"])
    assert facts["content_id"] == file.content_id
    assert facts["version"] == "0.2"
    assert (facts["classes"], facts["images_per_class"], facts["images"]) == (3, 4, 12)
    assert (facts["label_kind"], facts["profile"], facts["method"]) == ("quantized", "reproducible", None)
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
        *("cls", "fix", "emb", "lab", "tok", "lat", "emb", "lat", "lab", "ids", "wrd")
    ]
    assert [(group["conditioning"], group["recipe"]) for group in facts["groups"]] == [
        ("learned, 1 token an image, 5 + 3 values of 3 bits", "DDIM, 10 steps, guidance 2, predicts v, eta 1"),
        ("token ids, one sequence an image", "Euler, 10 steps, guidance 2, predicts eps, stored latents of 3 bits"),
        (
            "learned, 2 vectors an image, 5 values of 3 bits",
            "DDIM with re-injection, 10 steps, guidance 2, predicts eps, stored latents of 3 bits",
        ),
        ("class ids, one a class", "Euler ancestral, 10 steps, guidance 2, predicts eps"),
        ("words, 2 tokens an image", "DDIM, 10 steps, guidance 2, predicts sample"),
    ]
    assert [group["copies"] for group in facts["groups"]] == [1, 0, 0, 0, 0]
    assert [group["outside_bytes"] for group in facts["groups"]] == [0, 12_345, 0, 0, 0]
    text = call("info", path).stdout
    assert f"exact, 5 corrections, pixels {facts['pixel_digest']}" in text
    assert f"{size + 12_345:,} bytes, with this dataset's own weights" in text
    assert "of each source 1 augmented copies" in text
    rows = answer("info", path, "--bytes")
    assert sum(row["length"] for row in rows) == size
    assert rows[-10]["text"].startswith("part 1: fix, 5 corrections")


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
    assert lines[0] == f"{bare}: {size:,} bytes, version 0.2, 3 classes x 4 images"
    for piece in (
        "zero, one, two",
        "4 a class, 8x8 pixels, 2x2 patches",
        "quantized, 3 logits a patch",
        "learned, 2 tokens a class",
        "DDIM, 3 steps, guidance 2",
        "00000000 (cast f16)",
        D3MFile.open(bare).content_id,
    ):
        assert piece in result.stdout
    table = {line.split()[0]: line.split()[1] for line in lines[3:7]}
    assert sum(int(cell.replace(",", "")) for cell in table.values()) == size


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
