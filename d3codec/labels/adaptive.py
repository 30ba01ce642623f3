"""Teacher logits of few labels of few classes: kind `a` of the format (spec/labels.md section 8).

A label is its class's logit less each of the others, in steps, coded by a model that learns on the way: no statistics
and no tables are stored, and fifty labels cost little more each than thousands.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.entropy_adaptive import Reader, Writer
from d3codec.errors import SectionError
from d3codec.labels import adaptive_numbers
from d3codec.labels import rows as logit_rows
from d3codec.labels.adaptive_model import LARGEST, Model, turns

BLOCK = 4096
"""Labels that are coded, and can be decoded, together."""

MAX_WIDTH = 64
MAX_STEP = 65_535
UNITS_A_NAT = 256

_FIELD = "lab"

_BEND = 3 / (1 << 14)
"""Of the logits below the class's: x numbers times steps stand for x + 3 x^2 / 2^14, in 1/256 nat."""

# What the encoder weighs, all tuned for the KL divergence at temperatures 1 to 4 of 10 columns in 1 to 4 bytes.
_BIT = 0.2  # of rate, in squared steps
_TEMPERATURE = 2.0
_LEAST_WEIGHT = 0.3  # of an improbable column; the mean weight is 1


def encode(logits: ArrayLike, classes: ArrayLike, *, step: int) -> bytes:
    """Encode logits, float [N, W] in nat, W at most 64, of labels with these classes, int [N].

    What comes back is the class's logit less each other one, d, with an error of at most 1.5 steps, half a step as a
    rule: which of three numbers is taken weighs the error against its bits. `step`, 1 to 65,535, is in 1/256 nat where
    the other logit is the larger one; else steps grow with d, sqrt(1 + d / 5.33 nat) times, for a softmax hardly sees
    low logits. Raises ValueError for other shapes and steps, and, naming the row, for logits that are not finite, all
    equal or 65,536 nat apart, and a class that is no column.
    """
    if not 1 <= step <= MAX_STEP:
        raise ValueError(f"a step of {step}/256 nat is outside 1 to {MAX_STEP}")
    return _encode(*_checked(logits, classes), step)


def encode_bytes(logits: ArrayLike, classes: ArrayLike, bytes_per_label: float) -> bytes:
    """`encode` with the finest step whose bytes are at most `bytes_per_label` * N, found by bisection.

    Raises ValueError as `encode` does, and if no step makes them few enough, naming the least.
    """
    values, columns = _checked(logits, classes)
    budget, (count, width) = bytes_per_label * len(values), values.shape
    best = _encode(values, columns, MAX_STEP)
    if not len(best) <= budget:
        raise ValueError(
            f"{count} labels of {width} columns do not fit {bytes_per_label:g} bytes a label, "
            f"{len(best) / max(count, 1):.2f} is the least"
        )
    low, high = 0, MAX_STEP
    while high - low > 1:
        step = max(low + 1, math.isqrt(low * high))
        data = _encode(values, columns, step)
        low, high, best = (low, step, data) if len(data) <= budget else (step, high, best)
    return best


def decode(data: bytes, classes: NDArray[np.integer], width: int, rows: slice | None = None) -> NDArray[np.float32]:
    """Logits, float32 [N, width] in nat, the class's own being 0; with `rows` those alone, of no more blocks than they
    touch. The same on every machine.

    `classes`: int [N], column of every label's class, of all labels whatever rows are wanted. Raises SectionError
    (`E_SECTION_VALUE`) for damage and for a stream of other labels, ValueError for a width outside 1 to 64 and a
    class that is no column.
    """
    columns = _checked_classes(classes, width)
    count = len(columns)
    step, streams = _split(data, count)
    start, stop, _ = (rows or slice(None)).indices(count)
    if start >= stop:
        return np.zeros((0, width), np.float32)
    first, last = start // BLOCK, -(-stop // BLOCK)
    blocks = [
        _decode_block(streams[block], columns[block * BLOCK : (block + 1) * BLOCK].tolist(), width, step)
        for block in range(first, last)
    ]
    straight = np.concatenate(blocks)[start - first * BLOCK : stop - first * BLOCK] * step
    above = np.maximum(straight, 0)
    bent = np.minimum(straight + (3 * above * above >> 14), LARGEST)
    return (-bent).astype(np.float32) * np.float32(1 / UNITS_A_NAT)  # below 2^24: no rounding


def select(data: bytes, classes: NDArray[np.integer], width: int, chosen: NDArray[np.int64]) -> bytes:
    """The stream of some of its labels, int64 [n] ascending: the same logits, in numbers that are learned anew.

    `classes`: of all labels. Raises as `decode` does.
    """
    columns = _checked_classes(classes, width)
    step, streams = _split(data, len(columns))
    blocks = [
        _decode_block(stream, columns[BLOCK * number : BLOCK * (number + 1)].tolist(), width, step)
        for number, stream in enumerate(streams)
    ]
    if not len(chosen):
        return b""
    numbers, kept = np.concatenate(blocks)[chosen], columns[chosen].tolist()
    again = [
        _code_numbers(numbers[first : first + BLOCK].tolist(), kept[first : first + BLOCK], width, step)
        for first in range(0, len(chosen), BLOCK)
    ]
    return _joined(step, again)


def _code_numbers(numbers: list[list[int]], classes: list[int], width: int, step: int) -> bytes:
    """The stream of a block of known numbers."""
    writer, model = Writer(), Model(width, step)
    for row in turns(classes):

        def code(column: int, centre: int, spread: int, label: list[int] = numbers[row]) -> int:
            adaptive_numbers.write(writer, label[column], centre, spread)
            return label[column]

        model.label(classes[row], code)
    return writer.finish()


