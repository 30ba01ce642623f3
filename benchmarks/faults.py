"""Kill an encode or a decode at random moments, run it again, and compare bytes: nothing may be lost but one unit.

    python benchmarks/faults.py encode --kills 20
    python benchmarks/faults.py decode --kills 20

An uninterrupted run comes first: `d3codec encode` of the digits, or `d3codec.decode` of 400 images into a folder (the
bundled file with 40 images a class and hard labels, made here). Then, until so many runs were killed: the same in a
fresh folder, SIGKILL after a random share of the shortest time seen so far, and the same again until it ends by itself.
The bytes must be those of the uninterrupted run, and nothing may be left beside them. A run that ended before its
moment is not counted. Of a decode the units in the cache are counted: every unit that it reported before it was killed
must be kept, so that at most the one in the making is lost, and the rerun must make the others and no more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Classes, HardLabels, row_section
from d3codec.training.demo import FILE, TEACHER, environment

IPC = 40
ENCODE = (
    "encode digits:train --method d3m --ipc 10 --crops 1 --crop-scale 1 1 --label-step 1536 --inversion-steps 30 "
    "--quiet"
)
DECODE = "d3codec.decode(FILE, FOLDER, processes=1)"
_DECODE = """import sys, d3codec
def tell(stage, done, total):
    if stage == "decode": print(done, flush=True)
d3codec.decode(sys.argv[1], sys.argv[2], processes=1, progress=tell)"""


@dataclass(frozen=True)
class Subject:
    """What is killed: the command in a folder, its output there, and what is known after the kill and the rerun."""

    what: str
    command: str
    arguments: Callable[[Path], list[str]]
    output: str
    state: Callable[[Path, str], dict[str, Any]]
    outcome: Callable[[Path, dict[str, Any]], dict[str, Any]]


# ------------------------------------------------------------------------------------------------------- subjects


def encode_state(folder: Path, _said: str) -> dict[str, Any]:
    state = folder / "out.d3m.work"
    names = state.iterdir() if state.exists() else []
    return {"state_found": sorted({path.name.split("-")[0].split(".")[0] for path in names})}


def encode_subject() -> Subject:
    def arguments(folder: Path) -> list[str]:
        return ["-m", "d3codec", *ENCODE.split(), "--teacher", str(TEACHER), "-o", str(folder / "out.d3m")]

    what = "SIGKILL at random moments of `d3codec encode`, then the same command again"
    return Subject(what, ENCODE, arguments, "out.d3m", encode_state, lambda _folder, _state: {})


def units(folder: Path) -> set[tuple[str, int]]:
    """Units of the cache, each with the number of its file, which is another one if it was written again."""
    return {(path.name, path.stat().st_ino) for path in folder.glob("home/decoded/*/*/*.unit")}


def decode_subject(file: Path) -> Subject:
    before: dict[Path, set[tuple[str, int]]] = {}

    def state(folder: Path, said: str) -> dict[str, Any]:
        before[folder] = units(folder)
        return {"units_reported": len(said.split()), "units_kept": len(before[folder])}

    def outcome(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
        after = units(folder)
        made = len(after - before[folder])
        good = found["units_kept"] >= found["units_reported"] and made == len(after) - found["units_kept"]
        return {"units_made_by_rerun": made, "units": len(after), "at_most_one_unit_lost": good}

    what = f"SIGKILL at random moments of a decode of {10 * IPC} images, then the same again"
    return Subject(what, DECODE, lambda folder: ["-c", _DECODE, str(file), str(folder / "out")], "out", state, outcome)


def file_of_many_images(path: Path) -> None:
    """The bundled dataset with 40 images a class: its embeddings and noise key, hard labels, no promised digest."""
    source = D3MFile.open(FILE)
    (group,) = source.content.groups
    images = group.images.model_copy(update={"count": IPC})
    group = group.model_copy(update={"images": images, "labels": HardLabels()})
    name = row_section(group)
    sections = {("cls", None): source.section("cls"), (name, 0): source.section(name, 0)}
    classes = Classes(authority=source.content.classes.authority, count=source.content.classes.count)
    path.write_bytes(write_d3m(ContentDraft(classes, (group,)), sections))


# --------------------------------------------------------------------------------------------------------- trials


def run(subject: Subject, folder: Path, kill_after: float | None) -> tuple[float, bool, str]:
    """Run the subject in `folder`, SIGKILL after so many seconds. Returns seconds, whether it ended itself, stdout."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *subject.arguments(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "D3CODEC_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
    )
    try:
        said, _ = process.communicate(timeout=kill_after)
        if process.returncode:
            raise SystemExit(f"a run ended with {process.returncode}")
        return time.monotonic() - started, True, said
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        return time.monotonic() - started, False, said


def digest(output: Path) -> str:
    """SHA-256 of a file, or of the names and bytes of all files of a folder."""
    if output.is_file():
        return hashlib.sha256(output.read_bytes()).hexdigest()
    found = hashlib.sha256()
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        found.update(path.relative_to(output).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def trial(subject: Subject, folder: Path, moment: float) -> dict[str, Any]:
    """One kill and the rerun after it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first, ended, said = run(subject, folder, moment)
    state = subject.state(folder, said)
    second = 0.0 if ended else run(subject, folder, None)[0]
    return {
        "killed_after_seconds": round(first, 2),
        "killed": not ended,
        **state,
        "rerun_seconds": round(second, 2),
        **subject.outcome(folder, state),
        "sha256": digest(folder / subject.output),
        "left_behind": sorted(path.name for path in folder.iterdir() if path.name not in (subject.output, "home")),
    }


def measure(subject: Subject, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    seconds, _, _ = run(subject, whole, None)
    expected = digest(whole / subject.output)
    trials: list[dict[str, Any]] = []
    while len(trials) < kills:
        # From the moment at which the imports are done, so that most kills hit work.
        found = trial(subject, folder / "trial", draw.uniform(0.2, 0.95) * seconds)
        if found["killed"]:
            trials.append(found)
            print(len(trials), found, flush=True)
        else:
            seconds = min(seconds, found["killed_after_seconds"])
    return {
        "what": subject.what,
        "command": subject.command,
        "kills": kills,
        "identical": sum(found["sha256"] == expected and not found["left_behind"] for found in trials),
        "at_most_one_unit_lost": sum(found.get("at_most_one_unit_lost", True) for found in trials),
        "shortest_whole_seconds": round(seconds, 2),
        "median_rerun_seconds": round(median(found["rerun_seconds"] for found in trials), 2),
        "runs": trials,
        "environment": environment(),
    }


def read(path: Path) -> dict[str, Any]:
    """Results that are there, by subject; older files held those of encode alone."""
    there = json.loads(path.read_text()) if path.exists() else {}
    return {"encode": there} if "runs" in there else there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=("encode", "decode"))
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/faults.json"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("faults.work"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.subject == "encode":
        subject = encode_subject()
    else:
        file_of_many_images(args.folder / "many.d3m")
        subject = decode_subject(args.folder / "many.d3m")
    result = measure(subject, args.folder, args.kills, args.seed)
    args.output.write_text(json.dumps(read(args.output) | {args.subject: result}, indent=1) + "\n")
    print(f"{result['identical']} of {args.kills} identical after a kill")
    shutil.rmtree(args.folder, ignore_errors=True)
    raise SystemExit(min(result["identical"], result["at_most_one_unit_lost"]) != args.kills)


if __name__ == "__main__":
    main()
