"""Files that every reader accepts: stored latents in every coding, samplers, candidates, windows."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import DecodeRecipe, Exact, NoConditioning, Start, StoredLatents, Window
from making.accept_methods import THREE, decoded, q_rows
from making.given import TRANSFORM_MATRIX, TRANSFORM_OWN, TRANSFORM_TAESD, TRANSFORM_TAESD3, given
from making.records import LABELS_Q3, Sound, Vector, ddim, digest, euler, group, images
from making.streams import blocks, coded_rows, words16

CHOICES = words16(5 | 1 << 3 | 2 << 6 | 0 << 9 | 6 << 12, 0x7FFF, 0)
"""Section `cnd` of three classes: 5 1 2 0 6, then 7 7 7 7 7, then zeros; three bits each."""


def vectors_of_recipes() -> Iterator[Vector]:
    """Stored latents in every coding, samplers and what stands in their records."""
    for name, given_name, shape, classes, count, words_ in (
        ("latents-own", "transform-own.bin", TRANSFORM_OWN["shape"], 3, 100, "statistics in the section, two blocks"),
        (
            "latents-own-matrix",
            "transform-matrix.bin",
            TRANSFORM_MATRIX["shape"],
            2,
            20,
            "statistics with a matrix in the section",
        ),
        ("latents-taesd", "transform-taesd.bin", TRANSFORM_TAESD["shape"], 2, 2, "shipped statistics number 2"),
        ("latents-taesd3", "transform-taesd3.bin", TRANSFORM_TAESD3["shape"], 3, 1, "shipped statistics number 1"),
    ):
        reason = f"transform-coded latents that are decoded as they are: {words_}"
        topics = "decode transform latents " + ("transform-own" if "own" in name else "transform-shipped")
        yield Vector(name, reason, topics, decoded(given_name, shape, classes, count))
    for name, coding, raw, kind in (
        ("latents-decode-blocks", StoredLatents(bits=3, shape=(4, 2, 3)), blocks("decode", 4, [24], 3), "block"),
        (
            "latents-decode-coded",
            StoredLatents(bits=8, coding=1, shape=(4, 2, 3)),
            coded_rows("decode", 4, 24, (255, 3, 2), [0.0078125]),
            "coded",
        ),
    ):
        record = group(conditioning=NoConditioning(), images=images(2), recipe=DecodeRecipe(latents=coding))
        sound = Sound(THREE[:2], (record,), {("lat", 0): raw}, profile=Exact(pixels=digest(name), corrections=0))
        yield Vector(
            name,
            f"stored latents of coding {coding.coding} that are decoded as they are",
            f"decode {kind} latents",
            sound,
        )
    start = Start(a=300_000, b=700_000, stored=StoredLatents(bits=0, coding=2, shape=(4, 4, 4)))
    recipe = euler(initial="root", sigmas="karras", timesteps=("linspace", 0), prediction="sample", start=start)
    sound = Sound(
        THREE[:2],
        (group(images=images(2), recipe=recipe),),
        {("emb", 0): blocks("start", 2, [4], 2), ("lat", 0): given("transform-taesd.bin")},
    )
    yield Vector(
        "euler-karras-start",
        "Euler on Karras' sigmas from stored latents and noise, transform-coded",
        "euler transform latents",
        sound,
    )
    recipe = euler(
        "euler-ancestral", initial="sigma", steps=1, prediction="v", betas=("linear", 1, 2, 1), timesteps=("leading", 0)
    )
    sound = Sound(THREE, (group(recipe=recipe, cast="stored"),), {("emb", 0): blocks("ancestral", 3, [4], 2)})
    yield Vector(
        "euler-ancestral-one-step",
        "Euler ancestral, one step of a table of one; weights as they are stored",
        "euler group",
        sound,
    )
    recipe = ddim(timesteps=("linspace", 0), final_alpha="one", prediction="sample", guidance=0)
    sound = Sound(THREE, (group(recipe=recipe, outside_bytes=12_345_678),), {("emb", 0): blocks("lora", 3, [4], 2)})
    yield Vector(
        "ddim-linspace-lora",
        "DDIM, linspace, guidance 0; a low-rank update counts as outside bytes",
        "ddim group",
        sound,
    )
    some = images(5, candidates=3)
    sound = Sound(
        THREE,
        (group(images=some, labels=LABELS_Q3),),
        {("emb", 0): blocks("candidates", 3, [4], 2), ("cnd", 0): CHOICES, ("lab", 0): q_rows("candidates", 15, 3)},
    )
    yield Vector(
        "candidates",
        "a choice among eight candidates for each of five sources, 15 bits a class",
        "candidates noise",
        sound,
    )
    window = Window(generated=(48, 64), block=(4, 8, 40, 50))
    sound = Sound(
        THREE, (group(images=images(2, (16, 24), (2, 3), window=window)),), {("emb", 0): blocks("window", 3, [4], 2)}
    )
    yield Vector("window", "a block is cut out of the generated image and made smaller", "window images", sound)
