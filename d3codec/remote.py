"""The file behind a URL, fetched a range at a time as it is read: few requests, each of them checked and counted.

`http` and `https` go through the session of fsspec's file system, where status and headers can be checked; every other
protocol (`hf://`, `s3://`, ...) through the `cat_file` of its file system. No file object of fsspec is opened, because
its cache of blocks would fetch more than is asked for, and hide it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from d3codec.errors import (
    ChangedFileError,
    D3MError,
    HeadError,
    MissingError,
    MissingExtraError,
    MissingFileError,
    RemoteError,
    UsageError,
)

if TYPE_CHECKING:
    import aiohttp

FIRST_BYTES = 1 << 16  # of the first request: the head, and small files whole
GAP_BYTES = 1 << 18  # that are fetched for nothing rather than make another request
REQUEST_BYTES = 1 << 24  # most that is fetched ahead of what is read
MOST_BYTES = 1 << 30  # of a file; all that was fetched is kept, so this bounds the memory too
ATTEMPTS = 3  # to fetch a range, where the connection is cut off or the server is busy
PAUSE_SECONDS = 0.5  # before the second; twice that before the third
PATIENCE_SECONDS = 30.0  # without a byte
SLOWEST = 1 << 12  # bytes a second, once patience is used up

EXTRAS = {"http": "remote", "https": "remote", "hf": "hub", "s3": "s3", "s3a": "s3"}
"""Of the protocols that need one: the extra that brings it."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NO_RANGE = re.compile(r"bytes \*/(\d+)")
_GONE, _REFUSED, _BUSY = (404, 410), (401, 403), (429, 500, 502, 503, 504)
_CHECK = "Check the address and the network."

_Bounds = tuple[int, int]  # first byte, and the one after the last


def is_url(source: str) -> bool:
    return "://" in source


