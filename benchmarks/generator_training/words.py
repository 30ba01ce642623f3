"""Visual pseudo-words: k-means on a feature network and on coarse latents, and the captions made of them.

The table of words is a dictionary of tensors, in half precision as it is published (`words.safetensors` beside the
weights), so that whoever has the folder finds the words of other images by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

from d3codec.training import students

from .captions import encode_captions, make_tokenizer
from .config import Config, Words
from .diffusion import CaptionDraw

LAYOUT_WEIGHT = 0.7  # of a layout feature beside a semantic one, for fine words
Table = dict[str, torch.Tensor]


def pseudo_words(words: Words) -> dict[str, tuple[str, ...]]:
    """`<s0>`, `<s1>`, ... and the like for every kind."""
    return {kind: tuple(f"<{kind[0]}{n}>" for n in range(words.kinds[kind].count)) for kind in words.kinds}


def fit_words(
    words: Words, images: np.ndarray, mirrored: np.ndarray, latents: torch.Tensor, labels: np.ndarray, seed: int
) -> Table:
    """The feature network and the clusters.

    Arguments:
        images, mirrored: uint8 (N, side, side, 3), the same images; labels: int64 (N,).
        latents: (2 N, C, h, w), of the images and then of the mirrored ones.
    """
    from sklearn.cluster import MiniBatchKMeans

    # Half the time of float32. Without the cache, which would keep the first step's weights until the context ends.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        net = students.train(
            images,
            labels,
            classes=int(labels.max()) + 1,
            steps=words.steps,
            seed=seed,
            side=words.side,
            augment=students.Augmentation(shift=0.125, flip=True),
            label_smoothing=0.1,
            weight_decay=0.05,
        )
    table: Table = {f"network.{name}": value.half() for name, value in net.state_dict().items()}
    table["side"] = torch.tensor(words.side)
    deep, coarse = _deep(table, np.concatenate([images, mirrored])), _coarse(latents)
    centre = deep.mean(0)
    _, scales, axes = torch.linalg.svd(deep - centre, full_matrices=False)
    axes = axes[: words.components].T / scales[: words.components] ** 0.5  # half whitened
    table |= {
        "centre": centre.half(),
        "axes": (axes / ((deep - centre) @ axes).std()).half(),
        "layout_mean": coarse.mean(0).half(),
        "layout_deviation": coarse.std(0).half(),
    }
    for kind, points in _features(table, deep, coarse).items():
        count = words.kinds[kind].count
        means = MiniBatchKMeans(count, n_init=1, random_state=seed, batch_size=4096, max_iter=60).fit(points.numpy())
        table[f"clusters.{kind}"] = torch.tensor(means.cluster_centers_).half()
    return table


def find_words(table: Mapping[str, torch.Tensor], images: np.ndarray, latents: torch.Tensor) -> torch.Tensor:
    """Numbers of the semantic, layout and fine word of each image: int64 (N, 3) of uint8 (N, side, side, 3)."""
    points = _features(table, _deep(table, images), _coarse(latents))
    nearest = [torch.cdist(points[kind], table[f"clusters.{kind}"].float()).argmin(1) for kind in points]
    return torch.stack(nearest, 1)


def _deep(table: Mapping[str, torch.Tensor], images: np.ndarray) -> torch.Tensor:
    """Pooled activations of the feature network; the root tames the few large ones."""
    weights = {name.removeprefix("network."): t.float() for name, t in table.items() if name.startswith("network.")}
    net = students.empty_network(len(weights["head.weight"]), int(table["side"]))
    net.load_state_dict(weights)
    return torch.tensor(students.features(net.eval(), images)).clamp(min=0).sqrt()


def _coarse(latents: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(latents.float(), 2).flatten(1)


def _features(table: Mapping[str, torch.Tensor], deep: torch.Tensor, coarse: torch.Tensor) -> dict[str, torch.Tensor]:
    semantic = (deep - table["centre"].float()) @ table["axes"].float()
    layout = (coarse - table["layout_mean"].float()) / table["layout_deviation"].float()
    return {"semantic": semantic, "layout": layout, "fine": torch.cat([semantic, LAYOUT_WEIGHT * layout], 1)}


def words_tokenizer(config: Config, words: Words, names: Sequence[str]) -> CLIPTokenizer:
    """One token for the first word, for every class name and for every pseudo-word."""
    pseudo = [word for kind in pseudo_words(words).values() for word in kind]
    return make_tokenizer([words.start], pseudo, config.captions.tokens, names)


def candidates(
    tokenizer: CLIPTokenizer, words: Words, names: Sequence[str], labels: np.ndarray, found: torch.Tensor
) -> torch.Tensor:
    """Token ids of all that a caption of each image may hold: name, semantic, layout, fine word; int64 (N, 4)."""

    def tokens(texts: Sequence[str]) -> torch.Tensor:
        ids = encode_captions(tokenizer, texts)
        if (ids[:, 2] != tokenizer.eos_token_id).any():
            raise ValueError(f"not one token: {texts[int(np.argmax(ids[:, 2] != tokenizer.eos_token_id))]!r}")
        return torch.tensor(ids[:, 1])

    columns = [tokens(names)[torch.as_tensor(labels)]]
    columns += [tokens(kind)[found[:, n]] for n, kind in enumerate(pseudo_words(words).values())]
    return torch.stack(columns, 1)


def drawn_captions(tokenizer: CLIPTokenizer, words: Words, possible: torch.Tensor, empty: float) -> CaptionDraw:
    """Captions of the first word and some of `possible` (int64 (N, kinds)) in random order; some are empty."""
    end, length = tokenizer.eos_token_id, tokenizer.model_max_length
    start = int(encode_captions(tokenizer, [words.start])[0, 1])
    kinds = possible.shape[1]
    if length < kinds + 3:
        raise ValueError(f"captions.tokens is {length}, captions take up to {kinds + 3}")
    shares = torch.tensor([words.name, *(kind.share for kind in words.kinds.values())])

    def draw(chosen: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        count = len(chosen)
        kept = torch.rand(count, kinds, generator=random) < shares
        order = torch.where(kept, torch.rand(count, kinds, generator=random), 2.0).argsort(1)
        full = torch.rand(count, 1, generator=random) >= empty
        ids = torch.full((count, length), end)
        ids[:, 0] = tokenizer.bos_token_id
        ids[:, 1:2] = torch.where(full, start, end)
        ids[:, 2 : 2 + kinds] = torch.where(full & kept.gather(1, order), possible[chosen].gather(1, order), end)
        return ids

    return draw


def sheet_prompts(words: Words, names: Sequence[str], found: torch.Tensor) -> list[str]:
    """What a sample sheet shows: no word, the first word, some class names, the pseudo-words of some images."""
    spread = np.linspace(0, len(names) - 1, min(6, len(names)) + 2).astype(int)[1:-1]
    named = [f"{words.start} {names[n]}" for n in spread]
    kinds = list(pseudo_words(words).values())
    rows = [" ".join(kind[n] for kind, n in zip(kinds, row, strict=True)) for row in found[:3].tolist()]
    return ["", words.start, *named, *(f"{words.start} {row}" for row in rows)]
