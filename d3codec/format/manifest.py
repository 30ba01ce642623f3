"""The records of the manifest: spec/d3m-0.1.md section 3. Attribute names are long, wire keys are the spec's.

Every record is complete and immutable, every number and string is bounded. Building one from bad values, a
file's or a caller's, raises ManifestError and never pydantic's ValidationError.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, model_validator

from d3codec.format import limits
from d3codec.format.record import FROM_WIRE, MEMBER, Record


def _clean(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("control characters and surrogates are not allowed")
    return text


def _short(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if not 1 <= len(_clean(text).encode()) <= limit:
            raise ValueError(f"must be 1 to {limit} bytes of UTF-8")
        return text

    return AfterValidator(check)


_listed = BeforeValidator(lambda value: tuple(value) if type(value) is list else value)

Name = Annotated[str, _short(limits.NAME_BYTES)]
Text = Annotated[str, _short(limits.TEXT_BYTES)]
Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
Digests = Annotated[tuple[Digest, ...], Field(min_length=1), _listed]
OneOrMoreDigests = Annotated[
    Annotated[Digest, Tag("=one")] | Annotated[Digests, Tag("=more")],
    Discriminator(lambda value: f"{MEMBER}more" if isinstance(value, (list, tuple)) else f"{MEMBER}one"),
]
Millionths = Annotated[int, Field(ge=0, le=limits.MILLION)]
Side = Annotated[int, Field(ge=1, le=limits.SIDE)]
Sides = Annotated[tuple[Side, Side], _listed]
TokenId = Annotated[int, Field(ge=0, le=limits.TOKEN_ID)]
TokenIds = Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=limits.TOKENS), _listed]
PaddedLength = Annotated[int, Field(ge=1, le=limits.TOKENS)]
Slot = Annotated[int, Field(ge=0, lt=limits.TOKENS)]
Beta = Annotated[int, Field(ge=1, le=limits.BETA)]
TrainingSteps = Annotated[int, Field(ge=1, le=limits.TRAINING_STEPS)]
Offset = Annotated[int, Field(ge=0, lt=limits.TRAINING_STEPS)]
RawLength = Annotated[int, Field(ge=0, le=limits.PART_BYTES)]
RawLengths = Annotated[tuple[RawLength, ...], Field(min_length=1), _listed]


class Classes(Record):
    """Authority of the class ids and number of classes."""

    authority: Annotated[Name, Field(alias="a")]
    count: Annotated[int, Field(alias="n", ge=1, le=limits.CLASSES)]


class Images(Record):
    """Grid (rows, columns) of the collage, `count` images a class, size (height, width) in pixels."""

    candidates: Annotated[Literal["index"], Field(alias="c")] = "index"
    grid: Annotated[Sides, Field(alias="g")]
    count: Annotated[int, Field(alias="n", ge=1, le=limits.IMAGES_PER_CLASS)]
    size: Annotated[Sides, Field(alias="s")]

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.size[0] % self.grid[0] or self.size[1] % self.grid[1]:
            raise ValueError("size must be a multiple of the grid")
        return self


class _Template(Record):
    """What both kinds of conditioning share: a template of token ids with slots, and its padding."""

    enters: Annotated[Literal["text"], Field(alias="e")] = "text"
    template: Annotated[TokenIds, Field(alias="i")]
    negative: Annotated[TokenIds | None, Field(alias="n")]
    padding: Annotated[tuple[TokenId, PaddedLength], Field(alias="p"), _listed]
    rows: Annotated[Literal["class"], Field(alias="r")] = "class"
    slots: Annotated[tuple[Slot, ...], Field(alias="s", min_length=1, max_length=limits.SLOTS), _listed]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(later <= slot for slot, later in zip(self.slots, self.slots[1:], strict=False)):
            raise ValueError("slots must be strictly ascending")
        if self.slots[-1] >= len(self.template):
            raise ValueError("slots must lie in the template")
        if self.padding[1] < max(len(self.template), len(self.negative or ())):
            raise ValueError("template and negative ids must fit the padded length")
        return self


class DeltaConditioning(_Template):
    """Learned: a slot holds `width` quantized differences, of `bits` bits, to the embedding of a token."""

    kind: Annotated[Literal["delta"], Field(alias="k")] = "delta"
    initial_token: Annotated[TokenId, Field(alias="a")]
    bits: Annotated[int, Field(alias="b", ge=1, le=limits.BITS)]
    width: Annotated[int, Field(alias="w", ge=1, le=limits.WIDTH)]


class WordsConditioning(_Template):
    """Token ids (u16) at the slots of the template."""

    kind: Annotated[Literal["words"], Field(alias="k")] = "words"


class Recipe(Record):
    """How a latent is sampled. Integers; real parameters in millionths (guidance 2000000 = 2.0)."""

    betas: Annotated[tuple[Literal["linear", "scaled"], Beta, Beta, TrainingSteps], Field(alias="b"), _listed]
    eta: Annotated[int, Field(alias="e", ge=0, le=0)] = 0
    final_alpha: Annotated[Literal["first", "one"], Field(alias="f")]
    guidance: Annotated[int, Field(alias="g", ge=0, le=limits.GUIDANCE)]
    steps: Annotated[int, Field(alias="n", ge=1, le=limits.STEPS)]
    prediction: Annotated[Literal["eps", "v", "sample"], Field(alias="p")]
    sampler: Annotated[Literal["ddim"], Field(alias="s")] = "ddim"
    timesteps: Annotated[tuple[Literal["leading"], Offset], Field(alias="t"), _listed]
    start: Annotated[tuple[Millionths, Millionths], Field(alias="z"), _listed] = (0, limits.MILLION)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        count = self.betas[3]
        if self.steps > count:
            raise ValueError("more steps than training steps")
        if (self.steps - 1) * (count // self.steps) + self.timesteps[1] >= count:
            raise ValueError("the offset moves the first timestep beyond the training steps")
        if self.start != (0, limits.MILLION):
            raise ValueError(f"start must be (0, {limits.MILLION}) in version 0.1")
        return self


class HardLabels(Record):
    """The class itself is the label; there is no section."""

    kind: Annotated[Literal["h"], Field(alias="k")] = "h"


class QuantizedLabels(Record):
    """Teacher logits as int8 rows of `width` values in units of `step` / 256 nat."""

    kind: Annotated[Literal["q"], Field(alias="k")] = "q"
    step: Annotated[int, Field(alias="s", ge=1, le=limits.LABEL_STEP)]
    width: Annotated[int, Field(alias="w", ge=1, le=limits.CLASSES)]


def _kind(value: Any) -> Any:
    kind = value.get("k", value.get("kind")) if isinstance(value, dict) else getattr(value, "kind", None)
    return f"{MEMBER}{kind}"


_tagged = Discriminator(_kind, custom_error_type="kind", custom_error_message="a known kind")
Conditioning = Annotated[
    Annotated[DeltaConditioning, Tag("=delta")] | Annotated[WordsConditioning, Tag("=words")], _tagged
]
Labels = Annotated[Annotated[HardLabels, Tag("=h")] | Annotated[QuantizedLabels, Tag("=q")], _tagged]


class Group(Record):
    """Images of one generator and recipe. `generator` is its 32-byte id, `noise_key` 64 bit."""

    conditioning: Annotated[Conditioning, Field(alias="c")]
    cast: Annotated[Literal["f16", "stored"], Field(alias="d")]
    generator: Annotated[Digest, Field(alias="g")]
    images: Annotated[Images, Field(alias="i")]
    noise_key: Annotated[int, Field(alias="k", ge=0, le=limits.NOISE_KEY)]
    labels: Annotated[Labels, Field(alias="l")]
    recipe: Annotated[Recipe, Field(alias="r")]

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.conditioning.negative is None and self.recipe.guidance != limits.MILLION:
            raise ValueError("guidance other than 1.0 needs negative ids")
        return self


class SectionEntry(Record):
    """A critical section: name, index of its group (None: the dataset), raw length of each of its parts."""

    name: Name
    group: Annotated[int, Field(ge=0, lt=limits.GROUPS)] | None
    raw_lengths: RawLengths

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is not FROM_WIRE:
            return value
        if type(value) is not list or len(value) < 3:
            raise ValueError("must be a list of name, group and raw lengths")
        return {"name": value[0], "group": value[1], "raw_lengths": value[2:]}

    def to_wire(self) -> list[Any]:
        return [self.name, self.group, *self.raw_lengths]


class AncillaryEntry(Record):
    """An ancillary section: name that begins with x-, raw length of each of its parts."""

    name: Name
    raw_lengths: RawLengths

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is not FROM_WIRE:
            return value
        if type(value) is not list or len(value) < 2:
            raise ValueError("must be a list of name and raw lengths")
        return {"name": value[0], "raw_lengths": value[1:]}

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.name.startswith("x-"):
            raise ValueError("names of ancillary sections begin with x-")
        return self

    def to_wire(self) -> list[Any]:
        return [self.name, *self.raw_lengths]


class Content(Record):
    """All that decides pixels and labels; its canonical bytes give the content id."""

    classes: Annotated[Classes, Field(alias="c")]
    groups: Annotated[tuple[Group, ...], Field(alias="g", min_length=1, max_length=limits.GROUPS), _listed]
    digests: Annotated[OneOrMoreDigests, Field(alias="h")]
    profile: Annotated[Literal["reproducible"], Field(alias="p")] = "reproducible"
    sections: Annotated[tuple[SectionEntry, ...], Field(alias="s", min_length=1), _listed]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lengths = [length for section in self.sections for length in section.raw_lengths]
        if (sum(lengths) <= limits.ONE_DIGEST_BYTES) != isinstance(self.digests, bytes):
            raise ValueError(f"one digest up to {limits.ONE_DIGEST_BYTES} raw bytes, one a part above")
        if isinstance(self.digests, tuple) and len(self.digests) != len(lengths):
            raise ValueError("as many digests as parts are needed")
        for group in self.groups:
            if isinstance(group.labels, QuantizedLabels) and group.labels.width != self.classes.count:
                raise ValueError("label width must be the number of classes")
        return self


Ancillary = Annotated[tuple[AncillaryEntry, ...], Field(min_length=1), _listed]
Claims = Annotated[dict[Text, Text], Field(max_length=limits.CLAIMS)]


class About(Record):
    """What changes no pixel and no label: every field may be None, which leaves it out."""

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


class PlannedSection(NamedTuple):
    """A section that the records call for: `rows` of `row_bytes` bytes each, or None for text."""

    name: str
    group: int | None
    rows: int | None
    row_bytes: int | None


class Plannable(Protocol):
    """What section_plan needs of a Content or of a draft of one."""

    @property
    def classes(self) -> Classes: ...
    @property
    def groups(self) -> tuple[Group, ...]: ...


def section_plan(content: Plannable) -> list[PlannedSection]:
    """The critical sections in file order, with their sizes (spec sections 3.1 and 5)."""
    classes = content.classes.count
    plan = [PlannedSection("cls", None, None, None)]
    for number, group in enumerate(content.groups):
        conditioning, labels = group.conditioning, group.labels
        slots = len(conditioning.slots)
        if isinstance(conditioning, DeltaConditioning):
            row_bytes = 2 + -(-slots * conditioning.width * conditioning.bits // 8)
            plan.append(PlannedSection("emb", number, classes, row_bytes))
        else:
            plan.append(PlannedSection("wrd", number, classes, 2 * slots))
        if isinstance(labels, QuantizedLabels):
            rows = classes * group.images.count * group.images.grid[0] * group.images.grid[1]
            plan.append(PlannedSection("lab", number, rows, labels.width))
    return plan


def part_count(rows: int, row_bytes: int) -> int:
    """Number of parts into which a section of fixed rows is cut."""
    return -(-rows // max(1, limits.CUT_BYTES // row_bytes))


def part_lengths(rows: int, row_bytes: int) -> list[int]:
    """Raw lengths of these parts."""
    rows_a_part = max(1, limits.CUT_BYTES // row_bytes)
    return [min(rows_a_part, rows - first) * row_bytes for first in range(0, rows, rows_a_part)]
