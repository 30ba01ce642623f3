"""The networks, against the models of diffusers and transformers loaded in their own way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import LENGTH, WIDTH, make_pipeline

from d3codec.errors import GeneratorError, UsageError
from d3codec.generators.stable_diffusion import StableDiffusion

torch.set_num_threads(1)
IDS = np.array([[52, 3, 4, 29, 53, 53, 53, 53], [52, 30, 53, 53, 53, 53, 53, 53]])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp("networks") / "pipeline")


@pytest.fixture(scope="module")
def generator(pipeline):
    return StableDiffusion.load(pipeline, cast="stored")


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to the order of sums in binary32."""
    return bool(((one - other).abs().max() <= 1e-5 * other.abs().max()).item())


def test_the_networks_compute_what_the_libraries_compute(pipeline, generator):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

    text = CLIPTextModel.from_pretrained(pipeline / "text_encoder")
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet")
    vae = AutoencoderKL.from_pretrained(pipeline / "vae")
    latents = torch.randn(2, *generator.latent_shape(8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = generator.encode_text(IDS)
        assert same(hidden, text(torch.tensor(IDS)).last_hidden_state)
        assert same(generator.denoise(latents, 500, hidden), unet(latents, 500, hidden).sample)
        images = generator.decode_latents(latents)
        assert images.shape == (2, 3, 8, 8)
        assert same(images, vae.decode(latents / vae.config.scaling_factor).sample)
        assert same(generator.encode_images(images), vae.encode(images).latent_dist.mean * vae.config.scaling_factor)


def test_the_cast_rounds_the_weights_first(pipeline, generator):
    rounded = StableDiffusion.load(pipeline, cast="f16")
    assert rounded.dtype == torch.float32
    for part in ("text_encoder", "unet", "vae"):
        for (name, exact), cast in zip(
            getattr(generator, part).named_parameters(), getattr(rounded, part).parameters(), strict=True
        ):
            assert torch.equal(exact.half().float(), cast), name
    assert not torch.equal(generator.unet.conv_in.weight, rounded.unet.conv_in.weight)


def test_vectors_take_the_places_of_tokens(generator):
    """The embeddings of the tokens themselves, put in as vectors, change no bit; others change their row
    only."""
    slots = (1, 2)
    own = np.stack([[generator.token_embedding(int(token)) for token in row[list(slots)]] for row in IDS])
    assert own.shape == (2, 2, WIDTH)
    assert own.dtype == np.float64
    template = IDS.copy()
    template[:, slots] = 0
    with torch.no_grad():
        plain = generator.encode_text(IDS)
        assert torch.equal(generator.encode_text(template, slots, own), plain)
        own[1] *= -1.0
        changed = generator.encode_text(template, slots, own)
    assert torch.equal(changed[0], plain[0])
    assert not torch.allclose(changed[1, 1:], plain[1, 1:], atol=1e-3)
    assert torch.equal(changed[1, 0], plain[1, 0])  # causal: what stands before the slots does not know them
    assert torch.equal(generator.encode_text(IDS), plain)  # nothing of the vectors stays behind


def test_gradients_reach_vectors_and_nothing_else(generator):
    vectors = torch.zeros(2, 1, WIDTH, requires_grad=True)
    hidden = generator.encode_text(IDS, (2,), vectors)
    generator.denoise(torch.ones(2, 4, 4, 4), 10, hidden).square().sum().backward()
    assert vectors.grad is not None
    assert float(vectors.grad.abs().min()) > 0
    assert all(parameter.grad is None for parameter in generator.unet.parameters())


@pytest.mark.parametrize("ids", [[[0] * (LENGTH + 1)], [[54] * 3], [[-1] * 3]])
def test_tokens_that_the_text_encoder_does_not_have(generator, ids):
    with pytest.raises(GeneratorError, match="tokens"):
        generator.encode_text(np.array(ids))


def test_a_token_that_the_vocabulary_does_not_have(generator):
    with pytest.raises(UsageError, match="vocabulary"):
        generator.token_embedding(54)


def test_tokens_of_a_text(generator):
    assert generator.tokenize("ab c") == [52, 0, 27, 28, 53]
    assert generator.padding() == (53, LENGTH)


@pytest.mark.parametrize("text", ["a7", "é"])
def test_unknown_characters_are_refused(generator, text):
    with pytest.raises(UsageError, match="characters"):
        generator.tokenize(text)


def test_a_text_that_is_too_long(generator):
    with pytest.raises(GeneratorError, match="longer"):
        generator.tokenize("abcdefgh")


def test_the_size_must_be_one_that_latents_have(generator):
    assert generator.latent_shape(16, 8) == (4, 8, 4)
    with pytest.raises(GeneratorError, match="multiples of 2"):
        generator.latent_shape(8, 9)


def test_encoding_hints(pipeline, generator, tmp_path):
    assert generator.encoding_hints() == {}
    copy = Path(shutil.copytree(pipeline, tmp_path / "copy"))
    (copy / "encoding.json").write_text('{"guidance": 2.0}')
    assert StableDiffusion.load(copy, cast="f16").encoding_hints() == {"guidance": 2.0}
    (copy / "encoding.json").write_text("[")
    with pytest.raises(GeneratorError, match="hints"):
        StableDiffusion.load(copy, cast="f16").encoding_hints()


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"block_out_channels": [8, 32]}, "do not fit the configuration"),
        ("unet", {"down_block_types": ["NoSuchBlock", "DownBlock2D"]}, "can be built"),
        ("vae", {"latent_channels": 8}, "do not fit the configuration"),
    ],
)
def test_weights_that_do_not_fit_the_configuration(pipeline, tmp_path, part, change, words):
    copy = Path(shutil.copytree(pipeline, tmp_path / "copy"))
    path = copy / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(GeneratorError, match=words):
        StableDiffusion.load(copy, cast="f16")
