"""What to decode: the units of eight generated images that hold the wanted ones (spec section 7).

Units are the same whatever is asked for: unit k of a group holds its sources (generated images) 8k to 8k + 7,
counted class after class, with all their augmented copies. Knows no pixels and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
        """The plan of `Extent.of` with these arguments, which it raises for."""
        return Extent.of(content, classes, limit, groups).plan()

    def number_in_class(self, group: int, index: int) -> int:
        """The place of an image among all images of its class, over all groups."""
        return self.before[group] + index


@dataclass(frozen=True)
class Part:
    """What an extent has in a group: `units` with `sources` generated images, at most `unit_sources` in one, of which
    come the `images` wanted."""

    group: int
    images: int
    units: int
    sources: int
    unit_sources: int


@dataclass(frozen=True, eq=False)
class Extent:
    """Wanted images and the units that hold them, counted and not listed: a file of a few KB may have 2^44 images.

    Of all units with a wanted image, group after group, it has those from `start` to before `stop`.
    """

    content: Content
    classes: NDArray[np.int64]  # ascending
    wanted: tuple[tuple[int, int], ...]  # (group, the first so many images of each class)
    start: int
    stop: int

    @classmethod
    def of(
        cls,
        content: Content,
        classes: Sequence[int] | None = None,
        limit: int | None = None,
        groups: Sequence[int] | None = None,
    ) -> Extent:
        """Some classes (None: all), the first `limit` images of each (None: all), and some groups.

        The images of a class are those of the groups one after the other, so a limit fills from the first
        group.

        Raises:
            UsageError: a class or group that the dataset does not have, or a limit below 1.
        """
        chosen = _chosen("classes", classes, content.classes.count)
        wanted_groups = _chosen("groups", groups, len(content.groups))
        if limit is not None and limit < 1:
            raise UsageError("at least one image a class must be asked for", field="limit", found=limit)
        wanted = tuple(_of_class(content, wanted_groups.tolist(), limit))
        extent = cls(content, chosen, wanted, 0, 0)
        return replace(extent, stop=sum(extent._row(*pair).units for pair in wanted))

    @property
    def units(self) -> int:
        return self.stop - self.start

    @property
    def images(self) -> int:
        return sum(part.images for part in self.parts())

    def parts(self) -> list[Part]:
        """What it has in each group of which it has anything."""
        return [row.part(start, stop) for row, start, stop in self._rows()]

    def plan(self) -> Plan:
        """All of it as a list: see that it fits into memory (`budget`) before."""
        units, images, chosen = [], [], set(self.classes.tolist())
        limits = dict(self.wanted)
        for row, start, stop in self._rows():
            for number in row.numbers(start, stop):
                unit = unit_at(row.group, number, row.count, self.content.classes.count, row.per_source)
                units.append(unit)
                images += [
                    (row.group, class_, index)
                    for class_, index in zip(unit.classes, unit.indices, strict=True)
                    if index < limits[row.group] and class_ in chosen
                ]
        images.sort(key=lambda image: (image[1], image[0], image[2]))
        counts = [group.images.count for group in self.content.groups]
        return Plan(tuple(units), tuple(images), tuple(sum(counts[:group]) for group in range(len(counts))))

    def _row(self, group: int, limit: int) -> _Row:
        images = self.content.groups[group].images
        return _Row(group, images.count, images.copies + 1, limit, self.classes, self.content.classes.count)

    def _rows(self) -> Iterator[tuple[_Row, int, int]]:
        """Groups with the first and the end of their units that are in this extent."""
        before = 0
        for pair in self.wanted:
            row = self._row(*pair)
            start, stop = max(self.start - before, 0), min(self.stop - before, row.units)
            before += row.units
            if start < stop:
                yield row, start, stop


class _Row:
    """The units of a group that hold some of the first `limit` images of some classes: their numbers, ascending, are
    found by place."""

    def __init__(
        self, group: int, count: int, per_source: int, limit: int, classes: NDArray[np.int64], all_classes: int
    ) -> None:
        self.group, self.count, self.per_source = group, count, per_source
        self._limit, self._classes, self._total = limit, classes, all_classes * count
        self._size = UNIT_IMAGES * per_source  # images of a unit
        last = (classes * count + limit - 1) // self._size
        self._first = classes * count // self._size
        self._first[1:] += self._first[1:] == last[:-1]  # which the class before has already
        self._ends = np.cumsum(last - self._first + 1)
        self.units = int(self._ends[-1])

    def numbers(self, start: int, stop: int) -> list[int]:
        """Numbers of the units at these places."""
        places = np.arange(start, stop)
        owners = np.searchsorted(self._ends, places, side="right")
        begins = np.concatenate([[0], self._ends[:-1]])[owners]
        numbers: list[int] = (self._first[owners] + places - begins).tolist()
        return numbers

    def part(self, start: int, stop: int) -> Part:
        (first,), (last,) = self.numbers(start, start + 1), self.numbers(stop - 1, stop)
        inside = (stop - start) * self._size - max(0, (last + 1) * self._size - self._total)
        wanted = self._wanted_before((last + 1) * self._size) - self._wanted_before(first * self._size)
        sources = inside // self.per_source
        return Part(self.group, wanted, stop - start, sources, min(sources, UNIT_IMAGES))

    def _wanted_before(self, place: int) -> int:
        """How many wanted images stand before a place among all images of the group."""
        class_, index = divmod(place, self.count)
        whole = int(np.searchsorted(self._classes, class_))
        partly = whole < len(self._classes) and int(self._classes[whole]) == class_
        return whole * self._limit + (min(index, self._limit) if partly else 0)


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
    for number, (group, size) in enumerate(zip(content.groups, sizes, strict=True)):
        mine = groups == number
        sources, places = np.divmod(within[mine] - (int(ends[number]) - size * group.images.sources), size)
        owners, starts = np.unique(classes[mine] * group.images.sources + sources, return_index=True)
        found[number] = {
            divmod(int(owner), group.images.sources): (where, what)
            for owner, where, what in zip(
                owners, np.split(places, starts[1:]), np.split(levels[mine], starts[1:]), strict=bool(len(owners))
            )
        }
    return found


def _of_class(content: Content, groups: list[int], limit: int | None) -> Iterator[tuple[int, int]]:
    """Of each group, how many of the first `limit` images of a class it has; groups without any are left out."""
    for group in groups:
        count = content.groups[group].images.count
        wanted = count if limit is None else min(count, limit)
        if wanted:
            yield group, wanted
        limit = None if limit is None else limit - wanted


def _chosen(field: str, asked: Sequence[int] | None, count: int) -> NDArray[np.int64]:
    """Those that are asked for, ascending."""
    if asked is None:
        return np.arange(count)
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
    return np.array(sorted(set(asked)))
