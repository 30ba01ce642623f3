"""The pool of training images: collages of random images of one class (or cluster) with their captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from d3codec.sources import LabelledImages

from .captions import clusters, pseudo_words
from .config import Config, Pool


@dataclass(frozen=True)
class TrainingPool:
    images: np.ndarray  # uint8 (N, side, side, 3)
    native: np.ndarray  # bool (N,): cells not resampled
    captions: tuple[str, ...]


def square(image: np.ndarray, side: int) -> np.ndarray:
    """The central square of an image, uint8 (height, width, 3) -> (side, side, 3); enlarged bicubically."""
    if image.shape[:2] == (side, side):
        return image
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    cut = Image.fromarray(image[top : top + short, left : left + short])
    kind = Image.Resampling.BICUBIC if side > short else Image.Resampling.LANCZOS
    return np.asarray(cut.resize((side, side), kind))


def resample(image: np.ndarray, pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """Turn, shift and scale a square image a little; the border colour is that of its corner."""
    side = len(image)
    angle = math.radians(rng.uniform(-pool.rotation, pool.rotation))
    zoom = 1 + rng.uniform(-pool.scale, pool.scale)
    dx, dy = rng.uniform(-pool.shift, pool.shift, 2) * side
    cos, sin, middle = math.cos(angle) / zoom, math.sin(angle) / zoom, side / 2
    matrix = (
        cos, sin, middle - cos * (middle + dx) - sin * (middle + dy),
        -sin, cos, middle + sin * (middle + dx) - cos * (middle + dy),
    )  # fmt: skip
    turned = Image.fromarray(image).transform(
        (side, side),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BICUBIC,
        fillcolor=tuple(int(v) for v in image[0, 0]),
    )
    return np.asarray(turned)


def tile(cells: Sequence[np.ndarray], grid: int) -> np.ndarray:
    """grid * grid cells, row by row, as one image."""
    return np.concatenate([np.concatenate(cells[r * grid : (r + 1) * grid], 1) for r in range(grid)], 0)


def build_pool(config: Config, source: LabelledImages, seed: int) -> TrainingPool:
    """Draw the pool; the same configuration, images and seed give the same pool."""
    if config.pool is None:
        raise ValueError(f"{config.name}: no [pool] in the configuration")
    rng = np.random.default_rng([seed, 1])
    captions, words = config.captions, pseudo_words(config.captions.words)
    missing = set(captions.held_out) - set(source.class_names)
    if missing:
        raise ValueError(f"captions.held_out names no class of the images: {', '.join(sorted(missing))}")
    sides = {t.grid: config.resolution // t.grid for t in captions.templates}
    sides[0] = config.images.patch  # what the clusters are made of
    cells = {side: [square(image, side) for image in source.images] for side in sorted(set(sides.values()))}
    named = [n for n, name in enumerate(source.class_names) if name not in captions.held_out]
    members = {"class": [np.flatnonzero(source.labels == n) for n in range(len(source.class_names))]}
    if words:
        found = clusters(np.stack(cells[config.images.patch]), len(words), seed)
        members["cluster"] = [np.flatnonzero(found == n) for n in range(len(words))]
    shares = np.array([template.share for template in captions.templates])
    images, native, texts = [], [], []
    for _ in range(config.pool.images):
        template = captions.templates[rng.choice(len(shares), p=shares / shares.sum())]
        groups = members[template.groups_by]
        choice = named if "{name}" in template.text else range(len(groups))
        group = int(rng.choice(choice))
        chosen = rng.choice(groups[group], template.grid**2, replace=len(groups[group]) < template.grid**2)
        parts = [cells[sides[template.grid]][n] for n in chosen]
        native.append(bool(rng.random() < config.pool.native))
        if not native[-1]:
            parts = [resample(part, config.pool, rng) for part in parts]
        images.append(tile(parts, template.grid))
        names = {"name": source.class_names[group]} if template.groups_by == "class" else {"word": words[group]}
        texts.append(template.text.format(**names))
    return TrainingPool(np.stack(images), np.array(native), tuple(texts))
