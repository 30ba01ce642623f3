"""A plan -> pixels, unit after unit: from the cache, the generator, or helper processes that fill the cache.

Finished units are kept in the cache at once, so a decode that is interrupted or killed loses at most the unit that
each process was at. Importing this module does not import torch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import numpy as np

from d3codec.decoder.budget import Budget
from d3codec.decoder.cache import NEWEST, cache_limit, home, stored_bytes
from d3codec.decoder.cache_filler import Job
from d3codec.decoder.plan import UNIT_IMAGES, Plan, Unit
from d3codec.decoder.precision import (
    check_profile,
    choose_device,
    compute_dtype,
    differences,
    fingerprint,
    has_networks,
    settings,
)
from d3codec.decoder.processes import START_SECONDS, Helpers, environments, most_processes, worthwhile
from d3codec.decoder.renderers import Progress, Renderers, Run, expect_units, folder_of, render_units
from d3codec.errors import OutputError, UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.weights import Names, require_torch

Processes = int | Literal["auto"]
ANY_BATCH = ("fast",)  # profiles in which the number of images that are computed together is free


def decoded_units(
    file: D3MFile,
    plan: Plan,
    *,
    profile: str,
    device: str,
    generator: Names = None,
    batch_size: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    trust_records: bool = True,
    processes: Processes = 1,
    budget: Budget | None = None,
    cache_gigabytes: float | None = None,
) -> Iterator[tuple[Unit, np.ndarray]]:
    """The units of a plan with their pixels, uint8 [images, height, width, 3], in the plan's order, one at a time.

    The generator is loaded when the first unit is missing from the cache. Arguments are those of `decode`;
    `cache=False` neither reads nor writes it, which leaves no place where helpers could put units;
    `trust_records=False` hashes the weights again; `budget` bounds the time that the first unit lets expect. A file of
    stored images alone needs neither torch nor helpers. Raises as `decode` does, and PixelsError for values that are
    not finite.
    """
    check_profile(profile)
    networks = has_networks(file.content)
    if networks:
        compute_dtype(profile)  # torch is there
    for name, number in (("batch_size", batch_size), ("processes", None if processes == "auto" else processes)):
        if number is not None and (type(number) is not int or number < 1):
            raise UsageError("at least one is needed", field=name, found=number)
    if not cache and processes not in (1, "auto"):
        raise UsageError("several processes need the cache", field="processes", found=processes, expected=1)
    device = choose_device(device, networks)
    if networks:
        with settings(profile, device):  # a setting that cannot be kept is told before anything is decoded
            pass
    else:
        processes = 1
    at_once = (batch_size or UNIT_IMAGES) if profile in ANY_BATCH else UNIT_IMAGES
    folder, limit = (home(), cache_limit(cache_gigabytes)) if cache else (None, 0)
    size = stored_bytes(file.content, plan.units)
    if cache and len(plan.units) > NEWEST and 0 < limit < size:
        warnings.warn(
            f"{file.path}: the units of this decode take {size / 1e9:,.1f} GB, more than the cache of "
            f"{limit / 1e9:g} GB, so a rerun after an interruption would start nearly from the beginning. "
            f"--cache-gb {-(-size // 10**9)} (cache_gigabytes in Python) keeps it whole.",
            stacklevel=2,
        )
    here = fingerprint(device, file.content)
    job = Job.of(file, profile, device, here, generator, trust_records, at_once, folder, limit, protect=size <= limit)
    renderers = Renderers(file, profile, device, generator, trust_records, progress)
    if generator is not None:  # one that is wrong is told, whatever the cache holds
        for number in sorted({unit.group for unit in plan.units}):
            folder_of(file, number, generator, trust_records)
    runs = list(_runs(plan.units, at_once))
    total, done = sum(len(unit.classes) for unit in plan.units), 0
    with _Making(job, renderers, runs, processes, budget, file) as making:
        for number, run in enumerate(runs):
            for unit, pixels in zip(run, making.pixels(number), strict=True):
                done += len(unit.classes)
                if progress:
                    progress("decode", done, total)
                yield unit, pixels


def warn_if_unlike(file: D3MFile, profile: str, here: str) -> None:
    """A warning (UserWarning) if a reproducible file was made under another fingerprint: its pixels may differ here."""
    made = file.about.fingerprint if file.about else None
    if profile == file.content.profile.name == "reproducible" and made is not None and made != here:
        unlike = "; ".join(differences(made, here))
        warnings.warn(
            f"{file.path}: made on another machine, so a few of its pixels may differ by a level here: {unlike}",
            stacklevel=3,
        )


def _runs(units: Sequence[Unit], at_once: int) -> Iterator[Run]:
    """Consecutive units of one group that are computed together: one, unless the batch is larger than a unit."""
    size = max(1, at_once // UNIT_IMAGES)
    for group in sorted({unit.group for unit in units}):
        own = [unit for unit in units if unit.group == group]
        for start in range(0, len(own), size):
            yield own[start : start + size]


class _Making:
    """Makes runs, alone or with helpers. Used as a context, whose end is that of the helpers too."""

    def __init__(
        self,
        job: Job,
        renderers: Renderers,
        runs: Sequence[Run],
        processes: Processes,
        budget: Budget | None,
        file: D3MFile,
    ) -> None:
        self._job, self._renderers, self._runs, self._file = job, renderers, runs, file
        self._processes, self._budget = processes, budget
        self._store = job.store()
        self._writable = self._store is not None
        self._helpers: Helpers | None = None
        self._measured = self._expecting = False

    def __enter__(self) -> _Making:
        if self._processes not in (1, "auto"):
            self._start(int(self._processes))
        elif self._store is None or most_processes(self._job.device) == 1:
            self._processes = 1
        if self._processes != "auto" and self._helpers is None:
            self._processes = 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._helpers is not None:
            self._helpers.close()

    def pixels(self, number: int) -> list[np.ndarray]:
        """The units of a run: from the cache, rendered here, or awaited while a helper is at it."""
        while True:
            found = self._found(number)
            if all(pixels is not None for pixels in found):
                return [pixels for pixels in found if pixels is not None]
            if self._helpers is None or self._helpers.claim(number):
                return self._make(number, found)
            if (other := self._helpers.claim_next()) is not None:
                self._make(other, self._found(other))
            else:
                self._helpers.wait(number)

    def _found(self, number: int) -> list[np.ndarray | None]:
        return [None if self._store is None else self._store.get(unit) for unit in self._runs[number]]

    def _make(self, number: int, found: list[np.ndarray | None]) -> list[np.ndarray]:
        missing = [unit for unit, pixels in zip(self._runs[number], found, strict=True) if pixels is None]
        if missing:  # loading the generator is no part of what a unit takes
            if self._file.fetched is not None and not self._expecting:
                self._expecting = True
                expect_units(self._file, chain.from_iterable(self._missing(number).values()), self._job.profile)
            self._renderers.of(missing[0].group)
        started = time.monotonic()
        measured = bool(missing) and not self._measured
        # With helpers every process has one thread, so what a unit takes is measured with one where they may follow.
        one_thread = self._helpers is not None or (measured and self._processes != 1)
        with threads(1 if one_thread else None):
            rendered = iter(render_units(self._renderers, missing, self._job.at_once))
        seconds = time.monotonic() - started
        result = []
        for unit, pixels in zip(self._runs[number], found, strict=True):
            if pixels is None:
                pixels = next(rendered)
                self._keep(unit, pixels)
            result.append(pixels)
        if measured:
            self._measured = True
            self._plan_the_rest(number, seconds / len(missing), one_thread)
        return result

    def _keep(self, unit: Unit, pixels: np.ndarray) -> None:
        if self._store is None or not self._writable:
            return
        try:
            self._store.put(unit, pixels)
        except OutputError as error:
            self._writable, self._processes = False, 1
            if self._helpers is not None:
                self._helpers.close()
                self._helpers = None
            warnings.warn(
                f"decoded units cannot be kept, so a rerun starts again: {error}\n"
                "Set D3CODEC_HOME to a folder with room.",
                stacklevel=2,
            )

    def _plan_the_rest(self, number: int, unit_seconds: float, one_thread: bool) -> None:
        """After the first unit: refuse a rest that is beyond the budget, and start helpers for one that is long."""
        left = unit_seconds * sum(len(run) for run in self._missing(number + 1).values())
        if self._processes == "auto":
            self._processes = worthwhile(left, self._job.device)
        if one_thread and self._processes == 1 and left > START_SECONDS:
            self._measured = False  # all threads from now on, with which the next unit is measured
            return
        if self._budget is not None:
            self._budget.check_time(left / self._processes, self._file.path)
        if self._helpers is None:
            self._start(self._processes)

    def _start(self, count: int) -> None:
        waiting = self._missing(0)
        if count > 1 and len(waiting) > 1:
            self._helpers = Helpers(self._job, waiting, environments(min(count, len(waiting)), self._job.device))

    def _missing(self, first: int) -> dict[int, Run]:
        """Units that are not in the cache, by run."""
        store = self._store
        lacking = {
            number: [unit for unit in run if store is None or not store.path(unit).exists()]
            for number, run in enumerate(self._runs[first:], first)
        }
        return {number: run for number, run in lacking.items() if run}


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads of torch inside; None leaves them as they are."""
    if count is None:
        yield
        return
    torch = require_torch()
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
