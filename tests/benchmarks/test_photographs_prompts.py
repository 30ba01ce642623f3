"""The benchmark of prompts on photographs: what chooses the guidance, files that differ in one thing, rows."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("scipy")

from photograph_case import make_prompted, photographs

from d3codec.format.file import D3MFile
from d3codec.sources import LabelledImages
from d3codec.training.ensemble import train_ensemble

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    material, parts, rows, selection = (
        importlib.import_module(f"photographs_parts.{name}") for name in ("material", "prompts", "rows", "selection")
    )
    photographs_script = importlib.import_module("photographs")
    script = importlib.import_module("photographs_prompts")
finally:
    sys.path.remove(str(BENCHMARKS))

SIDE = 8


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Three classes of small photographs, a teacher, a generator of 8 pixels and photographs of its words a to d, of
    which those of a class are darker than its own by little, and d is black."""
    folder = tmp_path_factory.mktemp("prompts")
    images = photographs(12, SIDE)
    part = material.Part(np.stack(images.images), images.labels)
    known = material.Material("small", "Small", SIDE, images.class_names, part.images, part, part, part)
    teacher = train_ensemble(images, folder / "teacher", side=SIDE, members=1, steps=30)
    order = [2, 0, 1]  # the word b is like class 0, and so on
    dark = [np.clip(part.images[images.labels == label].astype(int) - 4, 0, 255).astype(np.uint8) for label in order]
    words = np.concatenate([*dark, np.zeros_like(dark[0])])
    vocabulary = LabelledImages(words, np.repeat(np.arange(4), 12), ("a", "b", "c", "d"), "words")
    return parts.Prompts(
        selection.Selection(known, teacher),
        make_prompted(folder / "generator"),
        lambda: vocabulary,
        folder / "files",
        {"resolution": SIDE, "inversion_steps": 2},
    )


@pytest.fixture(scope="module", autouse=True)
def few_images():
    """Three images a class and two noises each instead of forty and eight."""
    with pytest.MonkeyPatch.context() as patch:
        for place in (parts, script):
            patch.setattr(place, "GENERATED_IPC", 3 if place is parts else 4)
            patch.setattr(place, "CANDIDATES", 2)
        yield


def row(guidance, validation, agreement, test):
    return {
        "settings": {"guidance": guidance},
        "validation_percent": validation,
        "accuracy_percent": test,
        "found": {"agreement_percent": agreement},
    }


def test_students_on_validation_images_choose_the_guidance():
    """Not the teacher, nor the test images; of equal ones the lowest, in whatever order they were measured."""
    found = [row(3.0, 30.0, 80.0, 31.0), row(2.0, 35.0, 50.0, 33.0), row(1.0, 35.0, 40.0, 30.0), row(4.0, 20.0, 90, 50)]
    assert script.chosen_guidance(found) == 1.0
    assert script.chosen_guidance(found[:2]) == 2.0
    told = script.choice(found[:2], 3.0)
    assert (told["chosen"], told["by_agreement_with_the_teacher"], told["of_the_package"]) == (2.0, 3.0, 3.0)


def test_files_differ_in_what_a_row_is_about(prompts):
    """Same prompts at every guidance; words and neutral prompts in the same template; noises as asked for."""

    def made(**changes):
        settings = {"prompt": "learned", "guidance": 2.0, "candidates": 1, "noise_key": 0, "learning_seed": 0}
        stored = prompts.store(settings | changes, 0)
        name = "-".join(str(value).replace(" ", "-") for value in (settings | changes).values())
        file = D3MFile.open(prompts.folder / f"{name}.d3m")
        assert stored.size == file.bytes_total
        assert stored.images == 9
        assert stored.groups[0].images.shape[1:] == (SIDE, SIDE, 3)
        assert 0 <= stored.found["agreement_percent"] <= 100
        return SimpleNamespace(file=file, group=file.content.groups[0], **vars(stored))

    first, plain, best = made(), made(guidance=1.0), made(candidates=2)
    assert {each.file.section("emb", 0) for each in (first, plain, best)} == {first.file.section("emb", 0)}
    assert (first.group.recipe.guidance, plain.group.recipe.guidance) == (2_000_000, 1_000_000)
    assert first.group.conditioning.negative is not None
    assert plain.group.conditioning.negative is None
    assert (first.group.images.candidates, best.group.images.candidates) == (None, 1)
    assert best.size > first.size

    near, neutral = made(prompt="nearest name"), made(prompt="neutral")
    assert list(near.found["words"].values()) == ["b", "c", "a"]
    fillers = np.frombuffer(neutral.file.section("wrd", 0), "<u2")
    assert set(fillers) == {first.group.conditioning.padding[0]}
    assert near.group.conditioning.template == first.group.conditioning.template

    other, again = made(noise_key=1), made(learning_seed=1)
    assert other.group.noise_key == 1
    assert other.file.section("emb", 0) == first.file.section("emb", 0)
    assert again.file.section("emb", 0) != first.file.section("emb", 0)
    pictures = {each.groups[0].images.tobytes() for each in (first, plain, near, neutral, other, again)}
    assert len(pictures) == 6


def test_a_whole_run_and_what_its_rows_say(prompts, tmp_path, monkeypatch):
    """The chosen guidance goes into all later rows, and a second run measures nothing."""
    validated = {1.0: 20.0, 2.0: 50.0, 3.0: 40.0}
    stored = []

    class Measured(rows.Bench):
        """Training is left out where the guidance is chosen."""

        def _run(self, of, seed):
            return super()._run(of, seed) | ({"validation": validated[stored[-1]]} if len(stored) <= 3 else {})

    def store(_self, settings, draw):
        stored.append(settings["guidance"])
        pool = prompts.selection.material.pool
        group = rows.PhotoGroup(pool.images[:9], pool.labels[:9])
        return rows.Stored((group,), 100, {"agreement_percent": 10 * settings["guidance"]})

    monkeypatch.setattr(parts.Prompts, "store", store)
    start = json.loads(json.dumps(photographs_script.about(prompts.selection, 2)))
    start |= {"not_measured": script.NOT_MEASURED}
    bench, output = Measured(prompts.selection, tmp_path / "rows", seeds=2, steps=2), tmp_path / "result.json"
    shown = []
    script.measure(bench, prompts, start, output, lambda row: shown.append(script.line(row)))
    result = json.loads(output.read_text())
    assert result["guidance"]["chosen"] == 2.0
    assert result["guidance"]["by_agreement_with_the_teacher"] == 3.0
    assert result["not_measured"][0]["reason"]
    assert len(shown) == len(result["rows"]) == 10  # the hints of the generator and the students name one guidance
    keys = {"dataset", "side", "budget", "bytes", "name", "role", "labels", "protocol", "accuracy_percent", "runs"}
    for each in result["rows"]:
        assert set(each) >= keys | {"spread", "validation_percent", "settings", "found"}
        assert (each["labels"], each["protocol"], each["runs"]) == ("hard", "H", 2)
        assert each["budget"] == (script.BUDGET if each["role"] == "d3m" else None)
        assert each["role"] in ("d3m", "control", "reference")
        assert "agreement_percent" in each["found"]
    assert {each["settings"].get("guidance", 2.0) for each in result["rows"][3:]} == {2.0}
    real = [each for each in result["rows"] if each["role"] == "reference"]
    assert [each["images"] for each in real] == [12, 3]
    stored.clear()
    script.measure(bench, prompts, start, output, lambda row: None)
    assert stored == []
    assert json.loads(output.read_text()) == result
