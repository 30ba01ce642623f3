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

# Positions in the latents and the random numbers of the step -> token ids int64 (batch, tokens).
CaptionDraw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


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
        dropout=layout.dropout,
        # From cross attention alone a short training learns its captions too slowly.
        **({"addition_embed_type": "text", "addition_embed_type_num_heads": text.heads} if layout.pooled_text else {}),
    )
    return nn.ModuleDict({"text": encoder, "unet": unet})


def fixed_captions(ids: torch.Tensor, tokenizer: CLIPTokenizer, empty: float) -> CaptionDraw:
    """One caption an image, ids int64 (N, tokens); a share of them replaced by the empty one."""
    nothing = torch.tensor([tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (ids.shape[1] - 1))

    def draw(chosen: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        dropped = torch.rand(len(chosen), 1, generator=random) < empty
        return torch.where(dropped, nothing, ids[chosen])

    return draw


@torch.inference_mode()
def validation_loss(
    nets: nn.Module, latents: torch.Tensor, ids: torch.Tensor, *, device: torch.device, bfloat16: bool, batch: int
) -> float:
    """Mean squared error of the predicted noise; the noises are always the same, and all timesteps take part."""
    random, scheduler = torch.Generator().manual_seed(0), make_scheduler()
    noise = torch.randn(latents.shape, generator=random)
    t = (torch.randperm(len(latents), generator=random) * scheduler.config.num_train_timesteps) // len(latents)
    total = 0.0
    for part in torch.arange(len(latents)).split(batch):
        noisy = scheduler.add_noise(latents[part], noise[part], t[part]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            context = nets["text"](ids[part].to(device)).last_hidden_state
            predicted = nets["unet"](noisy, t[part].to(device), context).sample
        total += F.mse_loss(predicted.float().cpu(), noise[part], reduction="sum").item()
    return total / latents.numel()


def train_generator(
    config: Config,
    tokenizer: CLIPTokenizer,
    latents: torch.Tensor,
    captions: CaptionDraw,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    seed: int,
    path: Path,
    device: torch.device,
    every_seconds: float,
    on_checkpoint: Callable[[Training], None],
) -> Training:
    """Train on latents float32 (N, C, h, w) with the captions drawn for them; publish the result's `ema`.

    `validation`: latents and captions int64 (M, tokens) that are measured and never trained on.
    """
    layout = config.generator
    torch.manual_seed(seed)
    nets = make_networks(config, tokenizer, tuple(latents.shape[1:])).to(device).train()
    optimiser = torch.optim.AdamW(
        nets.parameters(), layout.learning_rate, betas=(0.9, 0.99), weight_decay=layout.weight_decay, fused=True
    )
    training = Training(nets, optimiser, ema_decay=layout.ema)
    scheduler = make_scheduler()
    bfloat16 = layout.bfloat16 or device.type == "cuda"
    batch = (layout.cuda_batch if device.type == "cuda" else None) or layout.batch

    def step_loss(step: int) -> torch.Tensor:
        random = step_generator(seed, STAGE, step)
        chosen = torch.randint(0, len(latents), (batch,), generator=random)
        ids = captions(chosen, random)
        t = torch.randint(0, scheduler.config.num_train_timesteps, (batch,), generator=random)
        noise = torch.randn((batch, *latents.shape[1:]), generator=random)
        noisy = scheduler.add_noise(latents[chosen], noise, t).to(device)
        if config.unet.dropout:  # draws from the global generator, which no checkpoint holds
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=random)))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            context = nets["text"](ids.to(device)).last_hidden_state
            predicted = nets["unet"](noisy, t.to(device), context).sample
        return F.mse_loss(predicted.float(), noise.to(device))

    def learning_rate(step: int) -> float:
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / layout.steps)
        return layout.learning_rate * min(1, (step + 1) / layout.warmup) * cosine

    def validate(training: Training) -> float:
        assert validation is not None
        return validation_loss(training.averaged(), *validation, device=device, bfloat16=bfloat16, batch=batch)

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
        validate=validate if validation else None,
        validate_every=layout.validate_every,
    )
    return training
