"""Units are the same whatever is asked for."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from tiny_pipeline import make_group

from d3codec.decoder.plan import Extent, Plan, Unit, corrections_by_source, sources_of, unit_at
from d3codec.decoder.shard import Shard
from d3codec.errors import UsageError
from d3codec.format.manifest import REPRODUCIBLE, Classes, Content, GddAugmentation, Images, part_count


def content(classes: int, *counts: int) -> Content:
    """A dataset of groups with so many images a class; sections are not looked at."""
    groups = tuple(
        make_group(None, classes=1, ipc=count, labels="h", kind="words", generator=bytes(32))[0] for count in counts
    )
    parts = 1 + sum(part_count(classes, 4) for _ in groups)  # two words a row
    return Content(
        classes=Classes(authority="none", count=classes),
        groups=groups,
        digests=bytes(32) if 4 * classes * len(groups) < 60_000 else (bytes(32),) * parts,
        profile=REPRODUCIBLE,
        lengths=(1,) * 1,
    )


def wanted_in(plan: Plan) -> set[tuple[int, int, int]]:
    return {(unit.group, *pair) for unit in plan.units for pair in zip(unit.classes, unit.indices, strict=True)}


def test_everything():
    plan = Plan.of(content(3, 5))
    assert [unit.number for unit in plan.units] == [0, 1]
    assert plan.units[0] == Unit(0, 0, (0, 0, 0, 0, 0, 1, 1, 1), (0, 1, 2, 3, 4, 0, 1, 2))
    assert plan.units[1] == Unit(0, 1, (1, 1, 2, 2, 2, 2, 2), (3, 4, 0, 1, 2, 3, 4))
    assert plan.images == tuple((0, class_, index) for class_ in range(3) for index in range(5))


def test_a_subset_takes_whole_units_of_the_full_plan():
    rng = random.Random(4)
    for _ in range(200):
        data = content(rng.randint(1, 12), *(rng.randint(1, 12) for _ in range(rng.randint(1, 3))))
        whole = Plan.of(data)
        classes = rng.sample(range(data.classes.count), rng.randint(1, data.classes.count))
        limit = rng.choice([None, rng.randint(1, 20)])
        plan = Plan.of(data, classes, limit)
        assert set(plan.units) <= set(whole.units)
        assert set(plan.images) <= wanted_in(plan)
        assert all(
            set(plan.images) & {(unit.group, *pair) for pair in zip(unit.classes, unit.indices, strict=True)}
            for unit in plan.units
        ), "a unit of which nothing is wanted"
        assert list(plan.images) == [image for image in whole.images if image in set(plan.images)]
        for class_ in classes:
            numbers = [plan.number_in_class(group, index) for group, of, index in plan.images if of == class_]
            total = sum(group.images.count for group in data.groups)
            assert numbers == list(range(min(limit or total, total)))


def test_groups_stand_one_after_the_other_within_a_class():
    plan = Plan.of(content(2, 1, 2))
    assert plan.images == ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 0), (1, 1, 1))
    assert [plan.number_in_class(group, index) for group, _, index in plan.images] == [0, 1, 2, 0, 1, 2]
    assert Plan.of(content(2, 1, 2), groups=[1]).units == (Unit(1, 0, (0, 0, 1, 1), (0, 1, 0, 1)),)


def test_what_is_counted_is_what_is_listed():
    rng = random.Random(5)
    for _ in range(200):
        data = content(rng.randint(1, 12), *(rng.randint(1, 12) for _ in range(rng.randint(1, 3))))
        data = with_copies(data, 0, rng.randint(1, 3)) if rng.random() < 0.5 else data
        classes = rng.sample(range(data.classes.count), rng.randint(1, data.classes.count))
        whole = Extent.of(data, classes, rng.choice([None, rng.randint(1, 20)]))
        count = rng.randint(1, 9)
        for extent in (whole, *(Shard(number, count).of(whole) for number in range(count))):
            plan = extent.plan()
            assert (extent.images, extent.units) == (len(plan.images), len(plan.units))
            for part in extent.parts():
                per_source = data.groups[part.group].images.copies + 1
                sources = [len(unit.classes) // per_source for unit in plan.units if unit.group == part.group]
                assert (part.units, part.sources, part.unit_sources) == (len(sources), sum(sources), max(sources))
                assert part.images == sum(1 for group, _, _ in plan.images if group == part.group)


def test_counting_lists_nothing():
    """Two million million images in a file of a few KB, and a millionth of them."""
    data = content(1 << 20, *[1 << 20] * 2)
    started = time.monotonic()
    assert Extent.of(data).images == 1 << 41
    assert Extent.of(data).units == 1 << 38
    part = Shard(3, 1 << 30).of(Extent.of(data))
    assert (part.images, len(part.plan().images)) == (2048, 2048)
    assert time.monotonic() - started < 5


def test_a_large_dataset_is_not_walked_through():
    plan = Plan.of(content(1_000_000, 1_000_000), classes=[999_999], limit=3)
    assert len(plan.images) == 3
    assert plan.units[0].number == 999_999 * 1_000_000 // 8


def test_the_last_unit_may_be_short():
    assert unit_at(0, 1, 3, 3) == Unit(0, 1, (2,), (2,))


def with_copies(data: Content, group: int, copies: int) -> Content:
    """The dataset, so many augmented copies beside each source of a group."""
    groups = list(data.groups)
    old = groups[group].images
    images = Images(
        grid=old.grid, count=old.count * (copies + 1), size=old.size, augmentation=GddAugmentation(copies=copies)
    )
    groups[group] = groups[group].model_copy(update={"images": images})
    return data.model_copy(update={"groups": tuple(groups)})


def test_a_unit_has_eight_sources_with_all_their_copies():
    plan = Plan.of(with_copies(content(2, 5), 0, 2))
    assert [len(unit.classes) for unit in plan.units] == [24, 6]
    assert plan.units[0].indices[12:18] == (12, 13, 14, 0, 1, 2)
    assert plan.units[0].classes[12:18] == (0, 0, 0, 1, 1, 1)
    assert sources_of(plan.units[0], 3) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2)]
    assert len(plan.images) == 30
    assert Plan.of(with_copies(content(2, 5), 0, 2), classes=[1], limit=10).units == plan.units


def test_corrections_find_their_image():
    data = with_copies(content(3, 2, 1), 0, 1)
    size = 8 * 8 * 3
    order = [
        (class_, group, source) for class_ in range(3) for group, count in ((0, 2), (1, 1)) for source in range(count)
    ]
    positions = np.array([0, 5, size - 1, 2 * size + 7, 4 * size, 9 * size - 1])
    found = corrections_by_source(data, positions, np.arange(6, dtype=np.uint8))
    listed = []
    for group, images in found.items():
        for (class_, source), (places, levels) in images.items():
            listed += [
                (order.index((class_, group, source)) * size + place, level)
                for place, level in zip(places.tolist(), levels.tolist(), strict=True)
            ]
    assert sorted(listed) == list(zip(positions.tolist(), range(6), strict=True))


def test_no_corrections_and_many():
    """A hostile list may be long: its time must not grow with its square (which would take minutes here)."""
    data = content(1000, 60)
    assert corrections_by_source(data, np.zeros(0, np.int64), np.zeros(0, np.uint8)) == {0: {}}
    positions = np.arange(0, 60_000 * 192, 192)
    started = time.process_time()
    found = corrections_by_source(data, positions, np.zeros(len(positions), np.uint8))
    assert time.process_time() - started < 10
    assert len(found[0]) == 60_000


@pytest.mark.parametrize("asked", [{"classes": [3]}, {"classes": [-1]}, {"classes": []}, {"limit": 0}, {"groups": [1]}])
def test_what_is_not_there_cannot_be_asked_for(asked):
    with pytest.raises(UsageError):
        Plan.of(content(3, 5), **asked)
