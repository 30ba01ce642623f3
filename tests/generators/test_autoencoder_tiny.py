"""AutoencoderTiny in the place of AutoencoderKL, random in every family and the published one for Stable Diffusion."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import make_dit, make_latent_diffusion, make_xl, use_tiny_autoencoder
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

torch.set_num_threads(1)
DATA = Path(os.environ.get("D3CODEC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
MAKERS = [make_pipeline, make_xl, make_dit, make_latent_diffusion]


def library(folder: Path, dtype: torch.dtype):
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=dtype)


@pytest.mark.parametrize("make", MAKERS)
def test_in_every_family(make, tmp_path):
    folder = make(tmp_path / "pipeline")
    before = describe(folder, "f16")
    use_tiny_autoencoder(folder)
    after = describe(folder, "f16")
    assert {part for part in after.parts if after.parts[part] != before.parts[part]} == {"vae"}
    generator = load_generator(folder, cast="stored", dtype=torch.float64)
    theirs = library(folder, torch.float64)
    assert generator.latent_shape(8, 8) == (4, 4, 4)
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        images = generator.decode_latents(latents)
        np.testing.assert_allclose(images, theirs.decode(latents).sample, rtol=0, atol=1e-12)
        np.testing.assert_allclose(generator.encode_images(images), theirs.encode(images).latents, rtol=0, atol=1e-12)
    assert images.shape == (2, 3, 8, 8)
    assert float(images.std()) > 0.1
    assert float((images.abs() > 1).double().mean()) < 0.2


def test_a_scaling_factor_is_undone(tmp_path):
    folder = use_tiny_autoencoder(make_latent_diffusion(tmp_path / "pipeline"))
    path = folder / "vae" / "config.json"
    path.write_text(path.read_text().replace('"scaling_factor": 1.0', '"scaling_factor": 0.5'))
    generator = load_generator(folder, cast="stored", dtype=torch.float64)
    latents = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(1, 4, 4, 4)
    with torch.no_grad():
        wanted = library(folder, torch.float64).decode(latents / 0.5).sample
        np.testing.assert_allclose(generator.decode_latents(latents), wanted, rtol=0, atol=1e-12)


def test_halves_that_do_not_fit(tmp_path):
    folder = use_tiny_autoencoder(make_latent_diffusion(tmp_path / "pipeline"))
    path = folder / "vae" / "config.json"
    path.write_text(path.read_text().replace('"upsampling_scaling_factor": 2', '"upsampling_scaling_factor": 3'))
    with pytest.raises(GeneratorError, match="encoder and decoder"):
        load_generator(folder, cast="stored")


@pytest.fixture
def taesd(tmp_path):
    """A pipeline with the published autoencoder of Stable Diffusion 1.x and 2.x."""
    if not (DATA / "taesd" / "config.json").is_file():
        pytest.skip(f"no published autoencoder under {DATA} (folder taesd; D3CODEC_TEST_DATA names another place)")
    folder = make_pipeline(tmp_path / "pipeline")
    shutil.rmtree(folder / "vae")
    (folder / "vae").mkdir()
    for file in (DATA / "taesd").iterdir():
        shutil.copyfile(file, folder / "vae" / file.name)  # not its mode: the data may be read-only
    return folder


def test_the_published_one(taesd):
    """It decodes as the library decodes it, and its pictures come back through it."""
    generator = load_generator(taesd, cast="f16", dtype=torch.float64)
    assert generator.latent_shape(64, 32) == (4, 8, 4)
    theirs = library(taesd, torch.float64)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    images = torch.stack([rows, columns, rows * columns])[None].double()
    with torch.no_grad():
        latents = generator.encode_images(images)
        np.testing.assert_allclose(latents, theirs.encode(images).latents, rtol=0, atol=1e-10)
        decoded = generator.decode_latents(latents)
        np.testing.assert_allclose(decoded, theirs.decode(latents).sample, rtol=0, atol=1e-10)
    assert float((decoded - images).square().mean().sqrt()) < 0.2


def test_identity_of_the_published_one(taesd):
    """Its float16 copy and float32 copies are one generator under the cast f16, and two as stored."""
    half, stored = describe(taesd, "f16"), describe(taesd, "stored")
    assert half.parts["vae"] == stored.parts["vae"]
    assert half.bytes_by_part["vae"] == 2 * (1_222_532 + 1_222_531)
    path = taesd / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path)
    assert describe(taesd, "f16").parts["vae"] == half.parts["vae"]
    assert describe(taesd, "stored").parts["vae"] != half.parts["vae"]
