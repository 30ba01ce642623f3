"""What is known of a teacher before any label: mean logits and related classes (spec/labels.md section 2).

A class j has a row b_j of small integers; the product of two rows says how the logits of two classes move together.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.entropy import Reader, Writer
from d3codec.errors import SectionError
from d3codec.labels import levels

UNITS_A_NAT = 4096
SHIPPED = "imagenet-1k.stats"
"""The statistics that come with the package: a teacher of ImageNet-1k's 1,000 classes in their usual order."""

_HEAD = struct.Struct("<IBHH")  # width, axes, noise, bytes of the stream
_MEAN_UNIT = UNITS_A_NAT // 8
_MEAN_RANGE, _ROW_RANGE = 31, 31  # largest values
_AXES_A_TABLE = 8
_MOST_VALUES = 1 << 20  # that statistics may have, since certain ones cost no bytes
_FEW_LANES, _LANES, _MANY = 8, 64, 1 << 16  # lanes of fewer values than that, and of more


@dataclass(frozen=True)
class Statistics:
    """Mean logits, int64 [W], in 1/4096 nat; rows of the classes, int64 [W, axes]; what rows do not explain of the
    variance of a logit, `noise`, at least 1."""

    mean: NDArray[np.int64]
    rows: NDArray[np.int64]
    noise: int

    @property
    def width(self) -> int:
        return len(self.mean)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Squared length of each class's row, [W]."""
        return np.asarray((self.rows * self.rows).sum(axis=1))

    @cached_property
    def shares(self) -> NDArray[np.int64]:
        """2^24 / (squared length + noise), rounded down, [W]."""
        return np.asarray((1 << 24) // (self.lengths + self.noise))

    @cached_property
    def weighted_rows(self) -> NDArray[np.int64]:
        """Row of each class times its share, [W, axes]."""
        return self.rows * self.shares[:, None]


def none(width: int) -> Statistics:
    """Nothing known: all classes alike."""
    return Statistics(np.zeros(width, np.int64), np.zeros((width, 0), np.int64), 1)


@cache
def shipped() -> Statistics:
    """The statistics in the package."""
    return unpack(shipped_bytes())[0]


@cache
def shipped_bytes() -> bytes:
    return resources.files("d3codec.labels").joinpath(SHIPPED).read_bytes()


def shipped_digest() -> str:
    """SHA-256 of the shipped statistics, in hex."""
    return hashlib.sha256(shipped_bytes()).hexdigest()


def fit(logits: ArrayLike, axes: int, step: float) -> Statistics:
    """Statistics of a teacher from its logits, float [N, W], rows of mean 0: the first `axes` principal axes, scaled
    by their standard deviation, in units of `step` nat."""
    z = np.asarray(logits, np.float32)
    mean = z.mean(axis=0)
    centred = z - mean
    axes = min(axes, *z.shape)
    covariance = (centred.T @ centred).astype(np.float64) / len(z)
    variances, vectors = np.linalg.eigh(covariance)
    scaled = vectors[:, ::-1][:, :axes] * np.sqrt(np.maximum(variances[::-1][:axes], 0))
    rows = np.clip(np.rint(scaled / step), -_ROW_RANGE, _ROW_RANGE).astype(np.int64)
    rest = float(np.mean(np.diag(covariance)) - np.mean((scaled * scaled).sum(axis=1)))
    coded_mean = np.clip(np.rint(mean * (UNITS_A_NAT / _MEAN_UNIT)), -_MEAN_RANGE, _MEAN_RANGE)
    return Statistics(coded_mean.astype(np.int64) * _MEAN_UNIT, rows, int(np.clip(rest / step**2, 1, 65_535)))


def pack(statistics: Statistics) -> bytes:
    """Statistics to bytes."""
    if statistics.mean.size + statistics.rows.size > _MOST_VALUES:
        raise ValueError(f"statistics of more than {_MOST_VALUES:,} values: take fewer axes")
    values, groups = _planes(statistics.mean // _MEAN_UNIT, statistics.rows)
    tables = [levels.choose(np.bincount(v + r, minlength=2 * r + 1)[None]) for v, r in zip(values, groups, strict=True)]
    writer = Writer(1, _lanes(statistics.rows.size))
    for plane, size, table in zip(values, groups, tables, strict=True):
        writer.put(plane + size, levels.tables(table), 0, [len(plane)])
    (stream,) = writer.finish()
    width, axes = statistics.rows.shape
    if len(stream) > 65_535:
        raise ValueError(f"statistics of {len(stream)} bytes, 65,535 is the limit: take fewer axes or a larger step")
    head = _HEAD.pack(width, axes, statistics.noise, len(stream))
    return head + b"".join(levels.pack(table) for table in tables) + stream


def unpack(data: bytes) -> tuple[Statistics, int]:
    """Statistics, and how many bytes they took. Raises SectionError (`E_SECTION_VALUE`) if they are damaged."""
    if len(data) < _HEAD.size:
        raise SectionError("E_SECTION_VALUE", "ends inside its statistics", field="lab")
    width, axes, noise, length = _HEAD.unpack_from(data)
    place = _HEAD.size
    sizes = [_MEAN_RANGE] + [_ROW_RANGE] * -(-axes // _AXES_A_TABLE)
    counts = [width] + [width * min(_AXES_A_TABLE, axes - first) for first in range(0, axes, _AXES_A_TABLE)]
    ends = place + sum(levels.packed_bytes(1, 2 * size + 1) for size in sizes)
    if not width or not noise or len(data) < ends + length or width * (axes + 1) > _MOST_VALUES:
        raise SectionError("E_SECTION_VALUE", "has statistics that do not fit their head", field="lab")
    reader = Reader([data[ends : ends + length]], _lanes(width * axes), field="lab")
    values = []
    for size, count in zip(sizes, counts, strict=True):
        packed = levels.packed_bytes(1, 2 * size + 1)
        table = levels.unpack(data[place : place + packed], 1, 2 * size + 1)
        values.append(reader.take(levels.tables(table), 0, [count]).astype(np.int64) - size)
        place += packed
    reader.finish()
    rows = np.concatenate([plane.reshape(-1, width) for plane in values[1:]]).T if axes else np.zeros((width, 0))
    return Statistics(values[0] * _MEAN_UNIT, np.ascontiguousarray(rows, np.int64), noise), ends + length


def _lanes(values: int) -> int:
    return _FEW_LANES if values < _MANY else _LANES


def _planes(mean: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], list[int]]:
    """Values to code, plane by plane: the mean, then the rows, axis by axis, eight axes a plane."""
    planes = [mean]
    planes += [rows[:, first : first + _AXES_A_TABLE].T.reshape(-1) for first in range(0, rows.shape[1], _AXES_A_TABLE)]
    return planes, [_MEAN_RANGE] + [_ROW_RANGE] * (len(planes) - 1)
