"""One section of a file, read where it is needed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate

from d3codec.format.file import D3MFile

Read = Callable[[int, int], bytes]
"""The raw bytes start to stop of a section, cut off at its end."""


class SectionReader:
    """A `Read` of a section that reads and checks the parts which are asked for, and keeps the last of them."""

    def __init__(self, file: D3MFile, name: str, group: int) -> None:
        self._file, self._name, self._group = file, name, group
        lengths = (part.raw_length for part in file.parts if part.key == (name, group))
        self._bounds = [0, *accumulate(lengths)]
        self._start, self._kept = 0, b""

    def __len__(self) -> int:
        """Raw bytes of the whole section."""
        return self._bounds[-1]

    def __call__(self, start: int, stop: int) -> bytes:
        stop = min(stop, len(self))
        if not self._start <= start <= stop <= self._start + len(self._kept):
            first, last = bisect_right(self._bounds, start) - 1, bisect_left(self._bounds, stop)
            self._start = self._bounds[first]
            self._kept = self._file.section_range(self._name, self._group, self._start, self._bounds[last])
        return self._kept[max(start - self._start, 0) : max(stop - self._start, 0)]


def reader_of(data: bytes) -> Read:
    """A `Read` of bytes that are here."""
    return lambda start, stop: data[start:stop]
