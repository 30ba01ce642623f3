"""Stable Diffusion's networks, against the models of diffusers and transformers loaded in their own way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import make_text_time
from tiny_pipeline import LENGTH, WIDTH, make_pipeline

from d3codec.errors import GeneratorError, MissingGeneratorError, UsageError
from d3codec.generators.load import load_generator
from d3codec.generators.stable_diffusion import StableDiffusion

torch.set_num_threads(1)
IDS = np.array([[52, 3, 4, 29, 53, 53, 53, 53], [52, 30, 53, 53, 53, 53, 53, 53]])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp("networks") / "pipeline")


@pytest.fixture(scope="module")
def generator(pipeline):
    return load_generator(pipeline, cast="stored")


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to the order of sums in binary32 and the library's timesteps, which are off by up to 4e-5."""
    return bool(((one - other).abs().max() <= 1e-4 * other.abs().max()).item())


def test_the_networks_compute_what_the_libraries_compute(pipeline, generator):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel

    text = CLIPTextModel.from_pretrained(pipeline / "text_encoder")
    unet = UNet2DConditionModel.from_pretrained(pipeline / "unet")
    vae = AutoencoderKL.from_pretrained(pipeline / "vae")
    latents = torch.randn(2, *generator.latent_shape(8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        condition = generator.encode_text([IDS])
        assert same(condition.hidden, text(torch.tensor(IDS)).last_hidden_state)
        for timestep in (500, 3.25, torch.tensor([999, 7])):
            theirs = unet(latents, timestep, condition.hidden).sample
            assert same(generator.denoise(latents, timestep, condition), theirs)
        images = generator.decode_latents(latents)
        assert images.shape == (2, 3, 8, 8)
        assert same(images, vae.decode(latents / vae.config.scaling_factor).sample)
        assert same(generator.encode_images(images), vae.encode(images).latent_dist.mean * vae.config.scaling_factor)


@pytest.fixture(scope="module")
def text_time(tmp_path_factory):
    return make_text_time(tmp_path_factory.mktemp("networks") / "text-time")


class Float64(torch.overrides.TorchFunctionMode):
    """`.float()` stays in float64: what the library's pooling of the text does without its cast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "float" and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


class ExactPooling(torch.nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.theirs = theirs

    def forward(self, hidden):
        with Float64():
            return self.theirs(hidden)


@pytest.mark.parametrize("kind", ["pipeline", "text_time"])
def test_a_picture_is_that_of_the_pipeline(kind, request):
    """StableDiffusionPipeline in float64 with guidance, its scheduler around our networks; its float32 timestep
    embedding is replaced by one in float64, so that nothing hides behind a tolerance. So is the cast in its pooling."""
    from diffusers import StableDiffusionPipeline
    from exact_time import ExactTime

    pipeline = request.getfixturevalue(kind)
    generator = load_generator(pipeline, cast="stored", dtype=torch.float64)
    theirs = StableDiffusionPipeline.from_pretrained(pipeline, torch_dtype=torch.float64)
    theirs.set_progress_bar_config(disable=True)
    theirs.unet.time_proj = ExactTime(theirs.unet.time_proj)
    if kind == "text_time":
        theirs.unet.add_embedding.pool = ExactPooling(theirs.unet.add_embedding.pool)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = theirs(
        "a cat", height=8, width=8, latents=latents, num_inference_steps=3, guidance_scale=3.0, output_type="pt"
    ).images
    token, length = generator.padding()
    ids = np.array([text + [token] * (length - len(text)) for text in map(generator.tokenize, ("", "a cat"))])
    theirs.scheduler.set_timesteps(3)
    with torch.no_grad():
        condition = generator.encode_text([ids])
        for timestep in theirs.scheduler.timesteps:
            empty, given = generator.denoise(latents.expand(2, -1, -1, -1), timestep, condition).chunk(2)
            latents = theirs.scheduler.step(empty + 3.0 * (given - empty), timestep, latents).prev_sample
        found = (generator.decode_latents(latents) / 2 + 0.5).clamp(0, 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)  # the pipeline hands out float32
    assert float(found.std()) > 0.1


def test_the_pooled_text_joins_the_timestep(text_time):
    """As in the library, up to its float32 softmax; and it is seen."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from exact_time import ExactTime

    generator = load_generator(text_time, cast="stored", dtype=torch.float64)
    theirs = UNet2DConditionModel.from_pretrained(text_time / "unet").double()
    theirs.time_proj = ExactTime(theirs.time_proj)
    latents = torch.linspace(-2, 2, 128, dtype=torch.float64).reshape(2, 4, 4, 4)
    with torch.no_grad():
        condition = generator.encode_text([IDS])
        found = generator.denoise(latents, 500, condition)
        plain = theirs(latents, 500, condition.hidden).sample
        theirs.add_embedding.pool = ExactPooling(theirs.add_embedding.pool)
        wanted = theirs(latents, 500, condition.hidden).sample
        theirs.add_embedding.proj.weight.zero_()
        unseen = theirs(latents, 500, condition.hidden).sample
    assert 0 < (wanted - plain).abs().max() < 1e-6
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * float(wanted.abs().max()))
    assert (wanted - unseen).abs().max() > 1e-2 * wanted.abs().max()


# Shows D3M-191.
def test_heads_that_the_text_does_not_have(tmp_path):
    folder = make_pipeline(tmp_path, addition_embed_type="text", addition_embed_type_num_heads=4)
    path = folder / "unet" / "config.json"
    for heads in (3, 0, None):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"addition_embed_type_num_heads": heads}))
        with pytest.raises(GeneratorError, match=r"addition_embed_type_num_heads|can be built"):
            load_generator(folder, cast="f16")


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
    """The embeddings of the tokens themselves, put in as vectors, change no bit; others change their row only."""
    slots = (1, 2)
    own = np.stack([[generator.token_embedding(int(token)) for token in row[list(slots)]] for row in IDS])
    assert own.shape == (2, 2, WIDTH)
    assert own.dtype == np.float64
    assert generator.text_widths == (WIDTH,)
    template = IDS.copy()
    template[:, slots] = 0
    with torch.no_grad():
        plain = generator.encode_text([IDS]).hidden
        assert torch.equal(generator.encode_text([template], slots, [own]).hidden, plain)
        own[1] *= -1.0
        changed = generator.encode_text([template], slots, [own]).hidden
    assert torch.equal(changed[0], plain[0])
    assert not torch.allclose(changed[1, 1:], plain[1, 1:], atol=1e-3)
    assert torch.equal(changed[1, 0], plain[1, 0])  # causal: what stands before the slots does not know them
    assert torch.equal(generator.encode_text([IDS]).hidden, plain)  # nothing of the vectors stays behind


