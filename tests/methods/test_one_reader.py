"""The same tests of reading for the files of every method: a reader never asks which one made a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from photograph_case import make_autoencoder
from tiny_case import grey_teacher, three_greys

import d3codec
from d3codec.cli.main import main
from d3codec.decoder.cache import home
from d3codec.decoder.verify import verify
from d3codec.encoder.merge import Statement, merge
from d3codec.errors import D3MError, MissingGeneratorError, UsageError
from d3codec.format.file import D3MFile
from d3codec.methods import d3m, rded
from d3codec.methods.sized import encode_to_size

METHODS = ("d3m", "rded png", "rded avif", "images", "latents", "latents hard", "d3m+latents")
NEEDS = {"d3m": 1, "latents": 1, "latents hard": 1, "d3m+latents": 2}  # generators
EXACT = ("d3m", "rded png", "latents", "d3m+latents")


@dataclass(frozen=True)
class Made:
    """Files by method, and a Hugging Face cache with the generators that they name."""

    files: dict[str, Path]
    hub: Path


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        autoencoder = make_autoencoder(folder / "hub" / "models--test--autoencoder" / "snapshots" / "1")
        prompts = folder / "hub" / "models--test--prompts" / "snapshots" / "1"
        prompts.parent.mkdir(parents=True)
        prompts.symlink_to(tiny.pipeline)
        shared = {"teacher": grey_teacher, "licence": "CC0-1.0", "source": "three greys", "ipc": 3}
        files = {method: folder / f"{method}.d3m" for method in METHODS}
        files["d3m"].write_bytes(tiny.output.read_bytes())
        for image_format in ("png", "avif"):
            out = files[f"rded {image_format}"]
            rded.encode(three_greys(), out, **{**shared, "ipc": 2}, grid=2, resolution=8, image_format=image_format)
        sized = shared | {"resolution": 16, "processes": 1, "device": "cpu", "trial_steps": 2}
        encode_to_size(three_greys(), files["images"], **sized, methods=("images",), max_bytes=1200)
        options = {**sized, "generators": [autoencoder], "methods": ("latents",), "max_bytes": 600}
        encode_to_size(three_greys(), files["latents"], **options)
        hard = options | {"labels": "hard", "profile": "reproducible"}
        encode_to_size(three_greys(), files["latents hard"], **hard)
        generated = folder / "of one size.d3m"
        changed = {"grid": 1, "size": 16, "labels": "adaptive", "leaf_bytes": 0}
        d3m.encode(three_greys(), generated, **tiny.options | changed)
        parts = [D3MFile.open(path) for path in (generated, files["latents"])]
        files["d3m+latents"].write_bytes(merge(parts, Statement(weights=(1, 3)), device="cpu"))
    return Made(files, folder / "hub")


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def path(method, made, monkeypatch):
    """A file, with its generators in the cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(made.hub))
    return made.files[method]


def call(*arguments, code: int = 0):
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def pixels(dataset) -> list[np.ndarray]:
    return [sample.image for sample in dataset]


# ----------------------------------------------------------------------------------------------------------- info


def test_facts(method, path):
    facts = call("info", path)
    assert facts["method"] == method.split()[0]
    assert facts["bytes"] == path.stat().st_size == facts["head_bytes"] + sum(s["bytes"] for s in facts["sections"])
    assert (facts["classes"], facts["licence"], facts["source"]) == (3, "CC0-1.0", "three greys")
    assert facts["images"] == 3 * facts["images_per_class"] == 3 * sum(g["images_per_class"] for g in facts["groups"])
    assert facts["profile"] == ("exact" if method in EXACT else "reproducible")
    assert len(facts["sizes"]["generators"]) == NEEDS.get(method, 0)
    assert facts["weights"] == ([1, 3] if method == "d3m+latents" else None)
    for option in ([], ["--labels"]):
        result = CliRunner().invoke(main, ["info", str(path), *option])
        assert result.exit_code == 0, result.output


def test_every_byte_is_explained(path):
    rows = call("info", path, "--bytes")
    assert rows[0]["offset"] == 0
    for row, following in pairwise([(row["offset"], row["length"]) for row in rows]):
        assert sum(row) == following[0]
    assert rows[-1]["offset"] + rows[-1]["length"] == path.stat().st_size
    assert all(row["text"] for row in rows)


