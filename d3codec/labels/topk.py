"""The k largest logits of a row, the rest sharing what is left: kind `t` of the format (spec sections 3.5 and 5).

A row is k numbers of columns, then k float16: how far those logits lie above the common logit of all other columns.
That one is the logarithm of the mean of their exponentials, so that a softmax at temperature 1 gives the k columns the
teacher's probabilities and spreads the rest evenly (the rule of FKD, "marginal smoothing": Shen and Xing, ECCV 2022).
The labels as they are stored, 0 for the other columns, need no logarithm to be read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError
from d3codec.labels.rows import checked

INDEX16_WIDTH = 65_536
MAX_K = 1_024
_ROWS_AT_ONCE = 1 << 22  # logits of them, to bound the memory


def row_bytes(width: int, k: int) -> int:
    """Bytes of a row. Raises ValueError for a k outside 1 to 1,024 or above the width."""
    if not 1 <= k <= min(width, MAX_K):
        raise ValueError(f"{k} logits of {width} columns, not 1 to {min(width, MAX_K)}")
    return k * (_index(width).itemsize + 2)


def encode(logits: ArrayLike, k: int) -> bytes:
    """Logits, float [N, width] in nats, to N rows of the k largest; of equal ones those of lower columns.

    Raises ValueError: k as in `row_bytes`, logits as in rows.checked, and, naming the row, logits more than 65,504
    nats above the rest.
    """
    values = checked(logits)
    count, width = values.shape
    size = row_bytes(width, k)
    step = max(1, _ROWS_AT_ONCE // width)
    table = np.empty((count, size), np.uint8)
    for first in range(0, count, step):
        table[first : first + step] = _encode(values[first : first + step], k, first)
    return table.tobytes()


def _encode(values: NDArray[np.float64], k: int, first: int) -> NDArray[np.uint8]:
    width = values.shape[1]
    order = np.argsort(-values, axis=1, kind="stable")
    top, others = order[:, :k], order[:, k:]
    kept = np.take_along_axis(values, top, 1)
    if k < width:
        rest = np.take_along_axis(values, others, 1)
        highest = rest[:, :1]
        common = highest + np.log(np.exp(rest - highest).mean(axis=1, keepdims=True))
    else:
        common = kept[:, -1:]
    with np.errstate(over="ignore"):
        above = np.maximum(kept - common, 0.0).astype("<f2")  # the mean lies below the largest, but for rounding
    lost = ~np.isfinite(above[:, 0])
    if lost.any():
        raise ValueError(f"row {first + int(lost.argmax())}: a logit more than 65504 nats above the rest")
    indices = np.ascontiguousarray(top.astype(_index(width)))
    return np.concatenate([indices.view(np.uint8), np.ascontiguousarray(above).view(np.uint8)], axis=1)


def decode(data: bytes, count: int, width: int, k: int) -> NDArray[np.float32]:
    """Logits of rows of a section, float32 [count, width] in nats, exact: 0 for all columns but the k.

    Raises ValueError for k as `row_bytes` does, SectionError: `E_SECTION_SIZE` for a wrong length; `E_SECTION_VALUE`,
    naming the row, for columns that are equal or not below the width, and logits that are not finite, below 0 (-0.0
    too) or larger than the one before.
    """
    columns, above = pairs(data, count, width, k)
    result = np.zeros((count, width), np.float32)
    np.put_along_axis(result, columns, above.astype(np.float32), 1)
    return result


def pairs(data: bytes, count: int, width: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Columns int64 [count, k] and logits float16 [count, k] of rows of a section. Raises like `decode`."""
    size = row_bytes(width, k)
    if len(data) != count * size:
        raise SectionError("E_SECTION_SIZE", field="lab", found=len(data), expected=count * size)
    table = np.frombuffer(data, np.uint8).reshape(count, size)
    columns = np.ascontiguousarray(table[:, : size - 2 * k]).view(_index(width)).astype(np.int64).reshape(count, k)
    above = np.ascontiguousarray(table[:, size - 2 * k :]).view("<f2").reshape(count, k)
    sorted_columns = np.sort(columns, axis=1)
    _refuse(columns.max(axis=1, initial=0) >= width, "a column outside the width")
    _refuse((sorted_columns[:, 1:] == sorted_columns[:, :-1]).any(axis=1), "a column twice")
    bits = above.view("<u2").astype(np.int64)  # for values of no sign the order of the bits is that of the values
    _refuse((bits >= 0x7C00).any(axis=1), "a logit that is not finite or below 0")
    _refuse((bits[:, 1:] > bits[:, :-1]).any(axis=1), "logits that do not descend")
    return columns, above


def _index(width: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if width <= INDEX16_WIDTH else "<u4")


def _refuse(wrong: ArrayLike, what: str) -> None:
    bad = np.asarray(wrong)
    if bad.any():
        raise SectionError("E_SECTION_VALUE", f"row {int(bad.argmax())} has {what}", field="lab")
