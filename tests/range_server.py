"""A real server of ranges on this machine, which counts its requests and does as it is told: for tests of URLs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Span = tuple[int, int]  # first byte, and the one after the last


class Asked(NamedTuple):
    """A request: what for, and the Range header."""

    method: str
    path: str
    range: str | None


class RangeServer:
    """`files` maps paths to bytes. `tricks` maps paths to what answers instead: called with the handler, the bytes of
    the file, the range that is asked for and how many requests for this path came before. `requests` lists all."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tricks: dict[str, Callable[[Handler, bytes, Span, int], None]] = {}
        self.requests: list[Asked] = []
        self.closing = threading.Event()
        handler = type("Bound", (Handler,), {"ranges": self})
        self._server = _Quiet(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def put(self, data: bytes, trick: Callable[[Handler, bytes, Span, int], None] | None = None) -> str:
        """The URL of new bytes, that are served as `trick` does."""
        path = f"/{len(self.files)}.d3m"
        self.files[path] = data
        if trick is not None:
            self.tricks[path] = trick
        return self.address + path

    def asked(self, url: str) -> list[Span]:
        """The ranges that were asked for of a file."""
        path = url.removeprefix(self.address)
        spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", item.range or "") for item in self.requests if item.path == path]
        return [(int(span[1]), int(span[2]) + 1) for span in spans if span is not None]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Knows ranges and nothing of HEAD, as many a storage."""

    ranges: RangeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """No lines on stderr."""

    def do_HEAD(self) -> None:
        self.ranges.requests.append(Asked("HEAD", self.path, None))
        self.say(405)

    def do_GET(self) -> None:
        server, path, span = self.ranges, self.path.partition("?")[0], self.headers["Range"]
        before = sum(item.path == path for item in server.requests)
        server.requests.append(Asked("GET", path, span))
        if path.startswith("/api/") and (data := hub_answer(server, path)) is not None:
            self.say(200, data, {"Content-Type": "application/json"})
            return
        path = re.sub(r"^/datasets/one/set/resolve/\w+", "", path)
        if path not in server.files:
            self.say(404, b"<html>not found, but politely</html>")
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", span or "")
        bounds = (int(match[1]), int(match[2]) + 1) if match else (0, len(server.files[path]))
        server.tricks.get(path, Handler.part)(self, server.files[path], bounds, before)

    def part(self, data: bytes, span: Span, _before: int = 0, **headers: str) -> None:
        """A range, as it should be."""
        start, stop = span[0], min(span[1], len(data))
        if start >= stop:
            self.say(416, b"no such range", {"Content-Range": f"bytes */{len(data)}"})
            return
        stated = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "ETag": etag(data)}
        self.say(206, data[start:stop], stated | {name.replace("_", "-"): value for name, value in headers.items()})

    def say(
        self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, sent: int | None = None
    ) -> None:
        """An answer; with `sent` the connection ends after so many bytes of it."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(data if sent is None else data[:sent])
        if sent is not None:
            self.close_connection = True


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def hub_answer(server: RangeServer, path: str) -> bytes | None:
    """What the Hugging Face hub says of its dataset `one/set`, which has the files."""
    if path.startswith("/api/datasets/one/set/tree/"):
        rows = [
            {"type": "file", "path": name[1:], "size": len(data), "oid": "0" * 40}
            for name, data in server.files.items()
        ]
        return json.dumps(rows).encode()
    if path.startswith("/api/datasets/one/set"):
        return json.dumps({"id": "one/set", "sha": "c0ffee" + 34 * "0", "siblings": [], "tags": []}).encode()
    return None


@contextlib.contextmanager
def served() -> Iterator[RangeServer]:
    server = RangeServer()
    try:
        yield server
    finally:
        server.close()
