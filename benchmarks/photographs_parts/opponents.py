"""Rows that a `.d3m` is compared with: photographs in image codecs, the same with labels, controls, references."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.labels import adaptive
from d3codec.training.photo_students import PhotoGroup

from . import sheets, transform_coder
from .material import unrelated
from .rows import Plan, Settings, Stored
from .selection import Selection

Budgets = tuple[int, ...]

EVERY_BUDGET: Budgets = (600, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
SOME_BUDGETS: Budgets = (2_000, 10_000, 50_000)
SOFT_BUDGETS: Budgets = (2_000, 10_000)
UNRELATED_IMAGES = 400
LABEL_STEP = adaptive.UNITS_A_NAT  # of labels, 1 nat: finer ones teach no better, coarser ones worse

# Images in all that are tried, with fill; the second also without.
SHEET_COUNTS = {
    600: (20, 30, 40),
    1_000: (30, 40, 60),
    2_000: (60, 80, 120),
    5_000: (80, 120, 180),
    10_000: (150, 200, 300),
    20_000: (250, 350, 500),
    50_000: (400, 500, 700),
    100_000: (700, 1000, 1400),
    200_000: (1000, 1400, 2000),
}
CODER_COUNTS = {
    600: (30, 40, 60),
    1_000: (50, 70, 100),
    2_000: (70, 100, 150),
    5_000: (150, 200, 300),
    10_000: (200, 300, 450),
    20_000: (350, 500, 800),
    50_000: (600, 900, 1400),
    100_000: (1000, 1500, 2500),
    200_000: (1500, 2500, 4000),
}


def plans(selection: Selection, data: Path, budgets: Budgets) -> list[Plan]:
    """All rows but those of `.d3m` files, in the order of the table."""
    found: list[Plan] = []

    def add(name: str, at: Budgets, counts: dict[int, tuple[int, ...]], store: Any, **more: Any) -> None:
        for budget in (b for b in budgets if b in at):
            chosen = counts[budget]
            tries = [{"images": count, "fill": True} for count in chosen]
            tries.insert(2, {"images": chosen[1], "fill": False})
            found.append(Plan(name, budget=budget, tries=tuple(tries), store=partial(store, selection, budget), **more))

    avif = partial(sheet, codec="avif")
    add("AVIF sheet, selected", EVERY_BUDGET, SHEET_COUNTS, avif, role="opponent")
    if selection.material.side == 32:  # the weaker ones, once
        drawn = partial(avif, drawn=True)
        add("AVIF sheet, random", SOME_BUDGETS, SHEET_COUNTS, drawn, role="opponent", drawn=True)
        add("WebP sheet, selected", SOME_BUDGETS, SHEET_COUNTS, partial(sheet, codec="webp"), role="opponent")
        add("JPEG sheet, selected", SOME_BUDGETS, SHEET_COUNTS, partial(sheet, codec="jpeg"), role="opponent")
    add("transform coder, selected", EVERY_BUDGET, CODER_COUNTS, coded, role="own-coder")
    soft: dict[str, Any] = {"labels": "soft", "protocol": "S1"}
    labelled = partial(avif, labelled=True)
    add("AVIF sheet, selected, soft labels", SOFT_BUDGETS, SHEET_COUNTS, labelled, role="opponent", **soft)
    found += [
        Plan(
            "unrelated photographs, teacher's labels",
            "control",
            None,
            ({"images": UNRELATED_IMAGES},),
            partial(control, selection, data),
            drawn=True,
            **soft,
        ),
        Plan("all photographs", "reference", None, ({},), partial(everything, selection)),
    ]
    return found


def sheet(
    selection: Selection,
    budget: int,
    settings: Settings,
    draw: int,
    *,
    codec: sheets.Codec,
    drawn: bool = False,
    labelled: bool = False,
) -> Stored | None:
    """A contact sheet, with the list of classes and, if `labelled`, the teacher's labels of the images before coding:
    it does not recognise what a sheet of a few kilobytes makes of them."""
    material, pool = selection.material, selection.material.pool
    at = selection.drawn(settings["images"], draw) if drawn else selection.selected(settings["images"])
    beside, logits = material.class_bytes, None
    if labelled:
        size, logits = coded_labels(selection.ensemble.labels(pool.images[at]), pool.labels[at])
        beside += size
    found = sheets.best_sheet(material.originals[at], pool.images[at], codec, budget - beside)
    if found is None:
        return None
    tiles = sheets.spectral_fill(found.tiles, copies(len(at))) if settings["fill"] else found.tiles[None]
    about = {"side": found.side, "quality": found.quality, "psnr": round(found.psnr, 2)}
    about |= {"label_bytes": beside - material.class_bytes} if labelled else {}
    group = PhotoGroup(tuple(tiles), pool.labels[at], logits)
    return Stored((group,), found.size + beside, about, (pool.images[at],))


def coded(selection: Selection, budget: int, settings: Settings, draw: int) -> Stored | None:
    """The transform coder, with the list of classes."""
    material, pool = selection.material, selection.material.pool
    at = selection.selected(settings["images"])
    known = transform_coder.statistics(material.side)
    data = transform_coder.within(known, pool.images[at], budget - material.class_bytes)
    if data is None:
        return None
    decoded = transform_coder.decode(known, data)
    images = transform_coder.filled(known, decoded, copies(len(at)) if settings["fill"] else 0)
    group = PhotoGroup(tuple(images), pool.labels[at])
    return Stored((group,), len(data) + material.class_bytes, {}, (pool.images[at],))


def control(selection: Selection, data: Path, settings: Settings, draw: int) -> Stored:
    """Photographs of other classes with the teacher's labels: what the teacher alone gives."""
    images = unrelated(data, selection.material.side)
    images = images[np.random.default_rng([200, draw]).permutation(len(images))[: settings["images"]]]
    logits = selection.ensemble.labels(images)
    return Stored((PhotoGroup(images, logits.argmax(1), logits),), images.size, {"bytes": "of pixels, not coded"})


def everything(selection: Selection, settings: Settings, draw: int) -> Stored:
    """The whole pool as it is."""
    pool = selection.material.pool
    return Stored((PhotoGroup(pool.images, pool.labels),), pool.images.size, {"bytes": "of pixels, not coded"})


def chance(selection: Selection) -> dict[str, Any]:
    """The row of a student that guesses."""
    material = selection.material
    return {
        "dataset": material.name,
        "side": material.side,
        "budget": None,
        "name": "chance",
        "role": "reference",
        "labels": "hard",
        "protocol": "H",
        "bytes": 0,
        "accuracy_percent": round(100 / material.classes, 2),
        "spread": None,
        "runs": 0,
        "images": 0,
    }


def copies(count: int) -> int:
    """How many fills of each image a student draws from: they cost memory, no bytes."""
    return 8 if count <= 1500 else 3 if count <= 4000 else 2


def coded_labels(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[int, NDArray[np.float32]]:
    """Bytes of labels, float32 [N, W] in nat, in the label codec of d3codec, and what comes back of them."""
    data = adaptive.encode(logits, classes, step=LABEL_STEP)
    return len(data), adaptive.decode(data, classes, logits.shape[1])
