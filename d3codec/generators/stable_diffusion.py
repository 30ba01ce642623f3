"""Stable Diffusion 1.x and 2.x: one text encoder, a U-Net, an autoencoder (Rombach et al., arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from d3codec.generators.condition import Condition
from d3codec.generators.latent import Array, LatentGenerator
from d3codec.generators.parts import LoadedPart
from d3codec.generators.text import TextEncoder
from d3codec.generators.unet import own_layers, predict


class StableDiffusion(LatentGenerator):
    """A loaded generator. Make one with `StableDiffusion.load`; networks `text_encoder`, `unet`, `vae`."""

    family = "stable-diffusion"
    text_encoder: nn.Module
    unet: nn.Module
    vae: nn.Module

    def __init__(self, folder: Path, parts: dict[str, LoadedPart]) -> None:
        super().__init__(folder, parts)
        unet = parts["unet"].config
        self._text = (TextEncoder(parts["text_encoder"], folder),)
        self.max_length, self.hidden_width = self._text[0].max_length, unet["cross_attention_dim"]
        if self.hidden_width != self._text[0].width or unet["in_channels"] != unet["out_channels"]:
            raise self._unfit()
        own_layers(parts["unet"], self.dtype, self.device)

    def encode_text(
        self,
        ids: Sequence[Array],
        slots: tuple[int, ...] = (),
        vectors: Sequence[Array] | None = None,
        ends: Array | None = None,
        time_ids: Sequence[int] | None = None,
    ) -> Condition:
        """The last hidden states of the text encoder; `ends` and `time_ids` are not needed."""
        self._check_encoders(len(ids))
        rows = None if vectors is None else vectors[0]
        return Condition(hidden=self._text[0].encode(ids[0], slots, rows)[1])

    def encode_vectors(self, vectors: Array) -> Condition:
        """Hidden states [batch, length, hidden width] as they are; GeneratorError for another width."""
        return self._hidden(vectors)

    def _predict(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return predict(self.unet, latents, times, condition)
