"""`d3codec join`: what it prints and how it ends. What it does is tested with `d3codec.decoder.join`."""

from __future__ import annotations

import json

import pytest
from cli.commands import answer, call
from pictures import make_pictures, snapshot, write, write_shards

from d3codec.decoder.writers import FORMATS


@pytest.fixture
def made(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m")
    return decoding, images, write_shards(tmp_path / "parts", decoding, images, 3)


def test_shards_become_one_folder(made, tmp_path):
    decoding, images, parts = made
    write(FORMATS["imagefolder"](tmp_path / "whole", decoding), decoding, images)
    result = call("join", *parts, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"60 images of {decoding.file.content_id[:16]}..., profile reproducible, ")
    assert f"from 3 shards, as the dataset promises: {tmp_path / 'out'}" in result.stdout
    assert "join: 60/60" in result.stderr
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")
    again = call("join", *parts, "-o", tmp_path / "out", "-q")
    assert (again.exit_code, again.stderr) == (0, "")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(made, tmp_path, format):
    decoding, _, parts = made
    facts = answer("join", *parts, "-o", tmp_path / "out", "--format", format, "-q")
    assert facts == {
        "content_id": decoding.file.content_id,
        "images": 60,
        "profile": "reproducible",
        "fingerprint": "here",
        "folders": 3,
        "output": str(tmp_path / "out"),
        "format": format,
        "pixels": "proved",
    }


def test_what_cannot_be_joined_is_told(made, tmp_path):
    _, _, parts = made
    out = tmp_path / "out"
    gap = answer("join", parts[0], parts[2], "-o", out, code=4)
    assert gap["error"] == "E_MISSING"
    assert gap["found"] == "class 0: images 16 to 19; class 1: images 0 to 19"
    result = call("join", parts[0], tmp_path, "-o", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not a folder that decode --shard made" in result.stderr
    assert answer("join", parts[0], tmp_path / "nowhere", "-o", out, code=4)["error"] == "E_MISSING_FILE"
    notes = json.loads((parts[1] / "decode.json").read_text())
    (parts[1] / "decode.json").write_text(json.dumps(notes | {"fingerprint": "there"}))
    unlike = answer("join", *parts, "-o", out, code=2)
    assert (unlike["field"], unlike["found"], unlike["expected"]) == ("fingerprint", "there", "here")
    (parts[1] / "decode.json").write_text(json.dumps(notes))
    (parts[1] / "00001" / "000003.png").write_bytes(b"no picture")
    damaged = answer("join", *parts, "-o", tmp_path / "damaged", code=3)
    assert damaged["error"] == "E_PIXELS"
    assert damaged["file"].endswith("part1/00001/000003.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    assert answer("join", *parts, "-o", tmp_path / "full", code=1)["error"] == "E_OUTPUT"
    assert call("join", "-o", out).exit_code == 2
    assert call("join", *parts).exit_code == 2
    assert not out.exists()
