"""The U-Net of latent diffusion, with layers of our own where the library's compute in float32 whatever the dtype."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from d3codec.errors import GeneratorError
from d3codec.generators.condition import Condition
from d3codec.generators.embedding import Sinusoids
from d3codec.generators.parts import LoadedPart


def own_layers(part: LoadedPart, dtype: torch.dtype, device: torch.device) -> None:
    """Put `Sinusoids` in the places of the network's embeddings of timesteps and of SDXL's time ids, `TextPooling` in
    that of its pooling of the text."""
    config, network = part.config, part.network
    flip, shift = config["flip_sin_to_cos"], config["freq_shift"]
    network.time_proj = Sinusoids(config["block_out_channels"][0], flip, shift, dtype, device)
    if config["addition_embed_type"] == "text_time":
        network.add_time_proj = Sinusoids(config["addition_time_embed_dim"], flip, shift, dtype, device)
    if config["addition_embed_type"] == "text":
        width, heads = config["cross_attention_dim"], config["addition_embed_type_num_heads"]
        if not isinstance(heads, int) or heads < 1 or width % heads:
            raise GeneratorError(
                "heads that do not divide the width of the text",
                field="addition_embed_type_num_heads",
                found=heads,
                expected=f"a divisor of {width}",
            )
        network.add_embedding.pool = TextPooling(network.add_embedding.pool)


class TextPooling(torch.nn.Module):
    """Hidden states [batch, length, width] -> one vector [batch, width]: their mean looks at itself and at them.

    What diffusers' `AttentionPooling` computes (as CLIP pools an image, Radford et al. 2021), with a softmax in the
    dtype of the network. The mean is made of a product with ones, which the profile `exact-fixed` knows.
    """

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.positional_embedding = theirs.positional_embedding
        self.q_proj, self.k_proj, self.v_proj = theirs.q_proj, theirs.k_proj, theirs.v_proj
        self.num_heads: int = theirs.num_heads

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        total = F.linear(hidden.transpose(1, 2), hidden.new_ones(1, length)).transpose(1, 2)
        mean = total * (1.0 / length) + self.positional_embedding
        rows = torch.cat([mean, hidden], dim=1)
        query, key, value = (
            self._heads(project(given))
            for project, given in ((self.q_proj, mean), (self.k_proj, rows), (self.v_proj, rows))
        )
        return F.scaled_dot_product_attention(query, key, value).reshape(batch, width)

    def _heads(self, rows: Tensor) -> Tensor:
        """[batch, length, width] -> [batch, heads, length, width of a head]."""
        return rows.view(len(rows), rows.shape[1], self.num_heads, -1).transpose(1, 2)


def predict(network: torch.nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
    """The U-Net's output [batch, C, h, w] for latents of its dtype and timesteps float64 [batch] on the CPU."""
    added = None
    if condition.pooled is not None:
        added = {"text_embeds": condition.pooled, "time_ids": condition.time_ids}
    output: Tensor = network(
        latents, times, encoder_hidden_states=condition.hidden, added_cond_kwargs=added, return_dict=False
    )[0]
    return output
