"""The picture: accuracy against bytes a label, from the JSON alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.training.plots import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"ranked-head": "#c2410c", "top-k": "#1d4ed8", "int8": "#15803d", "fp16": "#171717", "hard": "#a3a3a3"}
STYLES = {"S0": "-", "S1": "--"}


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel a dataset: codecs as curves with the spread over seeds, fp16 and hard labels as lines, S0 solid and S1
    dashed. Raises MissingExtraError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 5.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(result["datasets"]), squeeze=False)[0]
    for axes, about in zip(panels, result["datasets"], strict=True):
        rows = [row for row in result["rows"] if row["dataset"] == about["name"] and "refused" not in row]
        for protocol in STYLES:
            _protocol(axes, rows, protocol)
        teacher = about["teacher"]
        axes.set_title(
            f"{about['title']}, {about['labels']:,} labels; teacher {teacher['accuracy_percent']:.1f} %,\n"
            f"{teacher['accuracy_through_patches_percent']:.1f} % through patches of 32 pixels",
            fontsize=10,
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("bytes a label, everything in the file counted (log)")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("accuracy of students on test images, %")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path)


def _protocol(axes: Axes, rows: list[dict[str, Any]], protocol: str) -> None:
    for codec in ("ranked-head", "top-k", "int8"):
        points = [row for row in rows if codec in (row["codec"], row["row"])]
        if points:
            axes.errorbar(
                [row["bytes_per_label"] for row in points],
                [row[protocol]["accuracy_percent"] for row in points],
                yerr=[row[protocol]["spread"] or 0.0 for row in points],
                color=COLOURS[codec],
                linestyle=STYLES[protocol],
                marker="o" if codec == "ranked-head" else "s",
                markersize=4,
                capsize=2,
                label=f"{codec}, {protocol}",
            )
    for row in rows:
        if row["row"] in ("fp16", "hard"):
            level = row[protocol]["accuracy_percent"]
            axes.axhline(level, color=COLOURS[row["row"]], linestyle=STYLES[protocol], linewidth=1)
            axes.plot([], [], color=COLOURS[row["row"]], linestyle=STYLES[protocol], label=f"{row['row']}, {protocol}")
