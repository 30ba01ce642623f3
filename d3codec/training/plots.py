"""Figures for people: accuracy against bytes. Needs matplotlib (extra `demo`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from d3codec.errors import MissingExtraError
from d3codec.format.save import save_atomically

if TYPE_CHECKING:
    from d3codec.training.comparison import Row

COLOURS = {"d3m": "#c2410c", "real": "#1d4ed8", "reference": "#525252"}


def require_matplotlib() -> None:
    """Raise MissingExtraError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("demo")


def accuracy_against_bytes(rows: Sequence[Row], path: str | Path, *, title: str) -> Path:
    """Draw accuracy (percent, spread over runs as bars) over bytes (log axis) and save a PNG.

    Rows without bytes (chance) become a dashed line; rows of role `reference` too, with their bytes in the label.
    Raises MissingExtraError without matplotlib.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Labels of neighbouring points alternate sides, since several rows share one size on purpose.
    for number, row in enumerate(row for row in rows if row.bytes):
        axes.errorbar(
            row.bytes,
            row.accuracy_percent,
            yerr=row.spread,
            color=COLOURS[row.role],
            capsize=3,
            marker="o" if row.role == "d3m" else "s",
            markersize=6,
            linestyle="none",
        )
        right = number % 2 == 0
        axes.annotate(
            row.name,
            (row.bytes, row.accuracy_percent),
            xytext=(8 if right else -8, 5),
            fontsize=9,
            textcoords="offset points",
            ha="left" if right else "right",
            color=COLOURS[row.role],
        )
    accuracies = [row.accuracy_percent - row.spread for row in rows if row.bytes]
    axes.set_ylim(min(accuracies) - 2.0, 100.9)
    sizes = [row.bytes for row in rows if row.bytes]
    axes.set_xlim(min(sizes) / 2.2, max(sizes) * 2.2)
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the training set as published (log; the shared generator is not counted)")
    axes.set_ylabel("accuracy of the student on test images, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3, which="both")
    picture = BytesIO()
    figure.savefig(picture, format="png")
    save_atomically(path, picture.getvalue())
    return Path(path)
