"""The model card written beside a trained pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import StableDiffusionPipeline

from d3codec.sources import LabelledImages

from .config import Config


def model_card(
    config: Config, source: LabelledImages, pipeline: StableDiffusionPipeline, figures: Mapping[str, Any]
) -> str:
    """The configuration's own text, then parts, recipe and figures as they came out."""
    parts = {"vae": pipeline.vae, "text_encoder": pipeline.text_encoder, "unet": pipeline.unet}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    rows = "\n".join(f"| {name} | {type(parts[name]).__name__} | {n:,} | {2 * n:,} |" for name, n in counts.items())
    captions = "\n".join(
        f"- `{t.text}` ({t.share:.0%}, {t.grid}x{t.grid} cells of one {t.groups_by})" for t in config.captions.templates
    )
    held_out = ", ".join(config.captions.held_out)
    pool, layout, generator = config.pool, config.autoencoder, config.generator
    phases = "".join(
        f";\n  {p.steps:,} steps with {p.native:.0%} unchanged images, KL weight {p.kl_weight:g}" for p in layout.phases
    )
    psnr = figures["psnr_db"]
    quality = "" if psnr is None else f"  Reconstruction of unseen collages: {psnr:.1f} dB PSNR.\n"
    return f"""---
license: apache-2.0
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
trained on {len(source):,} images of {len(source.class_names)} classes from `{source.source}`.

## Recipe
Captions ({config.captions.empty:.0%} of them replaced by the empty one):

{captions}

{f"Never named in any caption: {held_out}." if held_out else "Every class is named."}

- A pool of {pool.images:,} images, {pool.native:.0%} of them unchanged, the others turned by up to
  {pool.rotation:g} degrees, shifted by {pool.shift:.0%} and scaled by {pool.scale:.0%}.
- Autoencoder: AdamW {layout.learning_rate:g}, batch {layout.batch}{phases}.
  The standardisation of the latents is folded into quant_conv and post_quant_conv; scaling_factor is 1.
{quality}- Generator (text encoder and UNet together, epsilon prediction): AdamW {generator.learning_rate:g},
  {generator.warmup} warm-up steps and cosine decay, batch {generator.batch}, {generator.steps:,} steps,
  EMA {generator.ema:g}. Final loss {figures["loss"]["generator"]:.4f}.

Trained by `benchmarks/train_generator.py` of d3codec; `encoding.json` holds hints for an encoder.
"""
