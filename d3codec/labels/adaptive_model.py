"""What adaptive labels learn on the way: where the next number lies, and how far off that may be (spec/labels.md 8.3).

All is integers, the same in encoder and decoder on every machine. A *number* is how many steps the logit of the class
lies above another column's; centres and errors are in 1/16 step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import mul

LARGEST = (1 << 24) - 1
"""The largest difference of two logits, in 1/256 nat: float32 holds it."""

_LARGEST_ERROR = 1 << 14
_START_MEAN, _START_DEVIATION = 3 * 4096, 6144  # 3 and 1.5 nat
_START_WEIGHT = 16  # labels that the deviations at the start are worth
_POINT = 24  # bits of a gain after the binary point


def turns(classes: Iterable[int]) -> list[int]:
    """Rows in the order of coding: the first label of every class, lowest class first, then the second ones, .."""
    met: dict[int, int] = {}
    keys = []
    for row, class_ in enumerate(classes):
        met[class_] = turn = met.get(class_, 0) + 1
        keys.append((turn, class_, row))
    return [row for _, _, row in sorted(keys)]


class Model:
    """What is known before any label of a block, and after some; `step` in 1/256 nat.

    The mean of a number is that of its class and column, drawn to that of the column and the class, the other way
    round, and of all numbers. What the columns before it were off moves it by their gains, which follow the errors
    (least mean squares). Numbers lie between -`largest` and `largest`.
    """

    def __init__(self, width: int, step: int) -> None:
        self.largest = LARGEST // step
        variance = (_START_DEVIATION // step) ** 2
        self._start = 2 * _START_MEAN // step
        self._total = self._coded = 0
        self._labels = [0] * width  # of each class
        self._sums = [[0] * width for _ in range(width)]  # of each class and column
        # Squared errors and gains of columns that come in order, all of them correlated by one half:
        self._squares = [_START_WEIGHT // 2 * variance * (k + 2) // (k + 1) + 1 for k in range(width)]
        self._counts = [_START_WEIGHT] * width
        self._gains = [[(1 << _POINT) // (j + 2) for j in range(k)] for k in range(width)]

    def label(self, class_: int, code: Callable[[int, int, int], int]) -> list[int]:
        """Go through a label and learn from it: its numbers, one a column, 0 for the class.

        `code(column, centre, spread)` codes the number of every other column, in order, as `adaptive_numbers` does,
        and gives it.
        """
        sums, labels, squares, counts = self._sums, self._labels, self._squares, self._counts
        own, weight, most = sums[class_], 2 * labels[class_] + 4, 16 * self.largest
        general = (16 * self._total + self._start) // (self._coded + 2)
        numbers: list[int] = []
        errors: list[int] = []
        for column, gains in enumerate(self._gains):
            if column == class_:
                numbers.append(0)
                errors.append(0)
                continue
            mean = (32 * own[column] + 16 * sums[column][class_] + 4 * general) // (weight + labels[column])
            centre = max(-most, min(most, mean + (sum(map(mul, gains, errors)) >> _POINT)))
            variance = squares[column] // counts[column] + 1
            number = code(column, centre, (variance * variance).bit_length())
            number = max(-self.largest, min(self.largest, number))
            error = max(-_LARGEST_ERROR, min(_LARGEST_ERROR, 16 * number - centre))
            numbers.append(number)
            errors.append(error)
            own[column] += number
            self._total += number
            squares[column] += error * error
            counts[column] += 1
        labels[class_] += 1
        self._coded += len(errors) - 1
        shares = [(error << _POINT) // square for error, square in zip(errors, squares, strict=True)]
        for gains, error in zip(self._gains, errors, strict=True):
            if error:
                gains[:] = [gain + error * share for gain, share in zip(gains, shares, strict=False)]
        return numbers
