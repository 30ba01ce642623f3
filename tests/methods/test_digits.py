"""The bundled generator distils the digits: small settings of what `make demo` does in full."""

from pathlib import Path

import numpy as np
import pytest

from d3codec.generators.weights import bundled_generator
from d3codec.methods.d3m import encode
from d3codec.sources import read_images

pytestmark = pytest.mark.skipif(not bundled_generator().is_dir(), reason="no bundled generator")


def test_learned_prompts_draw_their_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from d3codec.training.teachers import load_teacher, train_teacher

    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    train_teacher(read_images("digits:train"), tmp_path / "teacher.safetensors", side=16, steps=200)
    teacher = load_teacher(tmp_path / "teacher.safetensors")
    real = read_images("digits:test")
    assert (teacher(np.stack(real.images)).argmax(1) == real.labels).mean() > 0.93
    report = encode(
        "digits:train",
        tmp_path / "digits.d3m",
        teacher=tmp_path / "teacher.safetensors",
        ipc=2,
        crops=1,
        crop_scale=(1, 1),
        inversion_steps=40,
        label_step=1024,
        leaf_bytes=0,
    )
    options = report.options  # from the hints of the generator
    assert (options["template"], options["initial_token"]) == ("a collage of digit *", "digit")
    assert (options["steps"], options["guidance"], options["resolution"]) == (10, 2.0, 16)
    assert report.loss.end < 0.9 * report.loss.start
    assert report.agreement_percent > 90  # of 80 patches; chance is 10
    assert report.bytes_total < 1200
    assert report.head_bytes < 640  # names of processors differ in length
