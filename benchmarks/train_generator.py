"""Train a small latent diffusion pipeline in Stable Diffusion's stock layout from labelled images.

    python benchmarks/train_generator.py benchmarks/generators/digits.toml -o OUT

Stages: pool of captioned collages -> autoencoder -> latents -> text encoder + UNet -> OUT/pipeline, which
`diffusers.StableDiffusionPipeline.from_pretrained` loads. With [words] in the configuration, as in photographs.toml:
latents in the space of a given autoencoder -> feature network and visual words -> text encoder + UNet -> OUT/pipeline.
A run that was killed continues where its last checkpoint stood when the same command is given again, and ends with the
same bytes as one that was not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: k-means and torch on one thread each

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny
from generator_training import autoencoder, diffusion, publish
from generator_training.captions import encode_captions, make_tokenizer, pseudo_words
from generator_training.card import model_card
from generator_training.checkpoint import Training, load_tensors, save_tensors, write_atomic
from generator_training.config import Config, read_config
from generator_training.material import Material, Run, words_material
from generator_training.pool import TrainingPool, build_pool
from transformers import CLIPTokenizer

from d3codec.sources import LabelledImages, read_images


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a TOML file as in benchmarks/generators")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of this run, made if missing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", help="labelled images instead of those of the configuration")
    parser.add_argument("--validation", help="labelled images to measure on, of the same classes")
    parser.add_argument("--fold", metavar="I/N", help="train on fold I of N (digits only; the rest validates)")
    parser.add_argument("--vae", type=Path, help="folder of a trained autoencoder, used instead of training one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--checkpoint-seconds", type=float, default=120.0)
    return parser.parse_args(argv)


def configured(options: argparse.Namespace) -> Config:
    """The configuration with the images that the command line names."""

    def part(source: str) -> str:
        if options.fold is None:
            return source
        if not source.startswith("digits:") or source.count(":") != 1:
            raise SystemExit(f"--fold splits digits:train and digits:test, not {source}")
        return f"{source}:{options.fold}"

    config = read_config(options.config)
    # The configured validation images belong to the configured training images.
    validation = options.validation or (None if options.images else config.images.validation)
    images = replace(
        config.images,
        source=part(options.images or config.images.source),
        validation=part(validation) if validation else None,
    )
    return replace(config, images=images)


def claim(out: Path, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Record in `out` what runs there, or refuse a folder that holds another run."""
    # Through JSON, so that the record compares equal to what is read back (tuples become lists).
    record = {"config": asdict(config), "seed": options.seed, "vae": str(options.vae) if options.vae else None}
    record = json.loads(json.dumps(record))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    if path.exists() and json.loads(path.read_text()) != record:
        raise SystemExit(f"{out} holds a run with another configuration, seed or images; name another folder")
    write_atomic(path, json.dumps(record, indent=2).encode())
    return record


def pool_stage(run: Run, source: LabelledImages) -> TrainingPool:
    """The pool, drawn once and kept."""
    path = run.out / "pool.safetensors"
    if not path.exists():
        pool = build_pool(run.config, source, run.seed)
        tensors = {"images": torch.tensor(pool.images), "native": torch.tensor(pool.native)}
        save_tensors(path, tensors, {"captions": pool.captions})
    tensors, about = load_tensors(path)
    return TrainingPool(tensors["images"].numpy(), tensors["native"].numpy(), tuple(about["captions"]))


def validation_collages(config: Config, count: int = 100) -> np.ndarray | None:
    """Unchanged collages of images that nothing is trained on, uint8 (count, side, side, 3)."""
    if config.images.validation is None or config.pool is None:
        return None
    captions = replace(config.captions, templates=(config.collage_template,), words=0, held_out=())
    plain = replace(config, captions=captions, pool=replace(config.pool, images=count, native=1.0))
    return build_pool(plain, read_images(config.images.validation), seed=0).images


def autoencoder_stage(run: Run, pool: TrainingPool) -> Path:
    """Train the autoencoder and fold the standardisation of its latents in; returns its folder."""
    folder = run.out / "vae"
    if folder.exists():
        return folder

    def look(training: Training) -> None:
        shown = pool.images[:16]
        again = autoencoder.reconstruct(training.net, shown, run.device)
        sheet = publish.sample_sheet(np.stack([shown, again]), ["pool", "reconstructed"])
        publish.save_image(sheet, run.out / "vae.png")
        publish.learning_curve({"autoencoder": training.losses}, run.out / "curve.png")

    net = autoencoder.train_autoencoder(
        run.config,
        pool.images,
        pool.native,
        seed=run.seed,
        path=run.out / "autoencoder.safetensors",
        device=run.device,
        every_seconds=run.every_seconds,
        on_checkpoint=look,
    )
    net.eval().requires_grad_(False)
    autoencoder.standardise(net, autoencoder.encode_pool(net, pool.images, run.device))
    beside = run.out / "vae.part"  # renamed when complete, so that a kill leaves no half folder
    net.half().save_pretrained(beside)
    beside.replace(folder)
    return folder


