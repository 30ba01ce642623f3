"""The tables of the docs, made from the JSON in benchmarks/results.

    python benchmarks/tables.py            # rewrites them in place
    python benchmarks/tables.py --check    # exit 1 if a table is not what the JSON says

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/determinism.md")


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


TABLES: dict[str, Callable[[], str]] = {"demo": demo, "heldout": heldout, "identity": identity, "speed": speed}


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