# -------------------------------------------------------------------------------------------------------- reading


def test_labels_need_no_pixels(method, path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    dataset = d3codec.load(path)
    count = dataset.images_per_class
    np.testing.assert_array_equal(dataset.labels.hard(), np.repeat([0, 1, 2], count))
    assert [info.name for info in dataset.classes] == ["a", "b", "c"]
    if method == "latents hard":
        with pytest.raises(UsageError, match="hard"):
            dataset.labels.logits()
    else:
        logits = dataset.labels.logits()
        assert logits.shape == (3 * count, dataset.grid[0] * dataset.grid[1], 3)
        np.testing.assert_allclose(dataset.labels.probabilities().sum(-1), 1, atol=1e-5)


def test_the_labels_are_those_of_the_decoded_pixels(method, path):
    if method == "latents hard":
        return
    dataset = d3codec.load(path)
    for sample in dataset:
        image, (rows, columns) = sample.image, dataset.grid
        height, width = image.shape[0] // rows, image.shape[1] // columns
        cells = image.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
        asked = grey_teacher(cells)
        difference = (asked - asked.mean(1, keepdims=True)) - (
            sample.patch_logits - sample.patch_logits.mean(1, keepdims=True)
        )
        assert np.abs(difference).max() < 2 * 200 / 256


def test_parts_are_what_the_whole_has_there(path):
    dataset = d3codec.load(path)
    whole, count = pixels(dataset), dataset.images_per_class
    assert len(whole) == len(dataset)
    for classes, ipc in ((["b"], None), ([0, 2], 2), (["c"], 1)):
        part = dataset.subset(classes=classes, ipc=ipc)
        positions = [dataset.position(one) for one in classes]
        shown = [p * count + index for p in positions for index in range(ipc or count)]
        for found, number in zip(pixels(part), shown, strict=True):
            np.testing.assert_array_equal(found, whole[number])
    for alone in [dataset, *(dataset.subset(groups=[group]) for group in range(len(dataset.groups)))]:
        arrays = alone.to_numpy()
        assert arrays["images"].shape == (len(alone), *alone.groups[0].size, 3)
        np.testing.assert_array_equal(arrays["classes"], alone.labels.hard())
        np.testing.assert_array_equal(np.stack(pixels(alone)), arrays["images"])
        assert ("patch_logits" in arrays) == (dataset.labels.kind != "hard")
        assert len(alone.to_torch()) == len(alone)
    for _, batch in zip(range(2), dataset.batches(5, seed=1), strict=False):
        assert len(batch) == 5


def test_a_cache_gives_the_same_pixels(path):
    first = pixels(d3codec.load(path))
    stored = list(Path(home()).rglob("*"))
    for one, other in zip(first, pixels(d3codec.load(path)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(Path(home()).rglob("*")) == stored


def test_decoding_and_verifying(method, path, tmp_path):
    proof = call("verify", path, "--decode", "all", "--device", "cpu")
    assert proof["pixels"] == "proved"
    report = call("decode", path, "-o", tmp_path / "out", "--device", "cpu")
    dataset = d3codec.load(path)
    assert report["images"] == len(dataset) == len(list((tmp_path / "out").rglob("*.png")))
    sheet = tmp_path / "sheet.png"
    assert CliRunner().invoke(main, ["decode", str(path), "--contact-sheet", str(sheet)]).exit_code == 0
    assert sheet.read_bytes()[:4] == b"\x89PNG"


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_generators_that_are_missing_are_named(method, path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    dataset = d3codec.load(path)
    if method not in NEEDS:
        assert pixels(dataset)
        return
    with pytest.raises(MissingGeneratorError) as error:
        pixels(dataset)
    assert error.value.expected in [group.generator for group in dataset.groups]
    assert "d3codec generators fetch" in str(error.value)


def test_damage_anywhere_is_found(path):
    data = path.read_bytes()
    file = D3MFile.open(data)
    for part in file.parts:
        broken = bytearray(data)
        broken[part.offset + part.entry.stored // 2] ^= 4
        with pytest.raises(D3MError):
            verify(D3MFile.open(bytes(broken)))
    for size in (len(data) - 1, len(data) // 2):
        with pytest.raises(D3MError):
            verify(D3MFile.open(data[:size]))
