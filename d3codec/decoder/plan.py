"""What to decode: the units of eight images that hold the wanted ones (spec section 7).

Units are the same whatever is asked for: unit k of a group holds its images 8k to 8k + 7, counted class after
class. Knows no pixels and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d3codec.errors import UsageError
from d3codec.format.manifest import Content

UNIT_IMAGES = 8


@dataclass(frozen=True)
class Unit:
    """Up to eight images of a group that are decoded together: their classes and their indices within the
    class."""

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
        units = [
            unit_at(group, number, counts[group], content.classes.count)
            for group in wanted_groups
            for number in sorted(
                {(class_ * counts[group] + index) // UNIT_IMAGES for owner, class_, index in images if owner == group}
            )
        ]
        return cls(tuple(units), tuple(images), tuple(sum(counts[:group]) for group in range(len(counts))))

    def number_in_class(self, group: int, index: int) -> int:
        """The place of an image among all images of its class, over all groups."""
        return self.before[group] + index


def unit_at(group: int, number: int, images_per_class: int, classes: int) -> Unit:
    """Unit `number` of a group: images 8 * number onwards in order of class and index, up to eight."""
    places = range(number * UNIT_IMAGES, min((number + 1) * UNIT_IMAGES, images_per_class * classes))
    return Unit(
        group,
        number,
        tuple(place // images_per_class for place in places),
        tuple(place % images_per_class for place in places),
    )


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
