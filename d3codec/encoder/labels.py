"""Teacher logits -> the record of a group's labels, their sections, and what was lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3codec.decoder.label_facts import CLAIM
from d3codec.decoder.labels import decode_labels
from d3codec.encoder.relabel import divergence
from d3codec.errors import TeacherError, UsageError
from d3codec.format import limits
from d3codec.format.manifest import (
    AdaptiveLabels,
    HardLabels,
    Labels,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    SoftLabels,
    TopkLabels,
)
from d3codec.labels import quantized, raw16, topk
from d3codec.labels.rows import checked

KINDS = ("hard", "int8", "fp16", "top-k", "ranked-head", "adaptive")
STEPPED = ("int8", "adaptive")
TOPK_BYTES = 40.0  # ten of a thousand classes
ADAPTIVE_STEP = 200  # coarser costs students accuracy, finer costs bytes
TEMPERATURES = (1, 4, 20)
_MOST_BYTES = 1 << 16  # a label, where the default is raised until it is possible


@dataclass(frozen=True)
class LabelChoice:
    """How labels are to be stored.

    kind: one of KINDS. step: in 1/256 nat, of int8 (None for the finest that fits) and adaptive (None for
    ADAPTIVE_STEP, or with bytes the finest that fits). bytes: at most so many a label, of top-k, ranked-head and
    adaptive; None for TOPK_BYTES and `default_bytes`.
    """

    kind: str = "ranked-head"
    step: int | None = None
    bytes: float | None = None

    def problem(self) -> tuple[str, str] | None:
        """The field that does not fit the kind, and what is expected; None if all is good."""
        if self.kind not in KINDS:
            return "labels", ", ".join(KINDS)
        if self.step is not None and not (self.kind in STEPPED and 1 <= self.step <= limits.LABEL_STEP):
            return "label_step", f"1 to {limits.LABEL_STEP}, with labels int8 or adaptive alone"
        if self.bytes is None:
            return None
        if self.kind not in ("top-k", "ranked-head", "adaptive"):
            return "label_bytes", "nothing but with labels top-k, ranked-head or adaptive (int8 takes a label step)"
        if self.step is not None:
            return "label_bytes", "either a label step or bytes a label"
        return None if 0 < self.bytes < float("inf") else ("label_bytes", "a number above 0")


@dataclass(frozen=True)
class StoredLabels:
    """The record of the labels, their sections by name (`col`, `lab`; none with hard labels), and the KL divergence
    of the stored from the teacher's labels at each of TEMPERATURES: mean, in nats."""

    record: Labels
    sections: dict[str, bytes]
    divergences: dict[int, float]

    def claims(self) -> dict[str, str]:
        """What `about` says of them."""
        return {f"{CLAIM}{temperature}": f"{value:.4g}" for temperature, value in self.divergences.items()}


def default_kind(classes: int) -> str:
    """The kind that holds labels of so many classes best."""
    return "adaptive" if classes <= limits.ADAPTIVE_WIDTH else "ranked-head"


def default_bytes(classes: int) -> float:
    """Bytes a label of ranked-head that students of so many classes hardly tell from more: 2 of 10, 10 of 100."""
    return min(10.0, 1 + classes / 10)


def store_labels(
    logits: np.ndarray, classes: np.ndarray, choice: LabelChoice, columns: np.ndarray | None = None
) -> StoredLabels:
    """Encode the labels of a group.

    Arguments:
        logits: float [N, width], the teacher's, in order of class, image and patch.
        classes: int [N], the class position of each row.
        choice: kind and rate.
        columns: int [classes of the dataset], the teacher's column of each class, if its columns are not the classes
            themselves in their order.

    Raises:
        TeacherError: rows that no label can be made of: not finite, or one logit for all classes.
        UsageError: a choice that does not fit these logits.
    """
    if problem := choice.problem():
        raise UsageError(
            "labels that cannot be", field=problem[0], found=_given(choice, problem[0]), expected=problem[1]
        )
    if choice.kind == "hard":
        return StoredLabels(HardLabels(), {}, {})
    try:
        values = checked(logits)
    except ValueError as error:
        raise TeacherError("the teacher's logits cannot be labels", found=str(error)) from error
    of_row = classes if columns is None else np.asarray(columns)[classes]
    try:
        record, data = _encode(values, of_row, choice, None if columns is None else "col")
    except ValueError as error:
        field = "labels" if choice.kind == "adaptive" and choice.bytes is None else "label_bytes"
        field = "label_step" if choice.kind == "int8" else field
        raise UsageError(
            f"labels {choice.kind} that do not fit the teacher's logits", field=field, found=str(error)
        ) from error
    sections = {} if columns is None else {"col": np.asarray(columns).astype("<u4").tobytes()}
    return StoredLabels(record, sections | {"lab": data}, _divergences(values, record, data, of_row))


