"""The groups of a dataset for people: sizes, labels, generator and recipe, in words. No numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d3codec.format.manifest import Content, Group

MILLION = 1_000_000


@dataclass(frozen=True)
class GroupInfo:
    """Images of one recipe and one generator, described without regard to the method that made them.

    images_per_class: collages a class; grid: rows and columns of patches in a collage; size: height and width
    of an image in pixels; label_kind: `quantized` or `hard`; label_width: logits a patch (0: none stored);
    generator: its id (hex); cast: dtype to which its weights are cast before digest and use.
    """

    number: int
    images_per_class: int
    grid: tuple[int, int]
    size: tuple[int, int]
    label_kind: str
    label_width: int
    generator: str
    cast: str
    conditioning: str
    recipe: str

    @property
    def patches(self) -> int:
        """Patches an image."""
        return self.grid[0] * self.grid[1]


def describe_groups(content: Content) -> list[GroupInfo]:
    return [_describe(number, group) for number, group in enumerate(content.groups)]


def _describe(number: int, group: Group) -> GroupInfo:
    labels, images = group.labels, group.images
    return GroupInfo(
        number=number,
        images_per_class=images.count,
        grid=images.grid,
        size=images.size,
        label_kind="quantized" if labels.kind == "q" else "hard",
        label_width=labels.width if labels.kind == "q" else 0,
        generator=group.generator.hex(),
        cast=group.cast,
        conditioning=_conditioning_in_words(group),
        recipe=_recipe_in_words(group),
    )


def _conditioning_in_words(group: Group) -> str:
    conditioning = group.conditioning
    slots = f"{len(conditioning.slots)} token{'s' if len(conditioning.slots) > 1 else ''} a class"
    if conditioning.kind == "delta":
        return f"learned, {slots}, {conditioning.width} values of {conditioning.bits} bits"
    return f"words, {slots}"


def _recipe_in_words(group: Group) -> str:
    recipe = group.recipe
    return (
        f"{recipe.sampler.upper()}, {recipe.steps} steps, guidance {recipe.guidance / MILLION:g}, "
        f"predicts {recipe.prediction}"
    )
