"""Hand-packed exact files of the published systems that the encoder does not make, on tiny random pipelines.

GDD: class names as prompts of an SDXL-Turbo, each source image with four augmented copies. LD3M: a learned latent and
a learned condition for every image, re-injected while sampling. DiT: class ids alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_families

from d3codec.conditioning import class_ids, latents, tokens, vectors
from d3codec.format.file import ContentDraft, write_d3m
from d3codec.format.manifest import (
    About,
    Classes,
    ClassIdConditioning,
    DdimRecipe,
    EulerRecipe,
    Exact,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    ReinjectRecipe,
    SecondEncoder,
    Start,
    StoredLatents,
    TokensConditioning,
    VectorsConditioning,
)
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.noise import normals

SIZE, LENGTH = tiny_families.SIZE, tiny_families.LENGTH
BEGIN, END = 52, 53
BETAS = ("scaled", 850, 12000, 1000)
MAKERS = {"gdd": tiny_families.make_xl, "ld3m": tiny_families.make_latent_diffusion, "dit": tiny_families.make_dit}


def gdd(generator: bytes) -> tuple[Group, dict[str, bytes], list[str]]:
    """Two classes, two sources each, four copies of each source; one Euler ancestral step without guidance."""
    names = ["eel", "finch"]
    # The tokenizer knows letters, and letters that end a word 26 further on.
    words = [[ord(letter) - ord("a") for letter in name] for name in names]
    prompts = [[BEGIN, *word[:-1], word[-1] + 26, END] for word in words]
    conditioning = TokensConditioning(
        negative=None, padding=(END, LENGTH), second=SecondEncoder(pad_id=25, time_ids=tiny_families.TIME_IDS, width=0)
    )
    recipe = EulerRecipe(
        sampler="euler-ancestral",
        betas=BETAS,
        guidance=1_000_000,
        steps=2,
        prediction="eps",
        timesteps=("trailing", 0),
        initial="sigma",
        sigmas="table",
    )
    images = Images(grid=(1, 1), count=10, size=(SIZE, SIZE), augmentation=GddAugmentation(copies=4))
    return _group(generator, conditioning, recipe, images), {"tok": tokens.encode(prompts)}, names


def ld3m(generator: bytes) -> tuple[Group, dict[str, bytes], list[str]]:
    """Two classes, three images each: 8-bit latents, 6-bit conditions, four steps with re-injection, guidance 3."""
    shape = (4, SIZE // 2, SIZE // 2)
    clean = normals(1, 0, 0, (6, *shape)).astype(np.float64)
    conditions = normals(2, 0, 0, (7, 1, 16)).astype(np.float64)  # the last one is the unconditional
    conditioning = VectorsConditioning(bits=6, negative="row", rows="image", slots=1, width=16)
    # The first of four leading timesteps is 751 of 1,000: a and b are the roots of alpha-bar and of what is left.
    recipe = ReinjectRecipe(
        betas=BETAS,
        final_alpha="first",
        guidance=3_000_000,
        steps=4,
        prediction="eps",
        timesteps=("leading", 1),
        start=Start(a=224_000, b=974_000, stored=StoredLatents(bits=8, shape=shape)),
    )
    images = Images(grid=(1, 1), count=3, size=(SIZE, SIZE))
    sections = {"emb": vectors.encode(conditions, 6), "lat": latents.encode(clean, 8)}
    return _group(generator, conditioning, recipe, images), sections, ["ant", "bee"]


def dit(generator: bytes) -> tuple[Group, dict[str, bytes], list[str]]:
    """Three classes by their ids, DDIM with eta 0.5, guidance 4 against the null class."""
    recipe = DdimRecipe(
        betas=("linear", 100, 20_000, 1000),
        eta=500_000,
        final_alpha="first",
        guidance=4_000_000,
        steps=5,
        prediction="eps",
        timesteps=("leading", 0),
    )
    conditioning = ClassIdConditioning(negative=tiny_families.NULL_CLASS)
    images = Images(grid=(2, 2), count=2, size=(SIZE, SIZE))
    return _group(generator, conditioning, recipe, images), {"ids": class_ids.encode([207, 3, 999])}, ["a", "b", "c"]


METHODS = {"gdd": gdd, "ld3m": ld3m, "dit": dit}


def _group(generator: bytes, conditioning: Any, recipe: Any, images: Images) -> Group:
    return Group(
        conditioning=conditioning,
        cast="f16",
        generator=generator,
        images=images,
        noise_key=11,
        labels=HardLabels(),
        recipe=recipe,
    )


def pack(method: str, pipeline: Path) -> bytes:
    """The file: decoded here in `exact`, with leaves of four bytes. Its values lie far from rounding boundaries."""
    from d3codec.decoder.digests import image_digest, pixel_digest
    from d3codec.decoder.plan import Plan
    from d3codec.decoder.units import decoded_units
    from d3codec.format.file import D3MFile
    from d3codec.generators.weights import describe

    group, parts, names = METHODS[method](describe(pipeline, "f16").id)
    sections = {("cls", None): pack_classes([ClassRecord("", name) for name in names])}
    sections |= {(name, 0): data for name, data in parts.items()}
    classes = Classes(authority="none", count=len(names))
    draft = D3MFile.open(write_d3m(ContentDraft(classes, (group,)), sections))
    units = decoded_units(draft, Plan.of(draft.content), profile="exact", device="cpu", generator=pipeline, cache=False)
    digests = [image_digest(image) for _, images in units for image in images]
    profile = Exact(pixels=pixel_digest(digests), corrections=0)
    leaves = b"".join(digest[:4] for digest in digests)
    return write_d3m(ContentDraft(classes, (group,), profile), sections, About(method=method), {"x-leaf": leaves})
