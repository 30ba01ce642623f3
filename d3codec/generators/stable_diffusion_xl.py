"""Stable Diffusion XL and XL-Turbo: two text encoders, a sentence embedding, sizes (Podell et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from d3codec.errors import GeneratorError
from d3codec.generators.condition import Condition
from d3codec.generators.latent import Array, LatentGenerator
from d3codec.generators.parts import LoadedPart
from d3codec.generators.text import TextEncoder
from d3codec.generators.unet import own_layers, predict

TIME_IDS = 6


class StableDiffusionXL(LatentGenerator):
    """A loaded generator; networks `text_encoder`, `text_encoder_2`, `unet`, `vae`."""

    family = "stable-diffusion-xl"
    text_encoder: nn.Module
    text_encoder_2: nn.Module
    unet: nn.Module
    vae: nn.Module

    def __init__(self, folder: Path, parts: dict[str, LoadedPart]) -> None:
        super().__init__(folder, parts)
        unet, second = parts["unet"].config, parts["text_encoder_2"].config
        self._text = (
            TextEncoder(parts["text_encoder"], folder),
            TextEncoder(parts["text_encoder_2"], folder, "tokenizer_2"),
        )
        self.max_length = min(text.max_length for text in self._text)
        self.hidden_width = unet["cross_attention_dim"]
        added = TIME_IDS * (unet["addition_time_embed_dim"] or 0) + second["projection_dim"]
        if (
            self.hidden_width != sum(self.text_widths)
            or unet["in_channels"] != unet["out_channels"]
            or unet["projection_class_embeddings_input_dim"] != added
        ):
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
        """Both encoders' states before their last layer, side by side; the second one's sentence embedding."""
        self._check_encoders(len(ids))
        if ends is None or time_ids is None or len(time_ids) != TIME_IDS:
            raise GeneratorError(
                "this family needs the end of every prompt and six time ids", file=str(self.folder), found=time_ids
            )
        rows = (None, None) if vectors is None else vectors
        states = [
            text.encode(tokens, slots, row, penultimate=True)
            for text, tokens, row in zip(self._text, ids, rows, strict=True)
        ]
        hidden = torch.cat([state for _, state in states], dim=-1)
        last, places = states[1][0], torch.as_tensor(ends, dtype=torch.int64, device=self.device)
        pooled = self._text[1].project(last[torch.arange(len(last), device=self.device), places])
        sizes = torch.tensor(list(time_ids), dtype=torch.int64).expand(len(last), -1)
        return Condition(hidden, pooled, sizes)

    def _predict(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        if condition.pooled is None or condition.time_ids is None:
            self._refuse("condition without sentence embedding and time ids")
        return predict(self.unet, latents, times, condition)
