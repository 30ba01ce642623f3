"""Work beside the main path: pictures are compressed and saved while the next unit is computed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

THREADS, WAITING = 4, 64  # pieces of work that may wait bound the memory


class Background:
    """A few threads. Each piece of work runs on any of them; what comes of it is taken in order, by the caller's."""

    def __init__(self, threads: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads or min(THREADS, os.cpu_count() or 1), "d3codec-background")
        self._waiting: deque[tuple[Future[Any], Callable[[Any], None]]] = deque()

    def do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `work()` beside and `then(result)` here, some time later. Raises what earlier work raised."""
        while self._waiting and (len(self._waiting) >= WAITING or self._waiting[0][0].done()):
            self._take()
        self._waiting.append((self._pool.submit(work), then))

    def finish(self) -> None:
        """Wait for everything. Raises what it raised."""
        while self._waiting:
            self._take()

    def _take(self) -> None:
        future, then = self._waiting.popleft()
        then(future.result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
