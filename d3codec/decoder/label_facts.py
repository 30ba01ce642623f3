"""What the labels of a file cost and say: bytes a label, entropy of the teacher, agreement with the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3codec.decoder.labels import GroupLabels
from d3codec.format.file import D3MFile
from d3codec.format.labels import LABEL_NAMES
from d3codec.format.manifest import label_rows

CLAIM = "label KL at T="  # keys of `about.claims` that the encoder writes


@dataclass(frozen=True)
class LabelFacts:
    """The labels of one group.

    codec: one of LABEL_NAMES; labels: their number; teacher_columns: logits of each, before those of other
    classes are dropped. Bytes of the whole group: payload (of the labels themselves), side (what has to be read before
    them), shipped (statistics that come with the package). entropy_nats: of the decoded labels at temperature 1, mean;
    agreement: share of the labels whose largest logit is that of their class.
    """

    group: int
    codec: str
    labels: int
    teacher_columns: int
    payload: int
    side: int
    shipped: int
    entropy_nats: float
    agreement: float

    def bytes_per_label(self) -> dict[str, float]:
        """Payload, side information and shipped statistics, each divided by the number of labels."""
        count = max(self.labels, 1)
        return {name: getattr(self, name) / count for name in ("payload", "side", "shipped")}


def label_facts(file: D3MFile, number: int) -> LabelFacts:
    """The labels of group `number`, all of them decoded, a piece at a time. Raises SectionError for damage."""
    group, classes = file.content.groups[number], file.content.classes.count
    record, count = group.labels, label_rows(group, classes)
    codec = LABEL_NAMES[record.kind]
    if record.kind == "h":
        return LabelFacts(number, codec, count, 0, 0, 0, 0, 0.0, 1.0)
    labels = GroupLabels(file, number)
    entropy = hits = 0.0
    for first, last in labels.pieces():
        logits = labels.logits(first, last)
        entropy += float(_entropy(logits).sum())
        hits += float((logits.argmax(axis=1) == labels.class_of(first, last)).sum())
    cost = _cost(file, number)
    return LabelFacts(
        number,
        codec,
        count,
        record.width,
        cost["payload"],
        cost["side"],
        cost["shipped"],
        entropy / count,
        hits / count,
    )


def recorded_divergences(file: D3MFile) -> dict[str, str]:
    """Mean KL divergences from the original labels that the encoder recorded: temperature -> nats, as it wrote them."""
    claims = (file.about.claims if file.about else None) or {}
    return {name.removeprefix(CLAIM): text for name, text in claims.items() if name.startswith(CLAIM)}


def _cost(file: D3MFile, number: int) -> dict[str, int]:
    stored = {size["name"]: size["bytes"] for size in file.section_sizes() if size["group"] == number}
    if file.content.groups[number].labels.kind == "r":
        from d3codec import labels

        cost: dict[str, int] = dict(labels.label_cost(file.section("lab", number)))
    else:
        cost = {"payload": stored["lab"], "side": 0, "shipped": 0}
    return cost | {"side": cost["side"] + stored.get("col", 0)}


def _entropy(logits: np.ndarray) -> np.ndarray:
    """Of softmax(logits [N, classes]), in nats: float64 [N]."""
    below = logits.astype(np.float64)
    below -= below.max(axis=1, keepdims=True)
    powers = np.exp(below)
    total = powers.sum(axis=1)
    entropies: np.ndarray = np.log(total) - (powers * below).sum(axis=1) / total
    return entropies
