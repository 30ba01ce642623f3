"""The download of a generator's weights into the Hugging Face cache, continued after interruptions, and its check.

Files are compared with the digests that the hub states, large ones before they enter the cache that other programs
share.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from d3codec.errors import GeneratorError, MissingExtraError, OutputError, UsageError
from d3codec.format.file import D3MFile
from d3codec.generators.hub import HubFile, Plan, endpoint, part_path, require_hub, storage, told
from d3codec.generators.ready import ReadyConfiguration
from d3codec.generators.weights import GeneratorRecord, describe, home, hub_cache

CHUNK_BYTES = 2**20


def fetch(plan: Plan, say: Callable[[str], None] = lambda line: None, *, bars: bool = False) -> Path:
    """Download what is missing and check every file; returns the folder of the generator.

    What was downloaded before an interruption is kept and continued. A file of the cache that is damaged is fetched
    again. `say` gets a line a file, `bars` shows the library's progress bars on stderr.

    Raises:
        OutputError: the disk has too little room, or cannot be written.
        GeneratorError: a downloaded file has another digest than the hub states; it is not kept.
        MissingError: no network.
    """
    if not plan.fits:
        raise OutputError(
            "not enough room for the weights",
            file=str(plan.folder),
            found=f"{plan.free_bytes:,} bytes free",
            expected=f"{plan.missing_bytes:,} bytes",
            hint="Free some room, name another place with HF_HUB_CACHE, or take smaller weights: --variant fp16",
        )
    with _bars(bars):
        for file in plan.files:
            path = plan.folder / file.path
            if path.is_file() and _digest(path, file) in (file.sha256, file.blob):
                continue
            if path.exists():
                say(f"{file.path}: damaged, fetched again")
                _remove(plan, path)
            say(f"{file.path}: {file.bytes:,} bytes")
            with told(plan.repository, plan.revision):
                _download(plan, file)
    return plan.folder


def expected_ids(text: str, cast: str) -> list[tuple[str, str]]:
    """(generator id in hexadecimal, cast) pairs that are wanted: an id under `cast`, or those of a .d3m file's groups.

    Raises:
        UsageError: neither 64 hexadecimal digits nor a file.
        FormatError: not a sound .d3m file.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return [(text.lower(), cast)]
    if not Path(text).is_file():
        raise UsageError(
            "neither a generator id nor a file", field="expect", found=text, expected="64 hex digits or .d3m"
        )
    groups = D3MFile.open(text).content.groups
    wanted: list[tuple[str, str]] = [(group.generator.hex(), group.cast) for group in groups if group.generator]
    if not wanted:
        raise UsageError("this file needs no generator: its images themselves are stored", field="expect", found=text)
    return wanted


def identify(folder: Path, wanted: list[tuple[str, str]] | None, cast: str) -> tuple[GeneratorRecord | None, str]:
    """What was fetched: its record and the cast, which is that of the id that it was to have, else `cast`. No record
    if no id is wanted and the extra `decode` is not installed.

    Raises:
        GeneratorError: it has none of the wanted ids.
        MissingExtraError: an id is wanted and the extra `decode` is not installed.
    """
    try:
        records = {name: describe(folder, name) for name in {pair[1] for pair in wanted or [("", cast)]}}
    except MissingExtraError:
        if wanted is not None:
            raise
        return None, cast
    if wanted is None:
        return records[cast], cast
    for id_, name in wanted:
        if records[name].id.hex() == id_:
            return records[name], name
    raise GeneratorError(
        "these weights are another generator",
        file=str(folder),
        found=", ".join(f"{record.id.hex()} (cast {name})" for name, record in records.items()),
        expected=" or ".join(f"{id_} (cast {name})" for id_, name in wanted),
        hint="It was fetched all the same and may be removed; another --revision may be the one.",
    )


def compare(plan: Plan, ready: ReadyConfiguration) -> dict[str, bool]:
    """For every weights file whose digest is recorded in a ready configuration: whether the hub has the same one.

    GeneratorError if the repository holds another family than the configuration says.
    """
    if plan.family != ready.family:
        raise GeneratorError(
            f"the repository is not what the ready configuration '{ready.name}' says",
            file=plan.repository,
            found=plan.family,
            expected=ready.family,
        )
    known = {file.path: ready.recorded(file.path) for file in plan.files}
    return {file.path: (file.sha256, file.bytes) == known[file.path] for file in plan.files if known[file.path]}


def _download(plan: Plan, file: HubFile) -> None:
    hub = require_hub()
    if file.sha256 is not None:
        _download_large(plan, file, file.sha256)
    # Finds the blob where it now lies and links it into the snapshot; small files it downloads itself.
    path = Path(
        hub.hf_hub_download(
            plan.repository, file.path, revision=plan.revision, cache_dir=hub_cache(), endpoint=endpoint()
        )
    )
    if file.sha256 is None or _blob(path) != _blobs(plan) / file.sha256:
        found, stated = _digest(path, file), file.sha256 or file.blob
        if found != stated:
            _remove(plan, path)
            raise _other_digest(plan, file, found, stated)


def _download_large(plan: Plan, file: HubFile, sha256: str) -> None:
    """A file of gigabytes into the cache's `blobs/`, continued where an earlier try ended, checked before it counts.

    The library itself continues only within one call (in its release 2.4), so the part of a file is kept here.
    """
    from filelock import FileLock
    from huggingface_hub.file_download import http_get

    hub, utils, part = require_hub(), import_module("huggingface_hub.utils"), part_path(plan.repository, sha256)
    blob = part.with_name(sha256)
    lock = home() / "fetch" / f"{sha256}.lock"
    for folder in (part.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if blob.is_file():
            if _digest(blob, file) == sha256:
                return
            blob.unlink()
        if part.is_file() and part.stat().st_size > file.bytes:
            part.unlink()
        with part.open("ab") as stream:
            if stream.tell() < file.bytes:
                http_get(
                    hub.hf_hub_url(plan.repository, file.path, revision=plan.revision, endpoint=endpoint()),
                    stream,
                    resume_size=stream.tell(),
                    headers=utils.build_hf_headers(),
                    expected_size=file.bytes,
                    displayed_filename=file.path,
                )
            stream.flush()
            os.fsync(stream.fileno())
        found = _digest(part, file)
        if found != sha256:
            part.unlink()
            raise _other_digest(plan, file, found, sha256)
        part.replace(blob)


def _digest(path: Path, file: HubFile) -> str:
    """What the hub states about such a file: SHA-256, or git's object id of a blob."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(plan: Plan, path: Path) -> None:
    """A file of a snapshot and the blob that it links to; what that blob may itself link to is not ours, nor is what
    lies outside of `blobs`: the library names a blob as the hub says."""
    blob = _blob(path)
    if blob is not None and blob.parent == _blobs(plan):
        blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _blobs(plan: Plan) -> Path:
    return Path(os.path.normpath((storage(plan.repository) / "blobs").absolute()))


def _blob(path: Path) -> Path | None:
    """What a file of a snapshot links to, no further; None for a file of its own."""
    return Path(os.path.normpath(path.parent.absolute() / path.readlink())) if path.is_symlink() else None


def _other_digest(plan: Plan, file: HubFile, found: str, expected: str | None) -> GeneratorError:
    return GeneratorError(
        "the download is not the file that the hub describes; it was removed",
        file=f"{plan.repository}/{file.path}",
        found=found,
        expected=expected,
        hint="The same command tries again. If it stays so, a proxy or a mirror changes files.",
    )


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    utils = import_module("huggingface_hub.utils")
    if shown or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
