"""Diffusion transformers conditioned on class ids (DiT; Peebles and Xie, arXiv 2212.09748)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from d3codec.errors import GeneratorError
from d3codec.generators.condition import Condition
from d3codec.generators.embedding import Sinusoids, position_table
from d3codec.generators.latent import Array, LatentGenerator
from d3codec.generators.parts import LoadedPart

TIME_WIDTH, TIME_SHIFT = 256, 1  # of the architecture: diffusers' CombinedTimestepLabelEmbeddings


class DiT(LatentGenerator):
    """A loaded generator; networks `transformer` and `vae`. Its images have one size. The last class id is the null
    class."""

    family = "dit"
    denoiser = "transformer"
    transformer: nn.Module
    vae: nn.Module

    def __init__(self, folder: Path, parts: dict[str, LoadedPart]) -> None:
        super().__init__(folder, parts)
        config = parts["transformer"].config
        channels, outputs = config["in_channels"], config["out_channels"] or config["in_channels"]
        width = config["num_attention_heads"] * config["attention_head_dim"]
        if outputs not in (channels, 2 * channels) or config["sample_size"] % config["patch_size"] or width % 4:
            raise self._unfit()
        self._channels, self._side = channels, config["sample_size"]
        self.class_count = config["num_embeds_ada_norm"] + 1
        # The library's table of positions is float32, and so are its sinusoids of timesteps.
        network = parts["transformer"].network
        table = torch.tensor(position_table(width, self._side // config["patch_size"])).to(self.dtype).to(self.device)
        network.pos_embed.register_buffer("pos_embed", table[None], persistent=False)
        sinusoids = Sinusoids(TIME_WIDTH, True, TIME_SHIFT, self.dtype, self.device)
        for block in network.transformer_blocks:
            block.norm1.emb.time_proj = sinusoids

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents; GeneratorError for another size than the generator's own."""
        shape = super().latent_shape(height, width)
        if shape[1:] != (self._side, self._side):
            side = self._side * (height // shape[1])
            raise GeneratorError(
                "the generator makes images of one size",
                file=str(self.folder),
                found=f"{height}x{width}",
                expected=f"{side}x{side}",
            )
        return shape

    def encode_classes(self, classes: Array) -> Condition:
        """Class ids, int64 [batch]; GeneratorError for ids that the denoiser does not have."""
        ids = torch.as_tensor(classes, dtype=torch.int64).reshape(-1)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.class_count:
            raise GeneratorError(
                "class ids that the generator does not have",
                file=str(self.folder),
                found=f"{int(ids.min())} to {int(ids.max())}",
                expected=f"0 to {self.class_count - 1}, the last of them the null class",
            )
        return Condition(class_ids=ids.to(self.device))

    def _predict(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        output: Tensor = self.transformer(latents, times, condition.class_ids, return_dict=False)[0]
        return output[:, : self._channels]  # what follows is the learned variance, which no sampler here uses
