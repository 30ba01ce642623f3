"""Rows of `.d3m` files: rded, latents, latents with soft labels, D3M, and mixtures of them.

The files are those of `d3codec encode --bytes N`, made by the same functions; only the plan is fixed by the row and
chosen by the benchmark's validation students.
"""

from __future__ import annotations

import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.encoder import pack
from d3codec.encoder.labels import LabelChoice
from d3codec.encoder.state import WorkFolder
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import About
from d3codec.methods import plans as method_plans
from d3codec.methods import stored
from d3codec.methods.builder import Builder
from d3codec.methods.made import Frame, Labelling
from d3codec.methods.pool import Judge, Pool
from d3codec.sources import LabelledImages

from .rows import Plan, Settings, Stored
from .selection import Selection

Budgets = tuple[int, ...]

AUTOENCODER, GENERATOR_AUTOENCODER = "taesd3", "taesd"  # folders of the data
GENERATOR = "photographs"  # below benchmarks/models
MODELS = Path(__file__).resolve().parent.parent / "models"
LATENT_COUNTS = {
    1_000: (20, 30),
    2_000: (30, 40, 50, 70),
    5_000: (80, 110, 150, 190),
    10_000: (160, 230, 300, 380),
    20_000: (320, 450, 600),
    50_000: (600, 900, 1200),
    100_000: (1200, 1700, 2300),
    200_000: (2500, 3500, 5000),
}
MIXED_COUNTS = {2_000: (30, 40, 50, 60), 5_000: (90, 130, 170), 10_000: (190, 240, 290, 360), 20_000: (390, 500)}
SOFT_BUDGETS: Budgets = (1_000, 2_000, 5_000, 10_000, 20_000)
RDED_BUDGETS: Budgets = (2_000, 10_000, 50_000)
RDED_COUNTS = {2_000: (20, 40, 80), 10_000: (100, 200), 50_000: (400, 600)}
SOFT: dict[str, Any] = {"labels": "soft", "protocol": "S1"}


def plans(selection: Selection, data: Path, work: Path, budgets: Budgets) -> list[Plan]:
    """Rows of `.d3m` files, in the order of the table: a Plan a method and budget, `role` "d3m".

    Arguments:
        selection: the material and its teacher.
        data: folder of the parquet files; the autoencoder lies there as `taesd3`.
        work: folder for what takes long. Rows with generated images are left out without a generator in
            `benchmarks/models` (or for other data sets than the one that its prompts are learned on at 32 pixels).
        budgets: in bytes.
    """
    found: list[Plan] = []
    make = partial(store, selection, data, work)

    def add(name: str, counts: dict[int, tuple[int, ...]], methods: str, **more: Any) -> None:
        for budget in (b for b in budgets if b in counts):
            tries = tuple({"methods": methods, "images": count} for count in counts[budget])
            labels = more.get("labels", "hard")
            found.append(Plan(name, "d3m", budget, tries, partial(make, budget, labels), **more))

    soft = {budget: counts for budget, counts in LATENT_COUNTS.items() if budget in SOFT_BUDGETS}
    add("rded", RDED_COUNTS, "rded")
    add("latents", LATENT_COUNTS, "latents")
    add("latents, soft labels", soft, "latents", **SOFT)
    if (MODELS / GENERATOR).is_dir():
        add("d3m", {1_000: (400,)}, "d3m")
        add("d3m + latents", MIXED_COUNTS, "d3m+latents")
        add("d3m, soft labels", {2_000: (400,)}, "d3m", **SOFT)
        mixed = {budget: counts for budget, counts in MIXED_COUNTS.items() if budget in SOFT_BUDGETS[2:]}
        add("d3m + latents, soft labels", mixed, "d3m+latents", **SOFT)
    return found


