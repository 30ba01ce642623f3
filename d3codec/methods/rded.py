"""RDED: collages of the patches that a teacher finds most like their class (Sun et al., arXiv 2312.03526).

The algorithm of its published code: of each class some hundred random images, five random square crops of each, the
crop with the lowest cross-entropy (seen by the teacher in the middle of an empty image) is kept, the best crops of a
class fill collages in its order. What its code does not do: the soft label of every region is stored, that of the
decoded pixels. The images are stored on contact sheets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d3codec.decoder.precision import settings
from d3codec.encoder import pack
from d3codec.encoder.collage import make_collages
from d3codec.encoder.labels import LabelChoice, default_kind
from d3codec.encoder.relabel import agreement, label_patches
from d3codec.encoder.select import choice_patches, select_class
from d3codec.encoder.sheets import Format
from d3codec.errors import UsageError
from d3codec.format import limits
from d3codec.format.file import D3MFile, save_atomically
from d3codec.images import FORMATS
from d3codec.methods import stored
from d3codec.methods.made import Frame, Labelling, Made, statement
from d3codec.methods.pool import Judge, Pool, given_judge, require_images
from d3codec.methods.prepare import check_output
from d3codec.sources import OnError, Source, read_images, require_classes

if TYPE_CHECKING:
    from d3codec.encoder.relabel import Teacher

IMAGES_PER_CLASS = 300  # that are looked at ("mipc" in its code)
QUALITY = 60
READ_SIDE = 1024  # pixels that the longer side of an image has at most: what is larger is reduced on reading

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RdedReport:
    """What was made: sizes, agreement of the decoded patches with the teacher, options.

    sections: name, group, stored and raw bytes, in file order; seconds: by stage; skipped: unreadable files.
    """

    output: str
    method: str
    profile: str
    content_id: str
    bytes_total: int
    head_bytes: int
    sections: tuple[dict[str, Any], ...]
    classes: int
    images: int
    patches: int
    labels: str
    agreement_percent: float
    seconds: dict[str, float]
    skipped: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def as_text(self) -> str:
        """A few lines for a person."""
        parts = " + ".join(f"{section['name']} {section['bytes']:,}" for section in self.sections)
        skipped = [f"skipped {len(self.skipped)} unreadable files, the first: {name}" for name in self.skipped[:1]]
        return "\n".join(
            [
                f"{self.output}: {self.bytes_total:,} bytes (head {self.head_bytes:,} + {parts})",
                f"content id {self.content_id}",
                f"{self.images:,} images of {self.classes} classes, {self.patches:,} patches, labels {self.labels}, "
                f"profile {self.profile}",
                f"{self.agreement_percent:.1f} % of the decoded patches agree with the teacher",
                "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
                *skipped,
            ]
        )


def encode(
    images: Source,
    output: str | Path,
    *,
    teacher: Teacher | str | Path,
    ipc: int,
    grid: int = 2,
    resolution: int | None = None,
    image_format: Format = "avif",
    quality: int | None = None,
    max_bytes: int | None = None,
    crops: int = 5,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    images_per_class: int = IMAGES_PER_CLASS,
    labels: str | None = None,
    label_step: int | None = None,
    label_bytes: float | None = None,
    seed: int = 0,
    on_error: OnError = "refuse",
    licence: str | None = None,
    source: str | None = None,
    class_ids: list[str] | None = None,
    authority: str = "none",
    report: str | Path | None = None,
    progress: Progress | None = None,
) -> RdedReport:
    """Labelled images to a file of real patches with their region labels.

    Arguments:
        ipc: collages a class. grid: patches a side of a collage. resolution: side of a collage in pixels; None: that
            of the smallest image, at most 224, rounded down to a multiple of the grid.
        image_format: of the stored collages: `png` (profile `exact`), `avif` or `webp` (`reproducible`).
        quality: 0 to 100, of avif and webp; None: 60, or with `max_bytes` the highest that fits.
        max_bytes: of the whole file.
        crops, crop_scale, seed: as of `methods.d3m.encode`.
        images_per_class: random images of a class that are looked at.
        The others are as of `methods.d3m.encode`.

    Raises:
        UsageError: numbers that do not fit, or a size that is too small, naming the least.
        ImagesError, TeacherError, OutputError: as there. MissingError: a Pillow without the format.
    """
    tell, seconds, started = progress or (lambda *_: None), dict[str, float](), time.perf_counter()
    check_output(output, report)
    _check(ipc, grid, quality, image_format, images_per_class, crops, crop_scale, seed)
    _check_labels(LabelChoice(labels or default_kind(2), label_step, label_bytes))
    about = statement("rded", licence, source, authority)
    read = read_images(images, on_error=on_error, max_side=READ_SIDE)
    require_classes(read)
    names, cells = read.class_names, grid * grid
    side = _side(resolution, grid, min(min(image.shape[:2]) for image in read.images))
    require_images(read, ipc * cells, f"a patch an image, {ipc} collages of {grid}x{grid}")
    profile = "exact" if image_format == "png" else "reproducible"
    frame = Frame(pack.class_section(names, class_ids, authority), authority, profile, about, "cpu")
    asked = given_judge(teacher, read, side).teacher
    collages = []
    with settings("reproducible", "cpu"):
        for label in range(len(names)):
            best = select_class(
                read,
                label,
                asked,
                crops=crops,
                crop_scale=crop_scale,
                side=side // grid,
                seed=seed,
                members=max(images_per_class, ipc * cells),
                canvas=side,
            )
            patches = choice_patches(read, best.best(ipc * cells), side // grid)
            collages.append(make_collages(patches, (grid, grid)))
            tell("select", label + 1, len(names))
        seconds["select"], started = time.perf_counter() - started, time.perf_counter()
        choice = LabelChoice(labels or default_kind(len(names)), label_step, label_bytes)
        labelling = Labelling(None if choice.kind == "hard" else Judge(asked, ""), choice)
        pool = Pool(np.concatenate(collages), np.repeat(np.arange(len(names)), ipc), names)
        if max_bytes is not None and quality is None:
            made = stored.make_within(pool, image_format, labelling, frame, max_bytes, (grid, grid))
        else:
            quality = None if image_format == "png" else QUALITY if quality is None else quality
            made = stored.make_at(pool, image_format, quality, labelling, frame, (grid, grid))
        shares = _agreement(made, pool, asked, grid)
    if max_bytes is not None and len(made.data) > max_bytes:
        raise UsageError("this size is too small", field="bytes", found=max_bytes, expected=len(made.data))
    data = made.data
    save_atomically(Path(output), data)
    seconds["pack"] = time.perf_counter() - started
    tell("pack", 1, 1)
    file = D3MFile.open(data)
    result = RdedReport(
        output=str(output),
        method="rded",
        profile=file.content.profile.name,
        content_id=file.content_id,
        bytes_total=len(data),
        head_bytes=file.head_bytes,
        sections=tuple(file.section_sizes()),
        classes=len(names),
        images=len(names) * ipc,
        patches=len(names) * ipc * cells,
        labels=choice.kind,
        agreement_percent=shares,
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        skipped=read.skipped,
    )
    if report is not None:
        save_atomically(Path(report), (json.dumps(result.as_json(), indent=1) + "\n").encode())
    return result


def _agreement(made: Made, pool: Pool, teacher: Teacher, grid: int) -> float:
    """Share of the decoded patches whose largest logit is that of their class, in percent."""
    logits = label_patches(made.images, (grid, grid), teacher, pool.classes)
    shares = agreement(logits, np.repeat(pool.labels, grid * grid), pool.classes)
    return round(100 * float(shares.mean()), 3)


def _side(resolution: int | None, grid: int, smallest: int) -> int:
    side = min(smallest, 224) // grid * grid if resolution is None else resolution
    if not grid <= side <= limits.SIDE or side % grid:
        raise UsageError(
            "the resolution does not suit the grid",
            field="resolution",
            found=side,
            expected=f"a multiple of {grid}, at most {limits.SIDE}",
        )
    return side


def _check(
    ipc: int,
    grid: int,
    quality: int | None,
    image_format: str,
    images_per_class: int,
    crops: int,
    crop_scale: tuple[float, float],
    seed: int,
) -> None:
    low, high = crop_scale
    for field, found, good, expected in (
        ("ipc", ipc, 1 <= ipc <= limits.IMAGES_PER_CLASS, f"1 to {limits.IMAGES_PER_CLASS}"),
        ("grid", grid, 1 <= grid <= 64, "1 to 64"),
        ("image_format", image_format, image_format in FORMATS, ", ".join(FORMATS)),
        (
            "quality",
            quality,
            quality is None or (0 <= quality <= 100 and image_format != "png"),
            "0 to 100, not of png",
        ),
        ("images_per_class", images_per_class, images_per_class >= 1, "1 or more"),
        ("crops", crops, crops >= 1, "1 or more"),
        ("crop_scale", crop_scale, 0 < low <= high <= 1, "two shares of the area, 0 < low <= high <= 1"),
        ("seed", seed, 0 <= seed < 2**64, "0 to 2^64 - 1"),
    ):
        if not good:
            raise UsageError("out of range", field=field, found=found, expected=expected)


def _check_labels(choice: LabelChoice) -> None:
    if problem := choice.problem():
        raise UsageError("out of range", field=problem[0], expected=problem[1])
