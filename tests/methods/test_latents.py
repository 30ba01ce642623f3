"""Files of stored latents: within a size, what students are told is what readers get, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photograph_case import NAMES, colour_teacher, make_autoencoder, photographs

import d3codec
from d3codec.conditioning import transform
from d3codec.decoder.verify import verify
from d3codec.encoder.labels import LabelChoice
from d3codec.encoder.pack import class_section
from d3codec.errors import GeneratorError, MissingGeneratorError, UsageError
from d3codec.format.file import D3MFile
from d3codec.methods import latents, made
from d3codec.methods.latents import Autoencoder
from d3codec.methods.made import Frame, Labelling, Made, statement
from d3codec.methods.pool import Judge, Pool

torch.set_num_threads(1)
POOL = Pool.of(photographs(count=6, side=16), 16)
ROWS = np.array([0, 1, 4, 6, 9, 11, 12, 13, 17])  # three a class
SOFT = Labelling(Judge(colour_teacher, "colours"), LabelChoice("adaptive"))
HARD = Labelling(None, LabelChoice("hard"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield make_autoencoder(tmp_path_factory.mktemp("alone") / "autoencoder")


@pytest.fixture(scope="module")
def networks(folder):
    return {profile: Autoencoder.load(folder, profile) for profile in ("exact", "reproducible")}


def frame(profile: str, device: str | None = None) -> Frame:
    about = statement("latents", "CC0-1.0", None, "none")
    return Frame(class_section(NAMES, None, "none"), "none", profile, about, device)


def make(networks, limit: int, labelling: Labelling = SOFT, profile: str = "reproducible", **more) -> Made:
    said, rows = frame(profile, more.get("device")), more.get("rows", ROWS)
    return latents.make(more.get("pool", POOL), rows, networks[profile], labelling, said, limit=limit)


def centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(1, keepdims=True)


@pytest.mark.parametrize(
    ("profile", "device", "pixels"),
    [("exact", None, "proved"), ("reproducible", "cpu", "proved"), ("reproducible", None, "unproved")],
)
def test_a_reader_gets_what_students_were_told(profile, device, pixels, networks, folder, tmp_path):
    found = make(networks, 900, profile=profile, device=device)
    assert 880 <= len(found.data) <= 900
    path = tmp_path / "x.d3m"
    path.write_bytes(found.data)
    dataset = d3codec.load(path)
    np.testing.assert_array_equal(dataset.images(generator=folder, device="cpu"), found.images)
    np.testing.assert_array_equal(dataset.labels.hard(), found.labels)
    np.testing.assert_array_equal(dataset.labels.logits()[:, 0], found.logits)
    assert (dataset.about.method, dataset.about.licence) == ("latents", "CC0-1.0")
    told = colour_teacher(found.images)  # of the decoded pixels, not of the originals
    assert np.abs(centred(told) - centred(found.logits)).max() < 2 * 200 / 256  # two steps
    report = verify(D3MFile.open(path), decode="all", generator=folder, device="cpu")
    assert report.pixels == pixels
    assert (dataset.about.fingerprint is None) == (device is None)


def test_more_bytes_are_finer_latents(networks):
    original = latents.encode_collages(networks["reproducible"].encoder, POOL.images[ROWS[::3]])
    errors = []
    for limit in (420, 520, 700):
        found = make(networks, limit, HARD, rows=ROWS[::3])
        assert 0.97 * limit <= len(found.data) <= limit
        assert found.logits is None
        stored = transform.decode(D3MFile.open(found.data).section("lat", 0), 3, (4, 8, 8), "lat")
        errors.append(np.abs(stored - original).mean())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("labelling", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("profile", ["exact", "reproducible"])
def test_the_least_size_is_named_and_can_be_had(profile, labelling, networks):
    with pytest.raises(UsageError) as error:
        make(networks, 100, labelling, profile)
    least = error.value.expected
    assert (error.value.field, error.value.found) == ("bytes", 100)
    assert len(make(networks, least, labelling, profile).data) == least
    with pytest.raises(UsageError) as error:
        make(networks, least - 1, labelling, profile)
    assert error.value.expected == least


def test_sizes_are_met_although_labels_are_not_what_was_guessed(networks, monkeypatch):
    """The guess before the first round only costs rounds: far too much or too little still ends at the size."""
    for guess in (0.0, 90.0):
        monkeypatch.setattr(made, "LABEL_GUESS", guess)
        assert 460 <= len(make(networks, 480, rows=ROWS[::3]).data) <= 480


def test_the_autoencoder_that_is_needed_is_named(networks, folder, tmp_path):
    path = tmp_path / "x.d3m"
    path.write_bytes(make(networks, 420, HARD).data)
    dataset = d3codec.load(path)
    with pytest.raises(MissingGeneratorError) as missing:
        dataset.images(device="cpu")
    assert missing.value.expected == dataset.groups[0].generator
    other = make_autoencoder(tmp_path / "other", seed=1)
    with pytest.raises(GeneratorError, match="not the generator") as differs:
        dataset.images(generator=other, device="cpu")
    assert differs.value.expected == dataset.groups[0].generator
    assert differs.value.file == str(other)


def test_latents_that_a_file_cannot_hold(networks):
    """The autoencoder halves sides, and a file has at most 64 of latents."""
    large = Pool.of(photographs(count=1, side=32), 256)
    with pytest.raises(GeneratorError, match="cannot be stored"):
        make(networks, 9000, HARD, pool=large, rows=np.arange(3))
    network = networks["reproducible"]

    class Broken:
        device = torch.device("cpu")

        def encode_images(self, images):
            return torch.full((len(images), 4, 8, 8), torch.nan)

    with pytest.raises(GeneratorError, match="not finite"):
        make({"reproducible": replace(network, encoder=Broken())}, 900)


def test_a_damaged_autoencoder_is_told(folder, tmp_path):
    damaged = make_autoencoder(tmp_path / "damaged")
    (weights,) = Path(damaged).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(GeneratorError):
        Autoencoder.load(damaged, "reproducible")
