"""Pictures: accuracy against bytes, from the JSON alone, and contact sheets of what methods store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d3codec.format.save import save_atomically
from d3codec.training.plots import require_matplotlib

from .rows import Stored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WARM = ("#c2410c", "#e11d48", "#b45309", "#7e22ce", "#be185d", "#ea580c")
COLD = ("#1d4ed8", "#0891b2", "#0f766e", "#6366f1", "#64748b", "#38bdf8")
COLOURS = {"d3m": WARM, "opponent": COLD, "own-coder": ("#15803d",)}
MARKERS = {"d3m": "o", "opponent": "s", "own-coder": "D"}
COLUMNS, LARGEST_CLASSES, GAP = 6, 10, 6  # of a contact sheet: images a class and kind, classes, pixels between kinds


def draw(result: dict[str, Any], path: Path) -> None:
    """Two panels, hard and soft labels: a curve a method with the spread over runs, references and controls as lines.
    Raises MissingExtraError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["rows"]
    shown = [labels for labels in ("hard", "soft") if any(r["labels"] == labels and r["budget"] for r in rows)]
    figure = Figure(figsize=(5.6 * max(1, len(shown)), 6.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False, sharey=True)[0]
    colours = _colours(rows)
    for axes, labels in zip(panels, shown, strict=False):
        own = [row for row in rows if row["labels"] == labels]
        _panel(axes, own, [row for row in rows if row["role"] == "reference"], colours)
        protocols = sorted({row["protocol"] for row in rows if row["labels"] == labels and row["budget"]})
        axes.set_title(f"{labels} labels, protocol {', '.join(protocols)}", fontsize=10)
        axes.set_xlabel("bytes of the training set, everything counted (log)")
        axes.legend(fontsize=7, loc="lower right")
    panels[0].set_ylabel("accuracy of students on test images, %")
    figure.suptitle(f"{result['title']}, {result['side']} x {result['side']} pixels\n{caption(result)}", fontsize=9)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    save_atomically(path, picture.getvalue())


def caption(result: dict[str, Any]) -> str:
    """What the bytes do not hold: shared networks by name and size, as the rows of `.d3m` files state it."""
    shared: dict[str, int] = {}
    for row in result["rows"]:
        shared |= row.get("found", {}).get("shared", {})
    if not shared:
        return "nothing beside the bytes"
    named = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in shared.items())
    return f"shared by all .d3m files and not counted: {named}; opponents need their image codec"


def _colours(rows: list[dict[str, Any]]) -> dict[str, str]:
    """A colour a method, with hard and soft labels the same."""
    chosen: dict[str, str] = {}
    used = dict.fromkeys(COLOURS, 0)
    for row in rows:
        if row["budget"] and (name := _method(row)) not in chosen:
            role = row["role"]
            chosen[name] = COLOURS[role][used[role] % len(COLOURS[role])]
            used[role] += 1
    return chosen


def _method(row: dict[str, Any]) -> str:
    name: str = row["name"].removesuffix(", soft labels")
    return name


def _panel(axes: Axes, rows: list[dict[str, Any]], references: list[dict[str, Any]], colours: dict[str, str]) -> None:
    for name in dict.fromkeys(row["name"] for row in rows if row["budget"]):
        points = sorted((row for row in rows if row["name"] == name), key=lambda row: row["bytes"])
        role = points[0]["role"]
        axes.errorbar(
            [row["bytes"] for row in points],
            [row["accuracy_percent"] for row in points],
            yerr=[row["spread"] or 0.0 for row in points],
            color=colours[_method(points[0])],
            marker=MARKERS[role],
            markersize=4,
            linewidth=2.0 if role == "d3m" else 1.2,
            linestyle="--" if "random" in name else "-",
            capsize=2,
            label=name,
        )
    for row in references + [row for row in rows if row["role"] == "control"]:
        style = ":" if row["role"] == "reference" else "-."
        axes.axhline(row["accuracy_percent"], color="#525252", linestyle=style, linewidth=1)
        axes.annotate(
            f"{row['name']}, {row['accuracy_percent']:.1f}",
            (0.01, row["accuracy_percent"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
            color="#525252",
        )
    axes.set_xscale("log")
    axes.grid(alpha=0.3, which="both")


def contact_sheet(stored: Stored, classes: int, side: int, path: Path) -> None:
    """A PNG of the first images of each class, a class a row: of each group the photographs before coding, if it has
    any, and beside them what students get (the first of several copies), enlarged to about 64 pixels."""
    blocks = []
    for number, group in enumerate(stored.groups):
        before = stored.originals[number] if number < len(stored.originals) else None
        kinds = [kind for kind in (before, group.copies[0]) if kind is not None]
        blocks += [_block(kind, group.labels, min(classes, LARGEST_CLASSES)) for kind in kinds]
    height = max(block.shape[0] for block in blocks)
    factor = max(1, 64 // side)
    line = np.full((height * factor, GAP, 3), 255, np.uint8)
    parts: list[NDArray[np.uint8]] = []
    for block in blocks:
        tall = np.full((height, block.shape[1], 3), 255, np.uint8)
        tall[: block.shape[0]] = block
        parts += [line] * bool(parts) + [tall.repeat(factor, 0).repeat(factor, 1)]
    picture = BytesIO()
    Image.fromarray(np.concatenate(parts, 1)).save(picture, "PNG")
    save_atomically(path, picture.getvalue())


def _block(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> NDArray[np.uint8]:
    height, width = images.shape[1:3]
    block = np.full((classes, COLUMNS, height, width, 3), 255, np.uint8)
    for label in range(classes):
        own = images[labels == label][:COLUMNS]
        block[label, : len(own)] = own
    return block.transpose(0, 2, 1, 3, 4).reshape(classes * height, COLUMNS * width, 3)


def file_name(words: Sequence[Any]) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", " ".join(map(str, words)).lower()).strip("-")
