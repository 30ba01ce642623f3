"""What every codec asks of logits before it encodes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked(logits: ArrayLike) -> NDArray[np.float64]:
    """Logits as float64 [N, width].

    Raises ValueError: another number of axes, a width of 0, and, naming the first such row, values that are not
    finite, or one value for all classes where there are two or more: a teacher that says nothing.
    """
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"logits are [N, width] with a width of at least 1, not {list(values.shape)}")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int(finite.argmin())}: logits that are not finite")
    if values.shape[1] > 1 and len(values):
        constant = values.min(axis=1) == values.max(axis=1)
        if constant.any():
            raise ValueError(f"row {int(constant.argmax())}: one logit for all classes, a constant row")
    return values
