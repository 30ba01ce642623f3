"""Labels: teacher logits of patches to bytes and back, one file a codec (spec/labels.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["decode_logits", "encode_logits", "label_cost"]


def encode_logits(
    logits: ArrayLike,
    *,
    classes: ArrayLike,
    bytes_per_label: float,
    statistics: Literal["auto", "none", "file", "shipped"] = "auto",
) -> bytes:
    """Encode a teacher's logits, float [N, W] in nat, in at most `bytes_per_label` * N bytes, everything counted.

    `classes`: int [N], the teacher's column of each row's class. `statistics`: what is known of the teacher before
    any label is not stored at all (none), in these bytes (file) or comes with the package (shipped; 1,000 classes in
    the order of ImageNet-1k); auto takes whichever serves best. Rows come back in the order given, with the same
    argmax; only differences between logits of a row are kept. Raises ValueError for a size that is impossible, and,
    naming the row, for logits that are not finite or all equal and a class that is not a column.
    """
    from d3codec.labels import ranked_encoder

    return ranked_encoder.encode(logits, classes, bytes_per_label, statistics)


def decode_logits(data: bytes, *, classes: ArrayLike, view: str = "logits") -> NDArray[np.float32]:
    """Logits of `encode_logits`, float32 [N, W] in nat, the same on every machine, or a view of them.

    Views (labels/views.py): `logits`, `softmax-T`, `mr-k`, `hard`. Raises SectionError for damaged bytes or other
    `classes` than those of the encoder in number; ValueError for a view that there is not.
    """
    import numpy as np

    from d3codec.labels import ranked_head, views

    columns = np.asarray(classes)
    _, width, _ = ranked_head.stated(data)
    return views.apply(ranked_head.decode(data, columns, width), view)


def label_cost(data: bytes) -> dict[str, int]:
    """Bytes of `encode_logits`: `payload` of the labels, `side` of what they share (payload + side = len(data)), and
    `shipped`, the statistics of the package that they need. Raises SectionError for damaged bytes."""
    from d3codec.labels import ranked_head, statistics, stream

    side = ranked_head.side_bytes(data)
    shipped = len(statistics.shipped_bytes()) if ranked_head.stated(data)[2] == stream.SHIPPED else 0
    return {"payload": len(data) - side, "side": side, "shipped": shipped}
