"""A U-Net and an autoencoder without a text encoder: the file gives the hidden states (Rombach et al. 2022; LD3M)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from d3codec.generators.condition import Condition
from d3codec.generators.latent import Array, LatentGenerator
from d3codec.generators.parts import LoadedPart
from d3codec.generators.unet import own_layers, predict


class LatentDiffusion(LatentGenerator):
    """A loaded generator; networks `unet` and `vae`."""

    family = "latent-diffusion"
    unet: nn.Module
    vae: nn.Module

    def __init__(self, folder: Path, parts: dict[str, LoadedPart]) -> None:
        super().__init__(folder, parts)
        unet = parts["unet"].config
        if unet["in_channels"] != unet["out_channels"] or not isinstance(unet["cross_attention_dim"], int):
            raise self._unfit()
        self.hidden_width = unet["cross_attention_dim"]
        own_layers(parts["unet"], self.dtype, self.device)

    def encode_vectors(self, vectors: Array) -> Condition:
        """Hidden states [batch, length, hidden width] as they are; GeneratorError for another width."""
        return self._hidden(vectors)

    def _predict(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return predict(self.unet, latents, times, condition)
