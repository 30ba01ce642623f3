"""Bytes that encoders of d3codec or libraries made once: other versions might make others, so they are committed.

`make_vectors.py --given` makes them anew, which is needed only for another set of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from making.streams import numbers, sheet_of, tiles

FOLDER = Path(__file__).parent / "given"


def given(name: str) -> bytes:
    """The bytes of a committed file of this folder."""
    return (FOLDER / name).read_bytes()


def make() -> None:
    """Writes all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, maker in MAKERS.items():
        (FOLDER / name).write_bytes(maker())


# Numbers of labels and shapes of latents, for those who build files around the bytes.
RANKED_NONE = {"labels": 40, "width": 10}
RANKED_FILE = {"labels": 1_100, "width": 40}
RANKED_SHIPPED = {"labels": 12, "width": 1_000}
RANKED_ONE = {"labels": 3, "width": 1}
TRANSFORM_OWN = {"count": 300, "shape": (1, 2, 2)}
TRANSFORM_MATRIX = {"count": 40, "shape": (3, 3, 5)}
TRANSFORM_TAESD = {"count": 4, "shape": (4, 4, 4)}
TRANSFORM_TAESD3 = {"count": 3, "shape": (16, 8, 8)}


def columns_of(labels: int, classes: list[int]) -> np.ndarray:
    """Column of each label: as many of every class, in order."""
    return np.repeat(np.array(classes), labels // len(classes))


def squeezable() -> bytes:
    """Labels of kind `q`, 200 rows of 10, that a compressor finds something in."""
    drawn = np.array(numbers("squeezable", 2_000, 7))
    return ((drawn * drawn // 5 - 3) * np.tile([8, 1, -1, 2, 0], 400)).astype(np.int8).tobytes()


def _frame(raw: Callable[[], bytes], level: int, **options: bool) -> Callable[[], bytes]:
    def make() -> bytes:
        import zstandard

        return zstandard.ZstdCompressor(level=level, write_content_size=True, **options).compress(raw())

    return make


def _ranked(labels: int, width: int, classes: list[int], size: float, statistics: str) -> Callable[[], bytes]:
    def make() -> bytes:
        from d3codec.labels import encode_logits

        random = np.random.default_rng(labels)
        columns = columns_of(labels, classes)
        logits = random.normal(scale=2, size=(labels, width)) + 6 * np.eye(width)[columns]
        return encode_logits(logits, classes=columns, bytes_per_label=size, statistics=statistics)  # type: ignore[arg-type]

    return make


def _transform(count: int, shape: tuple[int, int, int], step: float, number: int) -> Callable[[], bytes]:
    def make() -> bytes:
        from d3codec.conditioning import transform, transform_statistics, transform_tables

        random = np.random.default_rng(count)
        if number:
            basis = transform_statistics.shipped(number, shape)
            normal = random.normal(size=(count, len(basis.scales)))
            normal[0, -5:] *= 12  # beyond the magnitudes that have symbols
            deviations = transform_tables.deviations(basis.scales)
            latents = basis.latents(np.rint(normal * deviations * 256).astype(np.int64), -8)
        else:
            flat = random.normal(size=(count, *shape)).cumsum(axis=-1).cumsum(axis=-2)
            latents = flat + 2 * flat.mean(axis=1, keepdims=True)  # channels that go together
        return transform.encode_at(latents, step, number=number)

    return make


def _sheet(format: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        from PIL import Image

        stream = io.BytesIO()
        picture = Image.fromarray(sheet_of(tiles("lossy", 4, (16, 16)), 2))
        picture.save(stream, format, **options)  # type: ignore[arg-type]
        return stream.getvalue()

    return make


MAKERS: dict[str, Callable[[], bytes]] = {
    "labels.zst": _frame(squeezable, 19),
    "labels-checksum.zst": _frame(squeezable, 3, write_checksum=True),
    "ranked-none.bin": _ranked(40, 10, list(range(10)), 9, "none"),
    "ranked-file.bin": _ranked(1_100, 40, [3 * n + 2 for n in range(11)], 4, "file"),
    "ranked-shipped.bin": _ranked(12, 1_000, [999, 0, 388, 207], 20, "shipped"),
    "ranked-one.bin": _ranked(3, 1, [0], 20, "none"),
    "transform-own.bin": _transform(300, (1, 2, 2), 0.6, 0),
    "transform-matrix.bin": _transform(40, (3, 3, 5), 0.5, 0),
    "transform-taesd.bin": _transform(4, (4, 4, 4), 40, 2),
    "transform-taesd3.bin": _transform(3, (16, 8, 8), 160, 1),
    "sheet.webp": _sheet("WEBP", quality=60, method=6),
    "sheet-lossless.webp": _sheet("WEBP", lossless=True, method=6),
    "sheet.avif": _sheet("AVIF", quality=60, speed=3, max_threads=1, autotiling=False),
}
