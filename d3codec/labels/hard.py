"""Labels that are the class alone: kind `h` of the format (spec section 3.5). There are no bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def one_hot(classes: ArrayLike, width: int) -> NDArray[np.float32]:
    """Probabilities of hard labels, float32 [N, width]: 1 for the class of a row, 0 elsewhere.

    `classes`: integers [N] from 0 to width - 1. Raises ValueError for others.
    """
    chosen = np.asarray(classes)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise ValueError(f"classes are integers [N], not {chosen.dtype} {list(chosen.shape)}")
    beyond = (chosen < 0) | (chosen >= width)
    if beyond.any():
        raise ValueError(f"row {int(beyond.argmax())}: class {chosen[beyond][0]} outside 0 to {width - 1}")
    result = np.zeros((len(chosen), width), np.float32)
    result[np.arange(len(chosen)), chosen] = 1
    return result
