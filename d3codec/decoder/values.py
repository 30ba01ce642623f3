"""Values of sections that only their codecs can judge: labels and entropy-coded rows. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.conditioning import coded
from d3codec.decoder.labels import LARGEST_BYTES, PIECE_BYTES, GroupLabels
from d3codec.errors import FormatError, UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import DeltaConditioning, Group, VectorsConditioning, conditioning_rows, label_rows
from d3codec.format.plan import quantized_blocks


def check_coded(file: D3MFile) -> None:
    """Decodes every label and every coded row, a piece at a time.

    Raises SectionError (E_SECTION_VALUE, E_SECTION_SIZE) for bytes that a codec refuses.
    """
    classes = file.content.classes.count
    try:
        for number, group in enumerate(file.content.groups):
            for name, rows, size in _coded_sections(group, classes):
                data = file.section(name, number)
                step = max(1, PIECE_BYTES // (8 * size))
                for first in range(0, rows, step):
                    coded.decode(data, rows, size, name, first=first, count=min(step, rows - first))
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
        if group.labels.kind == "r":
            size += 4 * label_rows(group, classes) * group.labels.width
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
    """Name, rows and numbers a row of each entropy-coded section."""
    conditioning, stored = group.conditioning, group.recipe.start.stored
    if isinstance(conditioning, (DeltaConditioning, VectorsConditioning)) and conditioning.coded:
        yield "emb", conditioning_rows(group, classes), sum(quantized_blocks(group))
    if stored is not None and stored.coded:
        yield "lat", classes * group.images.sources, stored.values
