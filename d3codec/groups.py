"""The groups of a dataset for people: sizes, labels, generator and recipe, in words. No numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from d3codec.format.labels import LABEL_NAMES

if TYPE_CHECKING:
    from d3codec.format.manifest import (
        Content,
        DeltaConditioning,
        Group,
        SheetsRecipe,
        StoredLatents,
        VectorsConditioning,
    )

MILLION = 1_000_000
TRANSFORM = 2  # coding of stored latents


@dataclass(frozen=True)
class GroupInfo:
    """Images of one recipe and one generator, described without regard to the method that made them.

    images_per_class: collages a class; grid: rows and columns of patches in a collage; size: height and width
    of an image in pixels; copies: augmented copies of each source, which are among the images; candidates: noises that
    each source was chosen from (1: no choice); label_kind: one of LABEL_NAMES; label_width: logits a patch, one a class
    (0: none stored); teacher_columns: how many the teacher gave; generator: its id (hex), None where the images
    themselves are stored; cast: dtype to which its weights are cast before digest and use; outside_bytes: size of this
    dataset's own weights outside the file; conditioning ("none": nothing conditions) and recipe in words.
    """

    number: int
    images_per_class: int
    grid: tuple[int, int]
    size: tuple[int, int]
    copies: int
    candidates: int
    label_kind: str
    label_width: int
    teacher_columns: int
    generator: str | None
    cast: str
    outside_bytes: int
    conditioning: str
    recipe: str

    @property
    def patches(self) -> int:
        """Patches an image."""
        return self.grid[0] * self.grid[1]


def describe_groups(content: Content) -> list[GroupInfo]:
    return [_describe(number, group, content.classes.count) for number, group in enumerate(content.groups)]


def _describe(number: int, group: Group, classes: int) -> GroupInfo:
    labels, images = group.labels, group.images
    return GroupInfo(
        number=number,
        images_per_class=images.count,
        grid=images.grid,
        size=images.size,
        copies=images.copies,
        candidates=1 << (images.candidates or 0),
        label_kind=LABEL_NAMES[labels.kind],
        label_width=0 if labels.kind == "h" else classes,
        teacher_columns=0 if labels.kind == "h" else labels.width,
        generator=None if group.generator is None else group.generator.hex(),
        cast=group.cast,
        outside_bytes=group.outside_bytes,
        conditioning=_conditioning_in_words(group),
        recipe=_recipe_in_words(group),
    )


def _conditioning_in_words(group: Group) -> str:
    conditioning = group.conditioning
    if conditioning.kind == "none":
        return "none"
    row = "a class" if conditioning.rows == "class" else "an image"
    if conditioning.kind == "class-id":
        return f"class ids, one {row}"
    if conditioning.kind == "tokens":
        return f"token ids, one sequence {row}"
    if conditioning.kind == "vectors":
        vectors = f"{conditioning.slots} vector{_s(conditioning.slots)}"
        return f"learned, {vectors} {row}, {conditioning.width} values of {_bits(conditioning)}"
    slots = f"{len(conditioning.slots)} token{_s(len(conditioning.slots))} {row}"
    if conditioning.kind == "words":
        return f"words, {slots}"
    widths = " + ".join(map(str, conditioning.widths))
    return f"learned, {slots}, {widths} values of {_bits(conditioning)}"


def _latents(stored: StoredLatents) -> str:
    shape = "x".join(map(str, stored.shape))
    return f"{shape} values, transform-coded" if stored.coding == TRANSFORM else f"{shape} values of {_bits(stored)}"


def _bits(rows: DeltaConditioning | VectorsConditioning | StoredLatents) -> str:
    return f"at most {rows.bits} bits, entropy-coded" if rows.coded else f"{rows.bits} bits"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


_SAMPLERS = {
    "ddim": "DDIM",
    "ddim-reinject": "DDIM with re-injection",
    "euler": "Euler",
    "euler-ancestral": "Euler ancestral",
}


def _recipe_in_words(group: Group) -> str:
    recipe = group.recipe
    if recipe.sampler == "stored":
        return _stored_in_words(recipe)
    if recipe.sampler == "decode":
        return f"stored latents of {_latents(recipe.latents)}, decoded as they are"
    text = (
        f"{_SAMPLERS[recipe.sampler]}, {recipe.steps} step{_s(recipe.steps)}, guidance {recipe.guidance / MILLION:g}, "
        f"predicts {recipe.prediction}"
    )
    if recipe.sampler == "ddim" and recipe.eta:
        text += f", eta {recipe.eta / MILLION:g}"
    if recipe.start.stored is not None:
        text += f", stored latents of {_latents(recipe.start.stored)}"
    return text


def _stored_in_words(recipe: SheetsRecipe) -> str:
    if recipe.per_sheet == 1:
        return f"stored images, {recipe.format.upper()}"
    return f"stored images, {recipe.format.upper()} sheets of {recipe.per_sheet} in {recipe.columns} columns"
