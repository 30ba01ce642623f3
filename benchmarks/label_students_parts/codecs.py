"""Label codecs as one kind of function, and what students are shown of the logits that come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec import labels
from d3codec.labels import quantized, raw16, topk, views

Floats = NDArray[np.float32]
Codec = Callable[[Floats, NDArray[np.int64]], tuple[Floats, float]]  # logits, classes -> decoded, bytes a label


def hard(logits: Floats, classes: NDArray[np.int64]) -> tuple[Floats, float]:
    """Class labels: nothing is stored, because images lie in the order of their classes."""
    decoded = np.full(logits.shape, -np.inf, np.float32)
    decoded[np.arange(len(classes)), classes] = 0
    return decoded, 0.0


def fp16(logits: Floats, classes: NDArray[np.int64]) -> tuple[Floats, float]:
    data = raw16.encode(logits)
    return raw16.decode(data, *logits.shape), len(data) / len(logits)


def int8(logits: Floats, classes: NDArray[np.int64]) -> tuple[Floats, float]:
    step = quantized.choose_step(logits)
    data = quantized.encode(logits, step)
    return quantized.decode(data, *logits.shape, step).astype(np.float32), len(data) / len(logits)


def top(count: int, logits: Floats, classes: NDArray[np.int64]) -> tuple[Floats, float]:
    data = topk.encode(logits, count)
    return topk.decode(data, *logits.shape, count), len(data) / len(logits)


def ranked_head(budget: float, logits: Floats, classes: NDArray[np.int64]) -> tuple[Floats, float]:
    """Raises ValueError for a budget that this codec cannot keep."""
    data = labels.encode_logits(logits, classes=classes, bytes_per_label=budget)
    return labels.decode_logits(data, classes=classes), len(data) / len(logits)


@dataclass(frozen=True)
class Family:
    """Rows that share the temperatures which the row `tuned` fixes (None: nothing to fix).

    rows: name -> (codec, k of the MR view; None without one).
    """

    name: str
    tuned: str | None
    rows: dict[str, tuple[Codec, int | None]]


def families(tops: tuple[int, ...], budgets: tuple[float, ...], mr: int) -> list[Family]:
    """All rows of a dataset: k of the top-k rows, bytes of the ranked head, k of MR-k where all logits are stored."""
    heads: dict[str, tuple[Codec, int | None]] = {f"ranked-head-{b:g}": (partial(ranked_head, b), mr) for b in budgets}
    return [
        Family("hard", None, {"hard": (hard, None)}),
        Family("full", "fp16", {"fp16": (fp16, mr), "int8": (int8, mr)}),
        Family("top-k", f"top-{tops[len(tops) // 2]}", {f"top-{k}": (partial(top, k), k) for k in tops}),
        Family("ranked-head", list(heads)[len(heads) // 2], heads),
    ]


def probabilities(decoded: Floats, view: str, temperature: float) -> Floats:
    """What a student learns, float32 [N, width]: view "mr-K" is the softmax of the K largest logits alone, "softmax"
    that of all."""
    shown = views.apply(decoded, view) if view.startswith("mr-") else decoded
    return views.apply(shown, f"softmax-{temperature:g}")


def divergence(logits: Floats, decoded: Floats, temperature: float) -> float:
    """Mean KL divergence in nats of the decoded from the teacher's probabilities at a temperature."""
    true, found = _log_softmax(logits / temperature), _log_softmax(decoded / temperature)
    return float((np.exp(true) * (true - found)).sum(1).mean())


def _log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    below = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(1, keepdims=True)))
