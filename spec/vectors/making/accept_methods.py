"""Files that every reader accepts: the published methods, every conditioning, coding of latents and sampler."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.format.manifest import (
    AdaptiveLabels,
    DecodeRecipe,
    Exact,
    ExactFixed,
    GddAugmentation,
    NoConditioning,
    QuantizedLabels,
    RankedHeadLabels,
    Start,
    StoredLatents,
)
from making.given import given
from making.records import (
    MILLION,
    SECOND,
    Sound,
    Vector,
    class_ids,
    ddim,
    delta,
    digest,
    euler,
    group,
    images,
    leaves,
    pixel_digest,
    reinject,
    sheets,
    stored_group,
    tokens,
    vectors,
    words,
)
from making.streams import (
    adaptive_labels,
    blocks,
    coded_rows,
    joined,
    numbers,
    png,
    sequences,
    sheet_of,
    tiles,
    words16,
    words32,
)

THREE = ("eel", "finch", "grebe")
TEN = ("tench", "springer", "cassette", "chain saw", "church", "horn", "truck", "gas pump", "golf ball", "parachute")
MADE = {"fingerprint": "x86-64 AVX2, torch 2.13.0, Pillow 13.0.0", "pixels": digest("made there")}


def q_rows(seed: str, rows: int, width: int) -> bytes:
    """Labels of kind `q`."""
    return bytes(numbers(seed, rows * width, 256))


MINIMAL = Sound(
    THREE[:2],
    (group(conditioning=words(negative=None), recipe=ddim(guidance=MILLION)),),
    {("wrd", 0): words16(320, 1125, 539, 4558)},
)
D3M = Sound(
    TEN,
    (
        group(
            conditioning=delta(width=32),
            images=images(grid=(2, 2)),
            labels=QuantizedLabels(step=8, width=10),
            recipe=ddim(timesteps=("trailing", 0)),
        ),
    ),
    {("emb", 0): blocks("d3m", 10, [32], 2), ("lab", 0): q_rows("d3m labels", 40, 10)},
)
_PICTURES = tiles("rded", 6, (8, 8))
RDED = Sound(
    THREE,
    (stored_group(images=images(2, (8, 8)), labels=AdaptiveLabels(width=3)),),
    {
        ("img", 0): joined([png(sheet_of(_PICTURES[:4], 2)), png(sheet_of(_PICTURES[4:], 2))]),
        ("lab", 0): adaptive_labels("rded", [0, 0, 1, 1, 2, 2], 3, 32),
    },
    profile=Exact(pixels=pixel_digest(_PICTURES), corrections=0),
    about={"method": "rded", "licence": "CC0-1.0"},
    ancillary={"x-leaf": leaves(_PICTURES, 4)},
)
_LATENT = StoredLatents(bits=8, shape=(4, 2, 2))
_LD3M_RECIPE = reinject(guidance=3 * MILLION, steps=4, start=Start(a=224_000, b=974_000, stored=_LATENT))
LD3M = Sound(
    THREE[:2],
    (group(conditioning=vectors(), images=images(3, (32, 32)), recipe=_LD3M_RECIPE),),
    {("emb", 0): blocks("ld3m", 7, [16], 6), ("lat", 0): blocks("ld3m latents", 6, [16], 8)},
    profile=Exact(pixels=digest("ld3m"), corrections=0),
    about={"method": "ld3m"},
)
LD3M_CODED = Sound(
    THREE[:2],
    (
        group(
            conditioning=vectors(coded=True),
            images=images(3, (32, 32)),
            recipe=reinject(
                prediction="v",
                final_alpha="first",
                start=Start(a=0, b=MILLION, stored=StoredLatents(bits=5, coding=1, shape=(4, 2, 2))),
            ),
        ),
    ),
    {
        ("emb", 0): coded_rows("ld3m", 7, 16, (15, 20, 12), [0.25]),
        ("lat", 0): coded_rows("ld3m latents", 6, 16, (32, -8, 40), [0.5, 0.25, 1.5, 0.75, 2.0, 0.125]),
    },
)
_XL = {"recipe": euler("euler-ancestral", guidance=MILLION, steps=2), "noise_key": 11, "cast": "f16"}
GDD = Sound(
    ("eel", "finch"),
    (
        group(
            conditioning=tokens(negative=None, second=SECOND),
            images=images(10, (16, 16), augmentation=GddAugmentation(copies=4)),
            **_XL,
        ),
    ),
    {("tok", 0): sequences([[49406, 25_311, 49407], [49406, 1_929, 65_535, 7, 49407]])},
    profile=Exact(pixels=digest("gdd"), corrections=0),
    about={"method": "gdd"},
)
COLUMNS = words32(388, 207)


def decoded(name: str, shape: tuple[int, int, int], classes: int, count: int) -> Sound:
    """Transform-coded latents that are decoded as they are."""
    record = StoredLatents(bits=0, coding=2, shape=shape)
    return Sound(
        tuple(f"class {number}" for number in range(classes)),
        (group(conditioning=NoConditioning(), images=images(count), recipe=DecodeRecipe(latents=record)),),
        {("lat", 0): given(name)},
    )


MIXTURE = Sound(
    ("left", "right"),
    (
        D3M.groups[0].model_copy(update={"labels": QuantizedLabels(step=8, width=2), "noise_key": 1}),
        decoded("transform-taesd.bin", (4, 4, 4), 2, 2).groups[0],
        stored_group(images=images(2, (8, 8)), recipe=sheets(per_sheet=1, columns=1)),
    ),
    {
        ("emb", 0): blocks("mixture", 2, [32], 2),
        ("lab", 0): q_rows("mixture labels", 8, 2),
        ("lat", 1): given("transform-taesd.bin"),
        ("img", 2): joined([png(picture) for picture in tiles("mixture", 4, (8, 8))]),
    },
    about={"weights": (1, 3, 255), "method": "mixture"},
)


def vectors_of_methods() -> Iterator[Vector]:
    """Whole methods."""
    yield Vector("minimal", "two classes, two words each, hard labels, no about", "layout manifest words", MINIMAL)
    reason = "D3M: a learned difference a class in blocks of 2 bits, a collage of four patches, int8 labels"
    yield Vector("d3m", reason, "delta block labels-q images", D3M)
    record = delta(width=32, coded=True, slots=(2, 4))
    labels = RankedHeadLabels(width=10)
    coded = Sound(
        TEN,
        (D3M.groups[0].model_copy(update={"conditioning": record, "labels": labels}),),
        {("emb", 0): coded_rows("d3m", 10, 64, (4, 0, 6), [0.03125]), ("lab", 0): given("ranked-none.bin")},
        about={"method": "d3m", "licence": "CC0-1.0"},
    )
    reason = "D3M: entropy-coded differences at two slots under one scale, ranked labels without statistics"
    yield Vector("d3m-coded", reason, "delta coded labels-r", coded)
    second = SECOND.model_copy(update={"width": 3})
    record = delta(width=5, bits=3, rows="image", second=second, slots=(2, 4), negative="zeros")
    two = Sound(
        THREE,
        (group(conditioning=record, images=images(2), recipe=ddim(guidance=7_500_000)),),
        {("emb", 0): blocks("two encoders", 6, [10, 6], 3)},
    )
    yield Vector(
        "d3m-two-encoders", "learned differences for two text encoders, a row a source", "delta block second", two
    )
    record = delta(width=5, coded=True, second=second, slots=(2, 4))
    coded_two = Sound(
        THREE, (group(conditioning=record),), {("emb", 0): coded_rows("two", 3, 16, (7, 3, 3), [0.5, 1.0, 4.0])}
    )
    reason = "entropy-coded differences for two text encoders: a row holds those of the first, then those of the second"
    yield Vector("d3m-two-encoders-coded", reason, "delta coded second", coded_two)
    reason = "RDED: images on two PNG sheets, the last one partly filled; exact, with the digest of its pixels"
    yield Vector("rded-png", reason, "stored img labels-a profile pixel-digest leaf", RDED)
    for name, format, bytes_of in (
        ("rded-webp", "webp", "sheet.webp"),
        ("rded-webp-lossless", "webp", "sheet-lossless.webp"),
        ("rded-avif", "avif", "sheet.avif"),
    ):
        record = stored_group(images=images(2, (16, 16)), recipe=sheets(format=format))
        sound = Sound(THREE[:2], (record,), {("img", 0): joined([given(bytes_of)])}, about=MADE | {"method": "rded"})
        yield Vector(
            name, f"RDED: images on a sheet in {format}, with fingerprint and digest", "stored img profile", sound
        )
    reason = "LD3M: stored latents in blocks, re-injected; a condition a source and an unconditional one; exact"
    yield Vector("ld3m", reason, "vectors reinject block latents profile", LD3M)
    reason = "LD3M: latents and conditions entropy-coded, under one scale and under one a row; the start is noise alone"
    yield Vector("ld3m-coded", reason, "vectors reinject coded latents", LD3M_CODED)
    yield Vector(
        "gdd-tokens",
        "GDD: sequences of token ids for two text encoders, four augmented copies a source",
        "tokens second copies euler",
        GDD,
    )
    names = Sound(
        THREE,
        (
            group(
                conditioning=words(rows="image", second=SECOND),
                images=images(6, augmentation=GddAugmentation(copies=2)),
                recipe=_XL["recipe"].model_copy(update={"guidance": 2 * MILLION}),
            ),
        ),
        {("wrd", 0): words16(*numbers("gdd words", 12, 49_000))},
    )
    yield Vector("gdd-words", "GDD: two words a source, two augmented copies", "words second copies euler", names)
    learned = Sound(
        THREE,
        (
            group(
                conditioning=vectors(rows="class", negative="zeros", bits=4),
                images=images(4, augmentation=GddAugmentation(copies=1)),
            ),
        ),
        {("emb", 0): blocks("gdd vectors", 3, [16], 4)},
    )
    yield Vector(
        "gdd-vectors",
        "hidden states a class with a negative of zeros, one augmented copy",
        "vectors block copies",
        learned,
    )
    dit = Sound(
        THREE,
        (
            group(
                conditioning=class_ids(),
                images=images(2, (16, 16), (2, 2)),
                recipe=ddim(
                    betas=("linear", 100, 20_000, 1_000),
                    eta=500_000,
                    guidance=4 * MILLION,
                    timesteps=("leading", 0),
                    steps=5,
                ),
            ),
        ),
        {("ids", 0): words32(207, 3, 999)},
        profile=ExactFixed(pixels=digest("dit")),
    )
    yield Vector("dit-class-ids", "class ids of the denoiser, DDIM with eta, exact-fixed", "class-id ddim profile", dit)
    yield Vector(
        "mixture",
        "generated images, decoded latents and stored images in one dataset, with training weights",
        "groups about decode stored",
        MIXTURE,
    )
