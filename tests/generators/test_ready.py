"""Ready configurations: what they say fits together, with published sizes, with the networks and with the format."""

from __future__ import annotations

import json
import re

import pytest

from d3codec.encoder.pack import ready_recipe
from d3codec.errors import GeneratorError
from d3codec.generators.graphs import FAMILIES, choose, resolve
from d3codec.generators.ready import ReadyConfiguration, configurations, find

PARTS = [(ready, name) for ready in configurations() for name in ready.parts]
PUBLISHED = {  # figures of papers and model cards
    ("sd-1.5", "unet"): 859_520_964,
    ("sd-1.5", "text_encoder"): 123_060_480,
    ("sd-1.5", "vae"): 83_653_863,
    ("sd-2.1-base", "unet"): 865_910_724,
    ("sd-2.1-base", "text_encoder"): 340_387_840,
    ("sdxl-turbo", "unet"): 2_567_463_684,
    ("sdxl-turbo", "text_encoder_2"): 694_659_840,
    ("taesd", "vae"): 1_222_532 + 1_222_531,
    ("taesd3", "vae"): 1_229_456 + 1_229_443,
}


def identifier(value: object) -> str:
    return value.name if isinstance(value, ReadyConfiguration) else str(value)


def build(ready: ReadyConfiguration, name: str):
    """The network of a part on torch's meta device, and its resolved configuration."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    part = ready.parts[name]
    known = FAMILIES[ready.family][name]
    published = {"_class_name": part.class_name, **part.config}
    config = resolve(choose(known.graphs, published, name), published, name, known.allowed)
    with torch.device("meta"):
        if part.class_name.startswith("CLIP"):
            network = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
            return network[part.class_name](CLIPTextConfig(**config)), config
        networks = (AutoencoderKL, AutoencoderTiny, DiTTransformer2DModel, UNet2DConditionModel)
        return next(n for n in networks if n.__name__ == part.class_name)(**config), config


@pytest.mark.parametrize(("ready", "name"), PARTS, ids=identifier)
def test_the_configuration_builds_a_network_of_the_stated_size(ready, name):
    network, config = build(ready, name)
    part = ready.parts[name]
    assert sum(weight.numel() for weight in network.parameters()) == part.parameters
    assert part.parameters == PUBLISHED.get((ready.name, name), part.parameters)
    assert {field: config[field] for field in part.config} == json.loads(json.dumps(part.config))
    assert set(part.unknown) - {"weights"} <= set(config) - set(part.config)
    assert part.source


@pytest.mark.parametrize(("ready", "name"), PARTS, ids=identifier)
def test_published_files_have_that_size(ready, name):
    """Weights and a head that lists the tensors (about 120 bytes each), nothing else."""
    part = ready.parts[name]
    for file, (sha256, size) in part.files.items():
        assert re.fullmatch("[0-9a-f]{64}", sha256)
        assert ready.recorded(f"{name}/{file}") == (sha256, size)
        weights = part.parameters * (2 if ".fp16." in file else 4)
        assert 20_000 < size - weights < 250_000


def test_the_paper_counts_the_transformer_otherwise():
    """675 million of DiT-XL/2: embedders once instead of 28 times, with the table of 256 positions."""
    part, width, inputs, classes = find("dit-xl-2-256").parts["transformer"], 1152, 256, 1001
    embedders = (classes + inputs + 1 + width + 1) * width
    assert part.parameters - 27 * embedders + 256 * width == 675_129_632


SAMPLED = [ready for ready in configurations() if ready.family != "autoencoder"]
ALONE = [ready for ready in configurations() if ready.family == "autoencoder"]


@pytest.mark.parametrize("ready", ALONE, ids=identifier)
def test_an_autoencoder_alone_has_no_recipe(ready):
    assert (ready.recipe, ready.hints) == ({}, {})
    with pytest.raises(GeneratorError, match="no denoiser"):
        ready.sampling()
    with pytest.raises(GeneratorError, match="no denoiser"):
        ready_recipe(ready, 1.0, 1)


@pytest.mark.parametrize("ready", SAMPLED, ids=identifier)
def test_the_recipe_is_one_that_a_file_can_state(ready):
    recipe = ready.sampling()
    assert recipe.sampler == ready.recipe["sampler"]
    assert recipe.guidance == ready.recipe["guidance_scale"] * 1_000_000
    assert ready.sampling(guidance=3.5, steps=4).guidance == 3_500_000
    assert ready.sampling(steps=4).steps == 4
    assert ready.hints["resolution"] % (8 * ready.hints["grid"]) == 0
    assert set(ready.hints) <= {"template", "guidance_scale", "steps", "grid", "resolution"}


@pytest.mark.parametrize("ready", configurations(), ids=identifier)
def test_nothing_is_claimed_that_was_not_done(ready):
    copies = "a float16 copy of its weights was run here; the repository's own files could not be had"
    assert ready.run == (copies if ready in ALONE else "not run here: weights could not be had")
    assert set(ready.ids) == {"f16", "stored"}
    assert set(ready.ids.values()) == {None}


def test_sizes():
    ready = find("sd-1.5")
    assert ready.parameters == 859_520_964 + 123_060_480 + 83_653_863
    assert ready.weight_bytes("f32") == 2 * ready.weight_bytes("f16") == 4 * ready.parameters
    assert json.loads(json.dumps(ready.as_json()))["bytes"]["f16"] == ready.weight_bytes("f16")


def test_names_and_repositories_are_found():
    names = ["dit-xl-2-256", "sd-1.5", "sd-2.1-base", "sdxl-turbo", "taesd", "taesd3"]
    assert [ready.name for ready in configurations()] == names
    for ready in configurations():
        for name in (ready.name, ready.name.upper(), ready.repository, *ready.also):
            assert find(name) is ready
    assert find("stabilityai/stable-diffusion-2-1-base").name == "sd-2.1-base"
    assert find("nobody/nothing") is None
