"""What a run leaves for eyes and for others: the pipeline folder, sample sheets, learning curves."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline
from PIL import Image, ImageDraw
from transformers import CLIPTokenizer

from .captions import pseudo_words
from .checkpoint import Training, save_tensors, write_atomic
from .config import Config
from .diffusion import make_scheduler


def make_pipeline(
    training: Training, vae: AutoencoderKL | AutoencoderTiny, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """A stock pipeline with copies of the averaged weights."""
    nets = training.averaged()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=nets["text"],
        tokenizer=tokenizer,
        unet=nets["unet"],
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    count: int,
    *,
    guidance: float = 2.0,
    steps: int = 10,
    seed: int = 0,
    batch: int = 50,
) -> np.ndarray:
    """`count` images a prompt, uint8 (prompts, count, height, width, 3); image n of each has noise n."""
    side = pipeline.unet.config.sample_size
    shape = (count, pipeline.unet.config.in_channels, side, side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pipeline.device)
    texts = [prompt for prompt in prompts for _ in range(count)]
    images = []
    for first in range(0, len(texts), batch):
        part = texts[first : first + batch]
        latents = noise[torch.arange(first, first + len(part)) % count]
        with torch.inference_mode():
            made = pipeline(part, latents=latents, guidance_scale=guidance, num_inference_steps=steps, output_type="np")
        images.append(np.rint(made.images * 255).astype(np.uint8))
    return np.concatenate(images).reshape(len(prompts), count, *images[0].shape[1:])


def sheet_prompts(config: Config, class_names: Sequence[str]) -> list[str]:
    """What a sample sheet shows: every kind of caption, for some classes and pseudo-words."""
    named = [name for name in class_names if name not in config.captions.held_out][:10]
    words = pseudo_words(config.captions.words)[:6]
    prompts = []
    for template in reversed(config.captions.templates):
        if "{name}" in template.text:
            some = named if template.grid > 1 else named[:3]
            prompts += [template.text.format(name=name) for name in some]
        elif "{word}" in template.text:
            prompts += [template.text.format(word=word) for word in words]
        else:
            prompts.append(template.text)
    return prompts


def sample_sheet(images: np.ndarray, prompts: Sequence[str]) -> Image.Image:
    """Rows of images uint8 (prompts, count, height, width, 3) with their prompts beside them."""
    rows, count, height, width, _ = images.shape
    gap, text, zoom = 4, 200, max(2, 64 // width)
    cell_height, cell_width = height * zoom + gap, width * zoom + gap
    sheet = Image.new("RGB", (text + count * cell_width, rows * cell_height), (128, 128, 128))
    pen = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        pen.text((4, row * cell_height + cell_height // 2 - 6), prompt, fill=(255, 255, 255))
        for column, image in enumerate(images[row]):
            enlarged = Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (text + column * cell_width, row * cell_height))
    return sheet


def save_image(image: Image.Image, path: Path) -> None:
    data = io.BytesIO()
    image.save(data, "PNG")
    write_atomic(path, data.getvalue())


def learning_curve(losses: Mapping[str, Sequence[float]], path: Path, window: int = 50) -> None:
    """One panel a stage: the loss, mean over `window` steps, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(losses), 3.5), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True):
        width = max(1, min(window, len(values)))
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(smooth)) + width, smooth)
        axes.set(title=name, xlabel="step", ylabel=f"loss (mean of {width} steps)", yscale="log")
        axes.grid(alpha=0.3, which="both")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    write_atomic(path, data.getvalue())


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def publish(
    pipeline: StableDiffusionPipeline,
    config: Config,
    folder: Path,
    card: str,
    words: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the pipeline in half precision with its model card, the hints for encoders and the table of words.

    Loaded without a dtype every part comes in float32, so that the stock call works on any CPU.
    """
    copy.deepcopy(pipeline).to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        values = json.loads(path.read_text())
        values.pop("_name_or_path", None)  # diffusers notes where on this machine a part was loaded from
        if "dtype" in values:
            # transformers would otherwise load half precision, and diffusers float32 for the other parts.
            values["dtype"] = "float32"
        write_atomic(path, (json.dumps(values, indent=2) + "\n").encode())
    if words is not None:
        save_tensors(folder / "words.safetensors", words, {})
    write_atomic(folder / "README.md", card.encode())
    write_atomic(folder / "encoding.json", (json.dumps(config.encoding, indent=2) + "\n").encode())
