"""What `encode_logits` promises: size, order, argmax, refusals by name, statistics."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from labels.label_cases import teacher_logits

from d3codec import labels
from d3codec.labels import ranked_head, statistics, stream
from d3codec.labels.corrections import divergences

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines


def check(z: np.ndarray, classes: np.ndarray, data: bytes, bytes_per_label: float) -> np.ndarray:
    """Everything that holds for all encodes; the decoded logits."""
    assert len(data) <= bytes_per_label * len(z)
    found = labels.decode_logits(data, classes=classes)
    assert found.shape == z.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.argmax(axis=1), z.argmax(axis=1))
    cost = labels.label_cost(data)
    assert cost["payload"] + cost["side"] == len(data)
    assert min(cost.values()) >= 0
    np.testing.assert_array_equal(found[7:9], ranked_head.decode(data, classes, z.shape[1], slice(7, 9)))
    return found


@pytest.mark.parametrize(
    ("width", "count", "bytes_per_label"),
    [
        (1, 40, 0.95),
        (2, 300, 0.7),
        (2, 300, 3),
        (10, 60, 4),
        (10, 300, 1.2),
        (10, 1100, 2),
        (10, 100, 6.5),
        (100, 60, 9),
        (197, 40, 12),
        (1000, 40, 12),
        (21_841, 6, 90),
    ],
)
def test_size_order_and_argmax(width: int, count: int, bytes_per_label: float) -> None:
    z, classes = teacher_logits(count, width, seed=width)
    data = labels.encode_logits(z, classes=classes, bytes_per_label=bytes_per_label)
    found = check(z, classes, data, bytes_per_label)
    if width > 1:
        assert len(data) > 0.5 * bytes_per_label * count or width == 2
        others = np.roll(found, 1, axis=0)
        assert (divergences(z, found) < divergences(z, others)).all()


def test_more_bytes_are_closer() -> None:
    z, classes = teacher_logits(150, 10)
    found = []
    for size in (1.5, 3):
        data = labels.encode_logits(z, classes=classes, bytes_per_label=size)
        found.append(divergences(z, labels.decode_logits(data, classes=classes)))
    assert (np.diff(found, axis=0) < 0).all()
    assert found[-1][0] < 0.03


def test_the_same_labels_are_the_same_bytes() -> None:
    """Two workers, but nothing depends on which is first."""
    z, classes = teacher_logits(60, 20)
    first, second = (labels.encode_logits(z, classes=classes, bytes_per_label=6) for _ in range(2))
    assert first == second
    assert labels.encode_logits(z.tolist(), classes=classes.tolist(), bytes_per_label=6) == first


def test_what_is_given_is_not_changed() -> None:
    z, classes = teacher_logits(50, 10)
    before = z.copy(), classes.copy()
    labels.encode_logits(z, classes=classes, bytes_per_label=4)
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(classes, before[1])


def test_equal_logits_keep_the_lower_column() -> None:
    z, classes = teacher_logits(60, 10)
    z = np.rint(z)
    z[:20, [3, 7]] = z.max() + 1
    check(z, classes, labels.encode_logits(z, classes=classes, bytes_per_label=5), 5)


def test_logits_that_hardly_differ_keep_their_argmax() -> None:
    """Also where rows of mean 0 would make them equal."""
    z, classes = teacher_logits(60, 10)
    z[5] = -900
    z[5, 2], z[5, 4] = 1, np.nextafter(np.float32(1), np.float32(2))
    z = z.astype(np.float64)
    z[6] = -1
    z[6, 8], z[6, 9] = 3, 3 + 1e-12
    check(z, classes, labels.encode_logits(z, classes=classes, bytes_per_label=8), 8)


@pytest.mark.parametrize(("width", "least"), [(2, 0.3), (10, 1e-9), (1000, 1.5)])
def test_impossible_sizes_are_refused(width: int, least: float) -> None:
    z, classes = teacher_logits(30, width)
    with pytest.raises(ValueError, match=f"30 labels of {width} columns do not fit {least:g} bytes a label"):
        labels.encode_logits(z, classes=classes, bytes_per_label=least)


@pytest.mark.parametrize("bytes_per_label", [0, -1, float("nan"), float("inf")])
def test_sizes_that_are_none_are_refused(bytes_per_label: float) -> None:
    z, classes = teacher_logits(30, 10)
    with pytest.raises(ValueError, match="bytes a label"):
        labels.encode_logits(z, classes=classes, bytes_per_label=bytes_per_label)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "row 11: logits that are not finite"),
        (np.inf, "row 11: logits that are not finite"),
        (-np.inf, "row 11: logits that are not finite"),
        (1e39, "row 11: logits that are not finite"),  # of float32, in which they are encoded
        (3e38, "row 11: a logit more than"),
        (2e4, "row 11: a logit more than"),
    ],
)
def test_logits_that_cannot_be_are_refused_by_row(value: float, message: str) -> None:
    z, classes = teacher_logits(30, 10)
    z = z.astype(np.float64)
    z[11, 3] = z[20, 4] = value
    with pytest.raises(ValueError, match=message):
        labels.encode_logits(z, classes=classes, bytes_per_label=4)


def test_rows_and_classes_that_cannot_be_are_refused_by_row() -> None:
    z, classes = teacher_logits(30, 10)
    constant, outside, negative = z.copy(), classes.copy(), classes.copy()
    constant[13], outside[17], negative[29] = 2.5, 10, -1
    with pytest.raises(ValueError, match="row 13: one logit for all classes, a constant row"):
        labels.encode_logits(constant, classes=classes, bytes_per_label=4)
    for wrong, row in ((outside, 17), (negative, 29)):
        with pytest.raises(ValueError, match=f"row {row}: a class outside the 10 columns"):
            labels.encode_logits(z, classes=wrong, bytes_per_label=4)
    for wrong in (classes[:-1], classes.astype(float), classes[:, None]):
        with pytest.raises(ValueError, match="classes are 30 integers"):
            labels.encode_logits(z, classes=wrong, bytes_per_label=4)
    for shape in ((30,), (30, 0), (30, 2, 5)):
        with pytest.raises(ValueError, match="width of at least 1"):
            labels.encode_logits(np.resize(z, shape), classes=classes, bytes_per_label=4)


def test_no_labels() -> None:
    for width in (1, 10, 1000):
        data = labels.encode_logits(np.zeros((0, width)), classes=np.zeros(0, int), bytes_per_label=2)
        assert len(data) < 40
        assert labels.decode_logits(data, classes=[]).shape == (0, width)
        assert labels.label_cost(data) == {"payload": 0, "side": len(data), "shipped": 0}


def test_one_column_is_nothing_but_its_argmax() -> None:
    data = labels.encode_logits(np.full((64, 1), 7.0), classes=np.zeros(64, int), bytes_per_label=1)
    assert (labels.decode_logits(data, classes=np.zeros(64, int)) == 0).all()


SOURCES: list[tuple[Literal["none", "file", "shipped"], int, int, int]] = [
    ("none", 100, stream.NONE, 0),
    ("shipped", 1000, stream.SHIPPED, len(statistics.shipped_bytes())),
    ("file", 40, stream.IN_FILE, 0),
]


@pytest.mark.parametrize(("source", "width", "stored", "shipped"), SOURCES)
def test_statistics_are_where_they_were_asked(
    source: Literal["none", "file", "shipped"], width: int, stored: int, shipped: int
) -> None:
    z, classes = teacher_logits(60, width)
    data = labels.encode_logits(z, classes=classes, bytes_per_label=12, statistics=source)
    check(z, classes, data, 12)
    assert ranked_head.stated(data) == (60, width, stored)
    cost = labels.label_cost(data)
    assert cost["shipped"] == shipped
    if source == "file":
        assert cost["side"] > 32 + width / 4  # a table and the means


def test_statistics_that_pay_are_taken() -> None:
    """Logits that move together along three axes, and labels enough to pay for saying so."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(100, 3))
    classes = rng.integers(0, 100, 600)
    z = (3 * rng.normal(size=(600, 3)) + 2 * axes[classes]) @ axes.T + 0.2 * rng.normal(size=(600, 100))
    data = labels.encode_logits(z, classes=classes, bytes_per_label=8)
    check(z, classes, data, 8)
    assert ranked_head.stated(data)[2] == stream.IN_FILE


def test_statistics_that_are_not_there_are_refused() -> None:
    z, classes = teacher_logits(30, 10)
    with pytest.raises(ValueError, match="the shipped statistics are of 1000 classes, not 10"):
        labels.encode_logits(z, classes=classes, bytes_per_label=4, statistics="shipped")
    with pytest.raises(ValueError, match="'best'"):
        labels.encode_logits(z, classes=classes, bytes_per_label=4, statistics="best")  # type: ignore[arg-type]


def test_views_of_labels() -> None:
    z, classes = teacher_logits(40, 10)
    data = labels.encode_logits(z, classes=classes, bytes_per_label=5)
    logits = labels.decode_logits(data, classes=classes)
    np.testing.assert_array_equal(labels.decode_logits(data, classes=classes, view="logits"), logits)
    hard = labels.decode_logits(data, classes=classes, view="hard")
    assert (hard.argmax(axis=1) == z.argmax(axis=1)).all()
    kept = labels.decode_logits(data, classes=classes, view="mr-3")
    assert (np.isfinite(kept).sum(axis=1) == 3).all()
    soft = labels.decode_logits(data, classes=classes, view="softmax-20")
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="no view"):
        labels.decode_logits(data, classes=classes, view="softmax")
