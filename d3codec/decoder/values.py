"""Values of sections that only their codecs can judge: labels, coded rows and latents, sheets. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from d3codec.conditioning import coded
from d3codec.decoder.labels import LARGEST_BYTES, PIECE_BYTES, GroupLabels
from d3codec.decoder.latents import LatentRows
from d3codec.decoder.renderers import sheet_renderer
from d3codec.decoder.section_reader import SectionReader
from d3codec.errors import FormatError, UsageError
from d3codec.format.file import D3MFile
from d3codec.format.labels import label_row_bytes
from d3codec.format.manifest import (
    AdaptiveLabels,
    DeltaConditioning,
    Group,
    HardLabels,
    SheetsRecipe,
    VectorsConditioning,
    conditioning_rows,
    label_rows,
)
from d3codec.format.plan import quantized_blocks

_ADAPTIVE_BYTES = 4_000  # a logit of a model that learns takes as long as a thousand others


def check_coded(file: D3MFile) -> None:
    """Decodes every coded row, every coded latent and every label, a piece at a time, and looks at the head of every
    sheet.

    Raises SectionError (E_SECTION_VALUE, E_SECTION_SIZE) for bytes that a codec refuses, MissingError for sheets in a
    format that the installed Pillow does not know.
    """
    classes = file.content.classes.count
    try:
        for number, group in enumerate(file.content.groups):
            for name, rows, size in _coded_sections(group, classes):
                decode = _decoder(file, number, group, name, rows, size)
                step = max(1, PIECE_BYTES // (8 * size))
                for first in range(0, rows, step):
                    decode(first, min(step, rows - first))
            if isinstance(group.recipe, SheetsRecipe):
                for _ in sheet_renderer(file, number).check():
                    pass
            if group.labels.kind != "h":
                GroupLabels(file, number).check()
    except FormatError as error:
        error.file = error.file or file.path
        raise


def check_coded_work(file: D3MFile) -> None:
    """Raises UsageError for streams whose decoding is more work than anybody expects of a check.

    A stream of free length may promise millions of labels in a few bytes; fixed rows cannot.
    """
    classes, size = file.content.classes.count, 0
    for group in file.content.groups:
        size += sum(8 * rows * width for _, rows, width in _coded_sections(group, classes))
        if not isinstance(group.labels, HardLabels) and label_row_bytes(group.labels) is None:
            each = _ADAPTIVE_BYTES if isinstance(group.labels, AdaptiveLabels) else 4
            size += each * label_rows(group, classes) * group.labels.width
    if size > LARGEST_BYTES:
        raise UsageError(
            "checking these labels and coded rows is more work than the budget allows",
            file=file.path,
            field="budget",
            found=f"{size:,} bytes of numbers",
            expected=f"at most {LARGEST_BYTES:,}",
            hint="say --yes (budget=None in Python)",
        )


def _coded_sections(group: Group, classes: int) -> Iterator[tuple[str, int, int]]:
    """Name, rows and numbers a row of each section of coded numbers."""
    conditioning, stored = group.conditioning, group.recipe.start.stored
    if isinstance(conditioning, (DeltaConditioning, VectorsConditioning)) and conditioning.coded:
        yield "emb", conditioning_rows(group, classes), sum(quantized_blocks(group))
    if stored is not None and stored.coded:
        yield "lat", classes * group.images.sources, stored.values


def _decoder(file: D3MFile, number: int, group: Group, name: str, rows: int, size: int) -> Callable[[int, int], object]:
    """What decodes `count` rows of a coded section from `first` on."""
    if name == "lat" and (stored := group.recipe.start.stored) is not None:
        return LatentRows(stored, rows, SectionReader(file, "lat", number)).run
    data = file.section(name, number)
    return lambda first, count: coded.decode(data, rows, size, name, first=first, count=count)
