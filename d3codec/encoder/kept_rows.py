"""Sections of a file -> those of some of its classes, images and groups, with the same values for what stays.

Coded sections are coded again from the same symbols, never from numbers, so nothing is rounded twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3codec import corrections, images
from d3codec.conditioning import candidates, coded, tokens, transform
from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.renderers import sheet_renderer
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import (
    TRANSFORM,
    AdaptiveLabels,
    Content,
    Exact,
    Group,
    HardLabels,
    RankedHeadLabels,
    SheetsRecipe,
    VectorsConditioning,
    conditioning_rows,
    label_rows,
    row_section,
    section_plan,
)
from d3codec.format.plan import quantized_blocks
from d3codec.format.sections import Key
from d3codec.labels import adaptive, ranked_head

_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays: class positions, ascending, and for some groups the first so many images of each class."""

    classes: _Ints
    images: dict[int, int]

    def sources(self, group: Group, number: int) -> int:
        """Of a class, in group `number`."""
        return self.images[number] // (group.images.copies + 1)

    def rows(self, per_class: int, kept_per_class: int) -> _Ints:
        """Rows that stay of a table with so many rows a class."""
        rows: _Ints = (self.classes[:, None] * per_class + np.arange(kept_per_class)).reshape(-1)
        return rows

    def whole(self, content: Content) -> bool:
        """Whether that is everything."""
        counts = {number: group.images.count for number, group in enumerate(content.groups)}
        return len(self.classes) == content.classes.count and self.images == counts


def kept_sections(file: D3MFile, kept: Kept) -> dict[Key, bytes]:
    """All critical sections of the new file but `fix`, its groups numbered from 0. The file is verified.

    Where classes are left out, a group of soft labels has a section `col`: the teacher's columns all stay.
    Raises UsageError for lossy sheets that would have to be stored again.
    """
    sections: dict[Key, bytes] = {("cls", None): _lines(file, kept)}
    place = {number: at for at, number in enumerate(kept.images)}
    for name, number, rows, row_bytes in section_plan(file.content):
        if number not in place:
            continue
        assert number is not None
        chosen = _rows(file.content.groups[number], name, number, file.content, kept)
        if rows is not None and row_bytes is not None and name != "cnd":
            table = np.frombuffer(file.section(name, number), np.uint8).reshape(rows, row_bytes)
            data = table[chosen].tobytes()
        else:
            data = _coded(file, name, number, chosen, kept)
        sections[name, place[number]] = data
    if len(kept.classes) < file.content.classes.count:
        for number, at in place.items():
            labels = file.content.groups[number].labels
            if not isinstance(labels, HardLabels) and labels.columns is None:
                sections["col", at] = kept.classes.astype("<u4").tobytes()
    return sections


def kept_corrections(file: D3MFile, kept: Kept) -> tuple[_Ints, NDArray[np.uint8]]:
    """The corrections of the images that stay, at their places among the bytes of all generated images that do."""
    profile, groups = file.content.profile, file.content.groups
    if not isinstance(profile, Exact) or not profile.corrections:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    positions, values = corrections.decode(file.section("fix"))
    sizes = [3 * group.images.generated[0] * group.images.generated[1] for group in groups]
    old = [size * group.images.sources for size, group in zip(sizes, groups, strict=True)]
    new = [
        size * kept.sources(group, number) if number in kept.images else 0
        for number, (size, group) in enumerate(zip(sizes, groups, strict=True))
    ]
    classes, within = np.divmod(positions, sum(old))
    owner = np.searchsorted(np.cumsum(old), within, side="right")
    inside = within - np.concatenate([[0], np.cumsum(old)])[owner]
    stays = np.isin(classes, kept.classes) & (inside < np.array(new)[owner])
    before = np.concatenate([[0], np.cumsum(new)])[owner] + inside
    places = np.searchsorted(kept.classes, classes) * sum(new) + before
    return places[stays], values[stays]


