"""What a decode would make and take: counted, and timed on a probe that is really rendered."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.cache import UnitCache, cache_key, home
from d3codec.decoder.choice import Choice
from d3codec.decoder.plan import Unit
from d3codec.decoder.processes import worthwhile
from d3codec.decoder.renderers import Progress
from d3codec.decoder.shard import Shard
from d3codec.decoder.units import Processes, decoded_units
from d3codec.decoder.writers import FORMATS, Decoding
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.saving import png
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile


@dataclass(frozen=True)
class Estimate:
    """What a decode would make: `images`, about `output_bytes` in `format`, `pixel_bytes` as uint8 RGB. What it would
    take: `device_hours` of a CPU process or a GPU ('cpu', 'cuda') for the units that are not in the cache, `hours`
    with `processes` at once. Times come from the first `probe_images`, and are None if the work is beyond the budget
    before anything is decoded. `refused` says why decode would refuse it, None if it would not."""

    content_id: str
    profile: str
    device: str
    images: int
    units: int
    units_cached: int
    format: str
    output_bytes: int
    pixel_bytes: int
    probe_images: int
    seconds_per_image: float | None
    device_hours: float | None
    processes: int
    hours: float | None
    refused: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    file: D3MFile | str | os.PathLike[str],
    *,
    format: str = "imagefolder",
    classes: Sequence[int | str] | None = None,
    limit: int | None = None,
    shard: Shard | str | None = None,
    batch_size: int | None = None,
    profile: str | None = None,
    device: str = "auto",
    generator: str | Path | None = None,
    processes: Processes = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    cache_gigabytes: float | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What `decode` with these arguments would make and take.

    The probe is the first unit (up to eight images) that is not in the cache; it stays there. Work that the budget
    refuses unseen is not probed. Raises as `decode` does.
    """
    if format not in FORMATS:
        raise UsageError("an unknown output format", field="format", found=format, expected=", ".join(FORMATS))
    choice = Choice.of(file, classes, limit, shard, profile, device)
    decoding, work = choice.decoding, Work.of(choice.decoding.file.content, choice.decoding.plan)
    key = cache_key(decoding.file.content_id, decoding.profile, decoding.fingerprint)
    store = UnitCache(home(), key)
    missing = [unit for unit in decoding.plan.units if not store.path(unit).exists()]
    known = Estimate(
        decoding.file.content_id,
        decoding.profile,
        choice.device,
        work.images,
        len(decoding.plan.units),
        len(decoding.plan.units) - len(missing),
        format,
        work.pixel_bytes,
        work.pixel_bytes,
        0,
        None,
        None,
        1,
        None,
        _refusal(lambda: budget.check(work, decoding.file.path)) if budget else None,
    )
    if known.refused is not None or not decoding.plan.units:
        return known
    pixels, seconds = _probe(
        choice,
        (missing or list(decoding.plan.units))[0],
        generator=generator,
        batch_size=batch_size,
        cache_gigabytes=cache_gigabytes,
        progress=progress,
    )
    seconds = seconds if missing else 0.0
    left = seconds * len(missing)
    count = worthwhile(left, choice.device) if processes == "auto" else processes
    return replace(
        known,
        output_bytes=_output_bytes(decoding, format, pixels),
        probe_images=len(pixels) if missing else 0,
        seconds_per_image=seconds / len(pixels),
        device_hours=left / 3600,
        processes=count,
        hours=left / count / 3600,
        refused=_refusal(lambda: budget.check_time(left / count, decoding.file.path)) if budget else None,
    )


def _probe(choice: Choice, unit: Unit, *, progress: Progress | None, **options: Any) -> tuple[np.ndarray, float]:
    """Pixels of one unit, and the seconds that it took once the generator was loaded."""
    started = time.monotonic()

    def loaded(stage: str, done: int, total: int) -> None:
        nonlocal started
        started = time.monotonic() if stage == "load generator" else started
        if progress and stage == "load generator":
            progress(stage, done, total)

    decoding = choice.decoding
    plan = replace(decoding.plan, units=(unit,))
    units = decoded_units(
        decoding.file, plan, profile=decoding.profile, device=choice.device, progress=loaded, **options
    )
    ((_, pixels),) = units
    return pixels, time.monotonic() - started


def _output_bytes(decoding: Decoding, format: str, pixels: np.ndarray) -> int:
    """Bytes of all images as they are stored, from those of the probe."""
    images = decoding.plan.images
    labels = StoredLabels(decoding.file).of(images[0])
    label_bytes = 0 if labels is None or format == "imagefolder" else labels.nbytes
    stored = [image.nbytes if format == "npz" else len(png(image)) for image in pixels]
    each = sum(stored) // len(stored)
    if format == "webdataset":  # headers, and blocks of 512 bytes
        each = 512 * (3 + each // 512 + 1 + (0 if labels is None else 2))
    return len(images) * (each + label_bytes)


def _refusal(check: Any) -> str | None:
    try:
        check()
    except UsageError as error:
        return str(error).partition("\n")[0]
    return None
