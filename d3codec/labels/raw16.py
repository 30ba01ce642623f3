"""Teacher logits as float16: kind `f` of the format (spec sections 3.5 and 5). The baseline, and a file of record."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.errors import SectionError
from d3codec.labels.rows import checked

_LARGEST = 65_504.0


def encode(logits: ArrayLike) -> bytes:
    """Logits, float [N, width] in nats, to N rows of `width` little-endian float16, rounded half to even.

    Logits that came from `decode` are kept exactly. Raises ValueError as rows.checked does, and, naming the row, for
    logits that float16 cannot hold.
    """
    values = checked(logits)
    with np.errstate(over="ignore"):
        rounded = values.astype("<f2")
    lost = ~np.isfinite(rounded).all(axis=1)
    if lost.any():
        raise ValueError(f"row {int(lost.argmax())}: logits beyond {_LARGEST:.0f}, the largest float16")
    return rounded.tobytes()


def decode(data: bytes, count: int, width: int) -> NDArray[np.float32]:
    """Logits of rows of a section, float32 [count, width] in nats, exact.

    Raises SectionError: `E_SECTION_SIZE` for a wrong length; `E_SECTION_VALUE`, naming the row, for a value that is
    not finite.
    """
    if len(data) != 2 * count * width:
        raise SectionError("E_SECTION_SIZE", field="lab", found=len(data), expected=2 * count * width)
    stored = np.frombuffer(data, "<f2").reshape(count, width)
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        raise SectionError("E_SECTION_VALUE", f"row {int(finite.argmin())} has a logit that is not finite", field="lab")
    return stored.astype(np.float32)
