"""Photographs in a few kilobytes: accuracy of students on distilled files and on their opponents, at equal bytes.

    python benchmarks/photographs.py --data FOLDER --work FOLDER
    python benchmarks/photographs.py --data FOLDER --work FOLDER --dataset cifar10    (or --side 64)
    python benchmarks/photographs.py --data FOLDER --work FOLDER --sheet FOLDER       (only contact sheets, to look)
    python benchmarks/photographs.py --plot                                           (the figure again, from the JSON)

1 KB is 1,000 bytes. Everything is counted: images, labels, list of classes. One student for all rows, with steps by one
rule in the number of images (d3codec/training/photo_students.py). Settings of a row are chosen on the validation images
by one student (seed 0) a try, at most four tries; what is chosen is trained with three seeds and tested. Protocol H is
hard labels with random crops and mirrors; S1 is stored labels that stay with an image under crops and mirrors. The
teacher, three students trained on the whole pool, selects images and labels them; it never sees validation or test.

Opponents: contact sheets in AVIF, WebP and JPEG at the side and quality of the best PSNR that fit, with the noise that
gives them back the spectrum of photographs; a transform coder of our own that needs no network. CIFAR-10 takes the
settings that were chosen on ImageNette at 32 pixels, from the result that lies beside its own.

--data (or the variable D3CODEC_DATA) is a folder of the parquet files that photographs_parts/material.py names. Every
finished student stays in the folder of --work: a run that was stopped goes on where it was, and --only measures some
rows; the others stay in the result. Two runs with different --only may share the folder and the result.

Time on one core, beside the rows of `.d3m` files: the teacher 5 CPU minutes, a student 10 s (below 200 images) to 60 s
(all); rows of opponents, controls and references 170 students, 60 minutes, and image codecs 20 minutes. At 64 pixels
a student takes four times as long: 105 minutes in all, with fewer rows; CIFAR-10 30 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one thread for everything

from photographs_parts import d3m_rows, opponents
from photographs_parts.figure import contact_sheet, draw, file_name
from photographs_parts.material import DATA_SETS, Material, material
from photographs_parts.rows import Bench, Plan
from photographs_parts.selection import Selection, prepared
from PIL import features

from d3codec.errors import D3MError, MissingFileError, UsageError
from d3codec.format.save import save_atomically
from d3codec.training import photo_students, students
from d3codec.training.demo import environment
from d3codec.training.workers import prepare_process

RESULTS = Path("benchmarks/results")
LOOKED_AT = (1_000, 5_000, 20_000)  # budgets of contact sheets


def result_name(dataset: str, side: int) -> str:
    parts = ["photographs", *([dataset] if dataset != "imagenette" else []), *([str(side)] if side != 32 else [])]
    return "-".join(parts) + ".json"


def about(selection: Selection, seeds: int) -> dict[str, Any]:
    """All of the result but its rows."""
    known = selection.material
    parts = {"validation": known.validation, "test": known.test}
    right = {name: students.accuracy(selection.ensemble(p.images), p.labels) for name, p in parts.items()}
    return {
        "what": "students on photographs stored in so many bytes, everything counted; settings chosen on validation "
        "images, figures of test images",
        "dataset": known.name,
        "title": known.title,
        "side": known.side,
        "classes": known.classes,
        "class_list_bytes": known.class_bytes,
        "images": {"pool": len(known.pool), "validation": len(known.validation), "test": len(known.test)},
        "teacher": {
            "members": len(selection.ensemble.members),
            "digest": selection.ensemble.digest,
            "accuracy_percent": round(right["test"], 2),
            "validation_percent": round(right["validation"], 2),
        },
        "training": {
            "peak_learning_rate": photo_students.PEAK_RATE,
            "weight_decay": photo_students.WEIGHT_DECAY,
            "label_smoothing": photo_students.LABEL_SMOOTHING,
            "temperature": photo_students.TEMPERATURE,
            "bfloat16": photo_students.quick_bf16(),
            "steps_of": {str(count): photo_students.schedule(count)[0] for count in (20, 200, 1000, 5000)},
            "seeds": seeds,
        },
        "environment": environment() | {codec: features.version(codec) for codec in ("pil", "avif", "webp", "jpg")},
    }


def planned(selection: Selection, args: argparse.Namespace, budgets: tuple[int, ...]) -> list[Plan]:
    """All rows, in the order of the table."""
    return opponents.plans(selection, args.data, budgets) + d3m_rows.plans(selection, args.data, args.work, budgets)


def inherited(plans: list[Plan], path: Path) -> list[Plan]:
    """The plans with the settings that the result at `path` chose. Raises MissingFileError, and UsageError for a row
    that it does not have."""
    if not path.exists():
        raise MissingFileError("no result to take settings from", file=str(path), hint="Measure that data set first.")
    chosen = {(row["name"], row["budget"]): row.get("settings") for row in json.loads(path.read_text())["rows"]}
    missing = [plan.key for plan in plans if plan.key not in chosen]
    if missing:
        raise UsageError("no settings for a row", file=str(path), field=missing[0][0], found=missing[0][1])
    return [replace(plan, tries=(chosen[plan.key],)) for plan in plans]


def measure(bench: Bench, plans: Iterable[Plan], order: list[tuple[str, int | None]], output: Path) -> None:
    """Measure rows and write the result after each. Rows of an earlier run stay, if their teacher was this one."""
    start = json.loads(json.dumps(about(bench.selection, bench.seeds)))
    add_rows(output, start, [opponents.chance(bench.selection)], order)
    for plan in plans:
        row = bench.row(plan)
        add_rows(output, start, [row], order)
        print(line(row), flush=True)


def add_rows(
    output: Path, start: dict[str, Any], rows: list[dict[str, Any]], order: list[tuple[str, int | None]]
) -> None:
    """Put rows into the result, which another run may write to as well."""
    before = json.loads(output.read_text()) if output.exists() else {"rows": []}
    same = all(before.get(key) == start[key] for key in ("dataset", "side", "teacher", "images"))
    if before["rows"] and not same:
        print(f"{output}: rows of another teacher or other images are left out", file=sys.stderr)
    kept = {(row["name"], row["budget"]): row for row in before["rows"] if same}
    kept |= {(row["name"], row["budget"]): row for row in rows}
    place = {key: number for number, key in enumerate(order)}
    listed = sorted(kept.values(), key=lambda row: place.get((row["name"], row["budget"]), len(place)))
    output.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(output, (json.dumps(start | {"rows": listed}, indent=1) + "\n").encode())


def line(row: dict[str, Any]) -> str:
    """A row for a person."""
    figures = f"{row['accuracy_percent']:.1f} ± {row['spread'] or 0:.1f} ({row['runs']})"
    budget = f"{row['budget'] / 1000:g} KB" if row["budget"] else ""
    beside = f"validation {row['validation_percent']:.1f}, {row['images']} images, {row['steps']} steps"
    return f"{row['name']:36}{budget:>8}{row['bytes']:>10,} B  {figures:18}{beside} {row['settings']} {row['found']}"


def look(bench: Bench, plans: Iterable[Plan], output: Path, folder: Path) -> None:
    """Contact sheets of what methods store, with the settings of the result, else those of the first try."""
    rows = json.loads(output.read_text())["rows"] if output.exists() else []
    chosen = {(row["name"], row["budget"]): row.get("settings") for row in rows}
    folder.mkdir(parents=True, exist_ok=True)
    for plan in plans:
        if plan.budget is None or plan.labels == "soft":
            continue
        stored = plan.store(chosen.get(plan.key) or plan.tries[0], 0)
        if stored is not None:
            known: Material = bench.selection.material
            path = folder / (file_name([known.name, known.side, plan.name, f"{plan.budget // 1000} kB"]) + ".png")
            contact_sheet(stored, known.classes, known.side, path)
            print(f"{path}  {stored.size:,} B, {stored.images} images", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("D3CODEC_DATA"), help="folder of the parquet files")
    parser.add_argument("--work", type=Path, default=Path("photographs.work"), help="folder of teacher and rows")
    parser.add_argument("--dataset", choices=DATA_SETS, default="imagenette")
    parser.add_argument("--side", type=int, choices=(32, 64), default=32, help="pixels of the students' images")
    parser.add_argument("--budgets", type=float, nargs="+", help="in KB; by default all, for --sheet 1 5 20")
    parser.add_argument(
        "--only", metavar="PATTERN", default="", help="only rows whose name has this regular expression"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--picture", type=Path, help="by default docs/images/photographs*.png")
    parser.add_argument("--plot", action="store_true", help="only draw the figure of the result that is there")
    parser.add_argument("--sheet", type=Path, metavar="FOLDER", help="only write contact sheets, never committed")
    args = parser.parse_args()
    name = result_name(args.dataset, args.side)
    output = args.output or RESULTS / name
    picture = args.picture or Path("docs/images") / Path(name).with_suffix(".png")
    if not args.plot:
        if args.data is None:
            raise MissingFileError("no folder of images", field="--data", hint="Name it with --data or D3CODEC_DATA.")
        args.data = Path(args.data)
        prepare_process()
        whole = opponents.EVERY_BUDGET if (args.dataset, args.side) == ("imagenette", 32) else opponents.SOME_BUDGETS
        budgets = tuple(round(1000 * size) for size in args.budgets or ()) or (LOOKED_AT if args.sheet else whole)
        selection = prepared(
            material(args.dataset, args.side, args.data),
            args.work / f"teacher-{args.dataset}-{args.side}",
            progress=progress,
        )
        wanted = [plan for plan in planned(selection, args, budgets) if re.search(args.only, plan.name)]
        if source := DATA_SETS[args.dataset].settings_from:
            wanted = inherited(wanted, output.with_name(result_name(source, 32)))
        bench = Bench(selection, args.work / "rows", args.seeds)
        if args.sheet:
            look(bench, wanted, output, args.sheet)
            return
        order = [plan.key for plan in planned(selection, args, whole)] + [("chance", None)]
        measure(bench, wanted, order, output)
    draw(json.loads(output.read_text()), picture)


def progress(stage: str, done: int, total: int) -> None:
    if done % 100 == 0 and total:
        print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except D3MError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
