"""What a decode would make and take: counted, and timed on a probe that is really rendered."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from d3codec.decoder.budget import Budget
from d3codec.decoder.cache import UnitCache, cache_limit, home, stored_bytes
from d3codec.decoder.choice import Choice, check_format
from d3codec.decoder.plan import Unit
from d3codec.decoder.precision import has_networks
from d3codec.decoder.processes import most_processes, worthwhile
from d3codec.decoder.renderers import Progress
from d3codec.decoder.shard import Shard
from d3codec.decoder.units import Processes, decoded_units, threads
from d3codec.decoder.writers import Decoding
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.saving import png
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.weights import Names


@dataclass(frozen=True)
class Estimate:
    """What a decode would make: `images`, about `output_bytes` in `format`, `pixel_bytes` as uint8 RGB, `cache_bytes`
    in a cache of `cache_limit_bytes`. What it would take: `device_hours` of a CPU process or a GPU ('cpu', 'cuda') for
    the units that are not in the cache, `hours` with `processes` at once; zero if all are. Times come from the first
    `probe_images`, made with one thread where several processes may follow; None: nothing was timed. `refused` says why
    decode would refuse it, None if it would not. What it refuses before anything is decoded is neither timed nor looked
    for in the cache."""

    content_id: str
    profile: str
    device: str
    images: int
    units: int
    format: str
    output_bytes: int
    pixel_bytes: int
    cache_limit_bytes: int
    refused: str | None
    units_cached: int | None = None
    cache_bytes: int | None = None
    probe_images: int = 0
    seconds_per_image: float | None = None
    device_hours: float | None = None
    processes: int = 1
    hours: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    file: D3MFile | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str = "imagefolder",
    classes: Sequence[int | str] | None = None,
    limit: int | None = None,
    shard: Shard | str | None = None,
    batch_size: int | None = None,
    profile: str | None = None,
    device: str = "auto",
    generator: Names = None,
    processes: Processes = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    cache_gigabytes: float | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What `decode` with these arguments would make and take; an `output` is checked as it does and not written.

    The probe is the first unit (up to eight images) that is not in the cache; it stays there. Work that the budget
    refuses unseen is not probed. Raises as `decode` does.
    """
    check_format(format)
    choice = Choice.of(file, classes, limit, shard, profile, device)
    work = choice.work
    known = Estimate(
        choice.file.content_id,
        choice.profile,
        choice.device,
        work.images,
        choice.extent.units,
        format,
        work.pixel_bytes,
        work.pixel_bytes,
        cache_limit(cache_gigabytes),
        _refusal(lambda: choice.check(budget)),
    )
    if known.refused is not None:
        return known
    decoding = choice.decoding
    if output is not None:
        choice.writers(output, format)
    store, units = UnitCache(home(), decoding.cache_key), decoding.plan.units
    missing = [unit for unit in units if not store.path(unit).exists()]
    known = replace(
        known, units_cached=len(units) - len(missing), cache_bytes=stored_bytes(decoding.file.content, units)
    )
    if not units:
        return known
    pixels, seconds = _probe(
        choice,
        (missing or list(units))[0],
        one_thread=processes != 1 and has_networks(choice.file.content) and most_processes(choice.device) > 1,
        generator=generator,
        batch_size=batch_size,
        cache_gigabytes=cache_gigabytes,
        progress=progress,
    )
    left = seconds * len(missing)
    count = worthwhile(left, choice.device) if processes == "auto" else processes
    return replace(
        known,
        output_bytes=_output_bytes(decoding, format, pixels),
        probe_images=len(pixels) if missing else 0,
        seconds_per_image=seconds / len(pixels) if missing else None,
        device_hours=left / 3600,
        processes=count,
        hours=left / count / 3600,
        refused=_refusal(lambda: budget.check_time(left / count, decoding.file.path)) if budget else None,
    )


def _probe(
    choice: Choice, unit: Unit, *, one_thread: bool, progress: Progress | None, **options: Any
) -> tuple[np.ndarray, float]:
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
    with threads(1 if one_thread else None):
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
