"""Which sections a file has, how long they are and how they are cut (spec/d3m-1.0.md section 5).

All of it follows from the records, but the lengths of sections of free length: those are listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from d3codec.format import limits
from d3codec.format.conditioning import (
    ClassIdConditioning,
    DeltaConditioning,
    NoConditioning,
    VectorsConditioning,
    WordsConditioning,
)
from d3codec.format.fields import quantized_row_bytes
from d3codec.format.labels import HardLabels, label_row_bytes
from d3codec.format.recipe import SheetsRecipe

if TYPE_CHECKING:
    from d3codec.format.manifest import Classes, Group, Profile


COLUMN_BYTES = 4  # a row of section `col`


class PlannedSection(NamedTuple):
    """A section that the records call for: `rows` of `row_bytes` bytes each, or None for one of free length."""

    name: str
    group: int | None
    rows: int | None
    row_bytes: int | None


class Plannable(Protocol):
    """What section_plan needs of a Content or of a draft of one."""

    @property
    def classes(self) -> Classes: ...
    @property
    def groups(self) -> tuple[Group, ...]: ...
    @property
    def profile(self) -> Profile: ...


def section_plan(content: Plannable) -> list[PlannedSection]:
    """The critical sections in file order, with their sizes."""
    classes = content.classes.count
    plan = [PlannedSection("cls", None, None, None)]
    if content.profile.name == "exact" and content.profile.corrections:
        plan.append(PlannedSection("fix", None, None, None))
    for number, group in enumerate(content.groups):
        if not isinstance(group.conditioning, NoConditioning):
            plan.append(_conditioning(number, group, classes))
        if group.images.candidates is not None:
            plan.append(PlannedSection("cnd", number, classes, group.images.choice_bytes))
        if (stored := group.recipe.start.stored) is not None:
            plan.append(
                _planned("lat", number, classes * group.images.sources, None if stored.coded else stored.row_bytes)
            )
        if isinstance(group.recipe, SheetsRecipe):
            plan.append(PlannedSection("img", number, None, None))
        if not isinstance(group.labels, HardLabels):
            if group.labels.columns is not None:
                plan.append(PlannedSection("col", number, classes, COLUMN_BYTES))
            plan.append(_planned("lab", number, label_rows(group, classes), label_row_bytes(group.labels)))
    return plan


def _planned(name: str, group: int, rows: int, row_bytes: int | None) -> PlannedSection:
    """A section of fixed rows, or of free length if its rows have no bytes of their own."""
    return PlannedSection(name, group, None if row_bytes is None else rows, row_bytes)


def label_rows(group: Group, classes: int) -> int:
    """Labels of a group: one a patch of each image."""
    return classes * group.images.count * group.images.grid[0] * group.images.grid[1]


def conditioning_rows(group: Group, classes: int) -> int:
    """Rows of a group's conditioning: one a class or one a source image, and the unconditional one if it is stored."""
    conditioning = group.conditioning
    assert not isinstance(conditioning, NoConditioning)
    rows = classes if conditioning.rows == "class" else classes * group.images.sources
    return rows + (isinstance(conditioning, VectorsConditioning) and conditioning.negative == "row")


def row_section(group: Group) -> str | None:
    """Name of the section with the rows of a group's conditioning, None without any."""
    return _ROW_SECTIONS.get(group.conditioning.kind)


_ROW_SECTIONS = {"delta": "emb", "vectors": "emb", "words": "wrd", "tokens": "tok", "class-id": "ids"}


def quantized_blocks(group: Group) -> list[int]:
    """Numbers in each block (a scale and its codes) of a row of section `emb`: one a text encoder, or the vectors.

    A coded row has them one after the other.
    """
    conditioning = group.conditioning
    if isinstance(conditioning, DeltaConditioning):
        return [len(conditioning.slots) * width for width in conditioning.widths]
    assert isinstance(conditioning, VectorsConditioning)
    return [conditioning.slots * conditioning.width]


def _conditioning(number: int, group: Group, classes: int) -> PlannedSection:
    conditioning, rows = group.conditioning, conditioning_rows(group, classes)
    name = _ROW_SECTIONS[conditioning.kind]
    row_bytes: int | None = None
    if isinstance(conditioning, ClassIdConditioning):
        row_bytes = 4
    elif isinstance(conditioning, WordsConditioning):
        row_bytes = 2 * len(conditioning.slots)
    elif isinstance(conditioning, (DeltaConditioning, VectorsConditioning)) and not conditioning.coded:
        row_bytes = sum(quantized_row_bytes(size, conditioning.bits) for size in quantized_blocks(group))
    return _planned(name, number, rows, row_bytes)


def coded_values(content: Plannable) -> Iterator[int]:
    """Numbers in each coded section."""
    for group in content.groups:
        conditioning, stored = group.conditioning, group.recipe.start.stored
        if isinstance(conditioning, (DeltaConditioning, VectorsConditioning)) and conditioning.coded:
            yield conditioning_rows(group, content.classes.count) * sum(quantized_blocks(group))
        if stored is not None and stored.coded:
            yield content.classes.count * group.images.sources * stored.values


def part_count(rows: int, row_bytes: int) -> int:
    """Number of parts into which a section of fixed rows is cut."""
    return -(-rows // max(1, limits.CUT_BYTES // row_bytes))


def part_lengths(rows: int, row_bytes: int) -> list[int]:
    """Raw lengths of these parts."""
    rows_a_part = max(1, limits.CUT_BYTES // row_bytes)
    return [min(rows_a_part, rows - first) * row_bytes for first in range(0, rows, rows_a_part)]


def critical_parts(plan: list[PlannedSection], lengths: tuple[int, ...]) -> int:
    """Number of critical parts. Computed, because 2^60 rows must not become a list. `lengths` as in planned_parts."""
    fixed = sum(part_count(rows or 0, row_bytes) for _, _, rows, row_bytes in plan if row_bytes)
    return fixed + sum(max(1, part_count(length, 1)) for length in lengths)


def planned_parts(plan: list[PlannedSection], lengths: tuple[int, ...]) -> Iterator[tuple[PlannedSection, int]]:
    """Every critical part in file order: its section and its raw length. `lengths`: of the sections of free length."""
    free = iter(lengths)
    for section in plan:
        if section.rows is None or section.row_bytes is None:
            for length in part_lengths(next(free), 1) or [0]:
                yield section, length
        else:
            for length in part_lengths(section.rows, section.row_bytes):
                yield section, length
