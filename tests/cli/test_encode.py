"""`d3codec train-teacher`, `encode`, `evaluate` on tiny images, one after the other as a user would."""

from __future__ import annotations

import json

import pytest
from cli.commands import answer, call, greys

from d3codec.format.file import D3MFile

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
    assert (facts["classes"], facts["images_per_class"], facts["label_kind"]) == (3, 2, "ranked-head")
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
        "--generator",
        tiny.pipeline,
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
