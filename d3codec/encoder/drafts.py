"""Digests of the images of a file that is all but written: its pixels are decoded before it can promise them."""

from __future__ import annotations

from collections.abc import Callable

from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.cache import UnitCache, cache_key, home
from d3codec.decoder.digests import image_digest
from d3codec.decoder.plan import Extent, Plan
from d3codec.decoder.precision import choose_device, fingerprint, has_networks, machine
from d3codec.decoder.units import decoded_units
from d3codec.format.file import D3MFile
from d3codec.generators.weights import Names

Image = tuple[int, int, int]  # group, class, index
Progress = Callable[[str, int, int], None]


def draft_digests(
    draft: D3MFile, profile: str, generator: Names, device: str, budget: Budget | None, progress: Progress | None
) -> tuple[Plan, dict[Image, bytes]]:
    """SHA-256 of every image of a draft, and the plan that they stand in; an interrupted one continues.

    Raises UsageError for more work than the budget allows, and as `decoder.decode.decode`.
    """
    extent = Extent.of(draft.content)
    if budget is not None:
        budget.check(Work.of(extent), "the new file")
    plan = extent.plan()
    digests = digests_of(draft, plan, profile, generator, device, budget, progress)
    here = fingerprint(choose_device(device, has_networks(draft.content)), draft.content)
    UnitCache(home(), cache_key(draft.content_id, profile, machine(profile, profile, here))).clear()  # not met again
    return plan, digests


def digests_of(
    file: D3MFile,
    plan: Plan,
    profile: str,
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> dict[Image, bytes]:
    """SHA-256 of every image in the units of a plan. Raises as `decoder.decode.decode`."""
    digests: dict[Image, bytes] = {}
    for unit, images in decoded_units(
        file, plan, profile=profile, device=device, generator=generator, budget=budget, progress=progress
    ):
        for class_, index, image in zip(unit.classes, unit.indices, images, strict=True):
            digests[unit.group, class_, index] = image_digest(image)
    return digests
