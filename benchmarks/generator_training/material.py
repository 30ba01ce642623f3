"""What the generator is trained on, with [words]: every image as it is and mirrored, in a published latent space."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from transformers import CLIPTokenizer

from d3codec.sources import LabelledImages, read_images

from .autoencoder import encode_pool, load_autoencoder, psnr
from .checkpoint import load_tensors, save_tensors
from .config import Config
from .diffusion import CaptionDraw
from .pool import square
from .words import Table, candidates, drawn_captions, find_words, fit_words, sheet_prompts, words_tokenizer


@dataclass(frozen=True)
class Run:
    """What every stage needs to know; `out` holds one file or folder a finished stage."""

    config: Config
    seed: int
    out: Path
    device: torch.device
    every_seconds: float


@dataclass(frozen=True)
class Material:
    """What the training of the generator starts from, and what the stages before it cost and lost."""

    vae: AutoencoderKL | AutoencoderTiny
    tokenizer: CLIPTokenizer
    latents: torch.Tensor  # float32 (N, C, h, w)
    captions: CaptionDraw
    prompts: list[str]  # of the sample sheet
    psnr: float | None
    validation: tuple[torch.Tensor, torch.Tensor] | None = None  # latents and captions int64 (M, tokens)
    words: Table | None = None  # published beside the weights
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)


def _squares(source: LabelledImages, side: int) -> np.ndarray:
    return np.stack([square(image, side) for image in source.images])


def _mirrored(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, :, ::-1])


def words_material(run: Run, source: LabelledImages, folder: Path) -> Material:
    """Latents, words and captions of labelled images, for the autoencoder in `folder`."""
    config, words = run.config, run.config.words
    assert words is not None
    vae = load_autoencoder(folder, run.device)
    images = _squares(source, config.resolution)
    held = read_images(config.images.validation) if config.images.validation else None
    if held is not None and held.class_names != source.class_names:
        raise SystemExit("the validation images have other classes than the training images")
    held_images = None if held is None else _squares(held, config.resolution)

    path = run.out / "latents.safetensors"
    if not path.exists():
        print(f"latents: {len(images):,} images, each also mirrored", file=sys.stderr)
        began = time.process_time()
        # A third of the time of float32, and the reconstruction agrees to 0.01 dB. Latents that are mirrored
        # themselves decode to other images, so the mirrored images are encoded.
        coder = load_autoencoder(folder, run.device).bfloat16()
        parts = {"images": images, "mirrored": _mirrored(images)}
        if held_images is not None:
            parts["validation"] = held_images
        coded = {name: encode_pool(coder, part, run.device, batch=50).half() for name, part in parts.items()}
        save_tensors(path, coded, {"cpu_seconds": time.process_time() - began})
    coded, about = load_tensors(path)
    cpu_seconds = {"latents": about["cpu_seconds"]}
    latents = torch.cat([coded["images"], coded["mirrored"]]).float()

    path = run.out / "words.safetensors"
    if not path.exists():
        print("words: the feature network, then the clusters", file=sys.stderr)
        began = time.process_time()
        mirrored = _mirrored(images)
        table = fit_words(words, images, mirrored, latents, source.labels, run.seed)
        found = find_words(table, np.concatenate([images, mirrored]), latents)
        save_tensors(path, table | {"found": found}, {"cpu_seconds": time.process_time() - began})
    table, about = load_tensors(path)
    cpu_seconds["words"] = about["cpu_seconds"]
    found = table.pop("found")

    names = source.class_names
    tokenizer = words_tokenizer(config, words, names)
    possible = candidates(tokenizer, words, names, np.tile(source.labels, 2), found)
    validation, quality = None, None
    if held is not None and held_images is not None:
        quality = psnr(vae, held_images[:200], run.device)
        there = coded["validation"].float()
        possible_there = candidates(tokenizer, words, names, held.labels, find_words(table, held_images, there))
        draw = drawn_captions(tokenizer, words, possible_there, config.captions.empty)
        validation = there, draw(torch.arange(len(there)), torch.Generator().manual_seed(0))
    return Material(
        vae=vae,
        tokenizer=tokenizer,
        latents=latents,
        captions=drawn_captions(tokenizer, words, possible, config.captions.empty),
        prompts=sheet_prompts(words, names, found),
        psnr=quality,
        validation=validation,
        words=table,
        cpu_seconds=cpu_seconds,
    )
