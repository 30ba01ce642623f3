"""The records of the manifest: spec/d3m-1.0.md section 3. Attribute names are long, wire keys are the spec's.

Every record is complete and immutable, every number and string is bounded. Building one from bad values, a
file's or a caller's, raises ManifestError and never pydantic's ValidationError.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, Tag, model_validator

from d3codec.format import limits
from d3codec.format.conditioning import (
    ClassIdConditioning,
    Conditioning,
    DeltaConditioning,
    NoConditioning,
    SecondEncoder,
    TokensConditioning,
    VectorsConditioning,
    WordsConditioning,
)
from d3codec.format.fields import Digest, FreeLength, Name, OneOrMoreDigests, RawLengths, Text, listed, tagged
from d3codec.format.images import GddAugmentation, Images, Window
from d3codec.format.labels import (
    AdaptiveLabels,
    HardLabels,
    Labels,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    SoftLabels,
    TopkLabels,
    label_row_bytes,
)
from d3codec.format.plan import (
    PlannedSection,
    coded_values,
    conditioning_rows,
    critical_parts,
    label_rows,
    part_count,
    part_lengths,
    row_section,
    section_plan,
)
from d3codec.format.recipe import (
    BLOCKS,
    TRANSFORM,
    VALUES,
    DdimRecipe,
    DecodeRecipe,
    EulerRecipe,
    Recipe,
    ReinjectRecipe,
    SheetsRecipe,
    Start,
    StoredLatents,
)
from d3codec.format.record import ListRecord, Record

__all__ = [
    "BLOCKS",
    "REPRODUCIBLE",
    "TRANSFORM",
    "VALUES",
    "About",
    "AdaptiveLabels",
    "AncillaryEntry",
    "ClassIdConditioning",
    "Classes",
    "Conditioning",
    "Content",
    "DdimRecipe",
    "DecodeRecipe",
    "DeltaConditioning",
    "EulerRecipe",
    "Exact",
    "ExactFixed",
    "GddAugmentation",
    "Group",
    "HardLabels",
    "Images",
    "Labels",
    "Manifest",
    "NoConditioning",
    "PlannedSection",
    "Profile",
    "QuantizedLabels",
    "RankedHeadLabels",
    "Raw16Labels",
    "Recipe",
    "ReinjectRecipe",
    "Reproducible",
    "SecondEncoder",
    "SheetsRecipe",
    "SoftLabels",
    "Start",
    "StoredLatents",
    "TokensConditioning",
    "TopkLabels",
    "VectorsConditioning",
    "Window",
    "WordsConditioning",
    "conditioning_rows",
    "label_rows",
    "lossy",
    "part_count",
    "part_lengths",
    "row_section",
    "section_plan",
]


class Classes(Record):
    """Authority of the class ids and number of classes."""

    authority: Annotated[Name, Field(alias="a")]
    count: Annotated[int, Field(alias="n", ge=1, le=limits.CLASSES)]


class Group(Record):
    """Images of one generator and recipe. `generator` is its 32-byte id, None where the images themselves are stored;
    `noise_key` 64 bit.

    `outside_bytes`: size of what the generator needs for this dataset alone (LoRA, fine-tuned weights).
    """

    conditioning: Annotated[Conditioning, Field(alias="c")]
    cast: Annotated[Literal["f16", "stored"], Field(alias="d")]
    generator: Annotated[Digest | None, Field(alias="g")]
    images: Annotated[Images, Field(alias="i")]
    noise_key: Annotated[int, Field(alias="k", ge=0, le=limits.NOISE_KEY)]
    labels: Annotated[Labels, Field(alias="l")]
    outside_bytes: Annotated[int, Field(alias="o", ge=0, le=limits.OUTSIDE_BYTES)] = 0
    recipe: Annotated[Recipe, Field(alias="r")]

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.conditioning.negative is None and self.recipe.guidance != limits.MILLION:
            raise ValueError("guidance other than 1.0 needs a negative")
        return self

    @model_validator(mode="after")
    def _denoised_or_stored(self) -> Self:
        stored = isinstance(self.recipe, DecodeRecipe | SheetsRecipe)
        if stored != isinstance(self.conditioning, NoConditioning):
            raise ValueError("conditioning none stands with recipes decode and stored, and with no other")
        if stored and self.images.candidates is not None:
            raise ValueError("stored images have no candidates")
        if isinstance(self.recipe, SheetsRecipe) != (self.generator is None):
            raise ValueError("the generator is nil exactly if the images themselves are stored")
        if isinstance(self.recipe, SheetsRecipe):
            if self.cast != "stored" or self.outside_bytes:
                raise ValueError("stored images have the cast `stored` and no bytes outside")
            height, width = self.images.generated
            sides = -(-self.recipe.per_sheet // self.recipe.columns) * height, self.recipe.columns * width
            if max(sides) > limits.SHEET_SIDE or sides[0] * sides[1] > limits.SHEET_PIXELS:
                raise ValueError(f"a sheet has at most {limits.SHEET_SIDE} pixels a side and 2^26 in all")
        return self


class Reproducible(Record):
    """The same pixels under one fingerprint; `about` may state both."""

    name: Annotated[Literal["reproducible"], Field(alias="k")] = "reproducible"


REPRODUCIBLE = Reproducible()


class Exact(Record):
    """The same pixels everywhere: `pixels` is their digest, `corrections` the number of entries of section `fix`."""

    name: Annotated[Literal["exact"], Field(alias="k")] = "exact"
    pixels: Annotated[Digest, Field(alias="d")]
    corrections: Annotated[int, Field(alias="f", ge=0, le=limits.CORRECTIONS)]


class ExactFixed(Record):
    """The same pixels everywhere by arithmetic on a fixed grid: `pixels` is their digest."""

    name: Annotated[Literal["exact-fixed"], Field(alias="k")] = "exact-fixed"
    pixels: Annotated[Digest, Field(alias="d")]


Profile = Annotated[
    Annotated[Reproducible, Tag("=reproducible")]
    | Annotated[Exact, Tag("=exact")]
    | Annotated[ExactFixed, Tag("=exact-fixed")],
    tagged("k", "name"),
]


class Content(Record):
    """All that decides pixels and labels; its canonical bytes give the content id.

    `lengths`: raw lengths of the sections whose length does not follow from the records, in file order.
    """

    classes: Annotated[Classes, Field(alias="c")]
    groups: Annotated[tuple[Group, ...], Field(alias="g", min_length=1, max_length=limits.GROUPS), listed]
    digests: Annotated[OneOrMoreDigests, Field(alias="h")]
    profile: Annotated[Profile, Field(alias="p")] = REPRODUCIBLE
    lengths: Annotated[tuple[FreeLength, ...], Field(alias="s"), listed]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for group in self.groups:
            self._check_labels(group)
        if max(coded_values(self), default=0) > limits.CODED_VALUES:
            raise ValueError(f"a coded section has at most {limits.CODED_VALUES} values")
        if self.profile.name != "reproducible" and any(lossy(group) for group in self.groups):
            raise ValueError("images stored as AVIF or WebP are reproducible at best")
        plan = section_plan(self)
        free = [section.name for section in plan if section.rows is None]
        if len(self.lengths) != len(free):
            raise ValueError(f"one length is needed for each of {', '.join(free)}")
        for name, length in zip(free, self.lengths, strict=True):
            if name in ("cls", "fix") and length > limits.WHOLE_BYTES:
                raise ValueError(f"{name} has at most {limits.WHOLE_BYTES} bytes")
        fixed = [(section.rows, section.row_bytes) for section in plan if section.rows and section.row_bytes]
        total = sum(self.lengths) + sum(rows * size for rows, size in fixed)
        if (total <= limits.ONE_DIGEST_BYTES) != isinstance(self.digests, bytes):
            raise ValueError(f"one digest up to {limits.ONE_DIGEST_BYTES} raw bytes, one a part above")
        if isinstance(self.digests, tuple) and len(self.digests) != critical_parts(plan, self.lengths):
            raise ValueError("as many digests as parts are needed")
        return self

    def _check_labels(self, group: Group) -> None:
        labels, classes = group.labels, self.classes.count
        if isinstance(labels, HardLabels):
            return
        if labels.columns is None and labels.width != classes:
            raise ValueError("without columns the label width must be the number of classes")
        if labels.width < classes:
            raise ValueError("every class needs a column of its own")
        if label_row_bytes(labels) is None and label_rows(group, classes) > limits.LABEL_ROWS:
            raise ValueError(f"at most {limits.LABEL_ROWS} labels can be of kind {labels.kind}")


def lossy(group: Group) -> bool:
    """Whether its images are stored in a format that other versions of a library may decode to other pixels."""
    return isinstance(group.recipe, SheetsRecipe) and group.recipe.format != "png"


class AncillaryEntry(ListRecord):
    """An ancillary section: name that begins with x-, raw length of each of its parts."""

    _open: ClassVar[bool] = True

    name: Name
    raw_lengths: RawLengths

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.name.startswith("x-"):
            raise ValueError("names of ancillary sections begin with x-")
        return self


Ancillary = Annotated[tuple[AncillaryEntry, ...], Field(min_length=1), listed]
Weight = Annotated[int, Field(ge=1, le=limits.TRAINING_WEIGHT)]
Weights = Annotated[tuple[Weight, ...], Field(min_length=1, max_length=limits.GROUPS), listed]
Claims = Annotated[dict[Text, Text], Field(max_length=limits.CLAIMS)]


class About(Record):
    """What changes no pixel and no label: every field may be None, which leaves it out.

    `weights`: of each group, its recommended share of a batch in training.
    """

    _complete: ClassVar[bool] = False

    ancillary: Annotated[Ancillary | None, Field(alias="x")] = None
    citation: Annotated[Text | None, Field(alias="b")] = None
    claims: Annotated[Claims | None, Field(alias="c")] = None
    digest: Annotated[Digest | None, Field(alias="h")] = None
    fingerprint: Annotated[Text | None, Field(alias="f")] = None
    licence: Annotated[Text | None, Field(alias="l")] = None
    method: Annotated[Text | None, Field(alias="m")] = None
    pixels: Annotated[Digest | None, Field(alias="p")] = None
    source: Annotated[Text | None, Field(alias="s")] = None
    teacher: Annotated[Text | None, Field(alias="t")] = None
    weights: Annotated[Weights | None, Field(alias="w")] = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.fingerprint is None) != (self.pixels is None):
            raise ValueError("fingerprint and pixels stand together")
        if (self.ancillary is None) != (self.digest is None):
            raise ValueError("ancillary and digest stand together")
        names = [entry.name for entry in self.ancillary or ()]
        if len(set(names)) != len(names):
            raise ValueError("ancillary names must differ")
        return self


class Manifest(Record):
    """`content`, and `about` or None."""

    _complete: ClassVar[bool] = False

    about: Annotated[About | None, Field(alias="a")] = None
    content: Annotated[Content, Field(alias="c")]

    @model_validator(mode="after")
    def _one_digest_of_pixels(self) -> Self:
        if self.about is not None and self.about.pixels is not None and self.content.profile.name != "reproducible":
            raise ValueError("with an exact profile the pixel digest stands in content alone")
        return self

    @model_validator(mode="after")
    def _a_weight_a_group(self) -> Self:
        weights = None if self.about is None else self.about.weights
        if weights is not None and len(weights) != len(self.content.groups):
            raise ValueError("as many weights as groups are needed")
        return self
