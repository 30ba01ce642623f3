"""The model card written beside a trained pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from d3codec.sources import LabelledImages

from .config import Config, Words
from .words import pseudo_words


def _pool(config: Config, figures: Mapping[str, Any]) -> str:
    """Captions, pool and autoencoder."""
    captions = "\n".join(
        f"- `{t.text}` ({t.share:.0%}, {t.grid}x{t.grid} cells of one {t.groups_by})" for t in config.captions.templates
    )
    held_out = ", ".join(config.captions.held_out)
    pool, layout = config.pool, config.autoencoder
    assert pool is not None
    text = f"""{captions}

{f"Never named in any caption: {held_out}." if held_out else "Every class is named."}

- A pool of {pool.images:,} images, {pool.native:.0%} of them unchanged, the others turned by up to
  {pool.rotation:g} degrees, shifted by {pool.shift:.0%} and scaled by {pool.scale:.0%}.
"""
    if layout is not None:
        phases = "".join(
            f";\n  {p.steps:,} steps with {p.native:.0%} unchanged images, KL weight {p.kl_weight:g}"
            for p in layout.phases
        )
        text += f"""- Autoencoder: AdamW {layout.learning_rate:g}, batch {layout.batch}{phases}.
  The standardisation of the latents is folded into quant_conv and post_quant_conv; scaling_factor is 1.
"""
    psnr = figures["psnr_db"]
    return text + ("" if psnr is None else f"  Reconstruction of unseen collages: {psnr:.1f} dB PSNR.\n")


def _words(config: Config, words: Words, figures: Mapping[str, Any]) -> str:
    """Captions, feature network and autoencoder."""
    lines = [f"- the class name, one token ({words.name:.0%} of the captions)"]
    kinds = pseudo_words(words)
    for kind, (first, *_, last) in kinds.items():
        lines.append(f"- a {kind} word, `{first}` to `{last}` ({words.kinds[kind].share:.0%})")
    listed = "\n".join(lines)
    psnr = figures["psnr_db"]
    quality = "" if psnr is None else f"\n  Reconstruction of unseen images: {psnr:.1f} dB PSNR."
    return f"""`{words.start}` and then, in random order:

{listed}

- Pseudo-words are k-means clusters of the images and of the mirrored images: semantic ones of the features of a small
  ConvNet that learned the classes at {words.side} pixels ({words.steps:,} steps), layout ones of latents pooled to 2x2,
  fine ones of both. `words.safetensors` holds network and clusters.
- Latents of a published autoencoder, unchanged, of every image as it is and mirrored.{quality}
"""


def model_card(
    config: Config, source: LabelledImages, pipeline: StableDiffusionPipeline, figures: Mapping[str, Any]
) -> str:
    """The configuration's own text, then parts, recipe and figures as they came out."""
    parts = {"vae": pipeline.vae, "text_encoder": pipeline.text_encoder, "unet": pipeline.unet}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    rows = "\n".join(f"| {name} | {type(parts[name]).__name__} | {n:,} | {2 * n:,} |" for name, n in counts.items())
    generator = config.generator
    recipe = _words(config, config.words, figures) if config.words else _pool(config, figures)
    measured = f", on unseen images {figures['validation_loss']:.4f}" if "validation_loss" in figures else ""
    # A file is named without its folder, which says something about one machine only.
    images = source.source if source.source.startswith("digits:") else Path(source.source).name
    return f"""---
license: {config.license}
library_name: diffusers
pipeline_tag: text-to-image
---

# {config.name}

{config.card.strip()}

## Parts
| part | class | parameters | bytes (fp16) |
|---|---|---|---|
{rows}

Images of {config.resolution}x{config.resolution} pixels, {config.images.grid}x{config.images.grid} cells;
trained on {len(source):,} images of {len(source.class_names)} classes from `{images}`.

## Recipe
Captions ({config.captions.empty:.0%} of them replaced by the empty one):

{recipe}- Generator (text encoder and UNet together, epsilon prediction): AdamW {generator.learning_rate:g},
  {generator.warmup} warm-up steps and cosine decay, batch {generator.batch}, {generator.steps:,} steps,
  EMA {generator.ema:g}. Final loss {figures["loss"]["generator"]:.4f}{measured}.

Trained by `benchmarks/train_generator.py` of d3codec; `encoding.json` holds hints for an encoder.
"""
