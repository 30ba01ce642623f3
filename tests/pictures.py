"""Files whose generator is nowhere and pictures that stand for their pixels: enough for all that writes and joins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_pipeline import make_group

from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import Extent, Plan
from d3codec.decoder.shard import Key, Shard, image_keys
from d3codec.decoder.writers import Decoding, ShardFolder, Writer
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import About, Classes, Exact, Reproducible
from d3codec.format.sections import ClassRecord, pack_classes

Images = dict[Key, np.ndarray]


def make_pictures(
    path: Path,
    *,
    classes: int = 3,
    ipc: int = 20,
    labels: str = "q",
    profile: str = "reproducible",
    names: tuple[str, ...] | None = None,
    promise: bool = True,
    seed: int = 0,
) -> tuple[Decoding, Images]:
    """Write a file and return all of it as a writer gets it, with random pictures; the file states their digest."""
    group, rows = make_group(Path(), classes=classes, ipc=ipc, labels=labels, generator=bytes(32), seed=seed)
    records = [ClassRecord("", name) for name in names or [f"thing {number}" for number in range(classes)]]
    sections: dict[Any, bytes] = {("cls", None): pack_classes(records), ("emb", 0): rows}
    rng = np.random.default_rng(seed)
    if labels == "q":
        sections["lab", 0] = rng.integers(-60, 60, (classes * ipc * 4, classes), np.int8).tobytes()
    keys = [(0, class_, index) for class_ in range(classes) for index in range(ipc)]
    images = {key: rng.integers(0, 256, (8, 8, 3), np.uint8) for key in keys}
    digest = pixel_digest(image_digest(images[key]) for key in keys)
    about = About(fingerprint="here", pixels=digest, licence="CC0-1.0", source="noise")
    promised: Any = Exact(pixels=digest, corrections=0) if profile == "exact" else Reproducible()
    if profile == "exact" or not promise:
        about = About(licence="CC0-1.0")
    draft = ContentDraft(Classes(authority="none", count=classes), (group,), promised)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_d3m(draft, sections, about))
    file = D3MFile.open(path)
    return Decoding(file, Plan.of(file.content), profile, "here"), images


def write(writer: Writer, decoding: Decoding, images: Images) -> None:
    """All that a decode does with a writer."""
    writer.begin()
    for unit in decoding.plan.units:
        for key in image_keys(unit):
            if key in set(decoding.plan.images):
                writer.add(writer.prepare(key, images[key]))
    writer.finish()


def write_shards(folder: Path, decoding: Decoding, images: Images, count: int) -> list[Path]:
    """The shards 0 to `count` - 1 of a decode."""
    folders = []
    for number in range(count):
        folders.append(folder / f"part{number}")
        write_shard(folders[-1], decoding, images, Shard(number, count))
    return folders


def write_shard(folder: Path, decoding: Decoding, images: Images, shard: Shard) -> Path:
    plan = shard.of(Extent.of(decoding.file.content, decoding.classes, decoding.limit)).plan()
    part = replace(decoding, plan=plan)
    write(ShardFolder(folder, part, shard), part, images)
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
