"""Encoding with every kind of label, and with entropy-coded embeddings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_case import grey_teacher

from d3codec.conditioning import coded
from d3codec.dataset import load
from d3codec.decoder.label_facts import label_facts, recorded_divergences
from d3codec.decoder.plan import Plan
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.labels import LabelChoice, default_bytes, store_labels
from d3codec.encoder.relabel import label_patches
from d3codec.errors import TeacherError, UsageError
from d3codec.format.file import D3MFile
from d3codec.labels import raw16, topk
from d3codec.methods.d3m import encode


def again(tiny: SimpleNamespace, name: str, **changes: Any) -> tuple[Any, D3MFile]:
    """Only packing runs: report and file."""
    output = tiny.folder / f"{name}.d3m"
    report = encode(tiny.images, output, **{**tiny.options, **changes}, work=tiny.work, keep_work=True)
    return report, D3MFile.open(output)


def teacher_logits(tiny: SimpleNamespace) -> np.ndarray:
    file = D3MFile.open(tiny.output)
    units = decoded_units(file, Plan.of(file.content), profile="exact", device="cpu", generator=tiny.pipeline)
    return label_patches(np.concatenate([pixels for _, pixels in units]), (2, 2), grey_teacher, 3)


def test_float16(tiny: SimpleNamespace) -> None:
    report, file = again(tiny, "fp16", labels="fp16")
    assert file.section("lab", 0) == raw16.encode(teacher_logits(tiny))
    assert (report.labels, report.label_step) == ("fp16", None)
    assert recorded_divergences(file).keys() == {"1", "4", "20"}
    assert 0 <= report.label_kl_nats < 1e-5
    stored = sum(section["bytes"] for section in report.sections if section["name"] == "lab")
    assert report.label_bytes == stored / 48
    assert f"labels fp16, {stored / 48:.2f} bytes each" in report.as_text()


@pytest.mark.parametrize(("label_bytes", "k"), [(None, 3), (4, 1), (11.9, 2), (400, 3)])
def test_the_largest_logits(tiny: SimpleNamespace, label_bytes: float | None, k: int) -> None:
    report, file = again(tiny, f"top-{k}", labels="top-k", label_bytes=label_bytes)
    assert file.content.groups[0].labels.k == k
    assert file.section("lab", 0) == topk.encode(teacher_logits(tiny), k)
    found = load(tiny.folder / f"top-{k}.d3m").labels
    assert found.kind == "top-k"
    assert found.logits().shape == (12, 4, 3)
    assert float(recorded_divergences(file)["1"]) == pytest.approx(report.label_kl_nats, rel=1e-3)
    verify(file)


def test_the_recorded_divergence_is_that_of_the_labels(tiny: SimpleNamespace) -> None:
    _, file = again(tiny, "top-1", labels="top-k", label_bytes=4)
    teacher, stored = teacher_logits(tiny).astype(float), topk.decode(file.section("lab", 0), 48, 3, 1).astype(float)
    for temperature in (1, 4, 20):
        p, q = (np.exp(values / temperature) for values in (teacher, stored))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        expected = (p * np.log(p / q)).sum(1).mean()
        assert float(recorded_divergences(file)[str(temperature)]) == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_adaptive_is_the_default_of_few_classes(tiny: SimpleNamespace) -> None:
    report, file = again(tiny, "default", labels=None)
    assert report.labels == "adaptive"
    assert file.content.groups[0].labels.kind == "a"
    assert verify(file).pixels == "not checked"
    facts = label_facts(file, 0)
    assert facts.payload + facts.side == len(file.section("lab", 0))
    assert load(tiny.folder / "default.d3m").labels.logits().shape == (12, 4, 3)
    with pytest.raises(UsageError, match="label_bytes"):
        again(tiny, "impossible", labels="ranked-head", label_bytes=1e-3)
    assert again(tiny, "step", labels=None, label_step=300)[0].labels == "int8"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": "quantized"}, "labels"),
        ({"labels": "fp16", "label_step": 3}, "label_step"),
        ({"labels": "ranked-head", "label_step": 3}, "label_step"),
        ({"labels": "int8", "label_bytes": 3}, "label_bytes"),
        ({"labels": "hard", "label_bytes": 3}, "label_bytes"),
        ({"labels": "fp16", "label_bytes": 3}, "label_bytes"),
        ({"labels": "top-k", "label_bytes": 0}, "label_bytes"),
        ({"labels": "top-k", "label_bytes": float("nan")}, "label_bytes"),
        ({"labels": "top-k", "label_bytes": 3.9}, "label_bytes"),
        ({"bits": 2.5, "fixed_width": True}, "bits"),
    ],
)
def test_combinations_that_make_no_sense(tiny: SimpleNamespace, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as error:
        again(tiny, "refused", **changes)
    assert error.value.field == field
    assert not (tiny.folder / "refused.d3m").exists()


def test_entropy_coded_embeddings(tiny: SimpleNamespace) -> None:
    output = tiny.folder / "coded.d3m"
    report = encode(tiny.images, output, **tiny.options, bits=2.5, work=tiny.folder / "coded-work")
    file = D3MFile.open(output)
    conditioning = file.content.groups[0].conditioning
    assert (conditioning.coded, conditioning.bits) == (True, 3)
    assert file.section_length("emb", 0) <= 3 * 16 * 2.5 / 8
    assert coded.decode(file.section("emb", 0), 3, 16, "emb").any()
    assert report.options["bits"] == 2.5
    proof = verify(output, decode="all", generator=tiny.pipeline, device="cpu")
    assert proof.pixels == "proved"


# ------------------------------------------------------------------------------------------- labels by themselves


def test_a_teacher_with_other_columns() -> None:
    rng = np.random.default_rng(0)
    logits, columns, classes = rng.normal(size=(20, 7)), np.array([6, 0, 3]), np.arange(20) % 3
    for kind in ("int8", "fp16", "top-k"):
        stored = store_labels(logits, classes, LabelChoice(kind), columns)
        assert stored.sections["col"] == columns.astype("<u4").tobytes()
        assert (stored.record.width, stored.record.columns) == (7, "col")
    assert store_labels(logits, classes, LabelChoice("hard"), columns).sections == {}


@pytest.mark.parametrize("kind", ["int8", "fp16", "top-k", "ranked-head"])
@pytest.mark.parametrize(
    ("row", "message"), [([1.0, np.nan], "not finite"), ([1.0, -np.inf], "not finite"), ([2.0, 2.0], "a constant row")]
)
def test_rows_that_are_no_labels_are_named(kind: str, row: list[float], message: str) -> None:
    with pytest.raises(TeacherError, match=f"row 2: .*{message}"):
        store_labels(np.array([[0.0, 1], [1, 0], row]), np.zeros(3, int), LabelChoice(kind))


def test_one_class_and_no_labels() -> None:
    for kind in ("int8", "fp16", "top-k"):
        one = store_labels(np.ones((4, 1)), np.zeros(4, int), LabelChoice(kind))
        assert one.divergences == {1: 0.0, 4: 0.0, 20: 0.0}
        none = store_labels(np.ones((0, 9)), np.zeros(0, int), LabelChoice(kind))
        assert none.sections == {"lab": b""}
        assert set(none.claims().values()) == {"0"}


def test_default_rate() -> None:
    assert [default_bytes(classes) for classes in (1, 10, 90, 100, 1_000)] == [1.1, 2.0, 10.0, 10.0, 10.0]
