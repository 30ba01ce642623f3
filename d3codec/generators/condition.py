"""What a generator is asked with (`Condition`) and what it can do (`Generator`), the same for every family.

Imports no torch, so that whoever only names these types stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    Array = np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """What the denoiser is given beside latents and timestep, a row an image. A family uses some of these:

    hidden: [batch, length, width], what cross attention looks at, in the compute dtype;
    pooled: [batch, width], the second text encoder's sentence embedding (SDXL), in the compute dtype;
    time_ids: int64 [batch, 6], original size, crop and target size (SDXL), on the CPU;
    class_ids: int64 [batch] (DiT).
    """

    hidden: Tensor | None = None
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    class_ids: Tensor | None = None

    def __len__(self) -> int:
        """Rows of the batch; ValueError for a condition of nothing."""
        for part in self._parts():
            if part is not None:
                return len(part)
        raise ValueError("a condition of nothing has no length")

    def __getitem__(self, rows: Tensor | slice) -> Condition:
        """The rows chosen by a slice or an index tensor (a row may be taken more than once)."""
        return self._each(lambda part: part[rows if isinstance(rows, slice) else rows.to(part.device)])

    def expand(self, count: int) -> Condition:
        """One row as a batch of `count` alike, without copying."""
        return self._each(lambda part: part.expand(count, *part.shape[1:]))

    def zeroed(self) -> Condition:
        """Hidden states and pooled embedding of zeros: the unconditional branch of models trained so."""
        zero = [None if part is None else part.new_zeros(part.shape) for part in (self.hidden, self.pooled)]
        return Condition(zero[0], zero[1], self.time_ids, self.class_ids)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """The batches one after another; all must have the same parts."""
        import torch

        columns = zip(*(condition._parts() for condition in conditions), strict=True)
        return Condition(*(None if column[0] is None else torch.cat(column) for column in columns))

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.hidden, self.pooled, self.time_ids, self.class_ids

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(*(None if part is None else change(part) for part in self._parts()))


class Generator(Protocol):
    """A loaded generator of any family.

    Attributes: `family`; `folder` of the weights; `dtype` and `device` of the networks; `text_widths`, the width of
    a token embedding of each text encoder, () without one; `max_length`, tokens of the longest prompt (0 without a
    text encoder); `hidden_width`, the width of the hidden states that the denoiser takes (0 if it takes none);
    `class_count`, the number of class ids, the null class included (0 if it takes none).
    """

    family: ClassVar[str]
    folder: Path
    dtype: torch.dtype
    device: torch.device
    max_length: int
    hidden_width: int
    class_count: int

    @property
    def text_widths(self) -> tuple[int, ...]:
        """The width of a token embedding of each text encoder."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image; GeneratorError if there are none."""

    def token_embedding(self, token: int, encoder: int = 0) -> np.ndarray:
        """The embedding of one token, float64 [width]; UsageError for a token that the vocabulary lacks."""

    def encode_text(
        self,
        ids: Sequence[Array],
        slots: tuple[int, ...] = (),
        vectors: Sequence[Array] | None = None,
        ends: Array | None = None,
        time_ids: Sequence[int] | None = None,
    ) -> Condition:
        """The condition of prompts.

        Arguments:
            ids: int64 [batch, length] for each text encoder, padded with its own padding.
            slots: positions whose token embeddings are replaced by `vectors` (before positions are added).
            vectors: [batch, slots, width] for each text encoder, any float dtype; a tensor keeps its gradient.
            ends: int64 [batch], the position of the last token that is not padding (SDXL).
            time_ids: six integers (SDXL).

        Raises:
            GeneratorError: tokens that an encoder does not take, or a family without text.
        """

    def encode_vectors(self, vectors: Array) -> Condition:
        """Hidden states [batch, length, hidden width] as they are; GeneratorError for another width."""

    def encode_classes(self, classes: Array) -> Condition:
        """Class ids, int64 [batch]; GeneratorError for ids that the denoiser does not have."""

    def denoise(self, latents: Tensor, timestep: float | Tensor, condition: Condition) -> Tensor:
        """The denoiser's prediction for latents [batch, C, h, w] at a timestep (one, or float64 or int64 [batch]).

        Computes in the generator's dtype and returns the latents' dtype and shape: a learned variance is left out.
        """

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [batch, 3, height, width], about -1 to 1, of latents in the scale of the denoiser."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents (the mean, in the scale of the denoiser) of images [batch, 3, height, width] in -1 to 1."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text with begin and end tokens, not padded; UsageError for unknown characters."""

    def padding(self, encoder: int = 0) -> tuple[int, int]:
        """(token id, length) to which prompts of one text encoder are padded."""

    def encoding_hints(self) -> dict[str, Any]:
        """What the makers of the generator advise an encoder to do (`encoding.json`), or {}."""