def latent_stage(run: Run, vae: AutoencoderKL | AutoencoderTiny, pool: TrainingPool) -> torch.Tensor:
    """Latents of the pool, float32 (N, C, h, w), encoded once and kept."""
    path = run.out / "latents.safetensors"
    if not path.exists():
        save_tensors(path, {"latents": autoencoder.encode_pool(vae, pool.images, run.device)}, {})
    return load_tensors(path)[0]["latents"]


def pool_material(run: Run, source: LabelledImages, folder: Path | None) -> Material:
    """Pool, autoencoder (trained unless a folder is given) and latents."""
    config, cpu_seconds, losses = run.config, {}, {}
    began = time.process_time()
    pool = pool_stage(run, source)
    tokenizer, ids = caption_stage(config, source, pool)
    cpu_seconds["pool"] = time.process_time() - began
    if folder is None:
        folder = autoencoder_stage(run, pool)
        tensors, about = load_tensors(run.out / "autoencoder.safetensors")
        losses["autoencoder"], cpu_seconds["autoencoder"] = tensors["losses"].tolist(), about["cpu_seconds"]
    # Half precision weights again, since they are what is published: the latents must be theirs.
    vae = autoencoder.load_autoencoder(folder, run.device)
    validation = validation_collages(config)
    psnr = None if validation is None else autoencoder.psnr(vae, validation, run.device)
    began = time.process_time()
    latents = latent_stage(run, vae, pool)
    cpu_seconds["latents"] = time.process_time() - began
    return Material(
        vae=vae,
        tokenizer=tokenizer,
        latents=latents,
        captions=diffusion.fixed_captions(ids, tokenizer, config.captions.empty),
        prompts=publish.sheet_prompts(config, source.class_names),
        psnr=psnr,
        cpu_seconds=cpu_seconds,
        losses=losses,
    )


def caption_stage(config: Config, source: LabelledImages, pool: TrainingPool) -> tuple[CLIPTokenizer, torch.Tensor]:
    """The tokenizer, and the pool's captions as token ids int64 (N, tokens)."""
    vocabulary = [t.text.format(name=n, word="") for t in config.captions.templates for n in source.class_names]
    tokenizer = make_tokenizer(vocabulary, pseudo_words(config.captions.words), config.captions.tokens)
    return tokenizer, torch.tensor(encode_captions(tokenizer, pool.captions))


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    torch.set_num_threads(1)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    config = configured(options)
    record = claim(options.out, config, options)
    run = Run(config, options.seed, options.out, torch.device(chosen), options.checkpoint_seconds)
    source = read_images(config.images.source)
    if config.words:
        if not options.vae:
            raise SystemExit(f"{options.config} is for a published autoencoder: name its folder with --vae")
        material = words_material(run, source, options.vae)
    else:
        material = pool_material(run, source, options.vae)
    vae, tokenizer, prompts = material.vae, material.tokenizer, material.prompts
    latents, losses, cpu_seconds = material.latents, dict(material.losses), dict(material.cpu_seconds)
    print(f"autoencoder: {material.psnr or float('nan'):.1f} dB on unseen images", file=sys.stderr)

    def look(training: Training) -> None:
        publish.learning_curve(losses | {"generator": training.losses}, run.out / "curve.png")
        images = publish.draw(publish.make_pipeline(training, vae, tokenizer), prompts, 8, seed=1)
        publish.save_image(publish.sample_sheet(images, prompts), run.out / "samples.png")

    training = diffusion.train_generator(
        config,
        tokenizer,
        latents,
        material.captions,
        material.validation,
        seed=run.seed,
        path=run.out / "generator.safetensors",
        device=run.device,
        every_seconds=run.every_seconds,
        on_checkpoint=look,
    )
    losses["generator"], cpu_seconds["generator"] = training.losses, training.cpu_seconds

    pipeline = publish.make_pipeline(training, vae, tokenizer)
    figures = {
        "psnr_db": material.psnr,
        "loss": {name: round(float(np.mean(values[-100:])), 5) for name, values in losses.items()},
        "cpu_seconds": {name: round(seconds, 1) for name, seconds in cpu_seconds.items()},
    }
    if training.validation:
        figures["validation_loss"] = round(training.validation[-1][1], 5)
    card = model_card(config, source, pipeline, figures)
    publish.publish(pipeline, config, run.out / "pipeline", card, material.words)
    sizes = publish.sizes(run.out / "pipeline")
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, np)}
    record |= (
        figures
        | {
            "losses": {  # means of 100 steps
                name: [round(float(np.mean(values[i : i + 100])), 5) for i in range(0, len(values), 100)]
                for name, values in losses.items()
            },
            "validation": training.validation,
            "latents": {"mean": latents.mean((0, 2, 3)).tolist(), "deviation": latents.std((0, 2, 3)).tolist()},
            "bytes": sizes,
            "device": run.device.type,
            "versions": versions | {"python": platform.python_version()},
        }
    )
    write_atomic(run.out / "training.json", (json.dumps(record, indent=2) + "\n").encode())
    print(json.dumps({"pipeline": str(run.out / "pipeline"), "bytes": sum(sizes.values()), **figures}))


if __name__ == "__main__":
    main()
