"""Teacher logits as int8 with one step for all: kind `q` of the format (spec sections 3.5 and 5).

A row is one patch, a value q stands for q * step / 256 nat. Only differences between logits matter to a
softmax, so every row is made mean-free before it is rounded. Compression is the container's business.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError

UNITS_A_NAT = 256
MAX_STEP = 65_535
_LOWEST, _HIGHEST = -128, 127


def encode(logits: ArrayLike, step: int) -> bytes:
    """Quantize logits, float [N, width] in nat, to N rows of `width` int8 values.

    q = round half to even of (logit - mean of its row) * 256 / step, in binary64; the mean is the correctly
    rounded one. So the error is at most step / 512 nat, and encoding what `decode` gave yields the same
    bytes. Zero rows give zero bytes; a width of 1 is allowed and holds only zeros.
    Raises ValueError for a step outside 1 to 65,535, logits that are not two-dimensional, and, naming the
    row, values that are not finite or do not fit int8 (`choose_step` finds a step that fits).
    """
    levels = _levels(_mean_free(logits), _checked_step(step))
    beyond = (levels < _LOWEST) | (levels > _HIGHEST)
    if beyond.any():
        row = int(beyond.any(axis=1).argmax())
        raise ValueError(
            f"row {row}: logits need {levels[row].min():.0f} to {levels[row].max():.0f} "
            f"steps of {step}/256 nat, int8 holds -128 to 127"
        )
    return levels.astype(np.int8).tobytes()


def decode(data: bytes, count: int, width: int, step: int) -> NDArray[np.float64]:
    """Logits of a label section, float64 [count, width] in nat, exact.

    Raises SectionError (`E_SECTION_SIZE`) for a wrong length, ValueError for a step outside 1 to 65,535.
    """
    if len(data) != count * width:
        raise SectionError("E_SECTION_SIZE", field="lab", found=len(data), expected=count * width)
    levels = np.frombuffer(data, np.int8).reshape(count, width).astype(np.float64)
    return levels * (_checked_step(step) / UNITS_A_NAT)  # 8 bits times 16 bits: no rounding


def choose_step(logits: ArrayLike) -> int:
    """The smallest step, at least 1, with which `encode` takes these logits, float [N, width].

    Raises ValueError as `encode` does, and if even a step of 65,535 is too small (beyond +-32,000 nat).
    """
    centred = _mean_free(logits)
    low, high = (float(centred.min()), float(centred.max())) if centred.size else (0.0, 0.0)
    ends = np.array([low, high])
    # 127.5 rounds out of the range, -128.5 into it. Start one lower, because this estimate is rounded too.
    step = max(1, math.floor(max(high / 127.5, low / -128.5) * UNITS_A_NAT) - 1)
    while step <= MAX_STEP:
        lowest, highest = _levels(ends, step)
        if lowest >= _LOWEST and highest <= _HIGHEST:
            return step
        step += 1
    raise ValueError(f"logits {low:.0f} to {high:.0f} nat from their mean do not fit int8 with any step")


def _levels(centred: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    return np.asarray(np.rint(centred * UNITS_A_NAT / step))


def _mean_free(logits: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"logits are [N, width] with a width of at least 1, not {list(values.shape)}")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int(finite.argmin())}: logits that are not finite")
    # math.fsum, because the order in which numpy adds depends on the machine's vector width.
    means = np.array([math.fsum(row) / len(row) for row in values.tolist()]).reshape(-1, 1)
    return np.asarray(values - means)


def _checked_step(step: int) -> int:
    if not 1 <= step <= MAX_STEP:
        raise ValueError(f"a step of {step}/256 nat is outside 1 to {MAX_STEP}")
    return step
