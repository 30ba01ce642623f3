"""Records of labels: spec/d3m-1.0.md section 3.5. What their rows mean is known to labels/."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationInfo, model_validator

from d3codec.format import limits
from d3codec.format.fields import tagged
from d3codec.format.record import FROM_WIRE, Record

Columns = Annotated[Literal["col"] | None, Field(alias="m")]
LabelWidth = Annotated[int, Field(alias="w", ge=1, le=limits.CLASSES)]


class HardLabels(Record):
    """The class itself is the label; there is no section."""

    kind: Annotated[Literal["h"], Field(alias="k")] = "h"


class QuantizedLabels(Record):
    """Teacher logits as int8 rows in units of `step` / 256 nat.

    `width`: columns of the teacher, of all kinds with logits. `columns`: None where column and class position are the
    same, "col" where a section says which column is whose.
    """

    kind: Annotated[Literal["q"], Field(alias="k")] = "q"
    columns: Columns = None
    step: Annotated[int, Field(alias="s", ge=1, le=limits.LABEL_STEP)]
    width: LabelWidth


class Raw16Labels(Record):
    """Teacher logits as float16 rows."""

    kind: Annotated[Literal["f"], Field(alias="k")] = "f"
    columns: Columns = None
    width: LabelWidth


class TopkLabels(Record):
    """The `k` largest logits of a row above what the rest share, with their columns.

    Made with `k=`; the attribute behind it is `kept`, since `k` is the key of `kind` on the wire.
    """

    kind: Annotated[Literal["t"], Field(alias="k")] = "t"
    columns: Columns = None
    kept: Annotated[int, Field(alias="n", ge=1, le=limits.TOPK)]
    width: LabelWidth

    @model_validator(mode="before")
    @classmethod
    def _named_k(cls, values: Any, info: ValidationInfo) -> Any:
        if info.context is not FROM_WIRE and type(values) is dict and "k" in values:
            return {"kept" if name == "k" else name: value for name, value in values.items()}
        return values

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> TopkLabels:
        if self.kept > self.width:
            raise ValueError("no more logits than columns can be kept")
        return self

    @property
    def k(self) -> int:
        """How many logits of a row are stored."""
        return self.kept

    @property
    def index_bytes(self) -> int:
        """Bytes of the number of a column."""
        return 2 if self.width <= limits.INDEX16_WIDTH else 4


class RankedHeadLabels(Record):
    """Teacher logits as one stream of free length (spec/labels.md)."""

    kind: Annotated[Literal["r"], Field(alias="k")] = "r"
    columns: Columns = None
    width: LabelWidth


class AdaptiveLabels(Record):
    """Teacher logits of few classes as one stream of free length, whose model learns as it goes (spec/labels.md)."""

    kind: Annotated[Literal["a"], Field(alias="k")] = "a"
    columns: Columns = None
    width: Annotated[int, Field(alias="w", ge=1, le=limits.ADAPTIVE_WIDTH)]


LABEL_NAMES = {"h": "hard", "q": "int8", "f": "fp16", "t": "top-k", "r": "ranked-head", "a": "adaptive"}
"""What people call the kinds."""

SoftLabels = QuantizedLabels | Raw16Labels | TopkLabels | RankedHeadLabels | AdaptiveLabels
Labels = Annotated[
    Annotated[HardLabels, Tag("=h")]
    | Annotated[QuantizedLabels, Tag("=q")]
    | Annotated[Raw16Labels, Tag("=f")]
    | Annotated[TopkLabels, Tag("=t")]
    | Annotated[RankedHeadLabels, Tag("=r")]
    | Annotated[AdaptiveLabels, Tag("=a")],
    tagged("k", "kind"),
]


def label_row_bytes(labels: SoftLabels) -> int | None:
    """Bytes of a row of section `lab`; None where it has free length."""
    if isinstance(labels, QuantizedLabels):
        return labels.width
    if isinstance(labels, Raw16Labels):
        return 2 * labels.width
    if isinstance(labels, TopkLabels):
        return labels.kept * (labels.index_bytes + 2)
    return None
