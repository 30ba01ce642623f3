"""The tables of the docs, made from the JSON in benchmarks/results.

    python benchmarks/tables.py            # rewrites them in place
    python benchmarks/tables.py --check    # exit 1 if a table is not what the JSON says

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/determinism.md", "docs/labels.md", "docs/photographs.md")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def accuracy(row: dict[str, Any]) -> str:
    return f"{row['accuracy_percent']:.1f}" + (f" ± {row['spread']:.1f}" if row["runs"] > 1 else "")


def demo() -> str:
    """The demo's rows on the fixed test part and over the folds of the cross-validation, a column a protocol."""
    folds = {row["name"]: row for row in read("digits")["rows"]}
    lines = [
        "| trained on | bytes | images | H, fixed test part | H, five folds | S0, fixed test part | S0, five folds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in read("demo")["rows"]:
        cells = [
            accuracy(figures) if row["protocol"] in (protocol, "-") else ""
            for protocol in ("H", "S0")
            for figures in (row, folds[row["name"]])
        ]
        lines.append(f"| `{row['name']}`: {row['what']} | {row['bytes']:,} | {row['images']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def heldout() -> str:
    names = {
        "learned": "learned prompts (`encode`, 2 bits a value)",
        "class-words": "class names, never seen in training",
        "generic": "generic prompt",
    }
    lines = [
        "| prompts of the two held-out classes | accuracy % (ten classes) | recall of the two, % |",
        "|---|---:|---:|",
    ]
    for arm, row in read("heldout")["summary"].items():
        lines.append(f"| {names[arm]} | {accuracy(row)} | {row['held_out_recall_percent']:.1f} |")
    return "\n".join(lines)


def identity() -> str:
    """Differing 8-bit values by profile and variant; where none differ, the largest difference before rounding."""
    rows = read("identity")["rows"]
    profiles = list(dict.fromkeys(row["profile"] for row in rows))
    cells = {(row["variant"], row["profile"]): _difference(row) for row in rows}
    lines = [
        f"| against the reference | {' | '.join(f'`{name}`' for name in profiles)} |",
        "|---|" + "---:|" * len(profiles),
    ]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        shown = [cells.get((variant, profile), "") for profile in profiles]
        lines.append(f"| {variant} | {' | '.join(shown)} |")
    of = {profile: next(row["of"] for row in rows if row["profile"] == profile) for profile in profiles}
    lines.append(f"| *values compared* | {' | '.join(f'*{of[profile]:,}*' for profile in profiles)} |")
    return "\n".join(lines)


def _difference(row: dict[str, Any]) -> str:
    if row["differing"]:
        return f"{row['differing']:,} differ"
    return "**0**, bits equal" if row["bits_equal"] else f"**0** ({row['largest_before_rounding']:.1e})"


def speed() -> str:
    lines = ["| what | against | ratio | lowest to highest of the pairs |", "|---|---|---:|---:|"]
    for row in read("decode_speed")["rows"]:
        lines.append(
            f"| {row['what']} | {row['against']} | {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} |"
        )
    return "\n".join(lines)


def label_bars() -> str:
    lines = ["| bar | met with, bytes a label | asked | KL ratio at T = 1 / 4 / 20 |", "|---|---:|---:|---|"]
    for name, row in read("labels_rate")["bars"].items():
        ratios = row.get("ratio") or max((draw["ratio"] for draw in row["draws"]), key=max)
        lines.append(f"| {name} | **{row['met with']:.2f}** | {row['bar']:g} | {_ratios(ratios)} |")
    return "\n".join(lines)


def label_rate() -> str:
    result = read("labels_rate")
    reference = {row["k"]: row["divergence"] for row in result["top-k"]}
    lines = ["| labels | bytes | against top-10 | against top-50 |", "|---|---:|---|---|"]
    for row in result["curve"]:
        ratios = [_ratios(row[f"ratio to top-{k}"]) for k in (10, 50)]
        lines.append(f"| ranked head | {row['bytes a label']:.2f} | {' | '.join(ratios)} |")
    for row in result["top-k"]:
        ratios = [_ratios([a / b for a, b in zip(row["divergence"], reference[k], strict=True)]) for k in (10, 50)]
        lines.append(f"| top-{row['k']}, rest uniform | {row['bytes']} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def _ratios(values: list[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def label_linear() -> str:
    lines = [
        "| labels | bytes | student at T = 20 | its view | student at T = 1 | its view |",
        "|---|---:|---:|---|---:|---|",
    ]
    for row in read("labels_linear")["rows"]:
        cells = []
        for temperature in (20, 1):
            student = row["students"][f"T = {temperature}"]
            cells.append(f"{student['accuracy']:.1f} ± {student['standard deviation']:.1f} | {student['view']}")
        lines.append(f"| {row['layout']} | {row['bytes a label']:,.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def label_speed() -> str:
    lines = [
        "| 40,000 labels of | encode, s | decode, s | beside np.load of fp16 | beyond the result, MB | one class, ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in read("labels_speed")["rows"]:
        cells = [
            f"{row['encode']['seconds']:.0f}",
            f"{row['decode']['median seconds']:.2f}",
            f"{row['decode / np.load']:.1f} times",
            f"{row['memory beyond the result'] / 1e6:.0f}",
            f"{1000 * row['one class']:.0f}",
        ]
        lines.append(f"| {row['bytes a label']:.2f} bytes | {' | '.join(cells)} |")
    return "\n".join(lines)


def label_students() -> str:
    lines = [
        "| labels | bytes | S0, stored view | its view and T | S1, crops of collages |",
        "|---|---:|---:|---|---:|",
    ]
    result = read("labels_students")
    for dataset in result["datasets"]:
        teacher = dataset["teacher"]["accuracy_percent"]
        lines.append(f"| **{dataset['title']}**, {dataset['labels']:,} labels, teacher {teacher:.1f} % | | | | |")
        rows = [row for row in result["rows"] if row["dataset"] == dataset["name"]]
        for row in sorted(rows, key=lambda row: row["bytes_per_label"]):
            cells = [f"{row[p]['accuracy_percent']:.1f} ± {row[p]['spread']:.1f}" for p in ("S0", "S1")]
            view = f"{row['view']}, {row['temperature']}"
            lines.append(f"| {row['row']} | {row['bytes_per_label']:,.1f} | {cells[0]} | {view} | {cells[1]} |")
    return "\n".join(lines)


def label_teacher() -> str:
    lines = ["| teacher | bytes | statistics | against top-10 | against top-50 |", "|---|---:|---|---|---|"]
    for made in read("labels_teacher")["teachers"]:
        for row in made["rows"]:
            source = "shipped" if row["shipped"] else "in the file" if row["side"] > 2000 else "none"
            ratios = [_ratios(row[f"ratio to top-{k}"]) for k in (10, 50)]
            lines.append(f"| {made['teacher']} | {row['bytes a label']:.2f} | {source} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def photographs(protocol: str = "H", name: str = "photographs") -> str:
    rows = [row for row in read(name)["rows"] if row["budget"] and row["protocol"] == protocol]
    budgets = sorted({row["budget"] for row in rows})
    lines = [f"| | {' | '.join(f'{budget / 1000:g} KB' for budget in budgets)} |", f"|---|{'---:|' * len(budgets)}"]
    for title in dict.fromkeys(row["name"] for row in rows):
        of = {row["budget"]: row for row in rows if row["name"] == title}
        cells = [_accuracy(of[budget]) if budget in of else "" for budget in budgets]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def photograph_bars(name: str = "photographs") -> str:
    """The best file against the best opponent, hard labels: at equal bytes, and ours at a third of the opponent's,
    read off the best rows linearly in the logarithm of bytes."""
    rows = [row for row in read(name)["rows"] if row["budget"] and row["labels"] == "hard"]

    def best(role: str, budget: int) -> dict[str, Any] | None:
        found = [row for row in rows if row["role"] == role and row["budget"] == budget]
        return max(found, key=lambda row: row["accuracy_percent"], default=None)

    budgets = sorted({row["budget"] for row in rows})
    curve = [(row["bytes"], row["accuracy_percent"]) for budget in budgets if (row := best("d3m", budget))]
    lines = ["| | best `.d3m` | best image codec | lead | ours at a third of its bytes |", "|---|---|---|---:|---:|"]
    for budget in budgets:
        ours, theirs = best("d3m", budget), best("opponent", budget)
        if ours is None or theirs is None:
            continue
        third = _interpolated(curve, theirs["bytes"] / 3)
        cells = [f"{row['name']} {row['accuracy_percent']:.1f} ({row['bytes']:,} B)" for row in (ours, theirs)]
        cells.append(f"{ours['accuracy_percent'] - theirs['accuracy_percent']:+.1f}")
        cells.append("" if third is None else f"{third:.1f}")
        lines.append(f"| {budget / 1000:g} KB | {' | '.join(cells)} |")
    return "\n".join(lines)


def photograph_prompts() -> str:
    lines = ["| images | bytes | test % | teacher agrees, % |", "|---|---:|---:|---:|"]
    for row in read("photographs_prompts")["rows"]:
        agrees = row.get("found", {}).get("agreement_percent")
        size = "" if row["role"] == "reference" else f"{row['bytes']:,}"
        cells = [row["name"], size, accuracy(row), "" if agrees is None else f"{agrees:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _interpolated(curve: list[tuple[int, float]], at: float) -> float | None:
    for (left, low), (right, high) in pairwise(curve):
        if left <= at <= right:
            return low + (high - low) * math.log(at / left) / math.log(right / left)
    return None


def _accuracy(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {row['spread']:.1f}"
    best = f"**{row['accuracy_percent']:.1f}**" if row["role"] == "d3m" else f"{row['accuracy_percent']:.1f}"
    return f"{best}{spread}<br>{row['images']:,} images"


def imagenet_scale() -> str:
    result = read("imagenet_scale")
    lines = ["| dataset | bytes | labels | rest |", "|---|---:|---:|---:|"]
    for row in result["beside"]:
        cells = [f"{row[key]:,}" if isinstance(row.get(key), int) else "" for key in ("bytes", "labels", "rest")]
        lines.append(f"| {row['name']}: {row['computed_from']} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "demo": demo,
    "heldout": heldout,
    "identity": identity,
    "speed": speed,
    "label_bars": label_bars,
    "label_rate": label_rate,
    "label_linear": label_linear,
    "label_speed": label_speed,
    "label_students": label_students,
    "label_teacher": label_teacher,
    "imagenet_scale": imagenet_scale,
    "photographs": photographs,
    "photographs_soft": lambda: photographs("S1"),
    "photograph_bars": photograph_bars,
    "photograph_prompts": photograph_prompts,
    "photograph_bars_cifar10": lambda: photograph_bars("photographs-cifar10"),
}


def filled(page: str) -> str:
    """A page with every table made anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    stale = []
    for name in PAGES:
        path = ROOT / name
        old = path.read_text()
        if filled(old) != old:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(filled(old))
    print("\n".join(f"{name}: {'stale' if '--check' in sys.argv else 'made anew'}" for name in stale) or "up to date")
    raise SystemExit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
