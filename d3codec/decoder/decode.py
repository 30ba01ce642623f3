"""File -> pixels: units from the cache or the generator, written to a folder, an array file or a contact
sheet.

Finished units are kept in the cache, so a decode that is interrupted continues where it stopped. Importing
this module does not import torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d3codec.decoder.cache import UnitCache, cache_key, home
from d3codec.decoder.plan import UNIT_IMAGES, Plan, Unit
from d3codec.decoder.precision import choose_device, compute_dtype, fingerprint, settings
from d3codec.decoder.writers import SHEET_CLASSES, SHEET_IMAGES, ArrayFile, ContactSheet, ImageFolder, contact_sheet
from d3codec.errors import OutputError, UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.weights import find_generator, require_torch

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer

__all__ = ["DecodeReport", "contact_sheet", "decode", "decoded_units"]

Progress = Callable[[str, int, int], None]
FORMATS = {"imagefolder": ImageFolder, "npz": ArrayFile}


@dataclass(frozen=True)
class DecodeReport:
    """What a decode made. `images` counts the wanted ones, whether they came from the cache or not."""

    content_id: str
    images: int
    profile: str
    fingerprint: str
    output: str | None
    format: str | None
    contact_sheet: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def decode(
    file: D3MFile | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str = "imagefolder",
    classes: Sequence[int | str] | None = None,
    limit: int | None = None,
    contact_sheet: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    profile: str | None = None,
    device: str = "auto",
    generator: str | Path | None = None,
    progress: Progress | None = None,
) -> DecodeReport:
    """Decode a `.d3m` file.

    Arguments:
        output: a folder (`imagefolder`: CLASS/IMAGE.png by number, classes.json, decode.json) or a file
        (`npz`:
            images, classes and, where the file has them, labels). None keeps the units in the cache only.
        classes: positions, names or ids of the classes; None: all.
        limit: the first so many images of each class; None: all.
        contact_sheet: a PNG with a row of images for each class (at most 40 rows of 10); without `output`
        nothing
            else is decoded.
        batch_size: images computed at once. It changes the batch in profile `fast` only: `reproducible`
        always
            computes eight.
        profile: 'reproducible' or 'fast'; None: the file's.
        device: 'auto', 'cpu' or 'cuda'.
        generator: folder or cached Hugging Face repository; None searches the package and the local cache.
        progress: called with (stage, done, total).

    Raises:
        FormatError, MissingFileError: the file; MissingExtraError, MissingGeneratorError, GeneratorError:
        what it needs; OutputError: the output holds something else or cannot be written; UsageError:
        arguments.
    """
    if format not in FORMATS:
        raise UsageError("an unknown output format", field="format", found=format, expected=" or ".join(FORMATS))
    file = file if isinstance(file, D3MFile) else D3MFile.open(file)
    profile = profile or file.content.profile
    device = choose_device(device)
    print_ = fingerprint(device)
    plan = Plan.of(file.content, _positions(file, classes), limit)
    if (
        output is not None
        and contact_sheet is not None
        and Path(output).absolute() in Path(contact_sheet).absolute().parents
    ):
        raise UsageError(
            "the contact sheet would lie among the decoded images",
            field="contact_sheet",
            found=os.fspath(contact_sheet),
            hint="Put it beside the output folder.",
        )
    if output is None and contact_sheet is not None:
        plan = _sheet_plan(file, plan, limit)
    records = file.class_records()
    # Opened before anything is computed: a conflict is told at once.
    writers: list[Any] = []
    if output is not None:
        writers.append(FORMATS[format](Path(output), file, plan, records, profile, print_))
    if contact_sheet is not None:
        grids = {group.images.grid for group in file.content.groups}
        writers.append(
            ContactSheet(
                Path(contact_sheet), [record.name for record in records], grids.pop() if len(grids) == 1 else (1, 1)
            )
        )
    wanted = set(plan.images)
    for unit, pixels in decoded_units(
        file, plan, profile=profile, device=device, generator=generator, batch_size=batch_size, progress=progress
    ):
        for class_, index, image in zip(unit.classes, unit.indices, pixels, strict=True):
            if (unit.group, class_, index) in wanted:
                for writer in writers:
                    writer.add(class_, plan.number_in_class(unit.group, index), image)
    for writer in writers:
        writer.finish()
    return DecodeReport(
        file.content_id,
        len(plan.images),
        profile,
        print_,
        _text(output),
        format if output is not None else None,
        _text(contact_sheet),
    )


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _positions(file: D3MFile, classes: Sequence[int | str] | None) -> list[int] | None:
    """Positions of classes given by position, name or id."""
    if classes is None:
        return None
    records = file.class_records() if any(isinstance(item, str) for item in classes) else []
    positions = []
    for item in classes:
        found = (
            [number for number, record in enumerate(records) if item and item in (record.name, record.id)]
            if isinstance(item, str)
            else [item]
        )
        if len(found) != 1:
            raise UsageError(
                "no such class" if not found else "the name of one class is the id of another",
                file=file.path,
                field="classes",
                found=item,
            )
        positions += found
    return positions


def _sheet_plan(file: D3MFile, plan: Plan, limit: int | None) -> Plan:
    classes = sorted({class_ for _, class_, _ in plan.images})[:SHEET_CLASSES]
    return Plan.of(file.content, classes, min(limit or SHEET_IMAGES, SHEET_IMAGES))


# ---------------------------------------------------------------------------------------------- units


def decoded_units(
    file: D3MFile,
    plan: Plan,
    *,
    profile: str,
    device: str,
    generator: str | Path | None = None,
    batch_size: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    trust_records: bool = True,
) -> Iterator[tuple[Unit, np.ndarray]]:
    """The units of a plan with their pixels, uint8 [images, height, width, 3], in the plan's order, one at a time.

    The generator is loaded when the first unit is missing from the cache. Arguments are those of `decode`;
    `cache=False` neither reads nor writes it, `trust_records=False` hashes the weights again.
    Raises as `decode` does, and PixelsError for values that are not finite.
    """
    require_torch()
    compute_dtype(profile)
    if batch_size is not None and batch_size < 1:
        raise UsageError("a batch has at least one image", field="batch_size", found=batch_size)
    device = choose_device(device)
    with settings(profile, device):  # a setting that cannot be kept is told before anything is decoded
        pass
    units = UnitCache(home(), cache_key(file.content_id, profile, fingerprint(device))) if cache else None
    renderers = _Renderers(file, profile, device, generator, trust_records, progress)
    if generator is not None:  # one that is wrong is told, whatever the cache holds
        for number in sorted({unit.group for unit in plan.units}):
            group = file.content.groups[number]
            find_generator(group.generator, group.cast, given=generator, trust_records=trust_records)
    at_once = (batch_size or UNIT_IMAGES) if profile == "fast" else UNIT_IMAGES
    total, done = sum(len(unit.classes) for unit in plan.units), 0
    for run in _runs(plan.units, at_once):
        found = [units.get(unit) if units else None for unit in run]
        missing = [unit for unit, pixels in zip(run, found, strict=True) if pixels is None]
        made = iter(_render(renderers, missing, at_once))
        for unit, cached in zip(run, found, strict=True):
            pixels = next(made) if cached is None else cached
            if cached is None and units and not _keep(units, unit, pixels):
                units = None
            done += len(unit.classes)
            if progress:
                progress("decode", done, total)
            yield unit, pixels


def _runs(units: Sequence[Unit], at_once: int) -> Iterator[list[Unit]]:
    """Consecutive units of one group that are computed together: one, unless the batch is larger than a unit."""
    size = max(1, at_once // UNIT_IMAGES)
    for group in sorted({unit.group for unit in units}):
        own = [unit for unit in units if unit.group == group]
        for start in range(0, len(own), size):
            yield own[start : start + size]


def _render(renderers: _Renderers, units: list[Unit], at_once: int) -> list[np.ndarray]:
    if not units:
        return []
    renderer = renderers.of(units[0].group)
    if at_once == UNIT_IMAGES:
        return [renderer.render(unit) for unit in units]
    classes = tuple(class_ for unit in units for class_ in unit.classes)
    indices = tuple(index for unit in units for index in unit.indices)
    batches = [
        renderer.render(Unit(units[0].group, -1, classes[start : start + at_once], indices[start : start + at_once]))
        for start in range(0, len(classes), at_once)
    ]
    ends = np.cumsum([len(unit.classes) for unit in units])[:-1]
    return np.split(np.concatenate(batches), ends)


def _keep(units: UnitCache, unit: Unit, pixels: np.ndarray) -> bool:
    try:
        units.put(unit, pixels)
    except OutputError as error:
        warnings.warn(
            f"decoded units cannot be kept, so a rerun starts again: {error}\nSet D3CODEC_HOME to a folder with room.",
            stacklevel=3,
        )
        return False
    return True


class _Renderers:
    """The renderer of each group, made when it is first asked for; groups of one generator share its networks."""

    def __init__(
        self,
        file: D3MFile,
        profile: str,
        device: str,
        given: str | Path | None,
        trust_records: bool,
        progress: Progress | None,
    ) -> None:
        self._file, self._profile, self._device, self._given = file, profile, device, given
        self._trust_records, self._progress = trust_records, progress
        self._renderers: dict[int, Renderer] = {}
        self._networks: dict[tuple[bytes, str], Any] = {}

    def of(self, number: int) -> Renderer:
        if number not in self._renderers:
            from d3codec.decoder.render import Renderer

            group = self._file.content.groups[number]
            data = self._file.section("emb" if group.conditioning.kind == "delta" else "wrd", number)
            self._renderers[number] = Renderer(
                group, data, self._network(group.generator, group.cast), self._profile, self._file.content.classes.count
            )
        return self._renderers[number]

    def _network(self, generator: bytes, cast: str) -> Any:
        if (generator, cast) not in self._networks:
            if self._progress:
                self._progress("load generator", 0, 1)
            folder = find_generator(generator, cast, given=self._given, trust_records=self._trust_records)
            from d3codec.generators.stable_diffusion import StableDiffusion

            self._networks[generator, cast] = StableDiffusion.load(
                folder, cast=cast, dtype=compute_dtype(self._profile), device=self._device
            )
            if self._progress:
                self._progress("load generator", 1, 1)
        return self._networks[generator, cast]