def _lines(file: D3MFile, kept: Kept) -> bytes:
    lines = file.section("cls").split(b"\n")
    return b"".join(lines[class_] + b"\n" for class_ in kept.classes.tolist())


def _rows(group: Group, name: str, number: int, content: Content, kept: Kept) -> _Ints:
    """The rows of a section that stay, ascending."""
    images, sources = group.images, group.images.sources
    patches = images.grid[0] * images.grid[1]
    if name == "lab":
        return kept.rows(images.count * patches, kept.images[number] * patches)
    if name in ("lat", "img"):
        return kept.rows(sources, kept.sources(group, number))
    if name != row_section(group):
        return kept.classes  # cnd and col
    of_image = getattr(group.conditioning, "rows", "class") == "image"
    rows = kept.rows(sources, kept.sources(group, number)) if of_image else kept.classes
    if isinstance(group.conditioning, VectorsConditioning) and group.conditioning.negative == "row":
        rows = np.append(rows, conditioning_rows(group, content.classes.count) - 1)
    return rows


def _coded(file: D3MFile, name: str, number: int, chosen: _Ints, kept: Kept) -> bytes:
    """A section without rows of a fixed length that can be copied."""
    group, classes = file.content.groups[number], file.content.classes.count
    sources, stored = group.images.sources, group.recipe.start.stored
    data = file.section(name, number)
    if name == "cnd" and (bits := group.images.candidates) is not None:
        choices = candidates.unpack(data, classes, sources, bits)
        return candidates.pack(choices[kept.classes, : kept.sources(group, number)], bits)
    if name == "tok":
        rows = tokens.decode(data, conditioning_rows(group, classes))
        return tokens.encode([rows[row].tolist() for row in chosen.tolist()])
    if name == "emb":
        return coded.select(data, conditioning_rows(group, classes), sum(quantized_blocks(group)), name, chosen)
    if name == "lat" and stored is not None and stored.coding == TRANSFORM:
        return transform.select(data, classes * sources, stored.shape, name, chosen)
    if name == "lat" and stored is not None:
        return coded.select(data, classes * sources, stored.values, name, chosen)
    if isinstance(group.recipe, SheetsRecipe) and name == "img":
        return _sheets(file, group, group.recipe, number, chosen)
    labels, count = GroupLabels(file, number), label_rows(group, classes)
    if isinstance(group.labels, AdaptiveLabels):
        return adaptive.select(data, labels.columns[labels.class_of(0, count)], group.labels.width, chosen)
    assert isinstance(group.labels, RankedHeadLabels)  # every other section has its case
    return ranked_head.select(data, count, group.labels.width, chosen)


def _sheets(file: D3MFile, group: Group, recipe: SheetsRecipe, number: int, chosen: _Ints) -> bytes:
    """Sheets of some tiles: those of one old sheet that holds just them are copied, others made anew."""
    renderer = sheet_renderer(file, number)
    old = images.split_sheets(file.section("img", number), renderer.sheets)
    total, size = file.content.classes.count * group.images.sources, recipe.per_sheet
    made: list[bytes] = []
    for first in range(0, len(chosen), size):
        tiles = chosen[first : first + size]
        sheet, at = divmod(int(tiles[0]), size)
        held = min(size, total - sheet * size)
        rows = [-(-count // recipe.columns) for count in (len(tiles), held)]
        if at == 0 and tiles[-1] == tiles[0] + len(tiles) - 1 and rows[0] == rows[1]:
            made.append(old[sheet])  # what lies in its other tiles means nothing
            continue
        if recipe.format != "png":
            raise UsageError(
                f"these images would have to be stored as {recipe.format} again, which would change their pixels",
                file=file.path,
                field=f"img of group {number}",
                hint=f"Take whole sheets: {size} images each, in order of class and image.",
            )
        made.append(images.encode_sheet(renderer.tiles(tiles.tolist()), recipe.columns, "png"))
    return images.join_sheets(made)
