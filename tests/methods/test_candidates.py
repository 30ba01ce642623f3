"""Encoding with several noises tried an image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from d3codec.conditioning import candidates as candidate_rows
from d3codec.decoder.verify import verify
from d3codec.encoder.pack import repack_hard
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.weights import bundled_generator
from d3codec.methods.d3m import encode

TEACHER = bundled_generator().parent / "digits-teacher.safetensors"
SHORT = {"inversion_steps": 2, "candidates": 4}


@pytest.fixture(scope="module")
def chosen(tiny: SimpleNamespace) -> SimpleNamespace:
    """An encode of the three greys with four noises tried an image, in the profile `exact`."""
    calls: list[tuple[str, int, int]] = []
    output = tiny.folder / "chosen.d3m"
    options = {**tiny.options, **SHORT}
    report = encode(tiny.images, output, **options, keep_work=True, progress=lambda *event: calls.append(event))
    return SimpleNamespace(output=output, report=report, options=options, calls=calls)


def test_the_file_holds_the_choices_and_proves_its_pixels(tiny: SimpleNamespace, chosen: SimpleNamespace) -> None:
    file = D3MFile.open(chosen.output)
    (group,) = file.content.groups
    assert (group.images.candidates, group.images.count) == (2, 4)
    assert [section["name"] for section in chosen.report.sections] == ["cls", "emb", "cnd", "lab", "x-leaf"]
    assert file.section_length("cnd", 0) == 3  # four choices of two bits a class
    choices = candidate_rows.unpack(file.section("cnd", 0), 3, 4, 2)
    assert (choices > 0).any()
    assert chosen.report.candidates.tried == 4
    assert chosen.report.candidates.changed_percent == pytest.approx(100 * (choices > 0).mean(), abs=1e-3)
    assert "4 noises tried an image" in chosen.report.as_text()
    assert verify(chosen.output, decode="all", generator=tiny.pipeline, device="cpu").pixels == "proved"
    assert tiny.report.candidates is None
    assert "noises" not in tiny.report.as_text()


def test_it_is_a_stage_of_its_own(chosen: SimpleNamespace) -> None:
    stages = list(dict.fromkeys(stage for stage, _, _ in chosen.calls))
    assert stages == ["select", "collage", "invert", "candidates", "measure", "decode", "relabel", "pack"]
    assert [event for event in chosen.calls if event[0] == "candidates"] == [
        ("candidates", done, 6) for done in range(1, 7)
    ]
    assert chosen.report.seconds["candidates"] > 0


@pytest.mark.parametrize("moment", [("candidates", 2), ("candidates", 6), ("decode", 1)])
def test_after_a_kill_it_ends_with_the_same_bytes(
    tiny: SimpleNamespace, chosen: SimpleNamespace, tmp_path: Path, moment: tuple[str, int]
) -> None:
    def killed(stage: str, done: int, _total: int) -> None:
        if (stage, done) == moment:
            raise KeyboardInterrupt

    output, tried = tmp_path / "resumed.d3m", []
    with pytest.raises(KeyboardInterrupt):
        encode(tiny.images, output, **chosen.options, save_seconds=0.0, progress=killed)
    encode(
        *(tiny.images, output),
        **chosen.options,
        progress=lambda stage, done, _total: tried.append(done) if stage == "candidates" else None,
    )
    assert tried == ([3, 4, 5, 6] if moment == ("candidates", 2) else [])
    assert output.read_bytes() == chosen.output.read_bytes()


def test_hard_labels_are_the_same_file_without_labels(tiny: SimpleNamespace, chosen: SimpleNamespace) -> None:
    hard = tiny.folder / "chosen-hard.d3m"
    encode(tiny.images, hard, **{**chosen.options, "labels": "hard"}, work=f"{chosen.output}.work", keep_work=True)
    assert hard.read_bytes() == repack_hard(chosen.output)
    assert D3MFile.open(hard).section("cnd", 0) == D3MFile.open(chosen.output).section("cnd", 0)


def test_other_numbers_are_other_work(tiny: SimpleNamespace, chosen: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match=r"candidates.*now 8.*4 as before"):
        encode(tiny.images, chosen.output, **{**chosen.options, "candidates": 8})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 3}, r"candidates: .*\(found 3, expected a power of two, 1 to 65536"),
        ({"candidates": 0}, r"candidates: .*\(found 0"),
        ({"candidates": -4}, r"candidates: .*\(found -4"),
        ({"candidates": 1 << 17}, r"candidates: .*\(found 131072, expected a power of two, 1 to 65536"),
        ({"candidates": 1 << 16, "ipc": 17}, r"candidates: .*\(found 65536, expected a power of two, 1 to 32768"),
    ],
)
def test_numbers_that_cannot_be_tried(
    tiny: SimpleNamespace, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        encode(tiny.images, tmp_path / "x.d3m", **{**tiny.options, **changes})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not bundled_generator().is_dir(), reason="no bundled generator")
def test_the_teacher_agrees_more_with_chosen_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from d3codec.decoder.plan import Plan
    from d3codec.decoder.units import decoded_units

    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))

    def distil(candidates: int) -> tuple[Path, Any]:
        output = tmp_path / f"{candidates}.d3m"
        return output, encode(
            "digits:train",
            output,
            teacher=TEACHER,
            ipc=2,
            steps=4,
            crops=1,
            crop_scale=(1, 1),
            patches_per_class=24,
            inversion_steps=4,
            profile="reproducible",
            labels="hard",
            leaf_bytes=0,
            candidates=candidates,
        )

    (_, without), (output, report) = distil(1), distil(4)
    file = D3MFile.open(output)
    assert file.section_length("cnd", 0) == 10  # two choices of two bits a class
    pixels = [images for _, images in decoded_units(file, Plan.of(file.content), profile="reproducible", device="cpu")]
    assert np.concatenate(pixels).shape == (20, 16, 16, 3)
    assert verify(output, decode="all", device="cpu").pixels == "proved"
    assert report.agreement_percent >= max(without.agreement_percent, report.candidates.first_agreement_percent)
    assert report.bytes_total <= without.bytes_total + 40
