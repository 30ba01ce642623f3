"""A U-Net without a text encoder: the file gives its hidden states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_time import ExactTime
from tiny_families import make_latent_diffusion

from d3codec.errors import GeneratorError
from d3codec.generators.latent_diffusion import LatentDiffusion
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_latent_diffusion(tmp_path_factory.mktemp("ldm") / "pipeline")


@pytest.fixture(scope="module")
def generator(folder):
    return load_generator(folder, cast="stored", dtype=torch.float64)


def test_the_networks_compute_what_the_library_computes(folder, generator):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float64)
    unet.time_proj = ExactTime(unet.time_proj)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 4, 4, generator=random, dtype=torch.float64)
    rows = torch.randn(3, 2, 16, generator=random, dtype=torch.float64)
    times = torch.tensor([0, 37, 999])
    with torch.no_grad():
        pairs = [
            (generator.denoise(latents, times, generator.encode_vectors(rows)), unet(latents, times, rows).sample),
            (generator.decode_latents(latents), vae.decode(latents / 0.5).sample),
            (generator.encode_images(latents[:, :3]), vae.encode(latents[:, :3]).latent_dist.mean * 0.5),
        ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_it_has_no_text(folder, generator):
    assert isinstance(generator, LatentDiffusion)
    assert generator.text_widths == ()
    assert (generator.hidden_width, generator.class_count) == (16, 0)
    assert describe(folder, "f16").family == "latent-diffusion"
    with pytest.raises(GeneratorError, match="no text"):
        generator.token_embedding(0)
    with pytest.raises(GeneratorError, match="no class ids"):
        generator.encode_classes([0])
    with pytest.raises(GeneratorError, match="hidden states"):
        generator.encode_vectors(np.zeros((1, 2, 15)))
