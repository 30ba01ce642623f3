"""A template such as "a photo of *" -> token ids with slots; the tokens of initial words and class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from d3codec.errors import D3MError, UsageError
from d3codec.format import limits

if TYPE_CHECKING:
    from d3codec.generators.condition import Generator

SLOT = "*"


@dataclass(frozen=True)
class Prompt:
    """Token ids of a template.

    ids: with begin and end, the initial token at the slots; slots: positions in ids; negative: ids of the
    empty prompt; padding: (id, length); initial_token, initial_vector: the token and its embedding, float64
    (width,).
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...]
    negative: tuple[int, ...]
    padding: tuple[int, int]
    initial_token: int
    initial_vector: np.ndarray

    @property
    def padded(self) -> list[int]:
        filler, length = self.padding
        return [*self.ids, *[filler] * (length - len(self.ids))]


def read_prompt(generator: Generator, template: str, initial_token: str) -> Prompt:
    """Tokens of a template in which every `*` stands for one learned embedding.

    Arguments:
        generator: its tokenizer and embeddings are used.
        template: text with 1 to 64 `*`.
        initial_token: a word that is one token; learning starts from its embedding.

    Raises:
        UsageError: no `*` or too many, words that the tokenizer does not know, a template that is too long,
            an initial word that is not one token (says what it is).
    """
    pieces = template.split(SLOT)
    if not 2 <= len(pieces) <= limits.SLOTS + 1:
        raise UsageError(
            f"the template must have 1 to {limits.SLOTS} slots, each written {SLOT}",
            field="template",
            found=repr(template),
            expected="for example 'a photo of *'",
        )
    token = one_token(generator, initial_token, "initial_token")
    begin, end = generator.tokenize("")
    ids, slots = [begin], []
    for number, piece in enumerate(pieces):
        if number:
            slots.append(len(ids))
            ids.append(token)
        ids += words(generator, piece, "template")
    ids.append(end)
    padding = generator.padding()
    if len(ids) > padding[1]:
        raise UsageError(
            "the template is too long for the generator",
            field="template",
            found=f"{len(ids)} tokens",
            expected=f"at most {padding[1]}",
        )
    return Prompt(tuple(ids), tuple(slots), (begin, end), padding, token, generator.token_embedding(token))


def words(generator: Generator, text: str, field: str) -> list[int]:
    """Token ids of a text without begin and end. Raises UsageError for characters that the tokenizer does
    not know.
    """
    if not text.strip():
        return []
    try:
        return generator.tokenize(text.strip())[1:-1]
    except D3MError as error:
        raise UsageError(
            f"the generator cannot take this text: {error.message}",
            field=field,
            found=repr(text),
            hint="write it with the generator's words",
        ) from error


def one_token(generator: Generator, word: str, field: str) -> int:
    """The token of a word that is one token. Raises UsageError, saying which tokens it is."""
    ids = words(generator, word, field)
    if len(ids) != 1:
        raise UsageError(
            "not one token of the generator",
            field=field,
            found=f"{word!r} is the tokens {ids}",
            expected="a word that is one token",
            hint="take a shorter or more common word",
        )
    return ids[0]


def name_tokens(generator: Generator, names: Sequence[str], slots: int) -> np.ndarray:
    """Class names as tokens for the slots of a template: int64 (classes, slots).

    Raises UsageError naming the class whose name is not as many tokens as there are slots.
    """
    rows = [words(generator, name, "class names") for name in names]
    for name, row in zip(names, rows, strict=True):
        if len(row) != slots:
            raise UsageError(
                "a class name that does not fill the slots of the template",
                field=name,
                found=f"{len(row)} tokens",
                expected=f"{slots}",
            )
    return np.array(rows, np.int64)
