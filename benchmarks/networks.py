"""A generator of 6.9 million parameters with portable random weights, for measurements that need no pictures.

U-Net of 5.8 M parameters with cross attention at two resolutions, AutoencoderKL of factor 4, images of 64 x 64, a
two-layer text encoder; the tokenizer is that of the bundled generator. The weights come from the format's own noise,
so every machine makes the same ones; with random weights the pictures are textures. Their gain is chosen so that
the pixels use the whole range without clipping much.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np

from d3codec.generators.weights import bundled_generator
from d3codec.noise import normals

SIDE = 64


def make_network(folder: Path) -> Path:
    """Write the pipeline in the layout of diffusers' `save_pretrained` (float32) and return its folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    bundled = bundled_generator()
    text = json.loads((bundled / "text_encoder" / "config.json").read_text())
    text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        layers_per_block=1,
        block_out_channels=(64, 128, 128),
        cross_attention_dim=64,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=16,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        scaling_factor=0.5,
    )
    networks = {"text_encoder": CLIPTextModel(CLIPTextConfig(**text)), "unet": unet, "vae": vae}
    for number, (name, network) in enumerate(networks.items()):
        fill(network, key=number)
        network.save_pretrained(folder / name)
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    shutil.copytree(bundled / "tokenizer", folder / "tokenizer")
    shutil.copy(bundled / "model_index.json", folder / "model_index.json")
    return folder


def fill(network: object, key: int) -> None:
    """Weights gain / sqrt(fan in) times a normal number, biases near 0, norms near 1: the same on every machine."""
    import torch

    assert isinstance(network, torch.nn.Module)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(network.named_parameters())):
            values = torch.from_numpy(np.array(normals(key, number, 0, tuple(parameter.shape))))
            if parameter.ndim == 1:
                parameter.copy_(values * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                gain = 1.0 if "embed" in name and parameter.ndim == 2 else 1.0 / math.sqrt(parameter[0].numel())
                parameter.copy_(values * gain)
