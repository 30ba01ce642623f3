"""What stored labels are worth: accuracy of students on photographs against bytes a label.

    python benchmarks/label_students.py --data FOLDER --work FOLDER
    python benchmarks/label_students.py --plot          (the picture again, from the JSON alone)

Distilled datasets of real images: IPC 10, collages of 2 x 2 patches of 32 x 32. A teacher of our own, trained at
64 x 64, sees each patch enlarged to its size; its logits go through each codec and back, and students learn from what
comes back: S0 on patches without augmentation, S1 on crops by the area rule. Every codec is shown in two views: the
softmax of its logits (of top-k: rest uniform) and MR-k (the k largest alone).

Choices are made on the tenth of the training images that neither teacher nor students saw: the temperature of each
codec and view beforehand, by one S0 student each (`tuning`), then the view of each row by its S0 students. S1 takes
over both. Figures are of the test images and the last checkpoint. Students differ by their targets and seeds alone.

--data (or the variable D3CODEC_DATA) is a folder with Tiny-ImageNet without ImageNette's classes and ImageNette, as
parquet files named in label_students_parts/material.py. Finished teachers and students stay in the folder of --work: a
run that was stopped goes on where it was, and a codec whose decoded labels did not change is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one thread for everything

from label_students_parts.bench import AUGMENT, Bench
from label_students_parts.material import A_CLASS, PROBLEMS, SIDE, material
from label_students_parts.picture import draw

from d3codec.errors import D3MError, MissingFileError
from d3codec.format.save import save_atomically
from d3codec.training import students
from d3codec.training.demo import environment
from d3codec.training.workers import prepare_process

CODECS = ("hard", "full", "top-k", "ranked-head")


def about(benches: list[Bench], seeds: int) -> dict[str, Any]:
    """All of the result but its rows."""
    datasets = [
        {
            "name": bench.problem.name,
            "title": bench.problem.title,
            "width": bench.stuff.logits.shape[1],
            "labels": len(bench.stuff.logits),
            "steps": bench.problem.steps,
            "validation_images": len(bench.stuff.validation[1]),
            "test_images": len(bench.stuff.test[1]),
            "teacher": bench.stuff.teacher,
        }
        for bench in benches
    ]
    training = {
        "network": "ConvNet " + "-".join(map(str, students.block_widths(SIDE))) + " with GroupNorm",
        "side": SIDE,
        "seeds": seeds,
        "batch": students.BATCH,
        "peak_learning_rate": students.LEARNING_RATE,
        "augmentation_s1": asdict(AUGMENT),
    }
    what = (
        f"students on distilled datasets of real images, IPC {A_CLASS // 4}, 2 x 2 patches of {SIDE} pixels, labelled "
        "by a teacher through label codecs; temperature and view chosen on validation images, figures of test images"
    )
    return {"what": what, "datasets": datasets, "training": training, "environment": environment()}


def measure(data: Path, work: Path, output: Path, codecs: tuple[str, ...], seeds: int) -> None:
    """Write the result, a row at a time. Rows of other codecs stay, if an earlier run measured them like this one."""
    prepare_process()
    work.mkdir(parents=True, exist_ok=True)
    benches = [Bench(problem, material(problem, data, work), work / "students.json", seeds) for problem in PROBLEMS]
    start = json.loads(json.dumps(about(benches, seeds)))
    before = json.loads(output.read_text()) if output.exists() else {"rows": []}
    same = {key: before.get(key) for key in start} == start
    rows = {(row["dataset"], row["row"]): row for row in before["rows"] if same and row["codec"] not in codecs}
    for bench in benches:
        for row in bench.rows(codecs):
            rows[row["dataset"], row["row"]] = row
            place = {name: at for at, name in enumerate((*(p.name for p in PROBLEMS), *CODECS))}
            listed = sorted(rows.values(), key=lambda row: (place[row["dataset"]], place[row["codec"]]))
            save_atomically(output, (json.dumps(start | {"rows": listed}, indent=1) + "\n").encode())
            print(line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    """A row for a person."""
    name = f"{row['dataset']:18}{row['row']:17}"
    if "refused" in row:
        return f"{name}{row['refused']}"
    shown = {view: f"{figures['accuracy_percent']:.1f}" for view, figures in row["S0_views"].items()}
    figures = "  ".join(f"{p} {row[p]['accuracy_percent']:.1f} ± {row[p]['spread'] or 0:.1f}" for p in ("S0", "S1"))
    return f"{name}{row['bytes_per_label']:8.2f} B  {figures}  {row['view']} at T = {row['temperature']}  {shown}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("D3CODEC_DATA"), help="folder of the parquet files")
    parser.add_argument("--work", type=Path, default=Path("label-students"), help="folder of teachers and students")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/labels_students.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/labels-students.png"))
    parser.add_argument("--plot", action="store_true", help="only draw the picture of the result that is there")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=CODECS)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if not args.plot:
        if args.data is None:
            raise MissingFileError("no folder of images", field="--data", hint="Name it with --data or D3CODEC_DATA.")
        measure(args.data, args.work, args.output, tuple(args.codecs), args.seeds)
    draw(json.loads(args.output.read_text()), args.picture)


if __name__ == "__main__":
    try:
        main()
    except D3MError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