class RemoteFile:
    """A file behind a URL, as `D3MFile.open` takes it. Made by the first request, which finds its size.

    What was fetched is kept and never fetched again; what is expected to be read is fetched with its neighbours when
    the first byte of it is read. May be used by several threads, and travels between processes with what it has.

    Arguments:
        url: in a protocol that fsspec knows. most_bytes: that it may have.

    Attributes:
        name: the URL. size: bytes of the file.

    Raises (when made, and when it reads):
        MissingExtraError: the package that speaks the protocol is not installed.
        MissingFileError: nothing there. MissingError: no access.
        RemoteError: no network, a server that is too slow or gives something else than was asked for.
        ChangedFileError: another file than that of the first request.
        HeadError: more than `most_bytes` (E_BUDGET).
        UsageError: no such protocol.
    """

    def __init__(self, url: str, *, most_bytes: int = MOST_BYTES) -> None:
        self.name, self.size = url, 0
        self._most, self._version = most_bytes, _Version(None, None)
        self._known = False  # size and version
        self._kept, self._expected = _Kept(), list[_Bounds]()
        self._traffic = _Traffic()
        self._lock = threading.Lock()
        self._fetch(0, FIRST_BYTES)

    @property
    def fetched(self) -> tuple[int, int]:
        """Requests made, each hop of a redirect being one, and bytes of content received so far."""
        return self._traffic.requests, self._traffic.bytes

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, cut off at the end of the file."""
        stop = min(offset + length, self.size)
        with self._lock:
            while missing := self._kept.missing(offset, stop):
                self._fetch(*self._together(*missing[0]))
            return self._kept.take(offset, stop)

    def expect(self, spans: Iterable[_Bounds]) -> None:
        """Offsets and lengths of what will be read soon."""
        with self._lock:
            for offset, length in spans:
                self._expected += self._kept.missing(offset, min(offset + length, self.size))

    def whole(self) -> bytes | None:
        """All its bytes if they are here, without fetching any."""
        with self._lock:
            return None if self._kept.missing(0, self.size) else self._kept.take(0, self.size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def _together(self, start: int, stop: int) -> _Bounds:
        """What to fetch for bytes that are missing: with all that is expected around them and not far away."""
        wanted = {part for bounds in (*self._expected, (start, stop)) for part in self._kept.missing(*bounds)}
        self._expected = sorted(wanted)
        runs: list[_Bounds] = []
        for first, last in self._expected:
            if runs and first <= runs[-1][1] + GAP_BYTES:
                runs[-1] = runs[-1][0], max(runs[-1][1], last)
            else:
                runs.append((first, last))
        first, last = next(run for run in runs if run[0] <= start < run[1])
        if last - first > REQUEST_BYTES:
            first, last = start, max(stop, min(last, start + REQUEST_BYTES))
        return first, last

    def _fetch(self, start: int, stop: int) -> None:
        """Fetch these bytes and keep them; after an interruption what is left of them."""
        first = start
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_SECONDS * attempt)
            answer = self._ask(start, stop)
            if answer.size is not None:
                self._learn(answer.size, answer.version)
                stop = min(stop, self.size)
                self._kept.add(answer.first, answer.data)
                start += len(answer.data) if answer.first == start else 0
            if answer.fault is None or start >= stop:
                return
        raise RemoteError(
            f"cannot be fetched: {answer.fault}, {ATTEMPTS} times",
            file=self.name,
            found=f"{start - first} bytes from byte {first}",
            expected=f"{stop - first}",
            hint=_CHECK,
        )

    def _ask(self, start: int, stop: int) -> _Answer:
        protocol = self.name.partition("://")[0].lower()
        request = _Request(self.name, start, stop, self._most, self._traffic, self._compare)
        with _told(self.name, protocol):
            if protocol in ("http", "https"):
                return _ask_http(request)
            return _ask_other(request, self.size if self._known else None)

    def _learn(self, size: int, version: _Version) -> None:
        """Take from the first answer which file this is, and compare every other one with it."""
        if self._known:
            self._compare(size, version)
        elif size > self._most:
            raise _too_large(self.name, size, self._most)
        else:
            self.size, self._version, self._known = size, version, True

    def _compare(self, size: int | None, version: _Version) -> None:
        """Raises ChangedFileError for what an answer says of the file, if it is another than that of the first."""
        if not self._known:
            return
        sizes = [] if size is None else [("size", size, self.size)]
        for field, found, expected in [*sizes, *version.beside(self._version)]:
            if found != expected:
                raise ChangedFileError(
                    "the file was replaced while it was being read",
                    file=self.name,
                    field=field,
                    found=found,
                    expected=expected,
                    hint="Open it again: what was read so far is of the file before.",
                )


class _Version(NamedTuple):
    """What a server says of the version of a file."""

    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> _Version:
        etag = headers.get("ETag")  # W/ means that it was compressed on the way, perhaps
        return cls(None if etag is None else etag.removeprefix("W/"), headers.get("Last-Modified"))

    def beside(self, before: _Version) -> list[tuple[str, str, str]]:
        """Field, value now and value before of what tells versions apart, if the server stated it both times."""
        if self.etag is not None and before.etag is not None:
            return [("ETag", self.etag, before.etag)]
        if self.modified is not None and before.modified is not None:
            return [("Last-Modified", self.modified, before.modified)]
        return []


class _Request(NamedTuple):
    """Bytes `start` to before `stop` of a file of at most `most_bytes`. `compare` is shown size (None: not stated) and
    version before the content is received."""

    url: str
    start: int
    stop: int
    most_bytes: int
    traffic: _Traffic
    compare: Callable[[int | None, _Version], None]

    @property
    def range(self) -> str:
        """As HTTP writes it, which counts the last byte in."""
        return f"bytes={self.start}-{self.stop - 1}"


class _Answer(NamedTuple):
    """What came of a request: `data` from byte `first` on, of a file of `size` bytes (None: the answer says nothing of
    the file). `fault` says why there may be less of it than was asked for, and that it is worth another try."""

    first: int
    data: bytes | bytearray
    size: int | None
    version: _Version
    fault: str | None = None


class _Traffic:
    """What was asked for and received."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0


