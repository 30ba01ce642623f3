"""What the families have in common: latents are denoised by one network and decoded by an autoencoder.

No pipeline, no scheduler, nothing that could supply a default which the file does not state. Gradients may flow
through every method (the encoder learns embeddings); the decoder calls them in inference mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from d3codec.errors import GeneratorError
from d3codec.generators.autoencoder import Autoencoder
from d3codec.generators.condition import Condition
from d3codec.generators.files import read_object
from d3codec.generators.parts import LoadedPart, load_parts
from d3codec.generators.text import TextEncoder

Array = np.ndarray | Tensor


class LatentGenerator:
    """A loaded generator; see `d3codec.generators.condition.Generator` for its attributes and methods.

    The networks are attributes with the names of their parts. A subclass names its family and the part that
    denoises (`vae`: none does), and overrides how a condition is made.
    """

    family: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    max_length: int = 0
    hidden_width: int = 0
    class_count: int = 0
    _text: tuple[TextEncoder, ...] = ()

    def __init__(self, folder: Path, parts: dict[str, LoadedPart]) -> None:
        self.folder = folder
        for name, part in parts.items():
            setattr(self, name, part.network)
        weight = next(parts[self.denoiser].network.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        self._autoencoder = Autoencoder(parts["vae"], folder)
        if self.denoiser != "vae" and parts[self.denoiser].config["in_channels"] != self._autoencoder.channels:
            raise self._unfit()

    @classmethod
    def load(
        cls, folder: str | Path, *, cast: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> Self:
        """Load the generator of a folder in the layout of diffusers' `save_pretrained`.

        Arguments:
            cast: 'f16' (weights are rounded to float16 before anything else) or 'stored'.
            dtype: of the computation; the cast weights are converted to it.

        Raises:
            GeneratorError: files that are missing, damaged or of another architecture.
        """
        folder = Path(folder)
        return cls(folder, load_parts(folder, cls.family, cast, dtype, device))

    @property
    def text_widths(self) -> tuple[int, ...]:
        """The width of a token embedding of each text encoder."""
        return tuple(text.width for text in self._text)

    # ------------------------------------------------------------------------------------------------ condition

    def token_embedding(self, token: int, encoder: int = 0) -> np.ndarray:
        """The embedding of one token, float64 [width]; UsageError for a token that the vocabulary lacks."""
        return self._text_encoder(encoder).token_embedding(token)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text with begin and end tokens, not padded; see `TextEncoder.tokenize`."""
        return self._text_encoder(0).tokenize(text)

    def padding(self, encoder: int = 0) -> tuple[int, int]:
        """(token id, length) to which prompts of one text encoder are padded."""
        return self._text_encoder(encoder).padding()

    def encode_text(
        self,
        ids: Sequence[Array],
        slots: tuple[int, ...] = (),
        vectors: Sequence[Array] | None = None,
        ends: Array | None = None,
        time_ids: Sequence[int] | None = None,
    ) -> Condition:
        """The condition of prompts; see the protocol. Here: GeneratorError."""
        self._refuse("text")

    def encode_vectors(self, vectors: Array) -> Condition:
        """Hidden states as they are; see the protocol. Here: GeneratorError."""
        self._refuse("hidden states")

    def encode_classes(self, classes: Array) -> Condition:
        """Class ids; see the protocol. Here: GeneratorError."""
        self._refuse("class ids")

    def _hidden(self, vectors: Array) -> Condition:
        rows = torch.as_tensor(vectors).to(self.device, self.dtype)
        if rows.ndim != 3 or rows.shape[-1] != self.hidden_width:
            raise GeneratorError(
                "hidden states that the denoiser does not take",
                file=str(self.folder),
                found=list(rows.shape),
                expected=f"[batch, length, {self.hidden_width}]",
            )
        return Condition(hidden=rows)

    def _text_encoder(self, number: int) -> TextEncoder:
        if number >= len(self._text):
            self._refuse("text" if not self._text else f"text by an encoder {number}")
        return self._text[number]

    def _check_encoders(self, count: int) -> None:
        if count != len(self._text):
            raise GeneratorError(
                "token ids of another number of text encoders",
                file=str(self.folder),
                found=count,
                expected=len(self._text),
            )

    # ------------------------------------------------------------------------------------------------ images

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image; GeneratorError if no latents give that size."""
        return self._autoencoder.latent_shape(height, width)

    def denoise(self, latents: Tensor, timestep: float | Tensor, condition: Condition) -> Tensor:
        """The denoiser's prediction for latents [batch, C, h, w] at a timestep; see the protocol."""
        # On the CPU: the sinusoids need its value, and asking a GPU for it would wait for all work under way.
        times = torch.as_tensor(timestep, dtype=torch.float64, device="cpu").reshape(-1).expand(len(latents))
        return self._predict(latents.to(self.dtype), times, condition).to(latents.dtype)

    def _predict(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        self._refuse("noise")

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [batch, 3, height, width], about -1 to 1, of latents in the scale of the denoiser."""
        return self._autoencoder.decode(latents.to(self.dtype))

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents (the mean, in the scale of the denoiser) of images [batch, 3, height, width] in -1 to 1."""
        return self._autoencoder.encode(images.to(self.device, self.dtype))

    def encoding_hints(self) -> dict[str, Any]:
        """What the makers of the generator advise an encoder to do (`encoding.json`), or {}."""
        path = self.folder / "encoding.json"
        return read_object(path, "the encoding hints") if path.is_file() else {}

    # ------------------------------------------------------------------------------------------------ errors

    def _refuse(self, what: str) -> NoReturn:
        raise GeneratorError(f"generators of the family '{self.family}' take no {what}", file=str(self.folder))

    def _unfit(self) -> GeneratorError:
        return GeneratorError("text encoder, denoiser and autoencoder do not fit together", file=str(self.folder))