def test_gradients_reach_vectors_and_nothing_else(generator):
    vectors = torch.zeros(2, 1, WIDTH, requires_grad=True)
    condition = generator.encode_text([IDS], (2,), [vectors])
    generator.denoise(torch.ones(2, 4, 4, 4), 10, condition).square().sum().backward()
    assert vectors.grad is not None
    assert float(vectors.grad.abs().min()) > 0
    assert all(parameter.grad is None for parameter in generator.unet.parameters())


def test_hidden_states_may_be_given(generator):
    rows = np.random.default_rng(0).normal(size=(2, 3, WIDTH))
    condition = generator.encode_vectors(rows)
    np.testing.assert_allclose(condition.hidden, rows, rtol=1e-6)
    with torch.no_grad():
        assert generator.denoise(torch.ones(2, 4, 4, 4), 10, condition).shape == (2, 4, 4, 4)
    with pytest.raises(GeneratorError, match="hidden states"):
        generator.encode_vectors(rows[..., 1:])


def test_what_the_family_does_not_take(generator):
    with pytest.raises(GeneratorError, match="no class ids"):
        generator.encode_classes([1])
    with pytest.raises(GeneratorError, match="number of text encoders"):
        generator.encode_text([IDS, IDS])


@pytest.mark.parametrize("ids", [[[0] * (LENGTH + 1)], [[54] * 3], [[-1] * 3]])
def test_tokens_that_the_text_encoder_does_not_have(generator, ids):
    with pytest.raises(GeneratorError, match="tokens"):
        generator.encode_text([np.array(ids)])


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


# Shows D3M-176.
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
        ("unet", {"down_block_types": ["NoSuchBlock", "DownBlock2D"]}, "does not know this value"),
        ("unet", {"down_block_types": ["DownBlock2D"]}, "can be built"),
        ("vae", {"latent_channels": 8}, "do not fit the configuration"),
    ],
)
def test_weights_that_do_not_fit_the_configuration(pipeline, tmp_path, part, change, words):
    copy = Path(shutil.copytree(pipeline, tmp_path / "copy"))
    path = copy / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(GeneratorError, match=words):
        StableDiffusion.load(copy, cast="f16")


def test_a_folder_without_a_generator(tmp_path):
    with pytest.raises(MissingGeneratorError, match="text_encoder"):
        load_generator(tmp_path, cast="f16")
