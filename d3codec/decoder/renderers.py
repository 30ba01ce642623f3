"""The renderers of a file's groups, and runs of units through them. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from d3codec import corrections
from d3codec.decoder.plan import UNIT_IMAGES, Unit, corrections_by_source
from d3codec.decoder.precision import compute_dtype
from d3codec.decoder.section_reader import SectionReader
from d3codec.errors import FormatError
from d3codec.format.file import D3MFile
from d3codec.format.limits import FREE_BYTES
from d3codec.format.manifest import Group, SheetsRecipe, row_section
from d3codec.generators.weights import Names, find_generator

if TYPE_CHECKING:
    from d3codec.decoder.sheets import SheetRenderer

Progress = Callable[[str, int, int], None]
Run = list[Unit]


class UnitRenderer(Protocol):
    """What makes the pixels of one group, whatever its recipe."""

    def render(self, unit: Unit) -> np.ndarray:
        """Pixels of a unit, uint8 [images of the unit, height, width, 3]."""


class Renderers:
    """The renderer of each group, made when it is first asked for; groups of one generator share its networks."""

    def __init__(
        self, file: D3MFile, profile: str, device: str, given: Names, trust_records: bool, progress: Progress | None
    ) -> None:
        self._file, self._profile, self._device, self._given = file, profile, device, given
        self._trust_records, self._progress = trust_records, progress
        self._renderers: dict[int, UnitRenderer] = {}
        self._networks: dict[tuple[bytes, str], Any] = {}

    @property
    def path(self) -> str:
        return self._file.path

    def images_per_source(self, number: int) -> int:
        return self._file.content.groups[number].images.copies + 1

    def of(self, number: int) -> UnitRenderer:
        if number not in self._renderers:
            try:
                self._renderers[number] = self._make(number, self._file.content.groups[number])
            except FormatError as error:
                error.file = error.file or self._file.path
                raise
        return self._renderers[number]

    def _make(self, number: int, group: Group) -> UnitRenderer:
        file, classes = self._file, self._file.content.classes.count
        if isinstance(group.recipe, SheetsRecipe):
            return sheet_renderer(file, number)
        from d3codec.decoder.render import Renderer

        assert group.generator is not None  # only stored images have none
        rows = row_section(group)
        return Renderer(
            group,
            b"" if rows is None else file.section(rows, number),
            self._network(number, group.generator, group.cast),
            self._profile,
            classes,
            stored=b"" if group.recipe.start.stored is None else SectionReader(file, "lat", number),
            choices=b"" if group.images.candidates is None else file.section("cnd", number),
            corrections=self._corrections.get(number),
        )

    @cached_property
    def _corrections(self) -> dict[int, Any]:
        """Of each group, by source: what the file corrects in profile `exact`."""
        promised = self._file.content.profile
        if self._profile != "exact" or promised.name != "exact" or not promised.corrections:
            return {}
        return corrections_by_source(self._file.content, *corrections.decode(self._file.section("fix")))

    def _network(self, number: int, generator: bytes, cast: str) -> Any:
        if (generator, cast) not in self._networks:
            if self._progress:
                self._progress("load generator", 0, 1)
            folder = folder_of(self._file, number, self._given, self._trust_records)
            assert folder is not None
            from d3codec.generators.load import load_generator

            self._networks[generator, cast] = load_generator(
                folder, cast=cast, dtype=compute_dtype(self._profile), device=self._device
            )
            if self._progress:
                self._progress("load generator", 1, 1)
        return self._networks[generator, cast]


def expect_units(file: D3MFile, units: Iterable[Unit], profile: str) -> None:
    """Says what of the file rendering these units will read (`D3MFile.expect`); which sheets hold stored images shows
    only in their section."""
    content, numbers = file.content, dict[int, list[int]]()
    for unit in units:
        numbers.setdefault(unit.group, []).append(unit.number)
    wanted: list[tuple[str, int | None, int, int]] = []
    if profile == "exact" and content.profile.name == "exact" and content.profile.corrections:
        wanted.append(("fix", None, 0, FREE_BYTES))
    for number, own in numbers.items():
        group = content.groups[number]
        if (rows := row_section(group)) is not None:
            wanted.append((rows, number, 0, FREE_BYTES))
        if group.images.candidates is not None:
            wanted.append(("cnd", number, 0, FREE_BYTES))
        if (stored := group.recipe.start.stored) is None:
            continue
        if stored.coded:
            wanted.append(("lat", number, 0, FREE_BYTES))
        else:
            size = UNIT_IMAGES * stored.row_bytes
            wanted += [("lat", number, first * size, last * size) for first, last in _ranges(sorted(own))]
    file.expect(wanted)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges, each from its first to before its last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found


def folder_of(file: D3MFile, number: int, given: Names, trust_records: bool) -> Path | None:
    """Where the generator of a group lies, None if it has none; a name given may be that of another group's. Raises as
    `find_generator` does."""
    named = {(group.generator, group.cast) for group in file.content.groups if group.generator is not None}
    group = file.content.groups[number]
    if group.generator is None:
        return None
    others = named - {(group.generator, group.cast)}
    return find_generator(group.generator, group.cast, given=given, others=others, trust_records=trust_records)


def sheet_renderer(file: D3MFile, number: int) -> SheetRenderer:
    """That of a group of stored images. Raises as it does."""
    from d3codec.decoder.sheets import SheetRenderer

    group, read = file.content.groups[number], SectionReader(file, "img", number)
    assert isinstance(group.recipe, SheetsRecipe)
    return SheetRenderer(group, group.recipe, file.content.classes.count, read, len(read))


def render_units(renderers: Renderers, units: Run, at_once: int) -> list[np.ndarray]:
    """Pixels of some units of one group, `at_once` generated images computed together."""
    if not units:
        return []
    try:
        return _rendered(renderers, units, at_once)
    except FormatError as error:
        error.file = error.file or renderers.path
        raise


def _rendered(renderers: Renderers, units: Run, at_once: int) -> list[np.ndarray]:
    renderer = renderers.of(units[0].group)
    if at_once == UNIT_IMAGES:
        return [renderer.render(unit) for unit in units]
    step = at_once * renderers.images_per_source(units[0].group)
    classes = tuple(class_ for unit in units for class_ in unit.classes)
    indices = tuple(index for unit in units for index in unit.indices)
    batches = [
        renderer.render(Unit(units[0].group, -1, classes[start : start + step], indices[start : start + step]))
        for start in range(0, len(classes), step)
    ]
    ends = np.cumsum([len(unit.classes) for unit in units])[:-1]
    return np.split(np.concatenate(batches), ends)
