"""A case for the encoders of photographs: small textured colour images that can be learned, a teacher, generators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from d3codec.sources import LabelledImages

NAMES = ("ash", "birch", "cedar")
COLOURS = np.array([[170, 90, 70], [80, 160, 90], [80, 90, 170]])


def photographs(count: int = 40, side: int = 32, seed: int = 0, classes: int = 3) -> LabelledImages:
    """`count` images a class: a coarse texture and noise about the colour of the class."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    texture = draw.normal(0, 30, (len(labels), 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    noise = draw.normal(0, 10, (len(labels), side, side, 3))
    images = (COLOURS[labels][:, None, None] + texture + noise).clip(0, 255).astype(np.uint8)
    return LabelledImages(list(images), labels, NAMES[:classes], "photographs of the test")


def colour_teacher(images: np.ndarray) -> np.ndarray:
    """Logits of the three classes by the distance of the mean colour from theirs, in a few hundred square levels."""
    means = images.astype(np.float64).mean((1, 2))
    return (-((means[:, None] - COLOURS) ** 2).sum(2) / 400).astype(np.float32)


def save_images(images: LabelledImages, folder: Path) -> Path:
    """As PNG files in a folder a class."""
    for number, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.class_names[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def make_autoencoder(folder: Path, seed: int = 0) -> Path:
    """An AutoencoderTiny alone, with random weights, as it is published."""
    from tiny_families import tiny_autoencoder

    tiny_autoencoder(seed).save_pretrained(folder)
    return folder


def make_prompted(folder: Path) -> Path:
    """A Stable Diffusion pipeline of 8 pixels with hints for encoders."""
    from tiny_pipeline import make_pipeline

    make_pipeline(folder)
    hints = {"template": "a *", "initial_token": "b", "guidance_scale": 2.0, "steps": 2, "grid": 1, "resolution": 8}
    (folder / "encoding.json").write_text(json.dumps(hints))
    return folder
