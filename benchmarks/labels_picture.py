"""docs/images/labels-rate.png from labels_rate.json and labels_linear.json: python benchmarks/labels_picture.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent
OUTPUT = ROOT.parent / "docs" / "images" / "labels-rate.png"
COLOURS = {1: "#1f6f8b", 20: "#c8553d"}


def main() -> None:
    rate, linear = (json.loads((ROOT / "results" / f"labels_{name}.json").read_text()) for name in ("rate", "linear"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110)
    divergence(left, rate)
    students(right, linear)
    figure.tight_layout()
    figure.savefig(OUTPUT)


def divergence(axes: Any, rate: dict[str, Any]) -> None:
    reference = next(row for row in rate["top-k"] if row["k"] == 10)["divergence"]
    for place, temperature in ((0, 1), (2, 20)):
        for rows, style, name in ((rate["curve"], "o-", "ranked head"), (rate["top-k"], "s--", "top-k, rest uniform")):
            size = [row.get("bytes a label", row.get("bytes")) for row in rows]
            value = [row["divergence"][place] / reference[place] for row in rows]
            axes.plot(size, value, style, color=COLOURS[temperature], ms=4, label=f"{name}, T = {temperature}")
    axes.axhline(1, color="grey", lw=0.8)
    axes.annotate("top-10: 40 bytes", (300, 1), fontsize=8, color="grey", ha="center", va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="bytes a label", ylabel="KL divergence, relative to top-10 labels")
    axes.set_title("divergence from the teacher, 1,000 classes", fontsize=10)
    _bytes(axes, (3, 10, 30, 100, 400))


def students(axes: Any, linear: dict[str, Any]) -> None:
    for temperature, colour in COLOURS.items():
        key = f"T = {temperature}"
        for name, style in (("ranked head", "o-"), ("top-", "s--")):
            rows = [row for row in linear["rows"] if row["layout"].startswith(name)]
            best: dict[float, float] = {}
            for row in rows:
                size, value = row["bytes a label"], row["students"][key]["accuracy"]
                best[size] = max(best.get(size, 0), value)
            label = "ranked head" if name == "ranked head" else "top-k, the better view"
            axes.plot(*zip(*sorted(best.items()), strict=True), style, color=colour, ms=4, label=f"{label}, {key}")
        raw = next(row for row in linear["rows"] if row["layout"].startswith("raw"))["students"][key]["accuracy"]
        axes.axhline(raw, color=colour, lw=0.8, ls=":")
        axes.annotate(f"raw fp16, {key}", (3.3, raw), fontsize=8, color=colour, va="bottom")
    axes.set(xscale="log", xlabel="bytes a label", ylabel="accuracy %")
    axes.set_title("linear students, each layout under its best view", fontsize=10)
    _bytes(axes, (4, 10, 20, 40, 100, 200))


def _bytes(axes: Any, ticks: tuple[int, ...]) -> None:
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
