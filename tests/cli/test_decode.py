"""`d3codec decode`: folders, arrays, sheets; what it refuses; Ctrl-C and the run after it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time

import numpy as np
import pytest
from cli.commands import COMMAND, answer, bare_file, call
from PIL import Image
from tiny_pipeline import make_file

from d3codec.decoder.plan import Extent
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile


@pytest.fixture
def here(tiny):
    """Options that make a decode independent of what this machine has."""
    return ["--generator", tiny.pipeline, "--device", "cpu"]


def digest_of_folder(folder):
    """The pixel digest of a decoded folder, from the numbers in its names."""
    paths = sorted(folder.glob("*/*.png"))
    digests = [hashlib.sha256(np.asarray(Image.open(path)).tobytes()).digest() for path in paths]
    return hashlib.sha256(b"".join(digests)).digest()


def test_a_folder_of_images(tiny, here, tmp_path):
    out = tmp_path / "out"
    result = call("decode", tiny.file, "-o", out, *here)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout
    assert "15 images" in result.stdout
    assert "decode: 15/15" in result.stderr
    names = [path.relative_to(out).as_posix() for path in sorted(out.glob("*/*.png"))]
    assert names == [f"{class_:05d}/{index:06d}.png" for class_ in range(3) for index in range(5)]
    classes = json.loads((out / "classes.json").read_text())
    assert [entry["name"] for entry in classes] == ["thing 0", "thing 1", "thing 2"]
    assert digest_of_folder(out) == D3MFile.open(tiny.file).about.pixels


def test_arrays_and_a_sheet(tiny, here, tmp_path):
    out, sheet = tmp_path / "out.npz", tmp_path / "sheet.png"
    facts = answer("decode", tiny.file, "-o", out, "--format", "npz", "--contact-sheet", sheet, *here, "-q")
    assert facts["images"] == 15
    assert facts["profile"] == "reproducible"
    with np.load(out) as arrays:
        assert arrays["images"].shape == (15, 8, 8, 3)
        assert arrays["classes"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    with Image.open(sheet) as picture:
        assert picture.height > 3 * 8


def test_a_sheet_alone(tiny, here, tmp_path):
    result = call("decode", tiny.file, "--contact-sheet", tmp_path / "sheet.png", *here, "-q")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_part_has_the_pixels_of_the_whole(tiny, here, tmp_path):
    call("decode", tiny.file, "-o", tmp_path / "whole", *here, "-q")
    result = call(
        "decode",
        tiny.file,
        "-o",
        tmp_path / "part",
        "--classes",
        "thing 2, 0",
        "--limit",
        "2",
        "--batch-size",
        "3",
        *here,
        "-q",
    )
    assert result.exit_code == 0
    part = tmp_path / "part"
    names = [path.relative_to(part).as_posix() for path in sorted(part.glob("*/*.png"))]
    assert names == ["00000/000000.png", "00000/000001.png", "00002/000000.png", "00002/000001.png"]
    for name in names:
        assert (part / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_fast_decode(tiny, here, tmp_path):
    fast = ["--profile", "fast", "--limit", "1", "--batch-size", "2"]
    facts = answer("decode", tiny.file, "-o", tmp_path / "out", *fast, *here, "-q")
    assert facts["profile"] == "fast"
    assert facts["images"] == 3


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_outputs_for_other_tools(tiny, here, tmp_path, format):
    facts = answer("decode", tiny.file, "-o", tmp_path / "out", "--format", format, *here, "-q")
    assert (facts["images"], facts["format"]) == (15, format)
    assert json.loads((tmp_path / "out" / "decode.json").read_text())["finished"] is True


def test_shards_and_their_join(tiny, here, tmp_path):
    call("decode", tiny.file, "-o", tmp_path / "whole", *here, "-q")
    parts = [tmp_path / f"part{number}" for number in range(2)]
    for number, part in enumerate(parts):
        facts = answer("decode", tiny.file, "-o", part, "--shard", f"{number}/2", *here, "-q")
        assert (facts["shard"], facts["images"]) == (f"{number}/2", (8, 7)[number])
    assert answer("join", *parts, "-o", tmp_path / "joined", "-q")["pixels"] == "proved"
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "joined" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_dry_run(tiny, here, tmp_path):
    facts = answer("decode", tiny.file, "--dry-run", *here, "-q")
    assert (facts["images"], facts["units"], facts["probe_images"], facts["refused"]) == (15, 2, 8, None)
    assert facts["hours"] > 0
    result = call("decode", tiny.file, "--dry-run", "--format", "npz", "-o", tmp_path / "out", *here)
    assert result.exit_code == 0
    assert "15 in 2 units, 1 of them in the cache" in result.stdout
    assert "as npz" in result.stdout
    assert "CPU hours" in result.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_what_is_cached_has_timed_nothing(tiny, here, tmp_path):
    call("decode", tiny.file, "-o", tmp_path / "out", *here, "-q")
    facts = answer("decode", tiny.file, "--dry-run", *here, "-q")
    assert (facts["seconds_per_image"], facts["hours"], facts["units_cached"]) == (None, 0.0, 2)
    small = call("decode", tiny.file, "--dry-run", *here, "--cache-gb", "0.000001")
    assert "cannot continue without --cache-gb 1" in small.stdout


def test_the_plan_is_made_once(tiny, here, tmp_path, monkeypatch):
    made, plan = [], Extent.plan
    monkeypatch.setattr(Extent, "plan", lambda extent: made.append(extent) or plan(extent))
    call("decode", tiny.file, "-o", tmp_path / "out", *here)
    assert len(made) == 1


def test_too_much_work_needs_a_yes(tiny, tmp_path):
    many = bare_file(tmp_path / "many.d3m", ipc=40_000, labels="h")
    facts = answer("decode", many, "-o", tmp_path / "out", code=2)
    assert (facts["field"], facts["found"], facts["expected"]) == ("budget", "120,000", "at most 100,000")
    assert "--yes" in facts["hint"]
    assert answer("decode", many, "--dry-run")["refused"].startswith(str(many))
    assert "refused" in call("decode", many, "--dry-run").stdout
    assert answer("decode", many, "-o", tmp_path / "out", "--yes", code=4)["error"] == "E_MISSING_GENERATOR"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("classes", "positions"), [("two", [2]), ("1", [1]), ("0, n2", [0, 1]), ("one,zero", [0, 1])])
def test_names_and_ids_come_before_positions(tmp_path, classes, positions):
    """Whole, and with spaces that a shell leaves."""
    from d3codec.decoder.choice import Choice

    def found(path, words):
        asked = [word.strip() for word in words.split(",")]
        return list(Choice.of(path, asked, None, None, None, "cpu").classes)

    path = bare_file(tmp_path / "named.d3m", names=("zero", "one", "two"), ids=("n0", "n2", "1x"))
    assert found(path, classes) == positions
    tricky = bare_file(tmp_path / "tricky.d3m", names=("2", "1", "0"))
    assert found(tricky, "2") == [0]
    both = bare_file(tmp_path / "both.d3m", names=("a", "b", "c"), ids=("b", "x", "y"))
    with pytest.raises(UsageError, match="is the id of another"):
        found(both, "b")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "say where to"),
        (["-o", "out", "--classes", "thinq 1"], 2, "There is: thing 1"),
        (["-o", "out", "--classes", "3"], 2, "no such class"),
        (["-o", "out", "--classes", ""], 2, "no such class"),
        (["-o", "full"], 1, "something else"),
        (["-o", "file"], 1, "a folder is needed"),
        (["-o", "full", "--format", "npz"], 1, "a file is needed"),
        (["-o", "file/below"], 1, "file"),
        (["-o", "/proc/no/out"], 1, "/proc/no"),
        (["--contact-sheet", "full"], 1, "full"),
        (["-o", "out", "--generator", "nowhere"], 4, "nowhere"),
        (["-o", "out", "--shard", "2/2"], 2, "counts from 0"),
        (["-o", "out", "--shard", "0/2", "--format", "npz"], 2, "a folder of pictures"),
        (["-o", "out", "--processes", "0"], 2, "--processes"),
        (["--dry-run", "--contact-sheet", "sheet.png"], 2, "--dry-run"),
        (["--dry-run", "-o", "full"], 1, "something else"),
        (["--dry-run", "-o", "file"], 1, "a folder is needed"),
        (["-o", "out", "--cache-gb", "inf"], 2, "--cache-gb"),
        (["-o", "out", "--cache-gb", "nan"], 2, "--cache-gb"),
    ],
)
def test_what_cannot_be_done_is_told(tiny, tmp_path, monkeypatch, arguments, code, message):
    """And leaves nothing behind, nor changes what is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me too")
    if "--generator" not in arguments:
        arguments = [*arguments, "--generator", tiny.pipeline]
    result = call("decode", tiny.file, *arguments, "--device", "cpu", "-q")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) <= 4
    assert "Traceback" not in result.output
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left - {"out/classes.json", "out/decode.json"} == {"full/letter.txt", "file"}
    assert (tmp_path / "full" / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("name", "code", "error"),
    [("none.d3m", 4, "E_MISSING_FILE"), (".", 2, "E_USAGE"), ("damaged.d3m", 3, "E_SECTION_CRC")],
)
def test_files_that_are_none(tiny, tmp_path, name, code, error):
    data = bytearray(tiny.file.read_bytes())
    data[D3MFile.open(tiny.file).head_bytes + 40] ^= 1
    (tmp_path / "damaged.d3m").write_bytes(data)
    facts = answer("decode", tmp_path / name, "-o", tmp_path / "out", "--generator", tiny.pipeline, code=code)
    assert facts["error"] == error
    assert not list((tmp_path / "out").glob("*/*.png"))


def test_ctrl_c_leaves_a_folder_that_the_next_run_finishes(tiny, tmp_path):
    """A real process, a real SIGINT in the middle."""
    file = make_file(tmp_path / "long.d3m", tiny.pipeline, ipc=100, steps=4, labels="h", pixels=False)
    out = tmp_path / "out"
    arguments = ["decode", file, "-o", out, "--generator", tiny.pipeline, "--device", "cpu", "--processes", "1"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/*.png"))) < 10:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert said == ""
    assert "the same command continues" in told
    assert "Traceback" not in told
    done = {path: path.stat().st_mtime_ns for path in out.glob("*/*.png")}
    assert 10 <= len(done) < 300
    assert json.loads((out / "decode.json").read_text())["finished"] is False

    result = call(*arguments, "-q")
    assert result.exit_code == 0, result.output
    assert len(list(out.glob("*/*.png"))) == 300
    assert json.loads((out / "decode.json").read_text())["finished"] is True
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was finished was not made again
    assert not list(out.rglob(".*"))
