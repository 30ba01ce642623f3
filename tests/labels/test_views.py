"""Views of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.labels import topk, views

LOGITS = np.random.default_rng(0).normal(scale=4, size=(3, 2, 12)).astype(np.float32)


def exact(logits: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((logits.astype(np.longdouble) - logits.max(-1, keepdims=True)) / np.longdouble(temperature))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", ["1", "4", "20", "0.5", "2.25"])
def test_probabilities_are_right_to_a_millionth(temperature: str) -> None:
    found = views.apply(LOGITS, f"softmax-{temperature}")
    assert found.dtype == np.float32
    assert found.shape == LOGITS.shape
    np.testing.assert_allclose(found, exact(LOGITS, float(temperature)).astype(float), rtol=1e-6)


def test_logits_are_what_they_are() -> None:
    np.testing.assert_array_equal(views.apply(LOGITS), LOGITS)
    assert views.apply(LOGITS.astype(np.float64)).dtype == np.float32


def test_hard_is_the_largest() -> None:
    found = views.apply(LOGITS, "hard")
    assert (found.argmax(-1) == LOGITS.argmax(-1)).all()
    assert (found.sum(-1) == 1).all()
    assert views.apply(np.zeros((1, 3), np.float32), "hard").tolist() == [[1, 0, 0]]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_mr_k_keeps_exactly_k(width: int, k: int, seed: int) -> None:
    """Also among equal logits: those of lower columns."""
    logits = np.random.default_rng(seed).integers(-2, 3, (6, width)).astype(np.float32)
    if k > width:
        with pytest.raises(ValueError, match="columns"):
            views.apply(logits, f"mr-{k}")
        return
    found = views.apply(logits, f"mr-{k}")
    for row, kept in zip(logits, found, strict=True):
        columns = sorted(range(width), key=lambda column: (-row[column], column))[:k]
        expected = np.full(width, -np.inf)
        expected[columns] = row[columns]
        np.testing.assert_array_equal(kept, expected)


def test_mr_k_is_the_rule_of_lpqld_at_any_temperature() -> None:
    kept = views.apply(LOGITS, "mr-3")
    for temperature in (1, 20):
        found = views.apply(kept, f"softmax-{temperature}")
        top = np.sort(LOGITS, -1)[..., ::-1][..., :3]
        np.testing.assert_allclose(
            np.sort(found, -1)[..., ::-1][..., :3], exact(top, temperature).astype(float), rtol=1e-5
        )
        assert ((found > 0).sum(-1) == 3).all()


def test_rest_uniform_of_top_k_labels() -> None:
    flat = LOGITS.reshape(-1, 12)
    found = views.apply(topk.decode(topk.encode(flat, 4), len(flat), 12, 4), "rest-uniform")
    powers = np.exp(found.astype(np.float64))
    np.testing.assert_allclose(powers.sum(-1), 1, rtol=1e-6)
    order = np.argsort(-flat, axis=1)
    teacher = exact(flat, 1).astype(float)
    top, rest = order[:, :4], order[:, 4:]
    np.testing.assert_allclose(np.take_along_axis(powers, top, 1), np.take_along_axis(teacher, top, 1), rtol=2e-2)
    shared = np.take_along_axis(teacher, rest, 1).mean(1, keepdims=True)
    np.testing.assert_allclose(np.take_along_axis(powers, rest, 1), np.repeat(shared, 8, 1), rtol=2e-2)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("logits", "hard", "softmax-4", "mr-2", "rest-uniform")
    whole = {name: views.apply(LOGITS, name) for name in names}
    monkeypatch.setattr(views, "_ROWS_AT_ONCE", 13)
    for name, expected in whole.items():
        np.testing.assert_array_equal(views.apply(LOGITS, name), expected)


def test_no_labels_and_one_class() -> None:
    for name in ("logits", "hard", "softmax-4", "mr-1", "rest-uniform"):
        assert views.apply(np.zeros((0, 3), np.float32), name).shape == (0, 3)
    assert views.apply(np.array([[5.0]]), "softmax-20").tolist() == [[1.0]]
    assert views.apply(np.array([[5.0]]), "mr-1").tolist() == [[5.0]]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "soft",
        "softmax",
        "softmax-",
        "softmax-0",
        "softmax--1",
        "softmax-nan",
        "mr-0",
        "mr-2.5",
        "mr",
        "Hard",
        "mr-1e2",
    ],
)
def test_unknown_views(name: str) -> None:
    with pytest.raises(ValueError, match="no view"):
        views.apply(LOGITS, name)
