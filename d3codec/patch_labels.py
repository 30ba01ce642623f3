"""The labels of a view of a dataset: as stored, and as students take them. No torch; numpy inside the calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from d3codec.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from d3codec.dataset import Dataset
    from d3codec.groups import GroupInfo

ONE_GROUP = "take one group at a time: .subset(groups=[0])"


class PatchLabels:
    """The labels of a dataset's images, read from the file when asked for.

    kind: how the file holds them, `hard` (the class alone) or the codec of the teacher's logits of every patch
    (`int8`, `fp16`, `top-k`, `ranked-head`), or `mixed` (groups differ).
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        kinds = {group.label_kind for group in dataset.groups}
        self._hard = "hard" in kinds
        self.kind = kinds.pop() if len(kinds) == 1 else "mixed"

    def __repr__(self) -> str:
        return f"<PatchLabels {self.kind}, {len(self._dataset)} images>"

    def logits(self, *, teacher_columns: bool = False) -> np.ndarray:
        """float32 (images, patches, classes of the file): teacher logits in nats, exactly as stored.

        Columns stand in the order of the file's classes, whatever the teacher's order; what it gave for other classes
        is left out. With `teacher_columns` all of its columns in its own order, for those who study the labels.
        Of a view only the labels of its classes are decoded.

        Raises:
            UsageError: there are none, groups have labels of different shapes, or more than 16 GiB of them.
            SectionError: the labels are damaged.
        """
        import numpy as np

        from d3codec.decoder.labels import LARGEST_BYTES

        dataset = self._dataset
        if self._hard:
            raise UsageError(
                f"{self.kind} labels: not every image has logits",
                file=dataset.path,
                hint="use .labels.hard()" + ("" if self.kind == "hard" else f", or {ONE_GROUP}"),
            )
        shapes = {
            (group.patches, group.teacher_columns if teacher_columns else group.label_width) for group in dataset.groups
        }
        agree(dataset, "labels of different shapes", shapes)
        ((patches, width),) = shapes
        classes, images = len(dataset.selection.classes), dataset.images_per_class
        if (size := 4 * classes * images * patches * width) > LARGEST_BYTES:
            raise UsageError(
                "more logits than one array should hold",
                file=dataset.path,
                found=f"{size:,} bytes",
                expected=f"at most {LARGEST_BYTES:,}",
                hint="take some classes or images at a time: .subset(classes=..., ipc=...)",
            )
        table = np.empty((classes, images, patches, width), np.float32)
        before = 0
        for group in dataset.groups:
            if before < images:
                self._fill(table[:, before:], group, teacher_columns)
                before += group.images_per_class
        return table.reshape(classes * images, patches, width)

    def _fill(self, table: np.ndarray, info: GroupInfo, teacher_columns: bool) -> None:
        """Logits of a group into (classes of the view, images, patches, columns): as many images as there is room."""
        import numpy as np

        from d3codec.decoder.labels import GroupLabels

        labels, images = GroupLabels(self._dataset.file, info.number), min(table.shape[1], info.images_per_class)
        each, patches, at = labels.rows_per_class, table.shape[2], 0
        runs = list(_runs(self._dataset.selection.classes))
        labels.expect((start * each, stop * each) for start, stop in runs)
        for start, stop in runs:
            for first, last in labels.pieces(start * each, stop * each):
                found = labels.logits(first, last, teacher_columns=teacher_columns)
                place, row = np.divmod(np.arange(first, last), each)
                image, patch = np.divmod(row, patches)
                wanted = image < images
                table[(place - start + at)[wanted], image[wanted], patch[wanted]] = found[wanted]
                del found  # before the next piece is decoded
            at += stop - start

    def view(self, view: str) -> np.ndarray:
        """float32 (images, patches, classes of the file): what a student is given, one rule of `d3codec.labels.views`.

        Arguments:
            view: `logits`; `softmax-T`, probabilities at temperature T, such as `softmax-20`; `mr-k`, the k largest
                logits, -inf elsewhere; `hard`, probability 1 for the largest logit; `rest-uniform`, logarithms of the
                probabilities at temperature 1.

        Raises:
            UsageError: another view, and as `logits` does.
        """
        from d3codec.labels import views

        try:
            views.parse(view)
            return views.apply(self.logits(), view)
        except ValueError as error:
            raise UsageError("no such view", field="view", found=view, expected=views.VIEWS) from error

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float64 (images, patches, classes of the file): softmax(logits / temperature); temperature > 0."""
        import numpy as np

        if not temperature > 0:
            raise UsageError("a temperature is above 0", field="temperature", found=temperature)
        scaled = self.logits().astype(np.float64) / temperature
        powers = np.exp(scaled - scaled.max(-1, keepdims=True))
        probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
        return probabilities

    def hard(self) -> np.ndarray:
        """int64 (images,): the class position of every image."""
        import numpy as np

        dataset = self._dataset
        return np.repeat(np.array(dataset.selection.classes, np.int64), dataset.images_per_class)


def agree(dataset: Dataset, what: str, values: set[tuple[int, int]]) -> None:
    """Raises UsageError for groups that differ."""
    if len(values) > 1:
        raise UsageError(f"the groups have {what}", file=dataset.path, found=sorted(values), hint=ONE_GROUP)


def _runs(classes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of ascending numbers that follow one another."""
    start = 0
    for end in range(1, len(classes) + 1):
        if end == len(classes) or classes[end] != classes[end - 1] + 1:
            yield classes[start], classes[end - 1] + 1
            start = end
