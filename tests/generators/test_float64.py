"""No operator of a float64 decode sees another floating-point type, in any family; what would bring one is found."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from exact_time import ExactTime
from tiny_families import (
    LENGTH,
    TIME_IDS,
    fill_portably,
    make_dit,
    make_latent_diffusion,
    make_text_time,
    make_xl,
    use_tiny_autoencoder,
)
from tiny_pipeline import make_pipeline
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from d3codec.generators.load import load_generator

torch.set_num_threads(1)
MAKERS = {"sd": make_pipeline, "sd-text": make_text_time, "xl": make_xl, "dit": make_dit, "ldm": make_latent_diffusion}


class OtherFloats(TorchDispatchMode):
    """Counts the operators that take or give a floating-point tensor other than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.operators = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.operators += 1
        for leaf in _pytree.tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64:
                self.found[f"{operator} {leaf.dtype}"] += 1
        return result


def decode(generator) -> torch.Tensor:
    """Everything that a decode asks of a generator: condition, guidance over two steps, images."""
    ids, count = np.full((2, LENGTH), 53), len(generator.text_widths)
    if count:
        vectors = [np.ones((2, 2, width)) for width in generator.text_widths]
        given = generator.encode_text([ids] * count, (1, 3), vectors, ends=np.array([4, 7]), time_ids=TIME_IDS)
    elif generator.hidden_width:
        given = generator.encode_vectors(np.ones((2, 3, generator.hidden_width)))
    else:
        given = generator.encode_classes([0, 3])
    empty = given.zeroed() if generator.class_count == 0 else generator.encode_classes([1000, 1000])
    both = type(given).cat([empty, given])
    latents = torch.linspace(-2, 2, 128, dtype=torch.float64).reshape(2, 4, 4, 4)
    for timestep in (999.0, 250.75):
        one, other = generator.denoise(latents.repeat(2, 1, 1, 1), timestep, both).chunk(2)
        latents = latents - 0.5 * (one + 2.0 * (other - one))
    return generator.decode_latents(latents)


def trace(generator) -> OtherFloats:
    with torch.inference_mode(), OtherFloats() as tracer:
        images = decode(generator)
    assert images.dtype == torch.float64
    assert bool(images.isfinite().all())
    assert tracer.operators > 300
    return tracer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    return {name: make(place / name) for name, make in MAKERS.items()} | {
        f"{name}-tiny": use_tiny_autoencoder(make(place / f"{name}-tiny")) for name, make in MAKERS.items()
    }


@pytest.mark.parametrize("name", [*MAKERS, *(f"{name}-tiny" for name in MAKERS)])
@pytest.mark.parametrize("cast", ["f16", "stored"])
def test_nothing_but_float64(folders, name, cast):
    assert not trace(load_generator(folders[name], cast=cast, dtype=torch.float64)).found


UNETS = [
    {"upcast_attention": True, "act_fn": "mish", "timestep_post_act": "gelu", "time_embedding_act_fn": "relu"},
    {"resnet_time_scale_shift": "scale_shift", "use_linear_projection": True, "center_input_sample": True},
    {"only_cross_attention": True, "transformer_layers_per_block": 2, "mid_block_type": None, "act_fn": "gelu"},
    {"cross_attention_norm": "layer_norm", "resnet_out_scale_factor": 1.5, "resnet_skip_time_act": True},
    {"cross_attention_norm": "group_norm", "conv_in_kernel": 1, "time_embedding_dim": 16, "freq_shift": 1},
]
AUTOENCODERS = [
    {"down_block_types": ("AttnDownEncoderBlock2D",) * 2, "up_block_types": ("AttnUpDecoderBlock2D",) * 2},
    {"act_fn": "relu", "use_post_quant_conv": False, "use_quant_conv": False, "mid_block_add_attention": False},
]


@pytest.mark.parametrize(
    ("part", "change"), [*(("unet", change) for change in UNETS), *(("vae", change) for change in AUTOENCODERS)]
)
def test_what_else_the_registry_allows(tmp_path, part, change):
    """Still float64 alone, and what the library computes."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = make_latent_diffusion(tmp_path / "pipeline")
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    theirs = kind.from_config(kind.load_config(folder / part) | change).eval()
    fill_portably(theirs, 1).save_pretrained(folder / part)
    generator = load_generator(folder, cast="stored", dtype=torch.float64)
    assert not trace(generator).found
    latents = torch.linspace(-2, 2, 128, dtype=torch.float64).reshape(2, 4, 4, 4)
    rows = np.ones((2, 3, generator.hidden_width))
    theirs = theirs.double()
    with torch.no_grad():
        if part == "vae":
            found, wanted = generator.decode_latents(latents), theirs.decode(latents / 0.5).sample
        else:
            theirs.time_proj = ExactTime(theirs.time_proj)
            wanted = theirs(latents, 500, torch.from_numpy(rows)).sample
            found = generator.denoise(latents, 500, generator.encode_vectors(rows))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11 * float(wanted.abs().max()))


def test_the_library_brings_float32_timesteps(folders):
    from diffusers.models.embeddings import Timesteps

    generator = load_generator(folders["sd"], cast="f16", dtype=torch.float64)
    generator.unet.time_proj = Timesteps(8, True, 0)
    assert any("sin" in name for name in trace(generator).found)


def test_the_library_brings_float32_sizes(folders):
    from diffusers.models.embeddings import Timesteps

    generator = load_generator(folders["xl"], cast="f16", dtype=torch.float64)
    generator.unet.add_time_proj = Timesteps(8, True, 0)
    assert any("cos" in name for name in trace(generator).found)


def test_the_library_brings_a_float32_softmax_of_the_pooled_text(folders):
    from diffusers.models.embeddings import AttentionPooling

    generator = load_generator(folders["sd-text"], cast="f16", dtype=torch.float64)
    generator.unet.add_embedding.pool = AttentionPooling(4, 16).double()
    assert any("softmax" in name for name in trace(generator).found)


def test_the_library_brings_a_float32_table_of_positions(folders):
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    generator = load_generator(folders["dit"], cast="f16", dtype=torch.float64)
    theirs = DiTTransformer2DModel.from_pretrained(folders["dit"] / "transformer")
    generator.transformer.pos_embed.pos_embed = theirs.pos_embed.pos_embed
    assert any("add" in name for name in trace(generator).found)


def test_eager_attention_of_the_text_encoder_is_float32(folders):
    generator = load_generator(folders["sd"], cast="f16", dtype=torch.float64)
    generator.text_encoder.config._attn_implementation = "eager"
    assert any("softmax" in name for name in trace(generator).found)


@pytest.mark.parametrize("name", ["sd", "sd-tiny"])
def test_a_float32_autoencoder_is_found(folders, name):
    generator = load_generator(folders[name], cast="f16", dtype=torch.float64)
    decode_latents = generator.decode_latents
    generator.vae.float()
    generator.decode_latents = lambda latents: decode_latents(latents).double()
    generator._autoencoder.decode = lambda latents: generator.vae.decode(latents.float()).sample
    assert any("conv2d" in name for name in trace(generator).found)
