"""Mistakes that are told before any work: wrong generators with a warm cache, outputs that hold something else."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from d3codec.cli.main import main
from d3codec.encoder.pack import read_recipe
from d3codec.errors import GeneratorError, OutputError
from d3codec.format.save import check_writable
from d3codec.generators.weights import bundled_generator
from d3codec.sources import read_images
from d3codec.training.demo import FILE, TEACHER


def run(*arguments, code):
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images, one of them broken."""
    for label in ("00000", "00001"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 40 * number + 100 * int(label), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    (tmp_path / "images" / "00001" / "2.png").write_bytes(b"no picture")
    return tmp_path / "images"


def test_a_wrong_generator_is_told_although_all_pixels_are_cached(tmp_path):
    run("decode", FILE, "-o", tmp_path / "a", "--classes", "zero", "--limit", "1", code=0)
    assert (
        run("decode", FILE, "-o", tmp_path / "b", "--generator", tmp_path, "--classes", "zero", "--limit", "1", code=4)[
            "error"
        ]
        == "E_MISSING_GENERATOR"
    )
    other = tmp_path / "other"
    shutil.copytree(bundled_generator(), other)
    config = other / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_eps": 1e-3}))
    assert (
        run("decode", FILE, "-o", tmp_path / "c", "--generator", other, "--classes", "zero", "--limit", "1", code=3)[
            "error"
        ]
        == "E_GENERATOR"
    )


def test_a_contact_sheet_replaces_pictures_only(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert run("decode", FILE, "--contact-sheet", notes, code=1)["error"] == "E_OUTPUT"
    assert notes.read_text() == "mine"
    inside = run("decode", FILE, "-o", tmp_path / "out", "--contact-sheet", tmp_path / "out" / "sheet.png", code=2)
    assert inside["field"] == "contact_sheet"
    assert not (tmp_path / "out").exists()


def test_a_teacher_needs_two_classes_and_a_free_place(tmp_path, folder):
    assert "broken" not in run("train-teacher", folder, "-o", tmp_path / "t", code=1)["message"]
    skipped = run("train-teacher", folder, "-o", tmp_path / "t", "--on-error", "skip", "--steps", "2", code=0)[
        "skipped"
    ]
    assert len(skipped) == 1
    assert "2.png: not an image" in skipped[0]
    shutil.rmtree(folder / "00001")
    assert "one class" in run("train-teacher", folder, "-o", tmp_path / "u", code=1)["message"]
    (tmp_path / "notes.txt").write_text("mine")
    assert run("train-teacher", "digits:train", "-o", tmp_path / "notes.txt", code=1)["error"] == "E_OUTPUT"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_report_does_not_replace_the_output(tmp_path):
    common = ("encode", "digits:train", "--teacher", TEACHER, "--ipc", "1", "-o", tmp_path / "a.d3m")
    assert run(*common, "--report", tmp_path / "a.d3m", code=2)["field"] == "report"
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*common, "--report", tmp_path / "notes.txt", code=1)["error"] == "E_OUTPUT"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_some_classes_of_a_decode_are_read_back_under_their_names(tmp_path):
    run("decode", FILE, "-o", tmp_path / "out", "--classes", "one,three", "--limit", "1", code=0)
    images = read_images(tmp_path / "out")
    assert images.class_names == ("one", "three")
    assert images.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "change", [{"trained_betas": [0.1] * 1000}, {"rescale_betas_zero_snr": True}, {"clip_sample": True}]
)
def test_a_schedule_that_cannot_be_stated_is_refused(tmp_path, change):
    (tmp_path / "scheduler").mkdir()
    config = json.loads((bundled_generator() / "scheduler" / "scheduler_config.json").read_text())
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    assert read_recipe(tmp_path, 2.0, 10).steps == 10
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | change))
    with pytest.raises(GeneratorError, match=next(iter(change))):
        read_recipe(tmp_path, 2.0, 10)


def test_check_writable(tmp_path):
    check_writable(tmp_path / "new", lambda start: False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="folder"):
        check_writable(tmp_path, lambda start: True)
    with pytest.raises(OutputError, match="no such folder"):
        check_writable(tmp_path / "a" / "b", lambda start: True)
    (tmp_path / "there").write_bytes(b"theirs")
    with pytest.raises(OutputError, match="another kind"):
        check_writable(tmp_path / "there", lambda start: start == b"ours")
    check_writable(tmp_path / "there", lambda start: start == b"theirs")
    assert (tmp_path / "there").read_bytes() == b"theirs"
