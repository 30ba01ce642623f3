"""The stored labels of a file: section `lab` and, where there is one, `col` -> logits in the order of the classes.

Any range of rows is decoded without the others. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from d3codec.errors import SectionError, UsageError
from d3codec.format.file import D3MFile
from d3codec.format.labels import label_row_bytes
from d3codec.format.limits import FREE_BYTES
from d3codec.format.manifest import (
    AdaptiveLabels,
    HardLabels,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    SoftLabels,
    label_rows,
)
from d3codec.format.sections import section_title
from d3codec.labels import quantized, raw16, topk

BLOCK_ROWS = (4096, 1024)  # of kinds `a` and `r` (spec/labels.md); one is a multiple of the other
PIECE_BYTES = 16 << 20  # of decoded logits, where all are looked at one after the other
LARGEST_BYTES = 1 << 34  # of decoded logits, beyond which nothing is done unless somebody says so


class GroupLabels:
    """The logits of one group, decoded when they are asked for.

    Arguments:
        file: opened. number: of the group; it has labels with logits.

    Attributes:
        record: its labels. rows: number of labels, in order of class, image and patch; rows_per_class.

    Raises:
        UsageError: the group has hard labels.
    """

    def __init__(self, file: D3MFile, number: int) -> None:
        group, self.classes = file.content.groups[number], file.content.classes.count
        if isinstance(group.labels, HardLabels):
            raise UsageError("hard labels have no logits", file=file.path, field=f"group {number}")
        self.record: SoftLabels = group.labels
        self.rows = label_rows(group, self.classes)
        self.rows_per_class = self.rows // self.classes
        self._file, self._number = file, number

    @cached_property
    def columns(self) -> np.ndarray:
        """The teacher's column of each class: int64 [classes]."""
        if self.record.columns is None:
            return np.arange(self.classes)
        return np.frombuffer(self._file.section("col", self._number), "<u4").astype(np.int64)

    @property
    def classes_at_once(self) -> int:
        """How many classes to decode together, so that their logits take about PIECE_BYTES."""
        return max(1, PIECE_BYTES // (4 * self.record.width * self.rows_per_class))

    def class_of(self, first: int, last: int) -> np.ndarray:
        """Class positions of rows `first` to before `last`: int64 [last - first]."""
        return np.arange(first, last) // self.rows_per_class

    def logits(self, first: int, last: int, *, teacher_columns: bool = False) -> np.ndarray:
        """Logits of rows `first` to before `last` in nats, exact: float32 [last - first, classes].

        With `teacher_columns` all that the teacher gave, in its order: [last - first, width].
        Raises SectionError for damage and impossible values.
        """
        try:
            found = self._decode(first, last)
        except SectionError as error:
            if error.field == "lab":
                error.field = f"{section_title('lab', self._number)}, counted from row {first}"
            error.file = error.file or self._file.path
            raise
        return found if teacher_columns or self.record.columns is None else np.take(found, self.columns, axis=1)

    def expect(self, rows: Iterable[tuple[int, int]]) -> None:
        """Says that these rows, each from the first to before the last, will be decoded soon (`D3MFile.expect`)."""
        size, number = label_row_bytes(self.record), self._number
        wanted = [("lab", number, 0, FREE_BYTES)] if size is None else []
        if size is not None:
            wanted += [("lab", number, first * size, last * size) for first, last in rows]
        if self.record.columns is not None:
            wanted.append(("col", number, 0, FREE_BYTES))
        self._file.expect(wanted)

    def pieces(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges of rows from `first` to before `last`, in order, each of at most PIECE_BYTES of logits (or one row).

        Where that is not too much they end between blocks of coded labels, none of which is decoded twice.
        """
        step = max(1, PIECE_BYTES // (4 * self.record.width))
        step -= step % next((rows for rows in BLOCK_ROWS if step > rows), 1)
        end = self.rows if last is None else last
        while first < end:
            stop = min(first - first % step + step, end)
            yield first, stop
            first = stop

    def check(self) -> None:
        """Raises SectionError for values that the codec refuses."""
        if isinstance(self.record, QuantizedLabels):
            return  # there are none
        for first, last in self.pieces():
            self.logits(first, last, teacher_columns=True)

    def _decode(self, first: int, last: int) -> np.ndarray:
        if (size := label_row_bytes(self.record)) is None:
            return decode_labels(self.record, self._stream, self._column_of_row, slice(first, last))
        data = self._file.section_range("lab", self._number, first * size, last * size)
        return decode_labels(self.record, data, self._column_of_row[first:last])

    @cached_property
    def _stream(self) -> bytes:
        return self._file.section("lab", self._number)  # a few bytes a label; what costs is to decode them

    @cached_property
    def _column_of_row(self) -> np.ndarray:
        return np.repeat(self.columns, self.rows_per_class)


def decode_labels(record: SoftLabels, data: bytes, columns: np.ndarray, rows: slice | None = None) -> np.ndarray:
    """Logits of a section, or of whole rows of one that has fixed rows: float32 [N, width], exact, in nats.

    Arguments:
        columns: int [N], the teacher's column of the class of each row.
        rows: only these, of a section of free length.

    Raises SectionError (field `lab`) for bytes that break the specification.
    """
    if isinstance(record, RankedHeadLabels):
        from d3codec.labels import ranked_head

        decoded: np.ndarray = ranked_head.decode(data, columns, record.width, rows=rows)
        return decoded
    if isinstance(record, AdaptiveLabels):
        from d3codec.labels import adaptive

        found: np.ndarray = adaptive.decode(data, columns, record.width, rows)
        return found
    if isinstance(record, QuantizedLabels):  # 8 bits times 16 bits: float32 holds them
        return quantized.decode(data, len(columns), record.width, record.step).astype(np.float32)
    if isinstance(record, Raw16Labels):
        return raw16.decode(data, len(columns), record.width)
    return topk.decode(data, len(columns), record.width, record.k)
