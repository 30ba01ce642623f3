"""A hub on this machine: speaks so much of the Hugging Face hub's HTTP API that huggingface_hub is content.

Weights (.safetensors, .bin) are LFS files: their address redirects to another one, which knows ranges, as the real hub
redirects to its storage. Faults are set while it runs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"


class Hub:
    """`files` maps a path of the only repository to its bytes.

    Faults: `cut` {path: bytes after which one answer ends}, `stall` {path: bytes after which one answer waits for
    `close`}, `down` (storage answers 503), `wrong` {path: bytes that are sent instead}, `etags` {path: ETag that is
    sent instead}, `gated`. `requests` lists (method, path, Range header).
    """

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository, self.files = repository, files
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.closing = threading.Event()
        self.wrong: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.down = self.gated = False
        self.config: dict[str, Any] | None = None  # what the hub read in the repository's configurations
        self.requests: list[tuple[str, str, str | None]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.storage_url = self.url.replace("127.0.0.1", "localhost")  # another host, as with the real one
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the downloads of a file, in order."""
        return [span for method, asked, span in self.requests if method == "GET" and asked == f"/storage/{path}"]

    def info(self) -> dict[str, Any]:
        siblings = []
        for path, data in self.files.items():
            row: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob_id(data)}
            if is_large(path):
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
            siblings.append(row)
        return {
            "id": self.repository,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "siblings": siblings,
            "cardData": {"license": "mit"},
            **({} if self.config is None else {"config": self.config}),
        }


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.hub.closing.is_set():  # a connection that was kept open
            self.close_connection = True
            return
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        api, files = f"/api/models/{self.hub.repository}", f"/{self.hub.repository}/resolve/"
        if path.startswith("/api/") and not (path == api or path.startswith(f"{api}/")):
            self._refuse(404, "RepoNotFound")
        elif path.startswith(api):
            revision = path.removeprefix(api).removeprefix("/revision/")
            if revision not in ("", "main", COMMIT, "refs/pr/1"):
                self._refuse(404, "RevisionNotFound")
            else:
                self._send(200, json.dumps(self.hub.info()).encode(), {"Content-Type": "application/json"})
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif path.startswith(files):
            self._resolve(path.removeprefix(files).partition("/")[2])
        elif path.startswith("/storage/"):
            self._storage(path.removeprefix("/storage/"))
        else:
            self._refuse(404, "EntryNotFound")

    def _resolve(self, path: str) -> None:
        data = self.hub.files.get(path)
        if data is None:
            self._refuse(404, "EntryNotFound")
        elif is_large(path):
            etag = self.hub.etags.get(path, hashlib.sha256(data).hexdigest())
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            self._send(302, b"", linked | {"Location": f"{self.hub.storage_url}/storage/{path}"})
        else:
            etag = self.hub.etags.get(path, blob_id(data))
            self._send(200, self.hub.wrong.get(path, data), {"ETag": f'"{etag}"'})

    def _storage(self, path: str) -> None:
        if self.hub.down:
            self._refuse(503, "")
            return
        data, span = self.hub.wrong.get(path, self.hub.files[path]), self.headers.get("Range")
        first = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        headers = {"Accept-Ranges": "bytes"}
        if span:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        stall = self.hub.stall.pop(path, None)
        cut = self.hub.cut.pop(path, None) if stall is None else stall
        self._send(206 if span else 200, data[first:], headers, cut=cut)
        if stall is not None:
            self.hub.closing.wait(60)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, data: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"X-Repo-Commit": COMMIT} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True
