"""A program for `test_nothing_is_executed.py`: reads files under an audit hook and prints what happened, as JSON.

The files before `--` are read first and not watched.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WATCHED = (  # beginnings of events that reading a file has no need of
    *("exec", "compile", "import", "code.", "marshal.", "pickle.", "cpython.run_", "ctypes.", "sys.unraisablehook"),
    *(
        "subprocess.",
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.kill",
        "pty.",
    ),
    *("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "ssl.", "webbrowser.", "syslog."),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.putenv", "os.chdir", "os.listdir", "os.scandir", "shutil.", "tempfile.", "glob.", "mmap.", "sqlite3."),
)
opened: list[Any] = []
events: list[str] = []
watching = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event == "open":
        opened.append(arguments[0])
    elif event.startswith(WATCHED):
        events.append(f"{event} {arguments[0]}" if event == "import" else event)


def read(path: str) -> bool:
    """`load`, `info` and `verify`, as functions and as commands; whether the file is refused."""
    import d3codec
    from d3codec.cli.main import main
    from d3codec.decoder.verify import verify
    from d3codec.errors import D3MError

    refused = False
    try:
        dataset = d3codec.load(path)
        repr(dataset), dataset.classes, dataset.groups, dataset.about
        verify(path)
        for number, group in enumerate(dataset.groups):
            if group.label_kind != "hard":
                dataset.subset(groups=[number]).labels.logits()
    except D3MError:
        refused = True
    for arguments in (["info", path], ["info", path, "--json"], ["info", path, "--bytes"], ["verify", path, "--json"]):
        with redirected(), contextlib.suppress(SystemExit):
            main(arguments)
    return refused


@contextlib.contextmanager
def redirected() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def self_test() -> None:
    """Everything that must be seen."""
    import ctypes
    import marshal
    import os
    import pickle
    import socket
    import subprocess

    global watching
    watching = True
    eval("1")
    with contextlib.suppress(ImportError):
        __import__("this_is_no_module")
    pickle.loads(pickle.dumps(os.getcwd))
    marshal.loads(marshal.dumps(1))
    with contextlib.suppress(OSError):
        subprocess.Popen(["/nothing/there"])
    with contextlib.suppress(OSError):
        ctypes.CDLL("nothing-there.so")
    os.system("true")
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.settimeout(0.1)
        connection.connect(("127.0.0.1", 9))
    with contextlib.suppress(OSError):
        Path("nothing-there").unlink()
    os.listdir(".")  # noqa: PTH208  # the event
    with open(os.devnull):
        pass
    watching = False


def main() -> None:
    global watching
    sys.addaudithook(hook)
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        print(json.dumps({"events": sorted(set(events)), "opened": opened}))
        return
    first, watched = split(sys.argv[1:])
    for path in first:  # imports what it takes
        read(path)
    files: dict[str, Any] = {}
    for path in watched:
        opened.clear()
        events.clear()
        watching = True
        refused = read(path)
        watching = False
        files[path] = {"refused": refused, "opened": sorted(set(map(str, opened))), "events": sorted(set(events))}
    print(json.dumps(files))


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    middle = arguments.index("--")
    return arguments[:middle], arguments[middle + 1 :]


if __name__ == "__main__":
    main()
