"""Records of what a row gives to the generator: spec/d3m-1.0.md section 3.3."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from d3codec.format import limits
from d3codec.format.fields import Bits, Width, check_row, listed, tagged
from d3codec.format.record import MEMBER, Record

TokenId = Annotated[int, Field(ge=0, le=limits.TOKEN_ID)]
TokenIds = Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=limits.TOKENS), listed]
PaddedLength = Annotated[int, Field(ge=1, le=limits.TOKENS)]
Slot = Annotated[int, Field(ge=0, lt=limits.TOKENS)]
TimeId = Annotated[int, Field(ge=0, le=limits.TIME_ID)]
Rows = Annotated[Literal["class", "image"], Field(alias="r")]
Coded = Annotated[bool, Field(alias="e")]
Negative = Annotated[
    Annotated[TokenIds, Tag("=ids")] | Annotated[Literal["zeros"], Tag("=zeros")],
    Discriminator(lambda value: f"{MEMBER}ids" if isinstance(value, (list, tuple)) else f"{MEMBER}zeros"),
]


class SecondEncoder(Record):
    """What a generator with two text encoders needs besides: the same ids enter both.

    pad_id: pads the ids of the second; time_ids: original height and width, crop top and left, target height and
    width; width: of the second encoder's embeddings in the rows (0 where rows hold ids).
    """

    pad_id: Annotated[TokenId, Field(alias="p")]
    time_ids: Annotated[tuple[TimeId, TimeId, TimeId, TimeId, TimeId, TimeId], Field(alias="t"), listed]
    width: Annotated[int, Field(alias="w", ge=0, le=limits.WIDTH)]


class _Text(Record):
    """What all kinds that enter text encoders share. negative: ids, "zeros" (of both encoders' outputs), or None."""

    negative: Annotated[Negative | None, Field(alias="n")]
    padding: Annotated[tuple[TokenId, PaddedLength], Field(alias="p"), listed]
    rows: Rows = "class"
    second: Annotated[SecondEncoder | None, Field(alias="x")] = None

    @model_validator(mode="after")
    def _negative_fits(self) -> Self:
        if isinstance(self.negative, tuple) and len(self.negative) > self.padding[1]:
            raise ValueError("negative ids must fit the padded length")
        return self


class _Template(_Text):
    """A template of token ids with slots, which a row fills."""

    template: Annotated[TokenIds, Field(alias="i")]
    slots: Annotated[tuple[Slot, ...], Field(alias="s", min_length=1, max_length=limits.SLOTS), listed]

    @model_validator(mode="after")
    def _template_fits(self) -> Self:
        if any(later <= slot for slot, later in zip(self.slots, self.slots[1:], strict=False)):
            raise ValueError("slots must be strictly ascending")
        if self.slots[-1] >= len(self.template):
            raise ValueError("slots must lie in the template")
        if len(self.template) > self.padding[1]:
            raise ValueError("the template must fit the padded length")
        return self


class DeltaConditioning(_Template):
    """Learned: a slot holds `width` quantized differences, of `bits` bits, to the embedding of a token.

    coded: the rows are entropy-coded, in a section of free length, with at most `bits` bits a value.
    """

    kind: Annotated[Literal["delta"], Field(alias="k")] = "delta"
    initial_token: Annotated[TokenId, Field(alias="a")]
    bits: Annotated[Bits, Field(alias="b")]
    coded: Coded = False
    width: Annotated[Width, Field(alias="w")]

    @model_validator(mode="after")
    def _both_encoders(self) -> Self:
        if self.second is not None and self.second.width == 0:
            raise ValueError("the second encoder needs a width")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the embeddings of each text encoder."""
        return (self.width,) if self.second is None else (self.width, self.second.width)


class WordsConditioning(_Template):
    """Token ids (u16) at the slots of the template."""

    kind: Annotated[Literal["words"], Field(alias="k")] = "words"

    @model_validator(mode="after")
    def _without_width(self) -> Self:
        _check_of_ids(self.second)
        return self


class TokensConditioning(_Text):
    """Whole sequences of token ids (u16), begin and end included, each of its own length."""

    kind: Annotated[Literal["tokens"], Field(alias="k")] = "tokens"

    @model_validator(mode="after")
    def _without_width(self) -> Self:
        _check_of_ids(self.second)
        return self


class VectorsConditioning(Record):
    """Hidden states [slots, width] for the denoiser. negative: "zeros", "row" (one more row, the last), or None.

    coded: as of DeltaConditioning.
    """

    kind: Annotated[Literal["vectors"], Field(alias="k")] = "vectors"
    bits: Annotated[Bits, Field(alias="b")]
    coded: Coded = False
    negative: Annotated[Literal["zeros", "row"] | None, Field(alias="n")]
    rows: Rows = "class"
    slots: Annotated[int, Field(alias="s", ge=1, le=limits.TOKENS)]
    width: Annotated[Width, Field(alias="w")]

    @model_validator(mode="after")
    def _fits_a_part(self) -> Self:
        check_row(self.slots * self.width, self.bits)
        return self


class ClassIdConditioning(Record):
    """Class ids of the denoiser. negative: the id that stands for no class, or None."""

    kind: Annotated[Literal["class-id"], Field(alias="k")] = "class-id"
    negative: Annotated[Annotated[int, Field(ge=0, le=limits.CLASS_ID)] | None, Field(alias="n")]
    rows: Annotated[Literal["class"], Field(alias="r")] = "class"


class NoConditioning(Record):
    """Nothing is given: the images are decoded from what is stored, by no denoiser."""

    kind: Annotated[Literal["none"], Field(alias="k")] = "none"

    @property
    def negative(self) -> None:
        """There is no unconditional branch."""
        return None


Conditioning = Annotated[
    Annotated[DeltaConditioning, Tag("=delta")]
    | Annotated[WordsConditioning, Tag("=words")]
    | Annotated[TokensConditioning, Tag("=tokens")]
    | Annotated[VectorsConditioning, Tag("=vectors")]
    | Annotated[ClassIdConditioning, Tag("=class-id")]
    | Annotated[NoConditioning, Tag("=none")],
    tagged("k", "kind"),
]


def _check_of_ids(second: SecondEncoder | None) -> None:
    if second is not None and second.width != 0:
        raise ValueError("the second encoder has width 0 where rows hold token ids")