def store(
    selection: Selection, data: Path, work: Path, budget: int, labels: str, settings: Settings, draw: int
) -> Stored | None:
    """Encode a file of at most `budget` bytes and give what it decodes to; None if no such file fits.

    settings: `methods`, `images` (stored, in all).
    """
    material, methods = selection.material, tuple(settings["methods"].split("+"))
    maker, per_class = _builder(selection, data, work, labels), settings["images"] // material.classes
    try:
        if methods == ("rded",):
            return _rded(maker, selection, budget, per_class)
        built = maker.build(method_plans.Plan(methods, per_class), budget, final=True)
    except UsageError as error:
        if error.field != "bytes":
            raise
        return None
    file = D3MFile.open(built.data)
    originals = [None if method == "d3m" else maker.pool.images[maker.selected(per_class)] for method in methods]
    found = {
        "profile": file.content.profile.name,
        "sections": {f"{part['name']} {part['group']}": part["bytes"] for part in file.section_sizes()},
        "head": file.head_bytes,
        "dataset_specific_bytes": sum(group.outside_bytes for group in file.content.groups),
        "shared": _shared(data, methods),
    }
    return Stored(tuple(built.groups), len(built.data), found, tuple(originals))


def _shared(data: Path, methods: tuple[str, ...]) -> dict[str, int]:
    """Bytes of the weights that all files share: size (c)."""
    folders = {"latents": [data / AUTOENCODER], "d3m": [MODELS / GENERATOR, data / GENERATOR_AUTOENCODER]}
    return {
        folder.name: sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        for method in methods
        for folder in folders[method]
    }


def _rded(maker: Builder, selection: Selection, budget: int, per_class: int) -> Stored:
    """Crops of the pool's originals in the order of RDED, one patch an image, on AVIF sheets."""
    from d3codec.encoder.select import choice_patches, select_class

    side, parts = maker.pool.side, []
    for label in range(maker.pool.classes):
        best = select_class(maker.originals, label, maker.judge.teacher, side=side, members=300)
        parts.append(choice_patches(maker.originals, best.best(per_class), side))
    labels = np.repeat(np.arange(maker.pool.classes), per_class)
    pool = Pool(np.concatenate(parts), labels, maker.pool.class_names)
    frame = Frame(maker.class_section, maker.authority, "reproducible", About(method="rded"))
    made = stored.make_within(pool, "avif", maker.labelling, frame, budget)
    return Stored((made.group(),), len(made.data), {}, (pool.images,))


def whole_generator(data: Path, work: Path) -> Path | None:
    """The photographic generator of `benchmarks/models` with its autoencoder, which is not kept there; None without."""
    source, folder = MODELS / GENERATOR, work / f"generator-{GENERATOR}"
    if not source.is_dir():
        return None
    if not (folder / "vae").is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True)
        shutil.copytree(data / GENERATOR_AUTOENCODER, folder / "vae")
    return folder


@cache
def _builder(selection: Selection, data: Path, work: Path, labels: str) -> Builder:
    material = selection.material
    judge = Judge(selection.ensemble, f"sha256:{selection.ensemble.digest}", trained=True)
    pool = material.pool
    choice = LabelChoice("hard" if labels == "hard" else "adaptive")
    folder = work / f"files-{material.name}-{material.side}-{labels}"
    return Builder(
        originals=LabelledImages(material.originals, pool.labels, material.class_names, material.name),
        pool=Pool(pool.images, pool.labels, material.class_names),
        judge=judge,
        labelling=Labelling(None if labels == "hard" else judge, choice),
        autoencoder=data / AUTOENCODER,
        denoiser=whole_generator(data, work),
        prompt={"template": None, "initial_token": None},
        class_section=pack.class_section(material.class_names, None, "none"),
        class_ids=None,
        authority="none",
        profile="exact",
        licence=None,
        source=None,
        state=WorkFolder.open(folder, {"teacher": selection.ensemble.digest, "labels": labels}),
        device="cpu",
        progress=lambda *_: None,
    )
