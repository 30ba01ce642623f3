"""What to decode: the units of eight generated images that hold the wanted ones (spec section 7).

Units are the same whatever is asked for: unit k of a group holds its sources (generated images) 8k to 8k + 7,
counted class after class, with all their augmented copies. Knows no pixels and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import UsageError
from d3codec.format.manifest import Content

UNIT_IMAGES = 8


@dataclass(frozen=True)
class Unit:
    """Images of a group that are decoded together, those of up to eight sources: their classes and their
    indices within the class."""

    group: int
    number: int
    classes: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """`units` to decode, group after group, and the `images` wanted from them, as (group, class, index) in
    the canonical order: class after class, within a class group after group, then index. `before[g]` is the
    number of images that a class has in the groups before g."""

    units: tuple[Unit, ...]
    images: tuple[tuple[int, int, int], ...]
    before: tuple[int, ...]

    @classmethod
    def of(
        cls,
        content: Content,
        classes: Sequence[int] | None = None,
        limit: int | None = None,
        groups: Sequence[int] | None = None,
    ) -> Plan:
        """The plan for some classes (None: all), the first `limit` images of each (None: all), and some
        groups.

        The images of a class are those of the groups one after the other, so a limit fills from the first
        group.

        Raises:
            UsageError: a class or group that the dataset does not have, or a limit below 1.
        """
        wanted_classes = _chosen("classes", classes, content.classes.count)
        wanted_groups = _chosen("groups", groups, len(content.groups))
        if limit is not None and limit < 1:
            raise UsageError("at least one image a class must be asked for", field="limit", found=limit)
        images = [
            (group, class_, index)
            for class_ in wanted_classes
            for group, index in _of_class(content, wanted_groups, limit)
        ]
        counts = [group.images.count for group in content.groups]
        units = []
        for group in wanted_groups:
            per_source = content.groups[group].images.copies + 1
            a_unit = UNIT_IMAGES * per_source
            numbers = {(class_ * counts[group] + index) // a_unit for owner, class_, index in images if owner == group}
            units += [
                unit_at(group, number, counts[group], content.classes.count, per_source) for number in sorted(numbers)
            ]
        return cls(tuple(units), tuple(images), tuple(sum(counts[:group]) for group in range(len(counts))))

    def number_in_class(self, group: int, index: int) -> int:
        """The place of an image among all images of its class, over all groups."""
        return self.before[group] + index


def unit_at(group: int, number: int, images_per_class: int, classes: int, per_source: int = 1) -> Unit:
    """Unit `number` of a group: the images of its sources 8 * number onwards in order of class and index, up to eight.

    `per_source` images come from one source: it and its augmented copies.
    """
    a_unit = UNIT_IMAGES * per_source
    places = range(number * a_unit, min((number + 1) * a_unit, images_per_class * classes))
    return Unit(
        group,
        number,
        tuple(place // images_per_class for place in places),
        tuple(place % images_per_class for place in places),
    )


def sources_of(unit: Unit, per_source: int) -> list[tuple[int, int]]:
    """(class, source) of what the generator makes for a unit, in order; every one of its images is in the unit."""
    return [
        (class_, index // per_source)
        for class_, index in zip(unit.classes, unit.indices, strict=True)
        if index % per_source == 0
    ]


def corrections_by_source(
    content: Content, positions: NDArray[np.int64], levels: NDArray[np.uint8]
) -> dict[int, dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.uint8]]]]:
    """The corrections of a file (positions ascending, spec section 5) by group and (class, source).

    Returns places within the bytes of the generated image, int64 ascending, and levels there.
    """
    sizes = [group.images.generated[0] * group.images.generated[1] * 3 for group in content.groups]
    ends = np.cumsum([size * group.images.sources for size, group in zip(sizes, content.groups, strict=True)])
    found: dict[int, dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.uint8]]]] = {}
    classes, within = np.divmod(positions, int(ends[-1]))
    groups = np.searchsorted(ends, within, side="right")
    for group, size in enumerate(sizes):
        mine = groups == group
        sources, places = np.divmod(
            within[mine] - (int(ends[group]) - size * content.groups[group].images.sources), size
        )
        owners = np.stack([classes[mine], sources], axis=1)
        found[group] = {
            (int(class_), int(source)): (places[here], levels[mine][here])
            for class_, source in np.unique(owners, axis=0)
            for here in [(owners == (class_, source)).all(axis=1)]
        }
    return found


def _of_class(content: Content, groups: list[int], limit: int | None) -> list[tuple[int, int]]:
    images = [(group, index) for group in groups for index in range(content.groups[group].images.count)]
    return images[:limit]


def _chosen(field: str, asked: Sequence[int] | None, count: int) -> list[int]:
    if asked is None:
        return list(range(count))
    for number in asked:
        if not 0 <= number < count:
            raise UsageError(
                f"the dataset has no number {number} of its {field}",
                field=field,
                found=number,
                expected=f"0 to {count - 1}",
            )
    if not asked:
        raise UsageError("nothing is asked for", field=field)
    return sorted(set(asked))
