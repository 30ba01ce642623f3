"""Encode once in peace and once with kill -9 at three random moments; print both digests as JSON.

    python killed_encode.py FOLDER SEED

Each encode is a process of its own, forked before torch computes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tiny_case import OPTIONS, grey_teacher, three_greys

import d3codec.decoder.decode
import d3codec.encoder.invert
import d3codec.generators.stable_diffusion  # noqa: F401  # imported once, before the forks
from d3codec.methods.d3m import encode


def start(folder: Path, name: str) -> tuple[int, int]:
    """Fork an encode; returns its process id and a pipe with a byte for every finished piece of work."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    code = 1
    try:

        def tell(stage: str, done: int, _total: int) -> None:
            os.write(writer, bytes([done]) if stage == "invert" else b"\0")

        encode(
            three_greys(),
            folder / name,
            generator=folder / "pipeline",
            teacher=grey_teacher,
            **OPTIONS,
            save_seconds=0.0,
            progress=tell,
        )
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(child: int, reader: int) -> list[int]:
    """Wait for a child; the steps of inversion that it made. Raises if it failed."""
    steps = []
    while data := os.read(reader, 64):
        steps += [step for step in data if step]
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("an encode failed")
    return steps


def kill(child: int, reader: int, events: int, delay: float) -> bool:
    """Kill a child some seconds after so many pieces of work; whether it was still at work."""
    for _ in range(events):
        if not os.read(reader, 1):
            break
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main(folder: Path, seed: int) -> dict[str, Any]:
    finish(*start(folder, "peace.d3m"))
    chance = random.Random(seed)
    # An encode tells 3 + 3 classes, 12 steps, 2 units, labels and pack; after a kill all but steps again.
    moments = [chance.randint(0, 6), chance.randint(8, 11), chance.randint(7, 14)]
    killed = [kill(*start(folder, "war.d3m"), moment, chance.random() * 0.03) for moment in moments]
    left = sorted(path.name for path in (folder / "war.d3m.work").glob("*"))
    steps = finish(*start(folder, "war.d3m"))
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("peace.d3m", "war.d3m")}
    return {
        "moments": moments,
        "killed": killed,
        "left": left,
        "steps": steps,
        **digests,
        "remaining": sorted(path.name for path in folder.glob("*.work*")),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
