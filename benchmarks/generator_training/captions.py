"""Captions: the vocabulary as a stock CLIPTokenizer, and pseudo-words found by k-means on pixels."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import AddedToken
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def pseudo_words(count: int) -> tuple[str, ...]:
    """The words `<k0>`, `<k1>`, ... of unsupervised clusters."""
    return tuple(f"<k{number}>" for number in range(count))


def clusters(patches: np.ndarray, count: int, seed: int) -> np.ndarray:
    """K-means on pixels: patches uint8 (N, side, side, 3) -> numbers int64 (N,). Labels are not used."""
    from sklearn.cluster import KMeans

    flat = patches.reshape(len(patches), -1).astype(np.float32) / 255
    return KMeans(count, n_init=4, random_state=seed).fit_predict(flat).astype(np.int64)


def make_tokenizer(
    words: Iterable[str], pseudo: Sequence[str], tokens: int, names: Sequence[str] = ()
) -> CLIPTokenizer:
    """A CLIPTokenizer that holds each of `words` as one token (byte pair merges from the left).

    The end token gets the highest id, as in CLIP. Pseudo-words stand in the vocabulary and are also added
    tokens, since CLIP's pre-tokenizer would cut `<k0>` at its brackets and digits. So are `names`, which may have
    spaces, hyphens and capitals: one token each, in any capitals, between other letters not found (organs).
    """
    words = sorted({word.lower() for text in words for word in text.split()})
    letters = sorted(set(string.ascii_lowercase) | set("".join(words)))
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in words:
        left, rest = word[0], [*word[1:-1], word[-1] + "</w>"] if len(word) > 1 else []
        for right in rest:
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary = list(dict.fromkeys([*vocabulary, *names, *pseudo, BOS, EOS]))
    tokenizer = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, merges=merges, model_max_length=tokens
    )
    tokenizer.add_tokens([*(AddedToken(name, single_word=True, normalized=True) for name in names), *pseudo])
    return tokenizer


def encode_captions(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> np.ndarray:
    """Token ids int64 (N, model_max_length) of captions, padded with the end token.

    Raises ValueError for a caption with a character that the vocabulary lacks: it would silently become the
    end token, which is also the padding.
    """
    known = {}
    for caption in dict.fromkeys(captions):
        body = tokenizer(caption, add_special_tokens=False).input_ids
        if tokenizer.eos_token_id in body:
            raise ValueError(f"caption {caption!r}: a character is not in the vocabulary of the captions")
        if len(body) > tokenizer.model_max_length - 2:
            raise ValueError(f"caption {caption!r} takes {len(body)} tokens of {tokenizer.model_max_length - 2}")
        padding = [tokenizer.eos_token_id] * (tokenizer.model_max_length - 1 - len(body))
        known[caption] = [tokenizer.bos_token_id, *body, *padding]
    return np.array([known[caption] for caption in captions], np.int64)
