"""`d3codec verify`: exit codes, messages, JSON."""

from __future__ import annotations

import json
import shutil

import pytest
from cli.commands import answer, bare_file, call
from tiny_pipeline import make_file

from d3codec.format.file import D3MFile
from d3codec.format.manifest import About


@pytest.fixture
def damaged(bare):
    path = bare.with_name("damaged.d3m")
    data = bytearray(bare.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def test_a_good_file(bare):
    result = call("verify", bare)
    assert result.exit_code == 0
    assert result.stdout == f"{bare}: good, content id {D3MFile.open(bare).content_id}\n"
    facts = answer("verify", bare)
    assert facts["content_id"] == D3MFile.open(bare).content_id
    assert facts["pixels"] == "not checked"
    assert "error" not in facts


def test_a_damaged_file(damaged):
    result = call("verify", damaged)
    assert result.exit_code == 3
    assert "E_SECTION_CRC" in result.stdout
    assert "error: " in result.stderr
    assert str(damaged) in result.stderr
    facts = answer("verify", damaged, code=3)
    assert facts["error"] == "E_SECTION_CRC"
    assert "content_id" not in facts


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:20], "E_SHORT"),
        (lambda data: b"GIF89a" + data[6:], "E_MAGIC"),
        (lambda data: data[:-1], "E_LENGTH"),
        (lambda data: data + b"\0", "E_LENGTH"),
        (lambda data: data[:40] + b"\xff" + data[41:], "E_HEAD_CRC"),
        (lambda data: b"", "E_SHORT"),
    ],
)
def test_damage_anywhere_is_3_with_its_code(bare, change, error):
    bare.write_bytes(change(bare.read_bytes()))
    assert answer("verify", bare, code=3)["error"] == error


def test_what_is_not_there_is_4(tmp_path):
    assert answer("verify", tmp_path / "none.d3m", code=4)["error"] == "E_MISSING_FILE"
    result = call("verify", tmp_path / "none.d3m")
    assert result.exit_code == 4
    assert "no such file" in result.stderr


def test_a_folder_is_misuse(tmp_path):
    assert answer("verify", tmp_path, code=2)["error"] == "E_USAGE"


def test_several_files_and_the_worst_code(bare, damaged, tmp_path):
    none = tmp_path / "none.d3m"
    result = call("verify", bare, none, damaged, "--json")
    assert result.exit_code == 3
    facts = [json.loads(line) for line in result.stdout.splitlines()]
    assert [fact["file"] for fact in facts] == [str(bare), str(none), str(damaged)]
    assert [fact.get("error") for fact in facts] == [None, "E_MISSING_FILE", "E_SECTION_CRC"]
    assert call("verify", bare, none).exit_code == 4
    assert call("verify", bare, bare).exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["--decode"], ["--decode", "some"], ["--decode", "0"], ["--decode", "-1"], ["--decode", "1.5"], []]
)
def test_decode_takes_a_value(bare, arguments):
    files = [bare] if arguments else []
    result = call("verify", *files, *arguments)
    assert result.exit_code == 2
    assert "--decode" in result.stderr or "FILE" in result.stderr


def test_pixels_proved(tiny):
    here = ("--generator", tiny.pipeline, "--device", "cpu")
    facts = answer("verify", tiny.file, "--decode", "all", *here, "-q")
    assert facts["pixels"] == "proved"
    assert facts["images_checked"] == 15
    result = call("verify", tiny.file, "--decode", "2", *here)
    assert result.exit_code == 0
    assert "sampled" in result.stdout
    assert "decode" in result.stderr  # progress


def test_too_much_work_needs_a_yes(tmp_path):
    about = About(pixels=bytes(32), fingerprint="here")
    many = bare_file(tmp_path / "many.d3m", about=about, ipc=40_000, labels="h")
    facts = answer("verify", many, "--decode", "all", code=2)
    assert (facts["field"], facts["found"], facts["expected"]) == ("budget", "120,000", "at most 100,000")
    assert answer("verify", many, "--decode", "all", "--yes", "-q", code=4)["error"] == "E_MISSING_GENERATOR"


def test_nothing_to_compare_with_is_good_with_a_warning(tiny, tmp_path):
    path = make_file(tmp_path / "plain.d3m", tiny.pipeline, ipc=1, pixels=False)
    result = call("verify", path, "--decode", "all", "--generator", tiny.pipeline, "--device", "cpu")
    assert result.exit_code == 0
    assert "unproved" in result.stdout
    assert "warning: " in result.stderr
    assert answer("verify", path, "--decode", "all", "-q")["pixels"] == "unproved"


def test_no_generator_is_4_and_a_wrong_one_3(bare, tiny, tmp_path):
    path = make_file(tmp_path / "other.d3m", tiny.pipeline, ipc=1)
    moved = shutil.copytree(tiny.pipeline, tmp_path / "other")
    result = call("verify", path, "--decode", "1", "--device", "cpu")
    assert result.exit_code == 4
    assert "--generator" in result.stderr
    weights = next((moved / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    facts = answer("verify", path, "--decode", "1", "--generator", moved, "--device", "cpu", "-q", code=3)
    assert facts["error"] == "E_GENERATOR"
