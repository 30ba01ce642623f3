"""Stored labels of every kind: any rows of any group, in the order of the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from format.craft import Pieces, digits_draft, filled, group
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec import labels
from d3codec.dataset import Dataset, Selection
from d3codec.decoder import labels as module
from d3codec.decoder.label_facts import label_facts
from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.verify import verify
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.encoder.pack import changed
from d3codec.errors import SectionError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    Classes,
    HardLabels,
    Images,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    TopkLabels,
)
from d3codec.labels import quantized, raw16, topk

KINDS = ("q", "f", "t", "r")
FIXED = KINDS[:3]


def stored(
    kind: str, logits: np.ndarray, columns: str | None, column_of_row: np.ndarray
) -> tuple[Any, bytes, np.ndarray]:
    """Record, section and what a reader should see, float32 [rows, width]."""
    count, width = logits.shape
    if kind == "q":
        record: Any = QuantizedLabels(step=60, width=width, columns=columns)
        data = quantized.encode(logits, 60)
        return record, data, quantized.decode(data, count, width, 60).astype(np.float32)
    if kind == "f":
        data = raw16.encode(logits)
        return Raw16Labels(width=width, columns=columns), data, raw16.decode(data, count, width)
    if kind == "r":
        data = labels.encode_logits(
            logits, classes=column_of_row, bytes_per_label=60 if count * width < 5_000 else 12, statistics="none"
        )
        return RankedHeadLabels(width=width, columns=columns), data, labels.decode_logits(data, classes=column_of_row)
    k = min(4, width)
    data = topk.encode(logits, k)
    return TopkLabels(k=k, width=width, columns=columns), data, topk.decode(data, count, width, k)


def made(
    kind: str, classes: int, width: int, *, grid: tuple[int, int] = (2, 1), count: int = 3, permuted: bool = False
) -> tuple[D3MFile, np.ndarray, np.ndarray]:
    """A file of one group, all its logits as the teacher gave them, and the column of each class."""
    rng = np.random.default_rng(classes + width)
    rows = classes * count * grid[0] * grid[1]
    columns = rng.permutation(width)[:classes] if permuted else np.arange(classes)
    given = rng.normal(scale=3, size=(rows, width))
    record, data, logits = stored(kind, given, "col" if permuted else None, np.repeat(columns, rows // classes))
    images = Images(grid=grid, count=count, size=(32, 32))
    draft = ContentDraft(Classes(authority="none", count=classes), (group(labels=record, images=images),))
    sections = filled(draft) | {("lab", 0): data}
    if permuted:
        sections["col", 0] = columns.astype("<u4").tobytes()
    return D3MFile.open(write_d3m(draft, sections)), logits, columns


def dataset(file: D3MFile, **selection: Any) -> Dataset:
    return Dataset(file, "reproducible", replace(Selection(tuple(range(file.content.classes.count))), **selection))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("classes", "width", "permuted"),
    [(1, 1, False), (1, 1, True), (1, 7, True), (10, 10, False), (10, 10, True), (10, 1_000, True), (100, 100, True)],
)
def test_widths_and_columns(kind: str, classes: int, width: int, permuted: bool) -> None:
    file, logits, columns = made(kind, classes, width, permuted=permuted)
    data = dataset(file)
    found = data.labels.logits()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.reshape(len(logits), classes), logits[:, columns])
    np.testing.assert_array_equal(data.labels.logits(teacher_columns=True).reshape(logits.shape), logits)
    (info,) = data.groups
    assert (info.label_width, info.teacher_columns) == (classes, width)
    assert verify(file).pixels == "not checked"


@pytest.mark.parametrize("kind", FIXED)
def test_a_thousand_and_more_classes(kind: str) -> None:
    """One label an image, and those of some classes without the others."""
    file, logits, columns = made(kind, 1_000, 1_200, grid=(1, 1), count=2, permuted=True)
    found = GroupLabels(file, 0)
    assert (found.rows, found.rows_per_class) == (2_000, 2)
    for first, last in ((0, 1), (1_999, 2_000), (777, 1_200), (5, 5)):
        np.testing.assert_array_equal(found.logits(first, last), logits[first:last][:, columns])
    view = dataset(file, classes=(3, 4, 5, 700, 999))
    rows = [6, 7, 8, 9, 10, 11, 1_400, 1_401, 1_998, 1_999]
    np.testing.assert_array_equal(view.labels.logits().reshape(10, -1), logits[rows][:, columns])
    assert found.class_of(5, 9).tolist() == [2, 3, 3, 4]


def test_blocks_of_ranked_head_labels_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 labels are two blocks; what is asked for needs no other."""
    file, logits, columns = made("r", 100, 110, grid=(1, 1), count=12, permuted=True)
    found = GroupLabels(file, 0)
    for first, last in ((0, 1), (1_199, 1_200), (1_000, 1_100), (1_024, 1_030), (5, 5)):
        np.testing.assert_array_equal(found.logits(first, last), logits[first:last][:, columns])
    monkeypatch.setattr(module, "PIECE_BYTES", 4 * 110 * 1_100)
    assert list(found.pieces()) == [(0, 1_024), (1_024, 1_200)]
    assert list(found.pieces(500, 1_100)) == [(500, 1_024), (1_024, 1_100)]
    view = dataset(file, classes=(3, 4, 90), ipc=5)
    rows = [12 * number + image for number in (3, 4, 90) for image in range(5)]
    np.testing.assert_array_equal(view.labels.logits().reshape(15, -1), logits[rows][:, columns])