class _Kept:
    """Ranges of a file that are here."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes | bytearray]] = []  # ascending, without overlap

    def missing(self, start: int, stop: int) -> list[_Bounds]:
        """What is not here of these bytes."""
        found = []
        for first, piece in self._pieces:
            if start < min(first, stop):
                found.append((start, min(first, stop)))
            start = max(start, first + len(piece))
        return [*found, (start, stop)] if start < stop else found

    def take(self, start: int, stop: int) -> bytes:
        """These bytes, all of which are here."""
        near = ((first, piece) for first, piece in self._pieces if first < stop and start < first + len(piece))
        return b"".join(bytes(memoryview(piece)[max(start - first, 0) : stop - first]) for first, piece in near)

    def add(self, first: int, data: bytes | bytearray) -> None:
        """Keep bytes from `first` on; of what is here already the ones that are here."""
        gaps = self.missing(first, first + len(data))
        if gaps == [(first, first + len(data))]:
            self._pieces.append((first, data))
        else:
            self._pieces += [(start, data[start - first : stop - first]) for start, stop in gaps]
        self._pieces.sort(key=lambda piece: piece[0])


# ----------------------------------------------------------------------------------------------------------- http


def _ask_http(request: _Request) -> _Answer:
    """Raises a D3MError for an answer that another try would not better, and what `compare` raises."""
    import fsspec
    from fsspec.asyn import sync

    system = fsspec.filesystem("http")
    answer: _Answer = sync(system.loop, _get, system, request)
    return answer


async def _get(system: Any, request: _Request) -> _Answer:
    import aiohttp

    seconds = PATIENCE_SECONDS
    patience = aiohttp.ClientTimeout(connect=seconds, sock_connect=seconds, sock_read=seconds)
    span = {"Range": request.range, "Accept-Encoding": "identity"}  # of the file, not of something compressed
    options = {"timeout": patience, **system.kwargs}
    options["headers"] = {**options.get("headers", {}), **span}
    session: aiohttp.ClientSession = await system.set_session()
    request.traffic.requests += 1
    nothing = _Answer(request.start, b"", None, _Version(None, None))
    try:
        async with session.get(system.encode_url(request.url), **options) as response:
            request.traffic.requests += len(response.history)
            if response.status in _BUSY:
                return nothing._replace(fault=f"the server answers {response.status} {response.reason}")
            version = _Version.of(response.headers)
            first, length, size = _promised(request, response.status, response.headers)
            request.compare(length if size is None else size, version)
            data, fault = await _body(response, request, length)
    except TimeoutError as error:
        raise _too_slow(request.url, f"no byte for {seconds:g} s") from error
    except aiohttp.ClientConnectorError:
        raise  # no such server: another try would find the same
    except (aiohttp.ClientConnectionError, ConnectionError) as error:
        return nothing._replace(fault=_cut(error))
    if size is not None:
        return _Answer(first, data, size, version, fault)
    # The whole file: how long it is shows when all of it is here.
    return nothing._replace(fault=fault) if fault else _Answer(0, data, len(data), version)


def _promised(request: _Request, status: int, headers: Mapping[str, str]) -> tuple[int, int | None, int | None]:
    """What an answer says that it holds: its first byte, its length if stated, and the size of the file, None where the
    answer is the whole file. Raises a D3MError for one that does not fit the request."""
    url, start = request.url, request.start
    if status in _GONE:
        raise MissingFileError("nothing at this address", file=url, hint="Check the address.")
    if status in _REFUSED:
        raise MissingError("no access", file=url, found=f"status {status}", hint="Check the address and your rights.")
    encoded = headers.get("Content-Encoding", "identity") != "identity"
    length = None if encoded or "Content-Length" not in headers else int(headers["Content-Length"])
    if status == 200:
        return 0, length, None
    stated = headers.get("Content-Range", "")
    if status == 416 and (match := _NO_RANGE.fullmatch(stated)):
        if start < int(match[1]):
            raise _unfit(url, "a range that the file has is refused", stated, request.range)
        return start, 0, int(match[1])  # an empty file, or one that has become shorter
    if status != 206:
        raise _unfit(url, "an unexpected status", status, "206 or 200")
    if encoded:
        raise _unfit(url, "a compressed range", headers["Content-Encoding"], "the bytes of the file")
    if not (match := _RANGE.fullmatch(stated)):
        raise _unfit(url, "a range or a size that is not stated", stated or "no Content-Range", request.range)
    first, last, size = map(int, match.groups())
    if (first, last) != (start, min(request.stop, size) - 1):
        raise _unfit(url, "another range than was asked for", stated, request.range)
    if length not in (None, last + 1 - first):
        raise _unfit(url, "another length than that of the range", f"{length} bytes", last + 1 - first)
    return first, last + 1 - first, size


async def _body(
    response: aiohttp.ClientResponse, request: _Request, length: int | None
) -> tuple[bytearray, str | None]:
    """The content of an answer, of `length` bytes if that is known, and why it ended early, None if it did not."""
    import aiohttp

    data = bytearray()
    if length == 0:  # of status 416 there may be a page for people
        return data, None
    if length is not None and length > request.most_bytes:
        raise _too_large(request.url, length, request.most_bytes)
    began = time.monotonic()
    try:
        async for chunk in response.content.iter_any():
            request.traffic.bytes += len(chunk)
            data += chunk
            if length is not None and len(data) > length:
                raise _unfit(request.url, "more bytes than the range has", f"at least {len(data)}", length)
            if len(data) > request.most_bytes:
                raise _too_large(request.url, None, request.most_bytes)
            if (seconds := time.monotonic() - began) > PATIENCE_SECONDS + len(data) / SLOWEST:
                raise _too_slow(request.url, f"{len(data)} bytes in {seconds:.1f} s")
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError) as error:
        if isinstance(error, TimeoutError):
            raise
        return data, _cut(error)
    return data, None if length is None or len(data) == length else "the connection was cut off"


def _cut(error: Exception) -> str:
    return f"the connection was cut off ({type(error).__name__})"


# ------------------------------------------------------------------------------------------------ other protocols


def _ask_other(request: _Request, size: int | None) -> _Answer:
    """One call of `cat_file`, and where `size` is not known and shows not to be small one of `info`.

    What the file system does for it is its own business: it may make several requests, and repeats those that fail.
    """
    import fsspec
    from fsspec.asyn import AsyncFileSystem

    system, path = fsspec.core.url_to_fs(request.url)
    # Those that are not asynchronous open a file object, whose cache would read ahead.
    options = {} if isinstance(system, AsyncFileSystem) else {"cache_type": "none"}
    start, stop, traffic = request.start, request.stop, request.traffic
    traffic.requests += 1
    data = system.cat_file(path, start=start, end=stop, **options)  # by name: s3fs has another order
    traffic.bytes += len(data)
    if len(data) > stop - start:
        raise _unfit(request.url, "more bytes than were asked for", len(data), stop - start)
    if size is None and len(data) < stop - start:
        size = start + len(data)
    elif size is None:
        traffic.requests += 1
        size = system.info(path).get("size")
        if size is None:
            raise _unfit(request.url, "a file of no stated size", None, "its size")
    fault = "the answer ended early" if len(data) < min(stop, size) - start else None
    return _Answer(start, data, size, _Version(None, None), fault)


# --------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _told(url: str, protocol: str) -> Iterator[None]:
    """Errors of fsspec and of what is beneath it, in our words. It says "file not found" for many failures and puts the
    reason beneath."""
    try:
        yield
    except D3MError:
        raise
    except ImportError as error:  # fsspec names a package; the extra that brings it is ours to know
        if protocol not in EXTRAS:
            raise RemoteError(str(error), file=url) from error
        raise MissingExtraError(EXTRAS[protocol]) from error
    except Exception as error:  # every protocol has errors of its own
        reason = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        if isinstance(reason, FileNotFoundError):
            raise MissingFileError("nothing at this address", file=url, hint="Check the address.") from error
        if isinstance(reason, ValueError) and "rotocol" in str(reason):
            raise UsageError(str(reason), file=url, expected="a path or an https:// address") from error
        raise RemoteError(f"cannot be fetched: {type(reason).__name__}: {reason}", file=url, hint=_CHECK) from error


def _too_slow(url: str, found: str) -> RemoteError:
    hint = "Try again later, or fetch the file by other means and open the copy."
    return RemoteError("the server is too slow", file=url, found=found, hint=hint)


def _unfit(url: str, what: str, found: Any, expected: Any) -> RemoteError:
    return RemoteError(
        f"the server does not give what was asked for: {what}",
        file=url,
        found=found,
        expected=expected,
        hint="Fetch the file by other means and open the copy.",
    )


def _too_large(url: str, size: int | None, most_bytes: int) -> HeadError:
    found = "more" if size is None else f"{size} bytes"
    return HeadError("E_BUDGET", "not fetched", file=url, found=found, expected=f"at most {most_bytes} bytes")
