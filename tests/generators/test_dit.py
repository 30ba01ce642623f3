"""DiT, against diffusers' own pipeline in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_time import ExactTime
from tiny_families import NULL_CLASS, make_dit

from d3codec.errors import GeneratorError
from d3codec.generators.dit import DiT
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dit(tmp_path_factory.mktemp("dit") / "pipeline")


@pytest.fixture(scope="module")
def generator(folder):
    return load_generator(folder, cast="stored", dtype=torch.float64)


@pytest.fixture(scope="module")
def theirs(folder):
    """Its timesteps and its table of positions, float32 in the library, are given to it in float64."""
    from diffusers import DiTPipeline
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    pipeline = DiTPipeline.from_pretrained(folder, torch_dtype=torch.float64)
    pipeline.set_progress_bar_config(disable=True)
    for block in pipeline.transformer.transformer_blocks:
        block.norm1.emb.time_proj = ExactTime(block.norm1.emb.time_proj)
    table = get_2d_sincos_pos_embed(16, 2, base_size=2, output_type="pt")[None]
    assert float((pipeline.transformer.pos_embed.pos_embed - table).abs().max()) < 1e-6
    pipeline.transformer.pos_embed.pos_embed = table
    return pipeline


def test_the_family_is_found(generator):
    assert isinstance(generator, DiT)
    assert generator.text_widths == ()
    assert (generator.hidden_width, generator.class_count) == (0, NULL_CLASS + 1)
    assert generator.latent_shape(8, 8) == (4, 4, 4)


# Shows D3M-175.
def test_one_call_of_the_denoiser_without_its_variance(generator, theirs):
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    classes, times = torch.tensor([0, 7, NULL_CLASS]), torch.tensor([999, 0, 412])
    with torch.no_grad():
        wanted = theirs.transformer(latents, times, classes).sample[:, :4]
        found = generator.denoise(latents, times, generator.encode_classes(classes))
    assert found.shape == latents.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_a_picture_is_that_of_the_pipeline(generator, theirs):
    classes = [3, 8]
    wanted = theirs(
        classes, guidance_scale=4.0, num_inference_steps=3, generator=torch.Generator().manual_seed(5), output_type="pt"
    ).images
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    condition = generator.encode_classes([*classes, NULL_CLASS, NULL_CLASS])
    theirs.scheduler.set_timesteps(3)
    with torch.no_grad():
        for timestep in theirs.scheduler.timesteps:
            given, empty = generator.denoise(torch.cat([latents, latents]), timestep, condition).chunk(2)
            latents = theirs.scheduler.step(empty + 4.0 * (given - empty), timestep, latents).prev_sample
        found = (generator.decode_latents(latents) / 2 + 0.5).clamp(0, 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert float(found.std()) > 0.05
    assert float((found[0] - found[1]).abs().mean()) > 0.01


@pytest.mark.parametrize("classes", [[NULL_CLASS + 1], [0, -1]])
def test_classes_that_it_does_not_have(generator, classes):
    with pytest.raises(GeneratorError, match="class ids"):
        generator.encode_classes(classes)


def test_one_size_and_no_text(generator):
    with pytest.raises(GeneratorError, match="one size") as caught:
        generator.latent_shape(16, 16)
    assert caught.value.expected == "8x8"
    with pytest.raises(GeneratorError, match="no text"):
        generator.encode_text([np.zeros((1, 4), np.int64)])
    with pytest.raises(GeneratorError, match="no text"):
        generator.tokenize("a")


def test_the_configuration_as_published(folder, tmp_path):
    """That of facebook/DiT-XL-2-256 names the class that the network once was a case of, with more fields."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "transformer" / "config.json"
    older = {
        "_class_name": "Transformer2DModel",
        "attention_type": "default",
        "cross_attention_dim": None,
        "double_self_attention": False,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "use_linear_projection": False,
    }
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | older))
    assert describe(copy, "f16").id == describe(folder, "f16").id
    load_generator(copy, cast="f16")
    path.write_text(json.dumps(config | older | {"double_self_attention": True}))
    with pytest.raises(GeneratorError, match="double_self_attention"):
        describe(copy, "f16")


def test_the_size_is_part_of_the_identity(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": 8}))
    assert describe(copy, "f16").id != describe(folder, "f16").id
