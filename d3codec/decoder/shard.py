"""A static part of a decode, for any launcher: shard i of n takes the i-th of n runs of consecutive units."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from d3codec.decoder.plan import Extent, Unit
from d3codec.errors import UsageError

Key = tuple[int, int, int]  # of an image: group, class, index within the class


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count` parts."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `0/4`. Raises UsageError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
        if not found or int(found[1]) >= int(found[2]):
            raise UsageError(
                "a shard is written i/n and counts from 0", field="shard", found=text, expected="0/4, 1/4, 2/4 or 3/4"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, extent: Extent) -> Extent:
        """The units of this part and the wanted images in them. Parts of one extent share no image and leave none out;
        with more parts than units some are empty."""
        start, total = extent.start, extent.units
        return replace(
            extent, start=start + self.index * total // self.count, stop=start + (self.index + 1) * total // self.count
        )


def image_keys(unit: Unit) -> list[Key]:
    """The images of a unit, in the order of its pixels."""
    return [(unit.group, class_, index) for class_, index in zip(unit.classes, unit.indices, strict=True)]
