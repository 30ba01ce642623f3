"""Kill an encode at random moments, run it again, and compare bytes: nothing may be lost but one unit of work.

    python benchmarks/faults.py -o benchmarks/results/faults.json --kills 20

An uninterrupted `d3codec encode` of the digits comes first. Then, until so many runs were killed: the same command in a
fresh folder, SIGKILL after a random share of the shortest time seen so far, and the same command again until it ends by
itself. The bytes must be those of the uninterrupted run, and nothing may be left beside them. A run that ended before
its moment is not counted.
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
from pathlib import Path
from statistics import median
from typing import Any

from d3codec.training.demo import TEACHER, environment

COMMAND = [
    "encode",
    "digits:train",
    "--method",
    "d3m",
    "--ipc",
    "10",
    "--crops",
    "1",
    "--crop-scale",
    "1",
    "1",
    "--label-step",
    "1536",
    "--inversion-steps",
    "30",
    "--quiet",
]


def encode(folder: Path, kill_after: float | None) -> tuple[float, bool]:
    """Run the command in `folder`; SIGKILL after so many seconds. Returns seconds and whether it ended by itself."""
    arguments = [sys.executable, "-m", "d3codec", *COMMAND, "--teacher", str(TEACHER), "-o", str(folder / "out.d3m")]
    started = time.monotonic()
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "D3CODEC_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
    )
    try:
        code = process.wait(kill_after)
        if code:
            raise SystemExit(f"encode ended with {code}")
        return time.monotonic() - started, True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return time.monotonic() - started, False


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "out.d3m").read_bytes()).hexdigest()


def trial(folder: Path, moment: float) -> dict[str, Any]:
    """One kill and the rerun after it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first, ended = encode(folder, moment)
    state = folder / "out.d3m.work"
    stages = sorted({path.name.split("-")[0].split(".")[0] for path in state.iterdir()}) if state.exists() else []
    second = 0.0 if ended else encode(folder, None)[0]
    return {
        "killed_after_seconds": round(first, 2),
        "killed": not ended,
        "state_found": stages,
        "rerun_seconds": round(second, 2),
        "sha256": digest(folder),
        "left_behind": sorted(path.name for path in folder.iterdir() if path.name not in ("out.d3m", "home")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/faults.json"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("faults.work"))
    args = parser.parse_args()
    draw = random.Random(args.seed)
    whole = args.folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    seconds, _ = encode(whole, None)
    trials: list[dict[str, Any]] = []
    while len(trials) < args.kills:
        # From the moment at which the imports are done, so that most kills hit work.
        run = trial(args.folder / "trial", draw.uniform(0.2, 0.95) * seconds)
        if run["killed"]:
            trials.append(run)
            print(len(trials), run, flush=True)
        else:
            seconds = min(seconds, run["killed_after_seconds"])
    same = sum(run["sha256"] == digest(whole) and not run["left_behind"] for run in trials)
    result = {
        "what": "SIGKILL at random moments of `d3codec encode`, then the same command again",
        "command": " ".join(COMMAND),
        "kills": len(trials),
        "identical": same,
        "shortest_whole_seconds": round(seconds, 2),
        "median_rerun_seconds": round(median(run["rerun_seconds"] for run in trials), 2),
        "runs": trials,
        "environment": environment(),
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{same} of {len(trials)} identical after a kill")
    shutil.rmtree(args.folder, ignore_errors=True)
    raise SystemExit(same != len(trials))


if __name__ == "__main__":
    main()
