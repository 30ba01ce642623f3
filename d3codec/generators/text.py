"""A text encoder of CLIP with its tokenizer: token ids, some of them replaced by vectors -> hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3codec.errors import GeneratorError, UsageError
from d3codec.generators.parts import LoadedPart


class TextEncoder:
    """Wraps a part `text_encoder` or `text_encoder_2`.

    Attributes: `width` of a token embedding, `vocabulary` (number of tokens), `max_length` (tokens of the longest
    prompt).
    """

    def __init__(self, part: LoadedPart, folder: Path, tokenizer: str = "tokenizer") -> None:
        self._network, self._folder, self._tokenizer_name = part.network, folder, tokenizer
        self.width: int = part.config["hidden_size"]
        self.vocabulary: int = part.config["vocab_size"]
        self.max_length: int = part.config["max_position_embeddings"]
        self._embedding: torch.nn.Module = self._network.get_input_embeddings()
        self._tokenizer: Any = None

    def token_embedding(self, token: int) -> np.ndarray:
        """The embedding of one token, float64 [width]; UsageError for a token that the vocabulary lacks."""
        if not 0 <= token < self.vocabulary:
            raise UsageError(
                "a token that the generator's vocabulary does not have",
                found=token,
                expected=f"0 to {self.vocabulary - 1}",
            )
        row: np.ndarray = self._embedding.get_parameter("weight")[token].to("cpu", torch.float64).numpy()
        return row

    def encode(
        self,
        ids: np.ndarray | Tensor,
        slots: tuple[int, ...] = (),
        vectors: np.ndarray | Tensor | None = None,
        penultimate: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the last layer (normed) and those to condition on, both [batch, length, width].

        Arguments:
            ids: int64 [batch, length], padded.
            slots: positions whose token embeddings are replaced by `vectors` (before positions are added).
            vectors: [batch, slots, width], any float dtype; a tensor keeps its gradient.
            penultimate: condition on the states before the last layer (SDXL), else on those of the last layer.
        """
        weight = self._embedding.get_parameter("weight")
        tokens = torch.as_tensor(ids, dtype=torch.int64, device=weight.device)
        length, largest = tokens.shape[-1], int(tokens.max())
        if length > self.max_length or largest >= self.vocabulary or int(tokens.min()) < 0:
            raise GeneratorError(
                "the text encoder does not take these tokens",
                file=str(self._folder),
                found=f"{length} of up to {largest}",
                expected=f"{self.max_length} of 0 to {self.vocabulary - 1}",
            )
        if vectors is None:
            return self._states(tokens, penultimate)
        rows = torch.as_tensor(vectors).to(weight.device, weight.dtype)

        def place(_module: torch.nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            embedded = embedded.clone()
            embedded[:, list(slots)] = rows
            return embedded

        handle = self._embedding.register_forward_hook(place)
        try:
            return self._states(tokens, penultimate)
        finally:
            handle.remove()

    def _states(self, tokens: Tensor, penultimate: bool) -> tuple[Tensor, Tensor]:
        output = self._network(input_ids=tokens, output_hidden_states=penultimate)
        last: Tensor = output.last_hidden_state
        return last, output.hidden_states[-2] if penultimate else last

    def project(self, states: Tensor) -> Tensor:
        """The sentence embedding [batch, projected width] of normed last states [batch, width]."""
        projected: Tensor = self._network.text_projection(states)
        return projected

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text with begin and end tokens, not padded.

        Raises:
            UsageError: a character that the tokenizer does not know (it would silently become another token).
            GeneratorError: the folder has no tokenizer, or the text is too long.
        """
        tokenizer = self._load_tokenizer()
        ids = [int(token) for token in tokenizer(text)["input_ids"]]
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids[1:-1]:
            raise UsageError("the generator's tokenizer does not know all characters of this text", found=repr(text))
        if len(ids) > self.max_length:
            raise GeneratorError(
                "the text is longer than the text encoder takes",
                file=str(self._folder),
                found=f"{len(ids)} tokens",
                expected=f"at most {self.max_length}",
            )
        return ids

    def padding(self) -> tuple[int, int]:
        """(token id, length) to which prompts are padded."""
        return int(self._load_tokenizer().pad_token_id), self.max_length

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers.models.clip.tokenization_clip import CLIPTokenizer

            path = self._folder / self._tokenizer_name
            try:
                self._tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
            except (OSError, ValueError, TypeError) as error:
                raise GeneratorError(f"cannot read the tokenizer: {error}", file=str(path)) from error
        return self._tokenizer