def _split(data: bytes, count: int) -> tuple[int, list[bytes]]:
    """Step and the stream of every block."""
    if not count:
        if data:
            raise _damaged("has bytes but no labels")
        return 1, []
    blocks = -(-count // BLOCK)
    head = 2 + 3 * (blocks - 1)
    if len(data) < head:
        raise _damaged("ends inside its head")
    step = int.from_bytes(data[:2], "little")
    if not step:
        raise _damaged("has a step of 0")
    lengths = [int.from_bytes(data[place : place + 3], "little") for place in range(2, head, 3)]
    if head + sum(lengths) > len(data):
        raise _damaged("has blocks of another length than it states")
    ends = np.cumsum([head, *lengths]).tolist()
    return step, [data[begin:end] for begin, end in pairwise([*ends, len(data)])]


def _decode_block(stream: bytes, classes: list[int], width: int, step: int) -> NDArray[np.int64]:
    reader, model = Reader(stream, field=_FIELD), Model(width, step)

    def code(_: int, centre: int, spread: int) -> int:
        return adaptive_numbers.read(reader, centre, spread)

    numbers = np.zeros((len(classes), width), np.int64)
    for row in turns(classes):
        numbers[row] = model.label(classes[row], code)
    reader.finish()
    return numbers


def _encode(values: NDArray[np.float64], columns: NDArray[np.int64], step: int) -> bytes:
    streams = []
    for first in range(0, len(values), BLOCK):
        block = slice(first, first + BLOCK)
        streams.append(_encode_block(values[block], columns[block], step))
    return _joined(step, streams)


def _joined(step: int, streams: list[bytes]) -> bytes:
    """Step, lengths of all blocks but the last, and the streams of the blocks."""
    lengths = b"".join(len(stream).to_bytes(3, "little") for stream in streams[:-1])
    return b"".join([step.to_bytes(2, "little"), lengths, *streams]) if streams else b""


def _encode_block(values: NDArray[np.float64], columns: NDArray[np.int64], step: int) -> bytes:
    differences = (values[np.arange(len(values)), columns, None] - values) * UNITS_A_NAT
    straight = np.sqrt(1 + 4 * _BEND * np.maximum(differences, 0)) - 1
    wanted = np.where(differences > 0, straight / (2 * _BEND), differences) / step
    shares, weights = _importance(values)
    classes = columns.tolist()
    writer, model = Writer(), Model(values.shape[1], step)
    for row in turns(classes):
        label = _Choice(writer, model.largest, step, wanted[row], shares[row], weights[row])
        model.label(classes[row], label.code)
    return writer.finish()


def _importance(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of every column and weight of its squared error, [N, W].

    Half the variance of the errors under the label's probabilities is their KL divergence, to second order. Weights
    have a floor, so that other temperatures are served too.
    """
    powers = np.exp((values - values.max(axis=1, keepdims=True)) / _TEMPERATURE)
    shares = powers / powers.sum(axis=1, keepdims=True)
    products = shares * (1 - shares)
    return shares, (products / (products.mean() or 1.0) + _LEAST_WEIGHT) / (1 + _LEAST_WEIGHT)


class _Choice:
    """Which numbers a label gets: of the three nearest to what is `wanted` the one with the least error and rate."""

    def __init__(
        self,
        writer: Writer,
        largest: int,
        step: int,
        wanted: NDArray[np.float64],
        shares: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> None:
        self._writer, self._largest, self._bend = writer, largest, _BEND * step
        self._wanted, self._shares, self._weights = wanted.tolist(), shares.tolist(), weights.tolist()
        self._mean_error = 0.0  # under the label's probabilities, of the columns before

    def code(self, column: int, centre: int, spread: int) -> int:
        wanted, weight = self._wanted[column], self._weights[column]
        goal, nearest = self._bent(wanted), round(wanted)
        options: list[tuple[float, int, float]] = []
        for number in (nearest, nearest - 1, nearest + 1):
            if -self._largest <= number <= self._largest:
                error = self._bent(number) - goal
                rate = adaptive_numbers.cost(number, centre, spread)
                options.append((weight * error * (error - 2 * self._mean_error) + _BIT * rate, number, error))
        _, number, error = min(options)
        self._mean_error += self._shares[column] * error
        adaptive_numbers.write(self._writer, number, centre, spread)
        return number

    def _bent(self, number: float) -> float:
        """What a number stands for, in steps."""
        return number + self._bend * number * number if number > 0 else number


def _checked(logits: ArrayLike, classes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values = logit_rows.checked(logits)
    columns = _checked_classes(classes, values.shape[1])
    if len(columns) != len(values):
        raise ValueError(f"{len(values)} labels have {len(columns)} classes")
    apart = values.max(axis=1) / 2 - values.min(axis=1) / 2 >= (LARGEST + 1) / UNITS_A_NAT / 2
    if apart.any():
        raise ValueError(f"row {int(apart.argmax())}: logits 65,536 nat apart, or more")
    return values, columns


def _checked_classes(classes: ArrayLike, width: int) -> NDArray[np.int64]:
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"adaptive labels have 1 to {MAX_WIDTH} columns, not {width}")
    found = np.asarray(classes)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"classes are integers [N], not {found.dtype} {list(found.shape)}")
    outside = (found < 0) | (found >= width)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"row {row}: class {found[row]} of labels of {width} columns")
    return found.astype(np.int64)


def _damaged(what: str) -> SectionError:
    return SectionError("E_SECTION_VALUE", what, field=_FIELD)
