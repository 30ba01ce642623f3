"""A helper process of a decode: it is handed units and puts them into the cache (see `processes`)."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from d3codec.decoder.cache import UnitCache, cache_key
from d3codec.decoder.plan import Unit
from d3codec.decoder.precision import fingerprint, machine
from d3codec.decoder.renderers import Renderers, render_units
from d3codec.format.file import D3MFile
from d3codec.generators.weights import Names, require_torch
from d3codec.remote import RemoteFile, is_url

DONE = b"done\n"


@dataclass(frozen=True)
class Job:
    """All that a process needs to make units of a decode.

    `data` is the file in base64 if all of it is in memory, so that one behind a URL is not fetched again; else it is
    opened by its path or URL.
    """

    path: str
    data: str | None
    content_id: str
    profile: str
    device: str
    fingerprint: str
    generator: list[str] | None
    trust_records: bool
    at_once: int
    folder: str | None
    key: str
    limit: int
    protect: bool

    @classmethod
    def of(
        cls,
        file: D3MFile,
        profile: str,
        device: str,
        fingerprint: str,
        generator: Names,
        trust_records: bool,
        at_once: int,
        folder: Path | None,
        limit: int,
        protect: bool,
    ) -> Self:
        data = file.data
        return cls(
            file.path,
            None if data is None else base64.b64encode(data).decode(),
            file.content_id,
            profile,
            device,
            fingerprint,
            _listed(generator),
            trust_records,
            at_once,
            None if folder is None else os.fspath(folder),
            cache_key(file.content_id, profile, machine(profile, file.content.profile.name, fingerprint)),
            limit,
            protect,
        )

    def store(self) -> UnitCache | None:
        """The cache of this decode, if it has one."""
        return None if self.folder is None else UnitCache(self.folder, self.key, self.limit, self.protect)


def _listed(names: Names) -> list[str] | None:
    if names is None:
        return None
    return [os.fspath(name) for name in ([names] if isinstance(names, (str, Path)) else names)]


def main() -> None:
    """The whole life of a helper: a Job from stdin, then lists of units; `done` on stdout after each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not an answer
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    saving = threading.Lock()
    threading.Thread(target=_listen, args=(messages, saving), daemon=True).start()
    try:
        renderers, store, at_once = _prepare(Job(**json.loads(messages.get())))
        while True:
            os.write(answers, DONE)
            _make(json.loads(messages.get()), renderers, store, at_once, saving)
    except BaseException as error:  # the parent meets the same fault itself, and tells it
        os.write(answers, f"{type(error).__name__}: {error}".replace("\n", " ")[:500].encode() + b"\n")
        raise SystemExit(1) from None


def _listen(messages: queue.SimpleQueue[bytes], saving: threading.Lock) -> None:
    for line in iter(sys.stdin.buffer.readline, b""):
        messages.put(line)
    with saving:  # not in the middle of a file
        os._exit(0)


def _prepare(job: Job) -> tuple[Renderers, UnitCache, int]:
    file = _opened(job)
    store, here = job.store(), fingerprint(job.device, file.content)
    if file.content_id != job.content_id or here != job.fingerprint or store is None:
        raise RuntimeError("another file or another machine")
    require_torch().set_num_threads(1)
    return Renderers(file, job.profile, job.device, job.generator, job.trust_records, None), store, job.at_once


def _opened(job: Job) -> D3MFile:
    if job.data is not None:
        return D3MFile.open(base64.b64decode(job.data))
    return D3MFile.open(RemoteFile(job.path) if is_url(job.path) else job.path)


def _make(rows: list[Any], renderers: Renderers, store: UnitCache, at_once: int, saving: threading.Lock) -> None:
    units = [Unit(group, number, tuple(classes), tuple(indices)) for group, number, classes, indices in rows]
    for unit, pixels in zip(units, render_units(renderers, units, at_once), strict=True):
        with saving:
            store.put(unit, pixels)
