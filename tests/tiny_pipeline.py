"""A tiny Stable Diffusion pipeline with random weights, and `.d3m` files that name it: real parts, small
enough to test.

Images are 8 x 8 pixels, latents 4 x 4 x 4, prompts 8 tokens; the networks have about 60,000 parameters.
Everything follows from the seed. Captions may use small letters and spaces: each letter is a token.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np

SIZE, WIDTH, LENGTH = 8, 16, 8
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def make_pipeline(folder: Path, seed: int = 0, **unet_fields: Any) -> Path:
    """Write the pipeline in the layout of diffusers' save_pretrained (float32) and return its folder.

    `unet_fields` are further fields of the U-Net's configuration.
    """
    from diffusers import DDIMScheduler
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from tiny_families import SEEN, autoencoder, fill_portably, save_pipeline
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    tokenizer = make_tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=WIDTH,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **unet_fields,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    parts = {
        "scheduler": scheduler,
        "text_encoder": fill_portably(text, 4 * seed + 1),
        "tokenizer": tokenizer,
        "unet": fill_portably(unet, 4 * seed + 2, SEEN),
        "vae": autoencoder(4 * seed + 3),
    }
    absent = {name: [None, None] for name in ("feature_extractor", "image_encoder", "safety_checker")}
    return save_pipeline(folder, "StableDiffusionPipeline", parts, requires_safety_checker=False, **absent)


def make_tokenizer(**options: Any) -> Any:
    """A CLIP tokenizer that knows single small letters, inside a word and at its end, and nothing else."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    letters = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
    vocabulary = {token: number for number, token in enumerate([*letters, BEGIN, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH, **options)


def make_group(
    pipeline: Path,
    *,
    classes: int = 3,
    ipc: int = 4,
    grid: int = 2,
    labels: str = "q",
    kind: str = "delta",
    guidance: float = 2.0,
    steps: int = 3,
    noise_key: int = 7,
    cast: str = "f16",
    bits: int = 4,
    seed: int = 0,
    generator: bytes | None = None,
) -> tuple[Any, bytes]:
    """A group record and the bytes of its conditioning section. `generator` overrides the id of the
    pipeline."""
    from d3codec.conditioning import delta, words
    from d3codec.format.manifest import (
        DdimRecipe,
        DeltaConditioning,
        Group,
        HardLabels,
        Images,
        QuantizedLabels,
        WordsConditioning,
    )
    from d3codec.generators.weights import describe

    rng = np.random.default_rng(seed)
    begin, end, slots = 52, 53, (2, 3)
    prompt: dict[str, Any] = {
        "template": (begin, 26, 3, 4, end),
        "negative": (begin, end),
        "padding": (end, LENGTH),
        "slots": slots,
    }
    if kind == "words":
        conditioning: Any = WordsConditioning(**prompt)
        data = words.encode(rng.integers(0, 52, (classes, len(slots))).astype(np.uint16))
    else:
        conditioning = DeltaConditioning(**prompt, initial_token=30, bits=bits, width=WIDTH)
        data = delta.encode(rng.normal(0, 0.5, (classes, len(slots), WIDTH)), bits)
    recipe = DdimRecipe(
        betas=("scaled", 850, 12000, 1000),
        final_alpha="first",
        steps=steps,
        prediction="eps",
        guidance=round(guidance * 1_000_000),
        timesteps=("leading", 1),
    )
    group = Group(
        conditioning=conditioning,
        cast=cast,
        generator=generator or describe(pipeline, cast).id,
        images=Images(grid=(grid, grid), count=ipc, size=(SIZE, SIZE)),
        noise_key=noise_key,
        labels=QuantizedLabels(step=16, width=classes) if labels == "q" else HardLabels(),
        recipe=recipe,
    )
    return group, data


def make_file(
    path: Path,
    pipeline: Path,
    *,
    classes: int = 3,
    ipc: int = 4,
    grid: int = 2,
    labels: str = "q",
    profile: str = "reproducible",
    pixels: bool = True,
    leaf_bytes: int = 8,
    **group: Any,
) -> Path:
    """A sound file of one group and return its path; labels are random, further arguments go to `make_group`.

    With `pixels` it is decoded, and what the profile promises of its pixels is stored, with leaves
    (`leaf_bytes`, 0 for none). An exact profile needs `pixels`.
    """
    from d3codec import corrections
    from d3codec.format.file import ContentDraft, save_atomically, write_d3m
    from d3codec.format.manifest import REPRODUCIBLE, Classes, Exact, ExactFixed
    from d3codec.format.sections import ClassRecord, pack_classes

    record, conditioning = make_group(pipeline, classes=classes, ipc=ipc, grid=grid, labels=labels, **group)
    names = [ClassRecord("", f"thing {number}") for number in range(classes)]
    sections = {
        ("cls", None): pack_classes(names),
        ("emb" if record.conditioning.kind == "delta" else "wrd", 0): conditioning,
    }
    if labels == "q":
        rows = np.random.default_rng(1).integers(-60, 60, (classes * ipc * grid * grid, classes), np.int8)
        sections["lab", 0] = rows.tobytes()
    about, ancillary, promise = None, {}, REPRODUCIBLE
    if profile != "reproducible":
        digest, leaves, places, levels = _decoded(pipeline, record, conditioning, classes, profile, leaf_bytes)
        promise = ExactFixed(pixels=digest)
        if profile == "exact":
            promise = Exact(pixels=digest, corrections=len(places))
            if len(places):
                sections["fix", None] = corrections.encode(places, levels)
        ancillary = {"x-leaf": leaves} if leaf_bytes else {}
    elif pixels:
        about, ancillary = witness(pipeline, record, conditioning, classes, leaf_bytes)
    draft = ContentDraft(Classes(authority="none", count=classes), (record,), promise)
    save_atomically(path, write_d3m(draft, sections, about, ancillary))
    return path


def witness(
    pipeline: Path, group: Any, conditioning: bytes, classes: int, leaf_bytes: int
) -> tuple[Any, dict[str, bytes]]:
    """`about` with fingerprint and pixel digest of this machine, and the leaves."""
    from d3codec.decoder.precision import fingerprint
    from d3codec.format.manifest import About

    digest, leaves, _, _ = _decoded(pipeline, group, conditioning, classes, "reproducible", leaf_bytes)
    return About(fingerprint=fingerprint("cpu"), pixels=digest), {"x-leaf": leaves} if leaf_bytes else {}


def _decoded(
    pipeline: Path, group: Any, conditioning: bytes, classes: int, profile: str, leaf_bytes: int
) -> tuple[bytes, bytes, np.ndarray, np.ndarray]:
    """Pixel digest and leaves of the only group of a dataset, positions and levels of what is near a boundary."""
    from d3codec.decoder.digests import image_digest, pixel_digest
    from d3codec.decoder.plan import unit_at
    from d3codec.decoder.precision import compute_dtype
    from d3codec.decoder.render import Renderer
    from d3codec.encoder.exact import boundary_values
    from d3codec.generators.load import load_generator

    networks = load_generator(pipeline, cast=group.cast, dtype=compute_dtype(profile), device="cpu")
    renderer = Renderer(group, conditioning, networks, profile, classes)
    count = group.images.count
    digests, places, levels = [], [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for number in range(-(-classes * count // 8)):
        images = renderer.render(unit_at(0, number, count, classes))
        digests += [image_digest(image) for image in images]
        if profile == "exact":
            sources = [divmod(8 * number + place, count) for place in range(len(images))]
            near = boundary_values(renderer.levels(sources))
            places.append(number * 8 * images[0].size + near)
            levels.append(images.reshape(-1)[near])
    leaves = b"".join(digest[:leaf_bytes] for digest in digests)
    return pixel_digest(digests), leaves, np.concatenate(places), np.concatenate(levels)
