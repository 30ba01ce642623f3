"""Tiny pipelines of every family, as diffusers' `save_pretrained` writes them, with the same weights everywhere.

Images are 8 x 8 pixels (DiT makes no others), latents 4 x 4 x 4, prompts 8 tokens. `make_pipeline` of tiny_pipeline.py
makes the Stable Diffusion of this size.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIZE, LENGTH = 8, 8
TIME_IDS = (8, 8, 0, 0, 8, 8)
# The condition must be seen in the pictures: what cross attention adds is strong, and attention prefers some tokens.
SEEN = {"attn2.to_out.0.weight": 8.0, "attn2.to_q.weight": 3.0, "proj_out.weight": 3.0}
NULL_CLASS = 1000  # the pipeline of diffusers writes it out as a number


def fill_portably(network: Any, seed: int, gains: Mapping[str, float] | None = None) -> Any:
    """Random weights from the noise of the format, so that they do not depend on torch's generator; returns network.

    Products keep the variance of their input (1 / sqrt(fan in)), embeddings are of unit variance, norms near 1, biases
    small. `gains` multiplies the tensors whose names end so.
    """
    import torch

    from d3codec.noise import normals

    embeddings = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, torch.nn.Embedding)}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            stable = name.removeprefix("text_model.")  # some releases of transformers have it, others not
            values = normals(seed, zlib.crc32(stable.encode()), 0, tuple(parameter.shape)).astype(np.float64)
            if name in embeddings:
                scale, middle = 1.0, 0.0
            elif parameter.ndim > 1:
                scale, middle = 1 / math.sqrt(math.prod(parameter.shape[1:])), 0.0
            else:
                scale, middle = 0.1, float(name.endswith("weight"))
            for ending, gain in (gains or {}).items():
                scale *= gain if stable.endswith(ending) else 1.0
            parameter.copy_(torch.from_numpy(middle + scale * values))
    return network


def save_pipeline(folder: Path, class_name: str, parts: Mapping[str, Any], **others: Any) -> Path:
    """Every part in its folder, and `model_index.json`."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.35.0", **others}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = "transformers" if name.startswith(("text", "token")) else "diffusers"
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def autoencoder(seed: int) -> Any:
    """An AutoencoderKL of factor 2 with 4 latent channels."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    network = AutoencoderKL(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
    )
    return fill_portably(network, seed, {"decoder.conv_out.weight": 0.5})


def tiny_autoencoder(seed: int) -> Any:
    """An AutoencoderTiny of factor 2 with 4 latent channels; its images lie about -1 to 1."""
    import torch
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    network = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    fill_portably(network, seed, {f"decoder.layers.{len(network.decoder.layers) - 1}.weight": 0.3})
    with torch.no_grad():
        network.decoder.layers[-1].bias += 0.4  # its own range is 0 to 1
    return network


def use_tiny_autoencoder(folder: Path, seed: int = 0) -> Path:
    """Put an AutoencoderTiny in the place of a pipeline's autoencoder; returns the folder."""
    import shutil

    shutil.rmtree(folder / "vae")
    tiny_autoencoder(seed).save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["diffusers", "AutoencoderTiny"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def make_text_time(folder: Path, seed: int = 0) -> Path:
    """Stable Diffusion whose U-Net joins the timestep with the pooled text."""
    from tiny_pipeline import make_pipeline

    return make_pipeline(folder, seed, addition_embed_type="text", addition_embed_type_num_heads=4)


def make_xl(folder: Path, seed: int = 0) -> Path:
    """Stable Diffusion XL in SDXL-Turbo's set-up: Euler ancestral with trailing timesteps; 130,000 parameters."""
    from diffusers import EulerAncestralDiscreteScheduler
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from tiny_pipeline import make_tokenizer
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    first, second = make_tokenizer(), make_tokenizer(pad_token="z")

    def config(tokenizer: Any, **fields: Any) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            num_attention_heads=2,
            **fields,
        )

    text = config(first, hidden_size=16, intermediate_size=32, num_hidden_layers=2, projection_dim=16)
    text_2 = config(
        second, hidden_size=24, intermediate_size=48, num_hidden_layers=3, projection_dim=12, hidden_act="gelu"
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16 + 24,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 12,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    parts = {
        "scheduler": EulerAncestralDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
            steps_offset=1,
        ),
        "text_encoder": fill_portably(CLIPTextModel(text), seed + 1),
        "text_encoder_2": fill_portably(CLIPTextModelWithProjection(text_2), seed + 2),
        "tokenizer": first,
        "tokenizer_2": second,
        "unet": fill_portably(unet, seed + 3, SEEN | {"add_embedding.linear_2.weight": 2.0}),
        "vae": autoencoder(seed + 4),
    }
    absent = {name: [None, None] for name in ("feature_extractor", "image_encoder")}
    return save_pipeline(folder, "StableDiffusionXLPipeline", parts, force_zeros_for_empty_prompt=True, **absent)


def make_dit(folder: Path, seed: int = 0) -> Path:
    """DiT with learned variance and 1000 classes; 66,000 parameters, half of them class embeddings."""
    from diffusers import DDIMScheduler
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=SIZE // 2,
        patch_size=2,
        num_embeds_ada_norm=NULL_CLASS,
    )
    parts = {
        "scheduler": DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        "transformer": fill_portably(transformer, seed + 1),
        "vae": autoencoder(seed + 2),
    }
    return save_pipeline(folder, "DiTPipeline", parts, id2label={"0": "ant", "1": "bee"})


def make_latent_diffusion(folder: Path, seed: int = 0, width: int = 16) -> Path:
    """A U-Net and an autoencoder without a text encoder; 80,000 parameters."""
    from diffusers import DDIMScheduler
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=width,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    parts = {
        "scheduler": DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        "unet": fill_portably(unet, seed + 1, SEEN),
        "vae": autoencoder(seed + 2),
    }
    return save_pipeline(folder, "LatentDiffusionPipeline", parts)
