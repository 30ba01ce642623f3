"""Several processes for one decode on one machine: helpers fill the cache, the process that asked takes it from there.

A helper is a fresh interpreter that is handed one run of units after the other through a pipe, so a slow one holds
nobody up. One that dies is noticed by its answer that never comes, and its units are made by others. A helper whose
parent dies, even by kill -9, reads the end of its pipe and ends too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from d3codec.decoder.cache_filler import DONE, Job
from d3codec.decoder.plan import Unit
from d3codec.generators.weights import require_torch

START_SECONDS = 20.0  # of work, for each process, that make its start (about 5 s) worth while
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from d3codec.decoder.cache_filler import main; main()"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worthwhile(seconds: float, device: str) -> int:
    """How many processes a decode should use that takes `seconds` more with one: one a GPU; on the CPU one a core, if
    each finds enough to do and there is memory for as many copies of this process."""
    if seconds <= START_SECONDS:
        return 1
    return max(1, min(most_processes(device), int(seconds / START_SECONDS) + 1))


def most_processes(device: str) -> int:
    """How many a decode on this machine may use at all."""
    return require_torch().cuda.device_count() if device == "cuda" else min(usable_cores(), _copies_in_memory())


def _copies_in_memory() -> int:
    """How many processes as large as this one has been fit into memory, itself included."""
    try:
        import resource

        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        rows = (line.split() for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = next(int(row[1]) * 1024 for row in rows if row[0] == "MemAvailable:")
    except (ImportError, OSError, StopIteration, ValueError):
        return usable_cores()  # unknown here
    with suppress(OSError, ValueError):  # a container may have less than the machine
        group = Path("/sys/fs/cgroup")
        allowed, used = ((group / name).read_text("ascii") for name in ("memory.max", "memory.current"))
        free = min(free, int(allowed) - int(used))
    return 1 + max(0, int(0.8 * free / max(own, 1)))


def environments(count: int, device: str) -> list[dict[str, str]]:
    """What the environment of each helper of `count` processes adds: one thread, and on GPUs the next of them."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if device != "cuda":
        return [threads] * (count - 1)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(number) for number in range(require_torch().cuda.device_count())]
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(1, count)]


class Helpers:
    """Helper processes and the runs that wait to be made, by number. Every run is claimed by one process at a time."""

    def __init__(self, job: Job, waiting: Mapping[int, list[Unit]], environments: Sequence[Mapping[str, str]]) -> None:
        self._waiting, self._making = dict(waiting), dict[int, list[Unit]]()
        self._changed = threading.Condition()
        self._closed, self._lost = False, list[str]()
        first = json.dumps(asdict(job)).encode() + b"\n"
        self._processes = [_start(environment) for environment in environments]
        self._threads = [
            threading.Thread(target=self._serve, args=(process, first), daemon=True) for process in self._processes
        ]
        for thread in self._threads:
            thread.start()

    def claim(self, number: int) -> bool:
        """Take a run on oneself; False while a helper is at it."""
        with self._changed:
            self._waiting.pop(number, None)
            return number not in self._making

    def claim_next(self) -> int | None:
        """Take the first run that waits on oneself, if there is one."""
        with self._changed:
            number = next(iter(self._waiting), None)
            if number is not None:
                del self._waiting[number]
            return number

    def wait(self, number: int) -> None:
        """Until no helper is at this run any more, or another run waits."""
        with self._changed:
            self._changed.wait_for(lambda: number not in self._making or self._waiting)
        self._warn()

    def close(self) -> None:
        """End all helpers, whatever they are at."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
        for process in self._processes:
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        for process, thread in zip(self._processes, self._threads, strict=True):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            thread.join()
            process.stdout.close()  # type: ignore[union-attr]
        self._warn()

    def _warn(self) -> None:
        lost, self._lost = self._lost, []
        for reason in lost:
            warnings.warn(f"a helper process ended early ({reason}); others do its work", stacklevel=2)

    def _serve(self, process: subprocess.Popen[bytes], first: bytes) -> None:
        """Hand runs to one helper until there are none, or it is gone."""
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        message, number, answer = first, None, b""
        try:
            while True:
                stdin.write(message)
                if (answer := stdout.readline()) != DONE:
                    break
                with self._changed:
                    if number is not None:
                        del self._making[number]
                        self._changed.notify_all()
                    if (number := next(iter(self._waiting), None)) is None:
                        return
                    self._making[number] = self._waiting.pop(number)
                units = [[unit.group, unit.number, unit.classes, unit.indices] for unit in self._making[number]]
                message = json.dumps(units).encode() + b"\n"
        except (OSError, ValueError):  # gone, or closed meanwhile
            pass
        reason = answer.decode("utf-8", "replace").strip() or _end(process)
        with self._changed:
            if number is not None:  # comes first, since the main process needs it soonest
                self._waiting = {number: self._making.pop(number), **self._waiting}
            if self._closed:
                self._waiting.clear()
            else:
                self._lost.append(reason)
            self._changed.notify_all()


def _start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={**os.environ, **environment},
    )


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "no answer"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
