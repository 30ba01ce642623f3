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
    from matplotlib.axes import Axes

    from d3codec.training.comparison import Row

LINE_PIXELS = 17.0
COLOURS = {"d3m": "#c2410c", "real": "#1d4ed8", "reference": "#525252"}


def require_matplotlib() -> None:
    """Raise MissingExtraError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("demo")


def accuracy_against_bytes(rows: Sequence[Row], path: str | Path, *, title: str) -> Path:
    """Draw accuracy (percent, spread over runs as bars) over bytes (log axis) and save a PNG.

    Rows without bytes (chance) are left out.
    Raises MissingExtraError without matplotlib.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = [row for row in rows if row.bytes]
    for row in drawn:
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
    accuracies = [row.accuracy_percent - row.spread for row in drawn]
    axes.set_ylim(min(accuracies) - 2.0, 100.9)
    sizes = [row.bytes for row in drawn]
    axes.set_xlim(min(sizes) / 2.2, max(sizes) * 2.2)
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the training set as published (log; the shared generator is not counted)")
    axes.set_ylabel("accuracy of the student on test images, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3, which="both")
    _name_points(axes, drawn)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    save_atomically(path, picture.getvalue())
    return Path(path)


def _name_points(axes: Axes, rows: Sequence[Row]) -> None:
    """A name beside each point: above a lone one, in a column at the right of those that share a size."""
    for row in rows:
        column = sorted(
            (other for other in rows if 0.9 < other.bytes / row.bytes < 1.1), key=lambda r: r.accuracy_percent
        )
        offset, colour = (0.0, 8.0), COLOURS[row.role]
        if len(column) > 1:
            pixels = [float(axes.transData.transform((other.bytes, other.accuracy_percent))[1]) for other in column]
            for place in range(1, len(pixels)):  # pushed up until no name covers the one below
                pixels[place] = max(pixels[place], pixels[place - 1] + LINE_PIXELS)
            place = column.index(row)
            own = float(axes.transData.transform((row.bytes, row.accuracy_percent))[1])
            offset = (10.0, (pixels[place] - own) * 72 / axes.figure.dpi - 3)
        axes.annotate(
            row.name,
            (row.bytes, row.accuracy_percent + (row.spread if len(column) == 1 else 0.0)),
            xytext=offset,
            textcoords="offset points",
            fontsize=9,
            ha="left" if len(column) > 1 else "center",
            color=colour,
        )