def _given(choice: LabelChoice, field: str) -> object:
    return {"labels": choice.kind, "label_step": choice.step, "label_bytes": choice.bytes}[field]


def _encode(
    logits: np.ndarray, classes: np.ndarray, choice: LabelChoice, columns: str | None
) -> tuple[SoftLabels, bytes]:
    shared = {"width": logits.shape[1], "columns": columns}
    if choice.kind == "int8":
        finest = quantized.choose_step(logits)
        step = finest if choice.step is None else choice.step
        if step < finest:
            raise ValueError(f"a step of {step}/256 nat, int8 needs at least {finest}")
        return QuantizedLabels(step=step, **shared), quantized.encode(logits, step)
    if choice.kind == "fp16":
        return Raw16Labels(**shared), raw16.encode(logits)
    if choice.kind == "top-k":
        k = _k(logits.shape[1], TOPK_BYTES if choice.bytes is None else choice.bytes)
        return TopkLabels(kept=k, **shared), topk.encode(logits, k)
    if choice.kind == "adaptive":
        return AdaptiveLabels(**shared), _adaptive(logits, classes, choice)
    return RankedHeadLabels(**shared), _ranked_head(logits, classes, choice.bytes)


def _adaptive(logits: np.ndarray, classes: np.ndarray, choice: LabelChoice) -> bytes:
    from d3codec.labels import adaptive

    if logits.shape[1] > limits.ADAPTIVE_WIDTH:
        raise ValueError(f"{logits.shape[1]} columns, adaptive labels have at most {limits.ADAPTIVE_WIDTH}")
    if choice.bytes is not None:
        return adaptive.encode_bytes(logits, classes, choice.bytes)
    return adaptive.encode(logits, classes, step=choice.step or ADAPTIVE_STEP)


def _k(width: int, label_bytes: float) -> int:
    each = topk.row_bytes(width, 1)
    if label_bytes < each:
        raise ValueError(f"{label_bytes:g} bytes a label, a logit and its column take {each}")
    return min(width, topk.MAX_K, int(label_bytes / each))


def _ranked_head(logits: np.ndarray, classes: np.ndarray, label_bytes: float | None) -> bytes:
    """With no wish of the caller's the default, raised where so few labels cannot carry what comes before them."""
    from d3codec import labels

    wanted = default_bytes(logits.shape[1]) if label_bytes is None else label_bytes
    while True:
        try:
            data: bytes = labels.encode_logits(logits, classes=classes, bytes_per_label=wanted)
            return data
        except ValueError:
            if label_bytes is not None or wanted > _MOST_BYTES:
                raise
            wanted *= 2


def _divergences(logits: np.ndarray, record: SoftLabels, data: bytes, classes: np.ndarray) -> dict[int, float]:
    stored = decode_labels(record, data, classes)
    step = max(1, (1 << 21) // logits.shape[1])
    sums = dict.fromkeys(TEMPERATURES, 0.0)
    for first in range(0, len(logits), step):
        rows = slice(first, first + step)
        for temperature in TEMPERATURES:
            mean = divergence(logits[rows] / temperature, stored[rows] / temperature)
            sums[temperature] += mean * len(logits[rows])
    return {temperature: max(0.0, total / max(len(logits), 1)) for temperature, total in sums.items()}
