"""Decode once in peace, once with kill -9 at three random moments, and twice at once into one folder; print JSON.

    python killed_decode.py FOLDER FILE PIPELINE SEED

Each decode is a process of its own, forked before torch starts a thread.
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

import torch

import d3codec.decoder.render  # noqa: F401
from d3codec.decoder.decode import decode
from d3codec.generators.load import load_generator


def start(folder: Path, file: Path, pipeline: Path, out: str) -> tuple[int, int]:
    """Fork a decode into `folder / out` with a cache of that name; returns its id and a pipe with a byte a unit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    code = 1
    try:
        os.environ["D3CODEC_HOME"] = str(folder / f"home-{out}")

        def tell(stage: str, _done: int, _total: int) -> None:
            if stage == "decode":
                os.write(writer, b".")

        decode(file, folder / out, generator=pipeline, processes=1, progress=tell)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(child: int, reader: int) -> None:
    while os.read(reader, 64):
        pass
    os.close(reader)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("a decode failed")


def kill(child: int, reader: int, units: int, delay: float) -> tuple[int, bool]:
    """Kill a child some seconds after so many units; how many it told, and whether it was still at work."""
    told = 0
    while told < units and os.read(reader, 1):
        told += 1
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.set_blocking(reader, False)
    try:
        told += len(os.read(reader, 64))
    except BlockingIOError:
        pass
    os.close(reader)
    return told, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def units(folder: Path, out: str) -> set[int]:
    return {path.stat().st_ino for path in (folder / f"home-{out}").glob("decoded/*/*/*.unit")}


def main(folder: Path, file: Path, pipeline: Path, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    load_generator(pipeline, cast="f16")  # for what it imports, once before the forks
    finish(*start(folder, file, pipeline, "peace"))
    chance, results, kept = random.Random(seed), [], []
    for moment in (chance.randint(0, 2), chance.randint(3, 4), chance.randint(5, 6)):
        results.append(kill(*start(folder, file, pipeline, "war"), moment, chance.random() * 0.05))
        kept.append(len(units(folder, "war")))
    before = units(folder, "war")
    finish(*start(folder, file, pipeline, "war"))
    both = [start(folder, file, pipeline, "together") for _ in range(2)]
    for child in both:
        finish(*child)
    return {
        "told": [told for told, _ in results],
        "killed": [killed for _, killed in results],
        "kept": kept,
        "made_at_last": len(units(folder, "war") - before),
        **{out: digest(folder / out) for out in ("peace", "war", "together")},
        "left": sorted(path.name for out in ("war", "together") for path in (folder / out).rglob(".*")),
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))))
