"""Train a small latent diffusion pipeline in Stable Diffusion's stock layout from labelled images.

    python benchmarks/train_generator.py benchmarks/generators/digits.toml -o OUT

Stages: pool of captioned collages -> autoencoder -> latents -> text encoder + UNet -> OUT/pipeline, which
`diffusers.StableDiffusionPipeline.from_pretrained` loads. A run that was killed continues where its last
checkpoint stood when the same command is given again, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: k-means and torch on one thread each

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL
from generator_training import autoencoder, diffusion, publish
from generator_training.captions import encode_captions, make_tokenizer, pseudo_words
from generator_training.card import model_card
from generator_training.checkpoint import Training, load_tensors, save_tensors, write_atomic
from generator_training.config import Config, read_config
from generator_training.pool import TrainingPool, build_pool, tile
from transformers import CLIPTokenizer

from d3codec.sources import LabelledImages, read_images


def validation_collages(config: Config, source: LabelledImages, count: int = 100) -> np.ndarray:
    """Unchanged collages of a source that nothing is trained on, uint8 (count, side, side, 3)."""
    whole = dataclasses.replace(config.pool, images=count, native=1.0)
    named = dataclasses.replace(config.captions, templates=(one_grid(config),), words=0, held_out=())
    return build_pool(dataclasses.replace(config, pool=whole, captions=named), source, seed=0).images


def one_grid(config: Config) -> Any:
    """The first template with the configured grid, as one that groups by class."""
    template = next(t for t in config.captions.templates if t.grid == config.images.grid)
    return dataclasses.replace(template, text="{name}", share=1.0)


def pool_stage(config: Config, source: LabelledImages, seed: int, path: Path) -> TrainingPool:
    """The pool, drawn once and kept."""
    if not path.exists():
        pool = build_pool(config, source, seed)
        tensors = {"images": torch.tensor(pool.images), "native": torch.tensor(pool.native)}
        save_tensors(path, tensors, {"captions": pool.captions})
    tensors, about = load_tensors(path)
    return TrainingPool(tensors["images"].numpy(), tensors["native"].numpy(), tuple(about["captions"]))


def fold_source(source: str, fold: str | None) -> str:
    if fold is None:
        return source
    if not source.startswith("digits:") or source.count(":") != 1:
        raise SystemExit(f"--fold splits digits:train and digits:test, not {source}")
    return f"{source}:{fold}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", help="labelled images instead of those of the configuration")
    parser.add_argument("--fold", metavar="I/N", help="train on fold I of N of the digits")
    parser.add_argument("--vae", type=Path, help="a trained autoencoder (folder) to use instead of training one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--checkpoint-seconds", type=float, default=120.0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    device, out = torch.device(chosen), options.out
    config = read_config(options.config)
    changes = {"source": fold_source(options.images or config.images.source, options.fold)}
    if options.images:  # the configured validation images belong to the configured training images
        changes["validation"] = None
    elif config.images.validation:
        changes["validation"] = fold_source(config.images.validation, options.fold)
    config = dataclasses.replace(config, images=dataclasses.replace(config.images, **changes))
    out.mkdir(parents=True, exist_ok=True)
    # Through JSON, so that the record compares equal to what is read back (tuples become lists).
    run = json.loads(json.dumps({"config": dataclasses.asdict(config), "seed": options.seed, "vae": str(options.vae or "")}))
    if (out / "run.json").exists() and json.loads((out / "run.json").read_text()) != run:
        raise SystemExit(f"{out} holds a run with another configuration, seed or images; name another folder")
    write_atomic(out / "run.json", json.dumps(run, indent=2).encode())
    print(json.dumps(run_stages(config, options, device, run)))


def run_stages(config: Config, options: argparse.Namespace, device: torch.device, run: dict[str, Any]) -> dict[str, Any]:
    """All stages one after the other; returns the summary."""
    out, seed, every = options.out, options.seed, options.checkpoint_seconds
    cpu = {"start": time.process_time()}
    source = read_images(config.images.source)
    pool = pool_stage(config, source, seed, out / "pool.safetensors")
    validation = None
    if config.images.validation:
        validation = validation_collages(config, read_images(config.images.validation))
    cpu["pool"] = time.process_time() - cpu.pop("start")
    vocabulary = [t.text.format(name=n, word="") for t in config.captions.templates for n in source.class_names]
    tokenizer = make_tokenizer(vocabulary, pseudo_words(config.captions.words), config.captions.tokens)
    ids = torch.tensor(encode_captions(tokenizer, pool.captions))
    losses: dict[str, list[float]] = {}

    vae_folder = out / "vae"
    vae_training = out / "autoencoder.safetensors"
    if options.vae:
        vae_folder = options.vae
    elif not (vae_folder / "config.json").exists():
        def look(training: Training) -> None:
            shown = pool.images[:16]
            x = autoencoder.to_float(shown, device)
            with torch.inference_mode():
                y = training.net.decode(training.net.encode(x).latent_dist.mean).sample.clamp(-1, 1)
            again = ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            publish.save_image(publish.sample_sheet(np.stack([shown, again]), ["pool", "again"]), out / "vae.png")
            publish.learning_curve({"autoencoder": training.losses}, out / "curve.png")

        trained = autoencoder.train_autoencoder(
            config, pool.images, pool.native, seed=seed, path=vae_training,
            device=device, every_seconds=every, on_checkpoint=look,
        )  # fmt: skip
        net = trained.net.eval().requires_grad_(False)
        autoencoder.standardise(net, autoencoder.encode_pool(net, pool.images, device))
        # config.json is written last by the rename below, so that a kill in between leaves no half folder.
        net.half().save_pretrained(out / "vae.part")
        (out / "vae.part").replace(vae_folder)
    if vae_training.exists():
        tensors, about = load_tensors(vae_training)
        losses["autoencoder"], cpu["autoencoder"] = tensors["losses"].tolist(), about["cpu_seconds"]
    # What is published in half precision is also what the latents are made with.
    vae = AutoencoderKL.from_pretrained(vae_folder).float().to(device).eval().requires_grad_(False)
    quality = autoencoder.psnr(vae, validation, device) if validation is not None else None
    if quality is not None:
        print(f"autoencoder: {quality:.1f} dB on unseen collages", file=sys.stderr)

    began = time.process_time()
    if not (out / "latents.safetensors").exists():
        latents = autoencoder.encode_pool(vae, pool.images, device)
        save_tensors(out / "latents.safetensors", {"latents": latents}, {})
    latents = load_tensors(out / "latents.safetensors")[0]["latents"]
    spread = {"mean": latents.mean((0, 2, 3)).tolist(), "deviation": latents.std((0, 2, 3)).tolist()}
    cpu["latents"] = time.process_time() - began

    prompts = publish.sheet_prompts(config, source.class_names)

    def look_again(training: Training) -> None:
        publish.learning_curve(losses | {"generator": training.losses}, out / "curve.png")
        pipeline = publish.make_pipeline(training, vae, tokenizer)
        images = publish.draw(pipeline, prompts, 8, seed=1)
        publish.save_image(publish.sample_sheet(images, prompts), out / "samples.png")

    trained = diffusion.train_generator(
        config, tokenizer, latents, ids, seed=seed, path=out / "generator.safetensors",
        device=device, every_seconds=every, on_checkpoint=look_again,
    )  # fmt: skip
    losses["generator"], cpu["generator"] = trained.losses, trained.cpu_seconds

    pipeline = publish.make_pipeline(trained, vae, tokenizer)
    folder = out / "pipeline"
    figures = {"psnr_db": quality, "cpu_seconds": {k: round(v, 1) for k, v in cpu.items()}}
    figures["loss"] = {name: round(float(np.mean(values[-100:])), 5) for name, values in losses.items()}
    publish.publish(pipeline, config, folder, model_card(config, source, pipeline, figures))
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, np)}
    record = run | figures | {
        "latents": spread,
        "losses": {name: [round(float(np.mean(v[i : i + 100])), 5) for i in range(0, len(v), 100)] for name, v in losses.items()},
        "versions": versions | {"python": platform.python_version()},
        "device": device.type,
        "bytes": publish.sizes(folder),
    }  # fmt: skip
    write_atomic(out / "training.json", (json.dumps(record, indent=2) + "\n").encode())
    return {"pipeline": str(folder), **figures, "bytes": sum(record["bytes"].values())}


if __name__ == "__main__":
    main()
