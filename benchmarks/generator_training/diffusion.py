"""Text encoder and UNet, trained together on latents: epsilon prediction, Stable Diffusion's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .checkpoint import Training, step_generator, train
from .config import Config

STAGE = 3


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_networks(config: Config, tokenizer: CLIPTokenizer, latent_shape: tuple[int, ...]) -> nn.ModuleDict:
    """`text` (CLIPTextModel) and `unet` (UNet2DConditionModel) for latents (channels, side, side)."""
    text, layout = config.text, config.unet
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text.width,
            intermediate_size=4 * text.width,
            projection_dim=text.width,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # CLIP's 0.02 is meant for 49,408 words; a few words must lie far enough apart from the start.
    nn.init.normal_(encoder.get_input_embeddings().weight, 0, 0.1)
    unet = UNet2DConditionModel(
        sample_size=latent_shape[-1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in layout.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(layout.attention)),
        block_out_channels=layout.widths,
        layers_per_block=layout.layers_per_block,
        cross_attention_dim=text.width,
        attention_head_dim=layout.head_dim,
        norm_num_groups=layout.norm_groups,
    )
    return nn.ModuleDict({"text": encoder, "unet": unet})


def train_generator(
    config: Config,
    tokenizer: CLIPTokenizer,
    latents: torch.Tensor,
    ids: torch.Tensor,
    *,
    seed: int,
    path: Path,
    device: torch.device,
    every_seconds: float,
    on_checkpoint: Callable[[Training], None],
) -> Training:
    """Train on latents float32 (N, C, h, w) and captions int64 (N, tokens); publish the result's `ema`."""
    layout = config.generator
    torch.manual_seed(seed)
    nets = make_networks(config, tokenizer, tuple(latents.shape[1:])).to(device).train()
    optimiser = torch.optim.AdamW(
        nets.parameters(), layout.learning_rate, betas=(0.9, 0.99), weight_decay=layout.weight_decay, fused=True
    )
    training = Training(nets, optimiser, ema_decay=layout.ema)
    scheduler = make_scheduler()
    empty = torch.tensor([tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (ids.shape[1] - 1))
    batch = (layout.cuda_batch if device.type == "cuda" else None) or layout.batch

    def step_loss(step: int) -> torch.Tensor:
        random = step_generator(seed, STAGE, step)
        chosen = torch.randint(0, len(latents), (batch,), generator=random)
        dropped = torch.rand(batch, 1, generator=random) < config.captions.empty
        t = torch.randint(0, scheduler.config.num_train_timesteps, (batch,), generator=random)
        noise = torch.randn((batch, *latents.shape[1:]), generator=random)
        noisy = scheduler.add_noise(latents[chosen], noise, t).to(device)
        captions = torch.where(dropped, empty, ids[chosen]).to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            context = nets["text"](captions).last_hidden_state
            predicted = nets["unet"](noisy, t.to(device), context).sample
        return F.mse_loss(predicted.float(), noise.to(device))

    def learning_rate(step: int) -> float:
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / layout.steps)
        return layout.learning_rate * min(1, (step + 1) / layout.warmup) * cosine

    train(
        training,
        step_loss,
        name="generator",
        steps=layout.steps,
        learning_rate=learning_rate,
        path=path,
        clip=layout.clip,
        every_seconds=every_seconds,
        on_checkpoint=on_checkpoint,
    )
    return training
