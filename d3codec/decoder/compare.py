"""What differs between two files: records, sections, and how far their labels lie apart. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.values import check_coded_work
from d3codec.format.compare import (
    FieldDifference,
    SectionDifference,
    about_differences,
    content_differences,
    section_differences,
)
from d3codec.format.file import D3MFile
from d3codec.format.manifest import HardLabels

SAME_NATS = 1e-6  # a view may differ by as much


@dataclass(frozen=True)
class LabelDifference:
    """The labels of a group in two files: their number, how many differ by more than 1e-6 nats in any class, and the
    largest difference, both up to a constant a label."""

    group: int
    labels: int
    different: int
    largest_nats: float


@dataclass(frozen=True)
class Comparison:
    """Two files: `sections` are all that either has, `labels` the groups whose soft labels can be compared and are not
    stored in the same bytes."""

    files: tuple[str, str]
    content_ids: tuple[str, str]
    content: tuple[FieldDifference, ...]
    about: tuple[FieldDifference, ...]
    sections: tuple[SectionDifference, ...]
    labels: tuple[LabelDifference, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs but, perhaps, compression."""
        sections = all(section.verdict == "equal" for section in self.sections)
        return sections and not (self.content or self.about) and self.content_ids[0] == self.content_ids[1]

    def as_json(self) -> dict[str, Any]:
        return {
            "files": list(self.files),
            "same": self.same,
            "content_ids": list(self.content_ids),
            "content": [field.as_json() for field in self.content],
            "about": [field.as_json() for field in self.about],
            "sections": [section.as_json() for section in self.sections],
            "labels": [asdict(labels) for labels in self.labels],
        }


def compare(one: D3MFile, other: D3MFile, *, bounded: bool = True) -> Comparison:
    """All that differs between two files.

    Arguments:
        bounded: refuse labels that are more work than anybody expects.

    Raises FormatError for damage in either, UsageError for too much work.
    """
    content = tuple(content_differences(one.content, other.content))
    sections = tuple(section_differences(one, other))
    stored = {(section.name, section.group): section.verdict for section in sections}
    labels = []
    for number in _comparable(one, other):
        groups = [file.content.groups[number] for file in (one, other)]
        same = groups[0].labels == groups[1].labels and stored.get(("col", number), "equal") == "equal"
        if not same or stored["lab", number] != "equal":
            if bounded:
                for file in (one, other):
                    check_coded_work(file)
            labels.append(_apart(one, other, number))
    return Comparison(
        (one.path, other.path),
        (one.content_id, other.content_id),
        content,
        tuple(about_differences(one.about, other.about)),
        sections,
        tuple(labels),
    )


def _comparable(one: D3MFile, other: D3MFile) -> list[int]:
    """Groups that have soft labels of as many images, patches and classes in both files."""
    if one.content.classes.count != other.content.classes.count:
        return []
    pairs = zip(one.content.groups, other.content.groups, strict=False)
    return [
        number
        for number, (mine, theirs) in enumerate(pairs)
        if not isinstance(mine.labels, HardLabels)
        and not isinstance(theirs.labels, HardLabels)
        and (mine.images.count, mine.images.grid) == (theirs.images.count, theirs.images.grid)
    ]


def _apart(one: D3MFile, other: D3MFile, number: int) -> LabelDifference:
    mine, theirs = (GroupLabels(file, number) for file in (one, other))
    different, largest = 0, 0.0
    for first, last in mine.pieces():
        apart = _centred(mine.logits(first, last)) - _centred(theirs.logits(first, last))
        each = np.abs(apart).max(axis=1, initial=0)
        different += int((each > SAME_NATS).sum())
        largest = max(largest, float(each.max(initial=0)))
    return LabelDifference(number, mine.rows, different, largest)


def _centred(logits: np.ndarray) -> np.ndarray:
    """Less their mean, which says nothing: float64."""
    exact = logits.astype(np.float64)
    centred: np.ndarray = exact - exact.mean(axis=1, keepdims=True)
    return centred
