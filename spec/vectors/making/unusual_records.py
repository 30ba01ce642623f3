"""Files that are legal but rare: records with numbers at the ends of their ranges."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.limits import OUTSIDE_BYTES, SIDE, TOKEN_ID
from d3codec.format.manifest import Exact, Group, QuantizedLabels, Start, StoredLatents, Window
from making.pieces import squeezed
from making.records import (
    MILLION,
    SECOND,
    Sound,
    Vector,
    class_ids,
    ddim,
    delta,
    digest,
    group,
    images,
    tokens,
    vectors,
    words,
)
from making.streams import blocks, corrections, half, sequences, words16, words32

ONE = ("only",)
HALF_LEAST = 2.0**-24
HALF_MOST = 65_504.0


def of_words(images_: object = None, **changes: object) -> Group:
    """A group of one class with two words."""
    return group(conditioning=words(), **({} if images_ is None else {"images": images_}), **changes)


def transform_of_nothing(channels: int, height: int, width: int) -> bytes:
    """Transform-coded latents of up to 127 images with a step so coarse that nothing is coded but their means."""
    means = half(*((HALF_MOST, -HALF_MOST, HALF_LEAST, -0.0)[channel % 4] for channel in range(channels)))
    statistics = b"\0\x80" + means + bytes(height + width - 1 + channels)
    return b"\0" + words16(8_191) + statistics + words32(1 << 16)


def vectors_of_least_and_most() -> Iterator[Vector]:
    """Whole records."""
    record = delta(template=(0,), negative=(0,), padding=(0, 1), slots=(0,), initial_token=0, bits=1, width=1)
    least = group(
        conditioning=record,
        generator=bytes(32),
        images=images(1, (1, 1)),
        noise_key=0,
        labels=QuantizedLabels(step=1, width=1),
        recipe=ddim(betas=("linear", 1, 1, 1), guidance=0, steps=1, timesteps=("leading", 0)),
    )
    sound = Sound(ONE, (least,), {("emb", 0): half(HALF_LEAST) + b"\1", ("lab", 0): b"\x80"})
    yield Vector("minima", "one class, one image of one pixel, and every number the least", "delta block images", sound)
    record = delta(
        template=(TOKEN_ID,) * 1_024,
        negative=(TOKEN_ID,) * 1_024,
        padding=(TOKEN_ID, 1_024),
        slots=tuple(range(960, 1_024)),
        initial_token=TOKEN_ID,
        bits=8,
        width=2,
        second=SECOND.model_copy(update={"pad_id": TOKEN_ID, "time_ids": (65_535,) * 6, "width": 1}),
    )
    latents = StoredLatents(bits=0, coding=2, shape=(64, 1, 1))
    recipe = ddim(
        betas=("linear", 1, 8_000, 10_000),
        guidance=1_000 * MILLION,
        steps=1_000,
        eta=MILLION,
        timesteps=("leading", 9),
        start=Start(a=MILLION, b=MILLION, stored=latents),
    )
    most = group(
        conditioning=record,
        generator=b"\xff" * 32,
        images=images(1, (SIDE, SIDE), (SIDE, SIDE)),
        noise_key=(1 << 64) - 1,
        outside_bytes=OUTSIDE_BYTES,
        recipe=recipe,
    )
    embeddings = half(HALF_MOST) + b"\xff" * 128 + half(HALF_LEAST) + bytes(64)
    sound = Sound(ONE, (most,), {("emb", 0): embeddings, ("lat", 0): transform_of_nothing(64, 1, 1)})
    reason = "numbers of group, recipe and conditioning as large as they may be; depth 8"
    yield Vector("maxima", reason, "depth delta block second group transform ddim", sound)
    recipe = ddim(betas=("linear", 500_000, 500_000, 64), steps=64, timesteps=("leading", 0))
    sound = Sound(ONE, (of_words(recipe=recipe),), {("wrd", 0): words16(1, 2)})
    yield Vector(
        "betas-least", "betas with a last alpha-bar of exactly 2^-64, and a step for each", "betas timesteps", sound
    )


def vectors_of_images() -> Iterator[Vector]:
    """Images, candidates, windows, groups, corrections."""
    two = {("wrd", 0): words16(0, 65_535)}
    some = Sound(ONE, (of_words(images(1 << 20, (1, SIDE), (1, SIDE))),), two)
    yield Vector("images-2-20", "a class of 1,048,576 images of 4,096 patches, hard labels", "images labels-h", some)
    sections = two | {("cnd", 0): b"\xff" * 131_072}
    some = Sound(ONE, (of_words(images(65_536, candidates=16)),), sections, pack=squeezed)
    reason = "65,536 sources of 16 bits: all 2^32 candidates of a class, the last one chosen for each"
    yield Vector("candidates-2-32", reason, "candidates noise digests", some)
    pixel = Window(generated=(SIDE, SIDE), block=(SIDE - 1, SIDE - 1, 1, 1))
    some = Sound(ONE, (of_words(images(window=pixel)),), two)
    yield Vector("window-one-pixel", "the last pixel of the generated image, made larger", "window", some)
    groups = tuple(of_words(noise_key=number) for number in range(16))
    sections = {("wrd", number): words16(number, 2) for number in range(16)}
    some = Sound(ONE, groups, sections, about={"weights": (*range(1, 16), 255)})
    yield Vector("groups-16", "sixteen groups, which differ in their noise key", "groups about", some)
    groups = tuple(of_words(images(1 << 20, (SIDE, SIDE)), noise_key=number) for number in range(16))
    last = 256 * 16 * (1 << 20) * SIDE * SIDE * 3 - 1
    sections = {("fix", None): corrections((0, 1), (1 << 35, 2), (last, 3))}
    sections |= {("wrd", number): bytes(1_024) for number in range(16)}
    names = tuple(f"{number:02x}" for number in range(256))
    some = Sound(names, groups, sections, profile=Exact(pixels=digest("far"), corrections=3), pack=squeezed)
    reason = "corrections up to the last of 3 * 2^56 generated bytes, a distance of nine bytes"
    yield Vector("corrections-far", reason, "fix fix-distance fix-position profile bomb", some)


def vectors_of_conditioning() -> Iterator[Vector]:
    """Rows that are wide or long."""
    record = vectors(bits=8, rows="class", negative=None, slots=1, width=8_192)
    raw = half(0.5) + bytes(4_096) + b"\xff" * 4_096
    wide = Sound(ONE, (group(conditioning=record, recipe=ddim(guidance=MILLION)),), {("emb", 0): raw}, pack=squeezed)
    yield Vector("vectors-8192", "vectors of 8,192 values of 8 bits", "vectors block", wide)
    record = group(conditioning=tokens(rows="image", padding=(0, 1_024)), images=images(3))
    rows = sequences([[65_535] * 1_024, [0], [1, 2]])
    yield Vector(
        "tokens-longest", "rows of 1,024 token ids, of one, of two", "tokens", Sound(ONE, (record,), {("tok", 0): rows})
    )
    record = group(conditioning=class_ids(negative=(1 << 31) - 1))
    largest = Sound(ONE, (record,), {("ids", 0): words32((1 << 31) - 1)})
    yield Vector("class-id-largest", "a class id and a null class of 2^31 - 1", "class-id", largest)
    record = group(conditioning=delta(bits=1, slots=(1, 2, 3), width=3, template=(5, 6, 7, 8)))
    raw = blocks("one bit", 2, [9], 1, (HALF_LEAST, HALF_MOST))
    yield Vector(
        "block-one-bit",
        "blocks of 9 values of 1 bit, the least and the largest scale",
        "delta block",
        Sound((*ONE, "other"), (record,), {("emb", 0): raw}),
    )
