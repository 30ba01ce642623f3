"""The family `autoencoder`: a folder with nothing but an autoencoder, as published or as save_pretrained writes it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import autoencoder, tiny_autoencoder
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError, MissingGeneratorError
from d3codec.generators.condition import Condition
from d3codec.generators.files import family_of
from d3codec.generators.load import load_generator
from d3codec.generators.local import local_generators, look
from d3codec.generators.weights import describe, find_generator

torch.set_num_threads(1)
DATA = Path(os.environ.get("D3CODEC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


def save(network, folder: Path) -> Path:
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [tiny_autoencoder, autoencoder], ids=["tiny", "kl"])
def test_it_decodes_and_encodes_as_the_library(make, tmp_path):
    theirs = make(0).double()
    generator = load_generator(save(make(0), tmp_path / "alone"), cast="stored", dtype=torch.float64)
    assert generator.family == "autoencoder"
    assert generator.latent_shape(8, 16) == (4, 4, 8)
    assert (generator.text_widths, generator.hidden_width, generator.class_count) == ((), 0, 0)
    scale = theirs.config.scaling_factor
    latents = torch.linspace(-1, 1, 128, dtype=torch.float64).reshape(2, 4, 4, 4)
    with torch.no_grad():
        images = generator.decode_latents(latents)
        np.testing.assert_allclose(images, theirs.decode(latents / scale).sample, rtol=0, atol=1e-12)
        encoded = theirs.encode(images)
        mean = encoded.latents if make is tiny_autoencoder else encoded.latent_dist.mean
        np.testing.assert_allclose(generator.encode_images(images), mean * scale, rtol=0, atol=1e-12)


def test_it_takes_latents_and_nothing_else(tmp_path):
    generator = load_generator(save(tiny_autoencoder(0), tmp_path / "alone"), cast="f16")
    for call in (
        lambda: generator.denoise(torch.zeros(1, 4, 4, 4), 1.0, Condition()),
        lambda: generator.encode_text([torch.zeros(1, 8, dtype=torch.int64)]),
        lambda: generator.encode_vectors(torch.zeros(1, 1, 8)),
        lambda: generator.encode_classes([1]),
        lambda: generator.tokenize("a"),
    ):
        with pytest.raises(GeneratorError, match="'autoencoder' take no"):
            call()


def test_identity(tmp_path):
    """The same in its own folder and in `vae`, another than that of a pipeline, changed by any weight."""
    root = save(tiny_autoencoder(0), tmp_path / "root")
    inside = tmp_path / "inside"
    save(tiny_autoencoder(0), inside / "vae")
    record = describe(root, "f16")
    assert record.family == "autoencoder"
    assert set(record.parts) == {"vae"}
    assert record.id == describe(inside, "f16").id
    assert record.id != describe(root, "stored").id
    assert record.id != describe(save(tiny_autoencoder(1), tmp_path / "other"), "f16").id
    pipeline = make_pipeline(tmp_path / "pipeline")
    shutil.rmtree(pipeline / "vae")
    shutil.copytree(root, pipeline / "vae")
    assert describe(pipeline, "f16").family == "stable-diffusion"
    assert describe(pipeline, "f16").parts["vae"] == record.parts["vae"]
    assert describe(pipeline, "f16").id != record.id


def test_a_changed_file_is_noticed(tmp_path):
    """The record of an identity belongs to the files in the folder itself."""
    root = save(tiny_autoencoder(0), tmp_path / "root")
    before = describe(root, "f16").id
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    assert describe(root, "f16").id != before


def test_what_is_no_autoencoder_alone(tmp_path):
    pipeline = make_pipeline(tmp_path / "pipeline")
    assert family_of(pipeline) == "stable-diffusion"
    for part in ("text_encoder", "unet"):
        shutil.rmtree(pipeline / part)  # what an interrupted download may leave
    with pytest.raises(MissingGeneratorError):
        describe(pipeline, "f16")
    text = tmp_path / "text"
    text.mkdir()
    for config in ('{"_class_name": "UNet2DConditionModel"}', '{"model_type": "bert"}', "[]", "{"):
        (text / "config.json").write_text(config)
        with pytest.raises(MissingGeneratorError, match="no safetensors weights of a generator"):
            describe(text, "f16")


def test_it_is_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    bert = tmp_path / "hub" / "models--some--bert" / "snapshots" / ("0" * 40)
    bert.mkdir(parents=True)
    (bert / "config.json").write_text('{"model_type": "bert"}')
    snapshot = save(tiny_autoencoder(0), tmp_path / "hub" / "models--madebyollin--taesd3" / "snapshots" / ("1" * 40))
    wanted = describe(snapshot, "f16").id
    assert find_generator(wanted, "f16") == snapshot
    for name in ("taesd3", "madebyollin/taesd3"):
        assert find_generator(wanted, "f16", given=name) == snapshot
    found = look(snapshot)
    assert (found.family, found.complete, found.repository) == ("autoencoder", True, "madebyollin/taesd3")
    assert found in local_generators()
    assert bert not in [one.folder for one in local_generators()]
    (snapshot / "diffusion_pytorch_model.safetensors").unlink()
    assert not look(snapshot).complete
    with pytest.raises(MissingGeneratorError):
        find_generator(wanted, "f16")


def test_several_names_for_several_generators(tmp_path):
    """Each is taken where it fits; one that fits none of them is an error."""
    one, two, three = (save(tiny_autoencoder(seed), tmp_path / str(seed)) for seed in range(3))
    ids = [describe(folder, "f16").id for folder in (one, two, three)]
    others = [(ids[1], "f16"), (describe(three, "stored").id, "stored")]
    assert find_generator(ids[0], "f16", given=[two, one, three], others=others) == one
    with pytest.raises(MissingGeneratorError):  # it is searched for elsewhere
        find_generator(ids[0], "f16", given=[two, three], others=others)
    with pytest.raises(GeneratorError, match="not the generator"):
        find_generator(ids[0], "f16", given=[two, three], others=others[:1])


@pytest.mark.parametrize(("name", "channels", "values"), [("taesd", 4, 2_445_063), ("taesd3", 16, 2_458_899)])
def test_the_published_ones(name, channels, values, tmp_path):
    folder = DATA / name
    if not (folder / "config.json").is_file():
        pytest.skip(f"no published autoencoder under {DATA} (folder {name}; D3CODEC_TEST_DATA names another place)")
    record = describe(folder, "f16")
    assert record.family == "autoencoder"
    assert record.bytes_by_part == {"vae": 2 * values}
    generator = load_generator(folder, cast="f16", dtype=torch.float64)
    assert generator.latent_shape(64, 32) == (channels, 8, 4)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    images = torch.stack([rows, columns, rows * columns])[None].double()
    with torch.no_grad():
        decoded = generator.decode_latents(generator.encode_images(images))
    assert float((decoded - images).square().mean().sqrt()) < 0.2
