"""`d3codec train-teacher`, `encode`, `evaluate` on tiny images, one after the other as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.commands import answer, call, greys
from photograph_case import NAMES, make_autoencoder, photographs, save_images
from PIL import Image

from d3codec.format.file import D3MFile
from d3codec.methods import sized
from d3codec.training import ensemble

FEW = [
    "--template",
    "a *",
    "--initial-token",
    "b",
    "--guidance",
    "2",
    "--steps",
    "3",
    "--resolution",
    "8",
    "--inversion-steps",
    "4",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return greys(tmp_path_factory.mktemp("greys") / "images")


@pytest.fixture(scope="module")
def teacher(images):
    path = images.parent / "teacher.safetensors"
    result = call("train-teacher", images, "-o", path, "--steps", "40", "--side", "16")
    assert result.exit_code == 0, result.output
    assert str(path) in result.stdout
    assert "27 images, 40 steps" in result.stdout
    return path


def test_a_teacher_in_json(images, tmp_path):
    path = tmp_path / "t.safetensors"
    facts = answer("train-teacher", images, "-o", path, "--steps", "2", "--seed", "3", "-q")
    assert facts["path"] == str(path)
    assert (facts["steps"], facts["seed"], facts["classes"]) == (2, 3, 3)
    assert facts["bytes"] == path.stat().st_size


def test_encode_and_what_it_reports(images, teacher, tiny, tmp_path):
    out, report = tmp_path / "greys.d3m", tmp_path / "report.json"
    result = call(
        "encode",
        images,
        "-o",
        out,
        "--method",
        "d3m",
        "--generator",
        tiny.pipeline,
        "--ipc",
        "2",
        "--teacher",
        teacher,
        *FEW,
        "--licence",
        "CC0-1.0",
        "--source",
        "greys",
        "--report",
        report,
    )
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout
    assert "invert" in result.stderr  # progress
    assert not (tmp_path / "greys.d3m.work").exists()
    file = D3MFile.open(out)
    assert json.loads(report.read_text())["content_id"] == file.content_id
    assert [record.name for record in file.class_records()] == ["a", "b", "c"]
    assert (file.about.licence, file.about.source, file.about.method) == ("CC0-1.0", "greys", "d3m")
    facts = answer("info", out)
    assert (facts["classes"], facts["images_per_class"], facts["label_kind"]) == (3, 2, "adaptive")
    proof = answer("verify", out, "--decode", "all", "--generator", tiny.pipeline, "--device", "cpu", "-q")
    assert proof["pixels"] == "proved"

    for protocol in ("H", "S0", "S1"):
        found = answer(
            "evaluate",
            out,
            "--test",
            images,
            "--protocol",
            protocol,
            "--runs",
            "1",
            "-q",
            "--steps",
            "3",
            "--generator",
            tiny.pipeline,
            "--device",
            "cpu",
            "--processes",
            "1",
        )
        assert (found["protocol"], found["runs"], found["steps"]) == (protocol, 1, 3)
        assert 0 <= found["accuracy_percent"] <= 100
    result = call(
        "evaluate",
        out,
        "--test",
        images,
        "--protocol",
        "H",
        "--runs",
        "2",
        "--steps",
        "2",
        "--processes",
        "1",
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert "2 runs" in result.stdout
    assert "students: 2/2" in result.stderr


def test_every_option_reaches_the_encoder(images, teacher, tiny, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("n1\nn2\nn3\n")
    work = tmp_path / "work"
    facts = answer(
        "encode",
        images,
        "-o",
        tmp_path / "x.d3m",
        "--generator",
        tiny.pipeline,
        "--teacher",
        teacher,
        "--ipc",
        "1",
        *FEW,
        "--grid",
        "1",
        "--cast",
        "stored",
        "--bits",
        "3",
        "--labels",
        "hard",
        "--noise-key",
        str(2**64 - 1),
        "--candidates",
        "2",
        "--crops",
        "1",
        "--crop-scale",
        "1",
        "1",
        "--patches-per-class",
        "5",
        "--inversion-batch",
        "6",
        "--learning-rate",
        "0.05",
        "--seed",
        "4",
        "--leaf-bytes",
        "0",
        "--class-ids",
        ids,
        "--authority",
        "ours",
        "--work",
        work,
        "--keep-work",
        "--restart",
        "--on-error",
        "skip",
        "-q",
    )
    file = D3MFile.open(tmp_path / "x.d3m")
    (group,) = file.content.groups
    assert group.images.grid == (1, 1)
    assert (group.cast, group.conditioning.bits, group.labels.kind) == ("stored", 3, "h")
    assert group.noise_key == 2**64 - 1
    assert (group.images.candidates, facts["candidates"]["tried"]) == (1, 2)
    assert [record.id for record in file.class_records()] == ["n1", "n2", "n3"]
    assert file.content.classes.authority == "ours"
    assert file.about.ancillary is None
    assert work.is_dir()
    options = facts["options"]
    assert (options["crops"], options["crop_scale"], options["patches_per_class"]) == (1, [1.0, 1.0], 5)
    assert (options["inversion_batch"], options["learning_rate"], options["seed"]) == (6, 0.05, 4)
    result = call(
        "evaluate",
        tmp_path / "x.d3m",
        "--test",
        images,
        "--protocol",
        "S0",
        "--generator",
        tiny.pipeline,
        "--device",
        "cpu",
        "-q",
    )
    assert result.exit_code == 2
    assert "hard labels" in result.stderr


def test_kinds_and_bytes_of_labels(images, teacher, tiny, tmp_path):
    out, common = tmp_path / "x.d3m", ["--generator", tiny.pipeline, "--teacher", teacher, "--ipc", "1", *FEW, "-q"]
    found = answer(
        *("encode", images, "-o", out, *common, "--labels", "top-k", "--label-bytes", "9"), *("--bits", "2.5")
    )
    assert (found["labels"], found["options"]["label_bytes"], found["options"]["bits"]) == ("top-k", 9.0, 2.5)
    (group,) = D3MFile.open(out).content.groups
    assert (group.labels.kind, group.labels.k, group.conditioning.coded) == ("t", 2, True)
    facts = answer("info", out, "--labels")
    assert set(facts["kl_nats"]) == {"1", "4", "20"}
    assert facts["groups"][0]["codec"] == "top-k"
    assert float(facts["kl_nats"]["1"]) == pytest.approx(found["label_kl_nats"], rel=1e-3)
    step = answer("encode", images, "-o", out, *common, "--label-step", "300")
    assert (step["labels"], step["label_step"]) == ("int8", 300)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--teacher", "none.safetensors"], 1, "none.safetensors"),
        (["--teacher", "no.such.module:teacher"], 1, "no.such.module"),
        (["--generator", "no/such"], 4, "no/such"),
        (["--grid", "3"], 2, "resolution"),
        (["--bits", "9"], 2, "--bits"),
        (["--bits", "2.5", "--fixed-width"], 2, "bits"),
        (["--labels", "quantized"], 2, "--labels"),
        (["--labels", "int8", "--label-bytes", "3"], 2, "label_bytes"),
        (["--labels", "top-k", "--label-step", "3"], 2, "label_step"),
        (["--label-bytes", "0"], 2, "--label-bytes"),
        (["--ipc", "0"], 2, "--ipc"),
        (["--candidates", "6"], 2, "candidates: out of range (found 6, expected a power of two"),
        (["-o", "no/folder/x.d3m"], 1, "no/folder"),
        (["--class-ids", "none.txt"], 2, "none.txt"),
    ],
)
def test_what_cannot_be_encoded_is_told(images, teacher, tiny, tmp_path, monkeypatch, change, code, message):
    monkeypatch.chdir(tmp_path)
    result = call(
        "encode",
        images,
        "-o",
        "x.d3m",
        *(() if "--generator" in change else ("--generator", tiny.pipeline)),
        "--teacher",
        teacher,
        "--ipc",
        "2",
        *FEW,
        *change,
        "-q",
    )
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_images_that_cannot_be_used(images, teacher, tiny, tmp_path):
    broken = greys(tmp_path / "broken")
    (broken / "b" / "bad.jpg").write_bytes(b"\xff\xd8 not much of a JPEG")
    common = ["--generator", tiny.pipeline, "--teacher", teacher, "--ipc", "1", *FEW, "-q"]
    result = call("encode", broken, "-o", tmp_path / "x.d3m", *common)
    assert result.exit_code == 1
    assert "bad.jpg" in result.stderr
    facts = answer("encode", broken, "-o", tmp_path / "x.d3m", *common, "--on-error", "skip")
    assert len(facts["skipped"]) == 1
    assert "bad.jpg" in facts["skipped"][0]
    result = call("train-teacher", tmp_path / "nothing", "-o", tmp_path / "t.safetensors")
    assert result.exit_code == 1
    assert str(tmp_path / "nothing") in result.stderr


# ------------------------------------------------------------------------------------------------------- to a size


SIZED = ["--resolution", "16", "--processes", "1", "--device", "cpu", "--teacher", "photograph_case:colour_teacher"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return save_images(photographs(count=6, side=16), tmp_path_factory.mktemp("photos") / "images")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return make_autoencoder(tmp_path_factory.mktemp("autoencoder") / "tiny")


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """An empty Hugging Face cache."""
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def test_a_file_of_a_size(photos, autoencoder, hub, tmp_path):
    out, report = tmp_path / "x.d3m", tmp_path / "x.json"
    result = call("encode", photos, "--bytes", "520", "-o", out, "--generator", autoencoder, *SIZED, "--report", report)
    assert result.exit_code == 0, result.output
    assert out.stat().st_size <= 520
    assert "520 bytes, latents" in result.stdout
    assert "<- chosen" in result.stdout
    assert "too few images to hold some out" in result.stdout
    assert json.loads(report.read_text())["bytes_total"] == out.stat().st_size
    facts = answer("info", out)
    assert (facts["method"], facts["profile"], facts["label_kind"]) == ("latents", "exact", "adaptive")
    proof = answer("verify", out, "--decode", "all", "--generator", autoencoder, "--device", "cpu", "-q")
    assert proof["pixels"] == "proved"
    images = answer("decode", out, "-o", tmp_path / "out", "--generator", autoencoder, "--device", "cpu", "-q")
    assert images["images"] == facts["images"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.d3m", "x.json"]


def test_options_of_a_file_of_a_size(photos, hub, tmp_path):
    facts = answer(
        *("encode", photos, "--bytes", "2000", "-o", tmp_path / "x.d3m", *SIZED, "--method", "images", "--ipc", "2"),
        *("--labels", "hard", "--licence", "CC0-1.0", "--source", "a test", "--keep-work", "-q"),
        *("--work", tmp_path / "work"),
    )
    assert (facts["method"], facts["images_per_class"], facts["labels"]) == ("images", 2, "hard")
    assert (tmp_path / "work").is_dir()
    info = answer("info", tmp_path / "x.d3m")
    assert (info["licence"], info["source"], info["label_kind"]) == ("CC0-1.0", "a test", "hard")


def test_the_default_is_what_a_newcomer_has(photos, hub, tmp_path, monkeypatch):
    """No generator and no teacher: three networks are trained, images are stored, and the gain is named."""
    monkeypatch.setattr(ensemble, "teacher_steps", lambda count: 10)  # 400 take a while
    out = tmp_path / "x.d3m"
    result = call("encode", photos, "--bytes", "900", "-o", out, "--resolution", "16", "--processes", "1", "--ipc", "1")
    assert result.exit_code == 0, result.output
    assert "no teacher was given: three small networks were trained" in result.stdout
    assert "no autoencoder: with one, files of this size train better students" in result.stdout
    assert "d3codec generators fetch taesd3" in result.stdout
    assert "teachers: 30/30" in result.stderr
    assert out.stat().st_size <= 900


def test_too_small_a_size_names_the_least(photos, autoencoder, hub, tmp_path):
    out = tmp_path / "x.d3m"
    for options in (["--generator", autoencoder], []):
        asked = ["encode", photos, "-o", out, *SIZED, *options]
        facts = answer(*asked, "--bytes", "90", "-q", code=2)
        assert (facts["error"], facts["field"], facts["found"]) == ("E_USAGE", "bytes", 90)
        assert not out.exists()
        least = facts["expected"].removeprefix("at least ")
        result = call(*asked, "--bytes", least)
        assert result.exit_code == 0, result.output
        assert out.stat().st_size == int(least)
        assert [path.name for path in tmp_path.iterdir()] == ["x.d3m"]
        out.unlink()


def test_collages_of_real_patches(photos, hub, tmp_path):
    out = tmp_path / "x.d3m"
    asked = ["encode", photos, "-o", out, "--method", "rded", "--teacher", "photograph_case:colour_teacher", "--ipc"]
    result = call(*asked, "1", "--image-format", "png")
    assert result.exit_code == 0, result.output
    assert "select: 3/3" in result.stderr
    facts = answer("info", out)
    assert (facts["method"], facts["profile"]) == ("rded", "exact")
    assert facts["groups"][0]["recipe"] == "stored images, PNG sheets of 3 in 2 columns"
    assert answer("verify", out, "--decode", "all")["pixels"] == "proved"
    small = answer(*asked, "1", "--bytes", "700", "--image-format", "webp", "--grid", "1", "--crops", "2", "-q")
    assert small["bytes_total"] == out.stat().st_size <= 700
    assert answer(*asked, "1", "--bytes", "100", "-q", code=2)["field"] == "bytes"
    facts = answer(*asked, "2", "-q", code=1)
    assert (facts["error"], facts["field"], facts["found"]) == ("E_IMAGES", "ash", "6 images")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--method", "latents"], 2, "--method latents needs --bytes"),
        (["--method", "images"], 2, "--method images needs --bytes"),
        (["--method", "rded"], 2, "--teacher must be given"),
        (["--ipc", "2"], 2, "--teacher must be given"),
        (["--bytes", "900", "--grid", "2"], 2, "--grid is of no use here"),
        (["--bytes", "900", "--quality", "2"], 2, "--quality is of no use here"),
        (["--bytes", "0"], 2, "--bytes"),
        (["--bytes", "900", "--method", "latents"], 4, "d3codec generators fetch taesd3"),
        (["--bytes", "900", "--method", "d3m"], 4, "Stable Diffusion"),
        (["--bytes", "900", "--generator", "taesd3"], 4, "d3codec generators fetch taesd3"),
        (["--bytes", "900", "--resolution", "33"], 2, "resolution"),
        (["--bytes", "900", "--profile", "exact-fixed"], 2, "profile"),
        (["--bytes", "900", "--ipc", "7"], 1, "'ash' has too few images (found 6 images, expected at least 7"),
        (["--generator", "a", "--generator", "b"], 2, "one --generator"),
        (["--method", "rded", "--teacher", "t", "--ipc", "1", "--generator", "a"], 2, "--generator is of no use here"),
        (["--method", "rded", "--teacher", "t", "--ipc", "1", "--inversion-steps", "1"], 2, "--inversion-steps is of"),
    ],
)
def test_mistakes_are_told_before_the_work(options, code, message, photos, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("encode", photos, "-o", "x.d3m", *options, "-q")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert "fault of d3codec" not in result.output
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- strange images


def strange(folder: Path) -> Path:
    """The classes of `photographs` in all kinds of files, three of each."""
    for image, label in zip(
        *(getattr(photographs(count=3, side=48), name) for name in ("images", "labels")), strict=True
    ):
        for number, kind in enumerate(("grey", "cmyk", "alpha", "palette", "turned", "wide", "sixteen")):
            path = folder / NAMES[label] / f"{kind}-{image[0, 0, 0]}-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            one = Image.fromarray(image)
            if kind == "grey":
                one.convert("L").save(f"{path}.png")
            elif kind == "cmyk":
                one.convert("CMYK").save(f"{path}.jpg", quality=95)
            elif kind == "alpha":
                one.putalpha(Image.fromarray(image[..., 0]))
                one.save(f"{path}.png")
            elif kind == "palette":
                one.quantize(64).save(f"{path}.gif")
            elif kind == "turned":
                exif = Image.Exif()
                exif[0x0112] = 6
                one.crop((0, 0, 48, 20)).save(f"{path}.jpg", exif=exif, quality=95)
            elif kind == "wide":
                one.resize((301, 7)).save(f"{path}.webp", lossless=True)
            else:
                Image.fromarray(image[..., 1].astype(np.uint16) * 257).save(f"{path}.tif")
    return folder


def test_images_of_all_kinds(hub, tmp_path):
    folder, out = strange(tmp_path / "images"), tmp_path / "x.d3m"
    for options in (["--bytes", "3000", "--ipc", "18", *SIZED], ["--method", "rded", "--ipc", "4", "--grid", "1",
                    "--teacher", "photograph_case:colour_teacher", "--resolution", "16"]):  # fmt: skip
        result = call("encode", folder, "-o", out, *options, "-q")
        assert result.exit_code == 0, result.output
        assert answer("verify", out, "--decode", "all")["pixels"] == "proved"


def test_truncated_images_are_refused_or_skipped(photos, hub, tmp_path):
    broken = save_images(photographs(count=6, side=16), tmp_path / "images")
    victim = next((broken / "birch").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-90])
    (broken / "ash" / "note.jpg").write_bytes(b"not an image")
    out = tmp_path / "x.d3m"
    for asked in (["--bytes", "900", "--ipc", "1", *SIZED], ["--method", "rded", "--grid", "1", "--ipc", "1",
                  "--teacher", "photograph_case:colour_teacher"]):  # fmt: skip
        facts = answer("encode", broken, "-o", out, *asked, "-q", code=1)
        assert (facts["error"], Path(facts["file"]).name) == ("E_IMAGES", "note.jpg")
        assert not out.exists()
        result = call("encode", broken, "-o", out, *asked, "--on-error", "skip", "-q")
        assert result.exit_code == 0, result.output
        assert "skipped 2 unreadable files, the first:" in result.stdout
        out.unlink()


def test_a_large_image_takes_little_memory(photos, hub, tmp_path):
    """30 megapixels as JPEG are decoded at an eighth; the peak is that of the process that reads it."""
    folder = save_images(photographs(count=2, side=16), tmp_path / "images")
    rows, columns = np.mgrid[:5000, :6000].astype(np.uint16) // 40
    large = np.stack([rows, columns, rows + columns], 2).astype(np.uint8)
    Image.fromarray(large).save(folder / "ash" / "large.jpg")
    code = (
        "import resource\n"
        "from d3codec.sources import read_images\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"images = read_images({str(folder)!r}, max_side=128).images\n"
        "print(max(image.shape[1] for image in images))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    width, kilobytes = map(int, result.stdout.split())
    assert width == 128
    assert kilobytes < 40_000  # its pixels alone are 90 MB
    asked = ["--bytes", "900", "--ipc", "1", *SIZED, "-q"]
    assert call("encode", folder, "-o", tmp_path / "x.d3m", *asked).exit_code == 0


def test_another_autoencoder_and_none(photos, autoencoder, hub, tmp_path):
    out = tmp_path / "x.d3m"
    asked = ["--bytes", "520", "--ipc", "1", *SIZED, "-q", "--profile", "reproducible"]
    assert call("encode", photos, "-o", out, "--generator", autoencoder, *asked).exit_code == 0
    facts = answer("decode", out, "-o", tmp_path / "none", "-q", code=4)
    assert facts["error"] == "E_MISSING_GENERATOR"
    assert "d3codec generators fetch" in facts["hint"]
    other = make_autoencoder(tmp_path / "other", seed=1)
    facts = answer("decode", out, "-o", tmp_path / "none", "--generator", other, "-q", code=3)
    assert (facts["error"], facts["file"]) == ("E_GENERATOR", str(other))
    assert not (tmp_path / "none").exists()
    moved = autoencoder.rename(autoencoder.with_name("moved"))
    try:
        facts = answer("encode", photos, "-o", tmp_path / "y.d3m", "--generator", autoencoder, *asked, code=4)
        assert facts["found"] == str(autoencoder)
    finally:
        moved.rename(autoencoder)


def test_ctrl_c_says_how_to_go_on(photos, autoencoder, hub, tmp_path, monkeypatch):
    out, other = tmp_path / "x.d3m", tmp_path / "y.d3m"
    asked = ["--bytes", "520", "--ipc", "1", *SIZED, "--generator", str(autoencoder), "-q"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sized, "save_atomically", interrupted)
        result = call("encode", photos, "-o", out, *asked)
    assert result.exit_code == 130, result.output
    assert "the same command continues there" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.d3m.work"]
    for path in (out, other):
        assert call("encode", photos, "-o", path, *asked).exit_code == 0
    assert out.read_bytes() == other.read_bytes()