def test_21841_classes() -> None:
    """Of a teacher with as many columns in another order; a label is a row of 21,841 when it is decoded."""
    classes = 21_841
    rng = np.random.default_rng(1)
    columns = rng.permutation(classes)
    rows = topk.encode(rng.normal(scale=3, size=(2, classes)), 10)
    data = (
        rows[:40] + bytes(rng.permutation(np.arange(10, dtype="<u2")).tobytes() + bytes(20)) * (classes - 2) + rows[40:]
    )
    images = Images(grid=(1, 1), count=1, size=(32, 32))
    record = group(labels=TopkLabels(k=10, width=classes, columns="col"), images=images)
    draft = ContentDraft(Classes(authority="none", count=classes), (record,))
    sections = filled(draft) | {("lab", 0): data, ("col", 0): columns.astype("<u4").tobytes()}
    file = D3MFile.open(write_d3m(draft, sections))
    expected = topk.decode(rows, 2, classes, 10)[:, columns]
    view = dataset(file, classes=(0, 21_840))
    np.testing.assert_array_equal(view.labels.logits().reshape(2, -1), expected)


def test_only_the_parts_of_a_class_are_read() -> None:
    """Damage in the labels of the last classes does not concern the first."""
    file, logits, columns = made("f", 300, 600, grid=(1, 1), count=4, permuted=True)
    last = [part for part in file.parts if part.section == "lab"][-1]
    data = bytearray(file.data or b"")
    data[last.offset + 9] ^= 1
    damaged = D3MFile.open(bytes(data))
    np.testing.assert_array_equal(dataset(damaged, classes=(0, 1)).labels.logits().reshape(8, -1), logits[:8, columns])
    with pytest.raises(SectionError, match="E_SECTION_CRC"):
        dataset(damaged, classes=(299,)).labels.logits()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(KINDS))
def test_any_view_is_the_rows_of_its_images(data: st.DataObject, kind: str) -> None:
    file, logits, columns = FILES[kind]
    classes = tuple(sorted(data.draw(st.sets(st.integers(0, 8), min_size=1))))
    ipc = data.draw(st.none() | st.integers(1, 3))
    found = dataset(file, classes=classes, ipc=ipc).labels.logits()
    table = logits[:, columns].reshape(9, 3, 2, 9)[list(classes), : ipc or 3]
    np.testing.assert_array_equal(found, table.reshape(-1, 2, 9))


