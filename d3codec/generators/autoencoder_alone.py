"""An autoencoder without a denoiser: the file gives the latents (TAESD, or the autoencoder of any pipeline)."""

from __future__ import annotations

from torch import nn

from d3codec.generators.latent import LatentGenerator


class AutoencoderAlone(LatentGenerator):
    """A loaded generator; network `vae`. It decodes latents and takes nothing else."""

    family = "autoencoder"
    denoiser = "vae"
    vae: nn.Module
