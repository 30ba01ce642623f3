"""Five-fold cross-validation of the demo's table: every digit is tested once, by students that never saw it.

    python benchmarks/digits.py FOLDER -o benchmarks/results/digits.json

FOLDER/fold-K/pipeline is the generator of fold K, trained on that fold's training part alone by
`train_generator.py benchmarks/generators/digits-fold.toml --fold K/5 --seed K -o FOLDER/fold-K`. The teacher is
trained here, on the same part. The file of each fold is made by `encode` with the settings of the bundled one.
Finished folds are kept in FOLDER (rows.json) and not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from d3codec.format.save import save_atomically
from d3codec.methods.d3m import encode
from d3codec.sources import read_images
from d3codec.training import students
from d3codec.training.comparison import compare
from d3codec.training.demo import environment
from d3codec.training.teachers import load_teacher, train_teacher

FOLDS, IMAGES = 5, 1797
LABEL_STEP = 1536


def fold(number: int, folder: Path, seeds: int, steps: int, processes: int) -> dict[str, Any]:
    """Teacher, file and rows of one fold."""
    train, test = (read_images(f"digits:{part}:{number}/{FOLDS}") for part in ("train", "test"))
    place = folder / f"fold-{number}"
    weights, output = place / "teacher.safetensors", place / "digits.d3m"
    taught = train_teacher(train, weights, seed=number)
    report = encode(
        train,
        output,
        generator=place / "pipeline",
        teacher=weights,
        ipc=10,
        crops=1,
        crop_scale=(1.0, 1.0),
        label_step=LABEL_STEP,
        seed=number,
    )
    rows = compare(
        output,
        train,
        test,
        load_teacher(weights),
        generator=place / "pipeline",
        seeds=seeds,
        steps=steps,
        processes=processes,
    )
    logits = load_teacher(weights)(test.images)
    return {
        "fold": number,
        "images": len(test),
        "teacher_percent": round(students.accuracy(logits, test.labels), 2),
        "teacher": {key: value for key, value in taught.as_json().items() if key != "path"},
        "agreement_percent": report.agreement_percent,
        "file_bytes": report.bytes_total,
        "rows": [row.as_json() for row in rows],
    }


def pooled(folds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows over all folds: accuracy weighted by test images, spread over folds of the mean over seeds."""
    rows = []
    for parts in zip(*(part["rows"] for part in folds), strict=True):
        weights = [part["images"] for part in folds]
        mean = sum(row["accuracy_percent"] * w for row, w in zip(parts, weights, strict=True)) / sum(weights)
        rows.append(
            {
                "name": parts[0]["name"],
                "what": parts[0]["what"],
                "protocol": parts[0]["protocol"],
                "bytes": round(fmean(row["bytes"] for row in parts)),
                "accuracy_percent": round(mean, 2),
                "spread": round(stdev(row["accuracy_percent"] for row in parts), 2),
                "runs": sum(row["runs"] for row in parts),
                "binomial_error": round(students.binomial_error(mean, sum(weights)), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/digits.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=students.STEPS)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folds = []
    for number in range(FOLDS):
        saved = args.folder / f"fold-{number}" / "rows.json"
        if not saved.exists():
            rows = fold(number, args.folder, args.seeds, args.steps, args.processes)
            save_atomically(saved, json.dumps(rows).encode())
        folds.append(json.loads(saved.read_text()))
        print(f"fold {number}:", {row["name"]: row["accuracy_percent"] for row in folds[-1]["rows"]}, flush=True)
    result = {
        "what": f"{FOLDS}-fold cross-validation over {IMAGES} digits, teacher and generator retrained a fold",
        "rows": pooled(folds),
        "folds": folds,
        "environment": environment() | {"seeds": args.seeds, "steps": args.steps},
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["rows"], indent=1))


if __name__ == "__main__":
    main()
