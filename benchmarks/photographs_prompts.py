"""What a learned prompt is worth on photographs: students on images of one generator, drawn under different prompts.

    python benchmarks/photographs_prompts.py --data FOLDER --work FOLDER

ImageNette at 32 pixels and the generator of benchmarks/models/photographs, which has seen none of its classes; 40
images a class, made at 64 pixels, hard labels, random crops and mirrors (protocol H), the student, the teacher and the
test images of photographs.py. All rows but the real photographs are files of one kind that differ in their prompts,
their guidance and their noise:

- learned prompt: one token a class, 2 bits a value, learned by `encode`; each image has its first noise. The guidance
  is that whose students (all seeds) are best on the 500 validation images. The teacher's agreement with the images
  stands beside it; it chooses nothing here.
- nearest name: the word of the generator's 197 class names whose photographs lie nearest, by the mean of the teacher's
  features of all photographs of the class that may be stored and of all that the generator was trained on.
- neutral prompt: "photo" and nothing else. The images of all classes are alike, so labels carry nothing.
- best of 8: the noise of each image that the teacher likes best, as `encode --candidates 8` makes it, at the guidance
  of the generator's hints (which the package takes) and at the chosen one.
- another noise, another learning: the learned prompt again with another noise key, and learned with another seed.
- real photographs: drawn from the same 8,936, other ones in each run; as many, and a quarter of them.

The teacher has seen neither validation nor test. Bytes are those of the whole file in profile `reproducible`, which
says nothing of its origin; of the photographs, those of their pixels. Not measured, since the network and the clusters
that find them are not kept in the repository: the visual words of each image as its prompt.

--data (or the variable D3CODEC_DATA) is the folder of photographs.py. Finished rows, files and decoded images stay in
the folder of --work: a run that was stopped goes on where it was. On one core, with a teacher in the work folder: 35
CPU minutes (learning 2 minutes, 3,200 candidates 8, 400 images 1, a student 22 s); the teacher takes 5 more,
another guidance than that of the hints, if it is chosen, 12.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one thread for everything

from photographs import about, add_rows, progress
from photographs_parts import d3m_rows
from photographs_parts.material import UNRELATED, material, read_part
from photographs_parts.prompts import LEARNED, NEAREST, NEUTRAL, Prompts
from photographs_parts.rows import Bench, Plan, Role
from photographs_parts.selection import prepared

from d3codec.errors import D3MError, MissingFileError
from d3codec.methods.generated import CANDIDATES
from d3codec.methods.plans import GENERATED_IPC
from d3codec.training.workers import prepare_process

DATASET, SIDE = "imagenette", 32
GUIDANCES = (1.0, 2.0, 3.0)
BUDGET = 1_000  # bytes of a file, all of which stay below it
NOT_MEASURED = [
    {
        "name": "visual words of each image",
        "reason": "the network and the clusters that find the words of an image are not kept in the repository",
    }
]

Row = dict[str, Any]


def tried(prompts: Prompts) -> list[Plan]:
    """The learned prompt at every guidance."""
    return [_plan(prompts, f"learned prompt, guidance {guidance:g}", guidance) for guidance in GUIDANCES]


def chosen_guidance(rows: Iterable[Row]) -> float:
    """That of the row whose students are best on the validation images, the lowest of equal ones. How many images the
    teacher agrees with does not count: it grows with guidance while images become alike."""
    ordered = sorted(rows, key=lambda row: row["settings"]["guidance"])
    best: float = max(ordered, key=lambda row: row["validation_percent"])["settings"]["guidance"]
    return best


def others(prompts: Prompts, guidance: float) -> list[Plan]:
    """All other rows, at the guidance that was chosen."""
    classes = prompts.selection.material.classes
    plans = [
        _plan(prompts, "nearest name", guidance, prompt=NEAREST),
        _plan(prompts, "neutral prompt", guidance, prompt=NEUTRAL),
    ]
    for each in dict.fromkeys((prompts.package_guidance, guidance)):
        plans.append(_plan(prompts, f"learned prompt, best of 8, guidance {each:g}", each, candidates=CANDIDATES))
    plans += [
        _plan(prompts, "learned prompt, another noise", guidance, noise_key=1),
        _plan(prompts, "learned prompt, another learning", guidance, learning_seed=1),
    ]
    for per_class in (GENERATED_IPC, GENERATED_IPC // 4):
        settings = ({"images": per_class * classes},)
        name = f"real photographs, {per_class} a class"
        plans.append(Plan(name, "reference", None, settings, prompts.real, drawn=True))
    return plans


def _plan(
    prompts: Prompts,
    name: str,
    guidance: float,
    *,
    prompt: str = LEARNED,
    candidates: int = 1,
    noise_key: int = 0,
    learning_seed: int = 0,
) -> Plan:
    settings = {
        "prompt": prompt,
        "guidance": guidance,
        "candidates": candidates,
        "noise_key": noise_key,
        "learning_seed": learning_seed,
    }
    role: Role = "d3m" if prompt == LEARNED else "control"
    return Plan(name, role, BUDGET if role == "d3m" else None, (settings,), prompts.store)


def choice(rows: list[Row], package: float) -> dict[str, Any]:
    """What was chosen, and what the teacher would have chosen."""
    agreed = max(rows, key=lambda row: row["found"]["agreement_percent"])["settings"]["guidance"]
    return {
        "chosen": chosen_guidance(rows),
        "by": "mean accuracy of the students on the validation images",
        "by_agreement_with_the_teacher": agreed,
        "of_the_package": package,
    }


def measure(bench: Bench, prompts: Prompts, start: dict[str, Any], output: Path, show: Callable[[Row], None]) -> None:
    """Measure all rows, the choice of the guidance first, and write the result after each."""
    first = tried(prompts)
    rows, order = [], [plan.key for plan in first]
    for plan in first:
        rows.append(bench.row(plan))
        show(rows[-1])
        add_rows(output, start, rows[-1:], order)
    start = start | {"guidance": choice(rows, prompts.package_guidance)}
    rest = others(prompts, start["guidance"]["chosen"])
    order += [plan.key for plan in rest]
    for plan in rest:
        row = bench.row(plan)
        show(row)
        add_rows(output, start, [row], order)


def line(row: Row) -> str:
    """A row for a person."""
    figures = f"{row['accuracy_percent']:.1f} ± {row['spread'] or 0:.1f} ({row['runs']})"
    guidance = f"guidance {row['settings']['guidance']:g}" if "guidance" in row["settings"] else ""
    agreed = f"teacher agrees {row['found']['agreement_percent']:.1f}"
    beside = f"validation {row['validation_percent']:.1f}  {agreed}  {row['images']} images, {row['bytes']:,} B"
    return f"{row['name']:46}{guidance:12}{figures:18}{beside}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("D3CODEC_DATA"), help="folder of the parquet files")
    parser.add_argument("--work", type=Path, default=Path("photographs_prompts.work"), help="folder of all that lasts")
    parser.add_argument("--seeds", type=int, default=3, help="students a row")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/photographs_prompts.json"))
    args = parser.parse_args()
    if args.data is None:
        raise MissingFileError("no folder of images", field="--data", hint="Name it with --data or D3CODEC_DATA.")
    data = Path(args.data)
    os.environ.setdefault("D3CODEC_HOME", str(args.work.absolute() / "home"))  # decoded images, a MB a row
    prepare_process()
    teacher = args.work / f"teacher-{DATASET}-{SIDE}"
    selection = prepared(material(DATASET, SIDE, data), teacher, progress=progress)
    generator = d3m_rows.whole_generator(data, args.work)
    if generator is None:
        raise MissingFileError("no generator", file=str(d3m_rows.MODELS / d3m_rows.GENERATOR))
    prompts = Prompts(selection, generator, partial(read_part, data, UNRELATED), args.work / "files")
    start = json.loads(json.dumps(about(selection, args.seeds)))
    start |= {
        "what": "students on images that one generator draws under different prompts, hard labels; the guidance is "
        "chosen by students on validation images, figures of test images",
        "not_measured": NOT_MEASURED,
    }
    measure(
        Bench(selection, args.work / "rows", args.seeds),
        prompts,
        start,
        args.output,
        lambda row: print(line(row), flush=True),
    )
    result = json.loads(args.output.read_text())
    print("\n" + "\n".join(map(line, result["rows"])))
    print(json.dumps(result["guidance"]))


if __name__ == "__main__":
    try:
        main()
    except D3MError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
