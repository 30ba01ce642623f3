"""Stable Diffusion XL, against diffusers' own pipeline in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_time import ExactTime
from tiny_families import LENGTH, TIME_IDS, make_xl

from d3codec.errors import GeneratorError
from d3codec.generators.load import load_generator
from d3codec.generators.stable_diffusion_xl import StableDiffusionXL

torch.set_num_threads(1)
SIZES = {"original_size": (12, 10), "crops_coords_top_left": (1, 2), "target_size": (8, 8)}
OWN_IDS = (12, 10, 1, 2, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_xl(tmp_path_factory.mktemp("xl") / "pipeline")


@pytest.fixture(scope="module")
def generator(folder):
    return load_generator(folder, cast="stored", dtype=torch.float64)


@pytest.fixture(scope="module")
def theirs(folder):
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float64, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.time_proj = ExactTime(pipeline.unet.time_proj)
    pipeline.unet.add_time_proj = ExactTime(pipeline.unet.add_time_proj)
    return pipeline


def condition(generator, texts, time_ids=TIME_IDS):
    tokens = [generator.tokenize(text) for text in texts]
    ids = [
        np.array([row + [generator.padding(encoder)[0]] * (LENGTH - len(row)) for row in tokens]) for encoder in (0, 1)
    ]
    return generator.encode_text(ids, ends=np.array([len(row) - 1 for row in tokens]), time_ids=time_ids)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_the_family_is_found(generator):
    assert isinstance(generator, StableDiffusionXL)
    assert generator.text_widths == (16, 24)
    assert generator.hidden_width == 40
    assert generator.padding(0) != generator.padding(1)


def test_text_encoding(generator, theirs):
    prompts = ["a cat", "dog", ""]
    with torch.no_grad():
        found = condition(generator, prompts)
        hidden, _, pooled, _ = theirs.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    assert found.hidden.shape == (3, LENGTH, 40)
    assert found.pooled.shape == (3, 12)
    close(found.hidden, hidden)
    close(found.pooled, pooled)
    assert found.time_ids.tolist() == [list(TIME_IDS)] * 3


def test_one_call_of_the_denoiser(generator, theirs):
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        given = condition(generator, ["a cat", "dog"], OWN_IDS)
        ids = theirs._get_add_time_ids(*SIZES.values(), dtype=torch.float64, text_encoder_projection_dim=12)
        assert ids.tolist() == [list(OWN_IDS)]
        added = {"text_embeds": given.pooled, "time_ids": ids.repeat(2, 1)}
        for timestep in (999, 12.5):
            wanted = theirs.unet(latents, timestep, given.hidden, added_cond_kwargs=added).sample
            found = generator.denoise(latents, timestep, given)
            close(found, wanted)
        other = generator.denoise(latents, 12.5, condition(generator, ["a cat", "dog"]))
    assert float((other - found).abs().max()) > 1e-3  # the sizes matter


def test_a_picture_is_that_of_the_pipeline(generator, theirs):
    """Two steps with guidance against empty (zero) conditions, the pipeline's scheduler around our networks."""
    start = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = theirs(
        "a cat",
        height=8,
        width=8,
        latents=start,
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(2),
        output_type="pt",
        **SIZES,
    ).images
    scheduler, noise = theirs.scheduler, torch.Generator().manual_seed(2)
    scheduler.set_timesteps(2)
    latents = start * scheduler.init_noise_sigma
    with torch.no_grad():
        given = condition(generator, ["a cat"], OWN_IDS)
        both = type(given).cat([given.zeroed(), given])
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            empty, full = generator.denoise(scaled.expand(2, -1, -1, -1), timestep, both).chunk(2)
            latents = scheduler.step(empty + 2.0 * (full - empty), timestep, latents, generator=noise).prev_sample
        found = (generator.decode_latents(latents) / 2 + 0.5).clamp(0, 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)  # the scheduler's steps are float32
    assert float(found.std()) > 0.05


def test_vectors_enter_both_encoders(generator):
    ids, ends = np.full((1, LENGTH), 53), np.array([3])
    vectors = [np.stack([[generator.token_embedding(30, encoder)]]) for encoder in (0, 1)]
    with torch.no_grad():
        placed = generator.encode_text([ids, ids], (2,), vectors, ends=ends, time_ids=TIME_IDS)
        ids[:, 2] = 30
        plain = generator.encode_text([ids, ids], ends=ends, time_ids=TIME_IDS)
    assert torch.equal(placed.hidden, plain.hidden)
    assert torch.equal(placed.pooled, plain.pooled)


def test_what_is_needed_is_asked_for(generator):
    ids = np.full((1, LENGTH), 53)
    for missing in ({"time_ids": TIME_IDS}, {"ends": [0]}, {"ends": [0], "time_ids": (1, 2)}):
        with pytest.raises(GeneratorError, match="six time ids"):
            generator.encode_text([ids, ids], **missing)
    with pytest.raises(GeneratorError, match="number of text encoders"):
        generator.encode_text([ids], ends=[0], time_ids=TIME_IDS)
    with pytest.raises(GeneratorError, match="no hidden states"):
        generator.encode_vectors(np.zeros((1, 2, 40)))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"addition_embed_type": None}, "addition_embed_type"),
        ("unet", {"projection_class_embeddings_input_dim": 61}, "fit"),
        ("text_encoder_2", {"architectures": ["CLIPTextModel"]}, "another class"),
        ("text_encoder", {"hidden_size": 24}, "fit"),
    ],
)
def test_parts_that_are_no_xl(folder, tmp_path, part, change, words):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(GeneratorError, match=words):
        load_generator(copy, cast="stored")
