"""Autoencoders: training of a KL one, standard latents folded into its own 1x1 convolutions, published ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny

from .checkpoint import Training, step_generator, train
from .config import Autoencoder, Config

STAGE = 2


def _layout(config: Config) -> Autoencoder:
    if config.autoencoder is None:
        raise ValueError(f"{config.name}: no [autoencoder] to be trained; name the folder of one with --vae")
    return config.autoencoder


def make_autoencoder(config: Config) -> AutoencoderKL:
    """Stock layout; factor 2 ** (levels - 1), no attention, scaling factor 1."""
    layout = _layout(config)
    levels = len(layout.widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=layout.widths,
        layers_per_block=layout.layers_per_block,
        latent_channels=layout.latent_channels,
        norm_num_groups=layout.norm_groups,
        sample_size=config.resolution,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def to_float(images: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 (N, height, width, 3) -> float32 (N, 3, height, width) in [-1, 1]."""
    pixels = torch.as_tensor(images, device=device).permute(0, 3, 1, 2).float()
    return pixels / 127.5 - 1


def train_autoencoder(
    config: Config,
    images: np.ndarray,
    native: np.ndarray,
    *,
    seed: int,
    path: Path,
    device: torch.device,
    every_seconds: float,
    on_checkpoint: Callable[[Training], None],
) -> AutoencoderKL:
    """Train on a pool: images uint8 (N, side, side, 3), native bool (N,)."""
    layout = _layout(config)
    torch.manual_seed(seed)
    net = make_autoencoder(config).to(device).train()
    training = Training(net, torch.optim.AdamW(net.parameters(), layout.learning_rate))
    starts = np.cumsum([0, *(phase.steps for phase in layout.phases)])
    pixels = torch.as_tensor(images)
    halves = torch.as_tensor(np.flatnonzero(native)), torch.as_tensor(np.flatnonzero(~native))
    batch = (layout.cuda_batch if device.type == "cuda" else None) or layout.batch

    def phase_of(step: int) -> int:
        return int(np.searchsorted(starts, step, side="right")) - 1

    def step_loss(step: int) -> torch.Tensor:
        phase, random = layout.phases[phase_of(step)], step_generator(seed, STAGE, step)
        unchanged = torch.rand(batch, generator=random) < phase.native
        picks = [half[torch.randint(0, len(half), (batch,), generator=random)] for half in halves]
        x = to_float(pixels[torch.where(unchanged, *picks)], device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            posterior = net.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=random).to(device)
            y = net.decode(mean + (logvar / 2).exp() * noise).sample.float()
        divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        return F.mse_loss(y, x) + phase.kl_weight * divergence

    def learning_rate(step: int) -> float:
        phase = phase_of(step)
        return layout.learning_rate * (1 - (step - starts[phase]) / layout.phases[phase].steps)

    train(
        training,
        step_loss,
        name="autoencoder",
        steps=layout.steps,
        learning_rate=learning_rate,
        path=path,
        every_seconds=every_seconds,
        on_checkpoint=on_checkpoint,
    )
    return net


def load_autoencoder(folder: Path, device: torch.device) -> AutoencoderKL | AutoencoderTiny:
    """A frozen autoencoder of a folder, float32, of the class that its configuration names."""
    named = json.loads((folder / "config.json").read_text())["_class_name"]
    kinds = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    if named not in kinds:
        raise ValueError(f"{folder}: an autoencoder of class {named}, expected {' or '.join(kinds)}")
    return kinds[named].from_pretrained(folder).float().to(device).eval().requires_grad_(False)


def _code(net: AutoencoderKL | AutoencoderTiny, images: np.ndarray, device: torch.device) -> torch.Tensor:
    """Latents without noise: the means of posteriors, or what an autoencoder without posteriors gives."""
    coded = net.encode(to_float(images, device).to(net.dtype))
    return coded.latents if isinstance(net, AutoencoderTiny) else coded.latent_dist.mean


@torch.inference_mode()
def encode_pool(
    net: AutoencoderKL | AutoencoderTiny, images: np.ndarray, device: torch.device, batch: int = 200
) -> torch.Tensor:
    """Latents without noise, times the scaling factor: float32 (N, channels, height, width) on the CPU."""
    batches = np.array_split(images, -(-len(images) // batch))
    return torch.cat([_code(net, part, device).float().cpu() for part in batches]) * net.config.scaling_factor


@torch.no_grad()
def standardise(net: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold mean 0 and deviation 1 of every latent channel into quant_conv and post_quant_conv, exactly.

    Stable Diffusion has one scaling factor and no shift, so the two 1x1 convolutions around the latents take
    the affine map and its inverse; reconstructions stay the same up to rounding.

    Arguments:
        latents: float32 (N, C, h, w), as `encode_pool` gives them before.
    """
    device = net.quant_conv.weight.device
    mean = latents.mean((0, 2, 3)).to(device)
    deviation = latents.std((0, 2, 3)).to(device)
    channels = len(mean)
    into, out_of = net.quant_conv, net.post_quant_conv
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= deviation[None, :, None, None]
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()  # the second half is a log variance


@torch.inference_mode()
def reconstruct(net: AutoencoderKL | AutoencoderTiny, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Images from their latents without noise, uint8 (N, height, width, 3) -> the same."""
    y = net.decode(_code(net, images, device)).sample
    return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(net: AutoencoderKL | AutoencoderTiny, images: np.ndarray, device: torch.device) -> float:
    """Peak signal-to-noise ratio in dB of the reconstruction, over all values of uint8 (N, h, w, 3)."""
    error = np.mean((reconstruct(net, images, device).astype(np.float64) - images) ** 2)
    return 10 * math.log10(255**2 / max(error, 1e-12))
