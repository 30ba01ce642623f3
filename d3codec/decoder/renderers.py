"""The renderers of a file's groups, and runs of units through them. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d3codec import corrections
from d3codec.decoder.plan import UNIT_IMAGES, Unit, corrections_by_source
from d3codec.decoder.precision import compute_dtype
from d3codec.format.file import D3MFile
from d3codec.format.manifest import row_section
from d3codec.generators.weights import find_generator

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer

Progress = Callable[[str, int, int], None]
Run = list[Unit]


class Renderers:
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

    def images_per_source(self, number: int) -> int:
        return self._file.content.groups[number].images.copies + 1

    def of(self, number: int) -> Renderer:
        if number not in self._renderers:
            from d3codec.decoder.render import Renderer

            group = self._file.content.groups[number]
            self._renderers[number] = Renderer(
                group,
                self._file.section(row_section(group), number),
                self._network(group.generator, group.cast),
                self._profile,
                self._file.content.classes.count,
                stored=self._file.section("lat", number) if group.recipe.start.stored is not None else b"",
                corrections=self._corrections.get(number),
            )
        return self._renderers[number]

    @cached_property
    def _corrections(self) -> dict[int, Any]:
        """Of each group, by source: what the file corrects in profile `exact`."""
        promised = self._file.content.profile
        if self._profile != "exact" or promised.name != "exact" or not promised.corrections:
            return {}
        return corrections_by_source(self._file.content, *corrections.decode(self._file.section("fix")))

    def _network(self, generator: bytes, cast: str) -> Any:
        if (generator, cast) not in self._networks:
            if self._progress:
                self._progress("load generator", 0, 1)
            folder = find_generator(generator, cast, given=self._given, trust_records=self._trust_records)
            from d3codec.generators.load import load_generator

            self._networks[generator, cast] = load_generator(
                folder, cast=cast, dtype=compute_dtype(self._profile), device=self._device
            )
            if self._progress:
                self._progress("load generator", 1, 1)
        return self._networks[generator, cast]


def render_units(renderers: Renderers, units: Run, at_once: int) -> list[np.ndarray]:
    """Pixels of some units of one group, `at_once` generated images computed together."""
    if not units:
        return []
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
