"""What students are given of decoded logits: one stored label, several rules.

| view | |
|---|---|
| `logits` | the logits themselves |
| `softmax-T` | probabilities at temperature T, such as `softmax-20` |
| `mr-k` | the logits of the k largest and -inf elsewhere: a softmax at any temperature is the rule MR-k of LPQLD |
| `hard` | probability 1 for the largest logit |
| `rest-uniform` | logarithms of the probabilities at T = 1: of labels of kind `t`, the rest shared evenly |

MR-k: He et al., "Soft label pruning and quantization for large-scale dataset distillation". Of equal logits those of
lower columns count as larger, everywhere.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

VIEWS = "logits, hard, rest-uniform, softmax-T with T > 0, mr-k with k >= 1"
_ROWS_AT_ONCE = 1 << 21  # logits of them, to bound the memory
_NUMBER = re.compile(r"(softmax|mr)-(\d+(?:\.\d+)?)")


def apply(logits: NDArray[np.floating], view: str = "logits") -> NDArray[np.float32]:
    """A view of logits, float [..., width]: float32 of the same shape.

    Probabilities are computed in binary64, so each is right to about 1e-7 of itself. Raises ValueError for a view
    that is not in the table above, and an mr-k with more columns than there are.
    """
    name, number = parse(view)
    if name == "logits":
        return np.asarray(logits, np.float32)
    width = logits.shape[-1]
    if name == "mr" and number > width:
        raise ValueError(f"view {view!r} of {width} columns")
    rows = logits.reshape(-1, width)
    result = np.empty(rows.shape, np.float32)
    step = max(1, _ROWS_AT_ONCE // max(width, 1))
    for first in range(0, len(rows), step):
        result[first : first + step] = _rows(rows[first : first + step], name, number)
    return result.reshape(logits.shape)


def parse(view: str) -> tuple[str, float]:
    """Name of a view without its number, and the number (0 where it has none). Raises ValueError."""
    if view in ("logits", "hard", "rest-uniform"):
        return view, 0.0
    found = _NUMBER.fullmatch(view)
    number = float(found[2]) if found else 0.0
    if found is None or not (math.isfinite(number) and number > 0) or (found[1] == "mr" and number != int(number)):
        raise ValueError(f"no view {view!r}: {VIEWS}")
    return found[1], number


def _rows(rows: NDArray[np.floating], name: str, number: float) -> NDArray[np.floating]:
    if name == "hard":
        result = np.zeros(rows.shape, np.float32)
        result[np.arange(len(rows)), rows.argmax(axis=1)] = 1
        return result
    if name == "mr":
        return _keep_largest(rows, int(number))
    below = rows.astype(np.float64)
    below -= below.max(axis=1, keepdims=True)
    if name == "softmax":
        below /= number
    powers = np.exp(below)
    total = powers.sum(axis=1, keepdims=True)
    return powers / total if name == "softmax" else np.asarray(below - np.log(total))


def _keep_largest(rows: NDArray[np.floating], k: int) -> NDArray[np.floating]:
    width = rows.shape[1]
    if k == width:
        return rows
    least = np.partition(rows, width - k, axis=1)[:, width - k, None]
    kept = rows >= least
    if (tied := np.flatnonzero(kept.sum(axis=1) > k)).size:
        above, equal = rows[tied] > least[tied], rows[tied] == least[tied]
        missing = k - above.sum(axis=1, keepdims=True)
        kept[tied] = above | (equal & (np.cumsum(equal, axis=1) <= missing))
    return np.where(kept, rows, rows.dtype.type(-np.inf))
