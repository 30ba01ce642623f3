"""Training several networks at once, each in a process of its own on one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from d3codec.errors import UsageError
from d3codec.training.students import Progress, one_thread

Result = TypeVar("Result")


def in_processes(
    function: Callable[[Any, Progress], Result],
    tasks: Sequence[Any],
    stage: str,
    total: int,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[Result]:
    """`function(task, progress)` of each task, in order, several at once, each on one thread.

    `function` must be importable; it calls its `progress` once a step, and all of them together make `total` steps,
    which `progress(stage, done, total)` is told. An interrupt ends the workers at their next step, and so does the
    death of this process.
    """

    if processes < 1:
        raise UsageError("too few", field="processes", found=processes, expected="1 or more")

    told = -1

    def report(done: int) -> None:
        nonlocal told
        if progress is not None and done != told:
            progress(stage, done, total)
        told = done

    report(0)
    if processes == 1 or len(tasks) == 1:
        done = 0

        def step(*_: Any) -> None:
            nonlocal done
            done += 1
            report(done)

        with one_thread():
            return [function(task, step) for task in tasks]
    # Spawned, never forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(min(processes, len(tasks)), context, _prepare_worker, (counter,)) as pool:
        with _interrupts_ignored():  # which the workers inherit: Ctrl-C is for this process alone
            futures = [pool.submit(_in_worker, function, task) for task in tasks]
        try:
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                report(min(counter.value, total))
        except BaseException:
            counter.value = -(2**62)
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def prepare_process() -> None:
    """Make a process quick that does nothing but train: one thread, and memory that stays.

    glibc gives freed blocks of more than 128 KiB back to the kernel and asks for them again, zeroed, at the
    next step. That is a third of the time of a step of these small networks.
    """
    import ctypes

    torch.set_num_threads(1)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: nothing to tune
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 * 2**20)
    mallopt(trim_threshold, 2**30)


_counter: Any = None  # in a worker: the steps of all of them; negative when they shall end


def _prepare_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    prepare_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(function: Callable[[Any, Progress], Result], task: Any) -> Result:
    return function(task, _step)


def _step(*_: Any) -> None:
    with _counter.get_lock():
        if _counter.value < 0:
            raise InterruptedError("the others have ended")
        _counter.value += 1
