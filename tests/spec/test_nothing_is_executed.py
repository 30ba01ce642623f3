"""Nothing that a file holds is executed, opened, fetched or imported: an audit hook watches `load`, `info`, `verify`.

Python reports what it opens, imports, compiles, executes, starts and connects to. A process of its own first reads
other files, so that everything it needs is imported; then there is nothing left to open but the file.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from format.craft import coded_draft, digits_draft, filled, kinds_draft, quick_streams, write_d3m

from d3codec.format.manifest import About
from d3codec.format.sections import ClassRecord, pack_classes

WATCH = Path(__file__).with_name("watched_reading.py")
BAIT = "bait"  # a file that hostile ones name, and that would lie beside them


class Trap:
    """What runs if anybody unpickles it."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(BAIT),)


def hostile_about() -> dict[str, Any]:
    """Statements that a careless program would open, fetch, import or execute."""
    return {
        "licence": f"file:{BAIT}",
        "source": "https://example.invalid/x.d3m",
        "citation": f"__import__('os').system('touch {BAIT}')",
        "method": "antigravity:fly",
        "teacher": f"{{{{ config.__class__ }}}} $(touch {BAIT}) `touch {BAIT}` %s{{0}}",
        "claims": {"../../etc/passwd": "!!python/object/apply:os.system", "antigravity": "\\\\server\\share"},
    }


def hostile_names() -> bytes:
    """Names of classes that are paths, modules, templates, or read from right to left."""
    names = [BAIT, "../../../etc/passwd", "~/.ssh/id_rsa", "https://example.invalid", "antigravity", "\u202egnp.exe"]
    names += ["CON", "-rf", "%n%n", "\U0001f600" * 16_384]
    return pack_classes([ClassRecord("", name) for name in names])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to read first, then good ones, hostile ones that are sound, and others that are refused at every stage."""
    folder = tmp_path_factory.mktemp("watched")
    digits, kinds, coded = digits_draft(), kinds_draft(), coded_draft()
    streams = quick_streams(coded)
    sound = {
        "digits": write_d3m(digits, filled(digits, sparse=True), About(licence="CC0-1.0"), {"x-leaf": bytes(20)}),
        "kinds": write_d3m(kinds, filled(kinds)),
        "coded": write_d3m(coded, streams),
    }
    hostile = write_d3m(
        digits,
        filled(digits) | {("cls", None): hostile_names()},
        About(**hostile_about()),
        {"x-pickle": pickle.dumps(Trap()), "x-code": f"open({BAIT!r}, 'w')".encode(), "x-elf": b"\x7fELF" * 9},
    )
    refused = {
        "empty": b"",
        "pickle": pickle.dumps(Trap()),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".ljust(64),
        "cut": hostile[:-1],
        "flipped": hostile[:-1] + b"\xff",
        "version": hostile[:8] + b"\x07" + hostile[9:],
        "stream": write_d3m(coded, filled(coded)),  # label streams of any bytes: refused by their codec
        "zip": hostile + b"PK\x05\x06" + bytes(18),
    }
    first = {"digits": sound["digits"], "kinds": sound["kinds"], "coded": sound["coded"], "cut": sound["digits"][:-1]}
    for kind, files in (("first", first), ("good", sound | {"hostile": hostile}), ("refused", refused)):
        for name, data in files.items():
            (folder / f"{kind}-{name}.d3m").write_bytes(data)
    return folder


def test_reading_does_nothing_but_read(folder: Path) -> None:
    """D3M-144: no event of the interpreter but the opening of the file itself."""
    before = sorted(folder.rglob("*"))
    environment = {**os.environ, "D3CODEC_HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    groups = [[str(path) for path in before if path.name.startswith(kind)] for kind in ("first", "good", "refused")]
    command = [sys.executable, str(WATCH), *groups[0], "--", *groups[1], *groups[2]]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert list(found) == groups[1] + groups[2]
    for path, facts in found.items():
        assert facts["refused"] == (path in groups[2]), path
        assert facts["opened"] == [path], path
        assert facts["events"] == [], path
    assert sorted(folder.rglob("*")) == before  # nothing is written either, and there is no bait


def test_the_watch_sees_what_it_must(tmp_path: Path) -> None:
    """Each of these would be found: a watch that sees nothing proves nothing."""
    command = [sys.executable, str(WATCH), "--self-test"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    seen = {"exec", "compile", "import", "pickle.find_class", "marshal.loads", "ctypes.dlopen", "subprocess.Popen"}
    seen |= {"os.system", "os.listdir", "os.remove", "socket.connect"}
    assert seen <= {event.partition(" ")[0] for event in found["events"]}
    assert os.devnull in found["opened"]
