"""Records of the images of a group: spec/d3m-1.0.md section 3.2."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from d3codec.format import limits
from d3codec.format.fields import Side, Sides, listed
from d3codec.format.record import ListRecord, Record

Place = Annotated[int, Field(ge=0, lt=limits.SIDE)]


class Window(ListRecord):
    """The block (top, left, height, width) that is cut out of the `generated` (height, width) image."""

    generated: Sides
    block: Annotated[tuple[Place, Place, Side, Side], listed]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        top, left, height, width = self.block
        if top + height > self.generated[0] or left + width > self.generated[1]:
            raise ValueError("the block must lie in the generated image")
        return self


class GddAugmentation(Record):
    """Besides each source image, `copies` augmented copies of it, by the recipe of GDD (spec section 7)."""

    kind: Annotated[Literal["gdd"], Field(alias="k")] = "gdd"
    copies: Annotated[int, Field(alias="c", ge=1, le=limits.COPIES)]


class Images(Record):
    """Grid (rows, columns) of the collage, `count` images a class, size (height, width) in pixels.

    Without a window the generator makes images of `size`. `candidates` None: an image's candidate is the index of its
    source; else the bits of a choice among 2^candidates of them, which section `cnd` holds for each source.
    """

    augmentation: Annotated[GddAugmentation | None, Field(alias="a")] = None
    candidates: Annotated[int | None, Field(alias="c", ge=1, le=limits.CANDIDATE_BITS)] = None
    grid: Annotated[Sides, Field(alias="g")]
    count: Annotated[int, Field(alias="n", ge=1, le=limits.IMAGES_PER_CLASS)]
    size: Annotated[Sides, Field(alias="s")]
    window: Annotated[Window | None, Field(alias="w")] = None

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.size[0] % self.grid[0] or self.size[1] % self.grid[1]:
            raise ValueError("size must be a multiple of the grid")
        if self.count % (self.copies + 1):
            raise ValueError("the count must be a multiple of the source and its copies")
        if self.sources << (self.candidates or 0) > limits.CANDIDATES:
            raise ValueError("a class has at most 2^32 candidates")
        return self

    @property
    def copies(self) -> int:
        """Augmented copies of each source image."""
        return 0 if self.augmentation is None else self.augmentation.copies

    @property
    def sources(self) -> int:
        """Images a class that the generator makes."""
        return self.count // (self.copies + 1)

    @property
    def choice_bytes(self) -> int:
        """Bytes of a row of the section `cnd`: the choices of a class."""
        return -(-self.sources * (self.candidates or 0) // 8)

    @property
    def generated(self) -> tuple[int, int]:
        """Height and width of the images that the generator makes."""
        return self.size if self.window is None else self.window.generated