FILES = {kind: made(kind, 9, 12, permuted=True) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, logits, columns = FILES[kind]
    whole, facts = dataset(file).labels.logits(), label_facts(file, 0)
    monkeypatch.setattr(module, "PIECE_BYTES", 5 * 4 * 12)
    assert list(GroupLabels(file, 0).pieces())[-1] == (50, 54)
    np.testing.assert_array_equal(dataset(file).labels.logits(), whole)
    again = label_facts(file, 0)
    assert again.entropy_nats == pytest.approx(facts.entropy_nats)
    assert replace(again, entropy_nats=0.0) == replace(facts, entropy_nats=0.0)
    verify(file)
    by_image = StoredLabels(file)
    for class_, index in ((0, 0), (8, 2), (4, 1), (4, 2), (0, 1)):
        row = (class_ * 3 + index) * 2
        np.testing.assert_array_equal(by_image.of((0, class_, index)), logits[row : row + 2][:, columns])


def test_groups_with_labels_of_several_kinds() -> None:
    """Whatever the codec and the teacher, the columns are the classes."""
    rng = np.random.default_rng(1)
    images = Images(grid=(2, 1), count=2, size=(32, 32))
    records, sections, expected = [], {}, []
    for number, (kind, width) in enumerate([("q", 3), ("f", 5), ("t", 3), ("r", 4)]):
        columns = rng.permutation(width)[:3]
        record, data, logits = stored(kind, rng.normal(size=(12, width)), "col", np.repeat(columns, 4))
        records.append(group(labels=record, images=images))
        sections |= {("lab", number): data, ("col", number): columns.astype("<u4").tobytes()}
        expected.append(logits[:, columns].reshape(3, 2, 2, 3))
    draft = ContentDraft(Classes(authority="none", count=3), tuple(records))
    data = dataset(D3MFile.open(write_d3m(draft, filled(draft) | sections)))
    assert data.labels.kind == "mixed"
    np.testing.assert_array_equal(data.labels.logits(), np.concatenate(expected, axis=1).reshape(24, 2, 3))
    first = data.subset(ipc=3).labels.logits().reshape(3, 3, 2, 3)
    np.testing.assert_array_equal(first, np.concatenate(expected, axis=1)[:, :3])
    with pytest.raises(UsageError, match="labels of different shapes"):
        data.labels.logits(teacher_columns=True)


def test_views() -> None:
    file = FILES["f"][0]
    found = dataset(file).labels
    np.testing.assert_allclose(found.view("softmax-4"), found.probabilities(4.0), rtol=1e-6)
    np.testing.assert_array_equal(found.view("logits"), found.logits())
    assert (np.isfinite(found.view("mr-2")).sum(-1) == 2).all()
    for wrong in ("mr-10", "soft"):
        with pytest.raises(UsageError, match="no such view"):
            found.view(wrong)


def test_impossible_values_are_named_and_refused_by_verify() -> None:
    file, logits, _ = made("f", 3, 3)
    raw = bytearray(file.section("lab", 0))
    raw[6 * 13 + 2 : 6 * 13 + 4] = b"\x00\x7c"
    pieces = Pieces.of(file.data or b"").redigested([file.section("cls"), file.section("emb", 0), bytes(raw)])
    wrong = D3MFile.open(pieces.build())
    wrong.verify()  # the container cannot judge them
    with pytest.raises(SectionError, match=r"lab of group 0, counted from row 0: E_SECTION_VALUE.*row 13") as error:
        verify(wrong)
    assert error.value.file == "<memory>"
    with pytest.raises(SectionError, match=r"counted from row 12: E_SECTION_VALUE.*row 1 has"):
        dataset(wrong, classes=(2,)).labels.logits()
    np.testing.assert_array_equal(dataset(wrong, classes=(1,)).labels.logits().reshape(6, 3), logits[6:12])


def test_hard_labels_have_no_logits() -> None:
    draft = replace(digits_draft(), groups=(group(labels=HardLabels()),))
    file = D3MFile.open(write_d3m(draft, filled(draft)))
    with pytest.raises(UsageError, match="hard labels have no logits"):
        GroupLabels(file, 0)
    facts = label_facts(file, 0)
    assert (facts.codec, facts.labels, facts.entropy_nats, facts.agreement) == ("hard", 40, 0.0, 1.0)
    assert StoredLabels(file).of((0, 1, 0)) is None
    verify(file)


def test_more_than_an_array_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    file = FILES["t"][0]
    size = 4 * 9 * 54
    monkeypatch.setattr(module, "LARGEST_BYTES", size)
    assert dataset(file).labels.logits().nbytes == size
    monkeypatch.setattr(module, "LARGEST_BYTES", size - 1)
    with pytest.raises(UsageError, match=r"(?s)more logits than one array.*1,944 bytes.*subset"):
        dataset(file).labels.logits()


@pytest.mark.parametrize("kind", FIXED)
def test_facts_are_those_of_the_labels(kind: str) -> None:
    file, logits, columns = FILES[kind]
    facts = label_facts(file, 0)
    table = logits[:, columns].astype(np.float64)
    powers = np.exp(table)
    shares = powers / powers.sum(1, keepdims=True)
    assert facts.entropy_nats == pytest.approx(float(-(shares * np.log(shares)).sum(1).mean()))
    assert facts.agreement == pytest.approx(float((table.argmax(1) == np.repeat(np.arange(9), 6)).mean()))
    sizes = {section["name"]: section["bytes"] for section in file.section_sizes()}
    assert (facts.labels, facts.teacher_columns, facts.shipped) == (54, 12, 0)
    assert facts.bytes_per_label() == {"payload": sizes["lab"] / 54, "side": sizes["col"] / 54, "shipped": 0.0}


def test_costs_of_ranked_head_labels_are_those_of_the_stream() -> None:
    file = FILES["r"][0]
    facts, data = label_facts(file, 0), file.section("lab", 0)
    col = next(section["bytes"] for section in file.section_sizes() if section["name"] == "col")
    cost = labels.label_cost(data)
    assert (facts.payload, facts.side, facts.shipped) == (cost["payload"], cost["side"] + col, 0)
    assert cost["payload"] + cost["side"] == len(data)


def test_a_stream_of_other_labels_is_refused() -> None:
    """The number of labels and the width in a stream are those of the records."""
    file = FILES["r"][0]
    sections = {part.key: file.section(*part.key) for part in file.parts}
    content = file.content
    for change in (
        {"labels": RankedHeadLabels(width=13, columns="col")},
        {"images": Images(grid=(2, 1), count=4, size=(32, 32))},
    ):
        draft = ContentDraft(content.classes, (changed(content.groups[0], **change),))
        with pytest.raises(SectionError, match=r"lab of group 0.*E_SECTION_VALUE"):
            verify(D3MFile.open(write_d3m(draft, sections)))
