"""Saving: all of the data or what was there before, and nothing left beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from d3codec.errors import OutputError
from d3codec.format.file import save_atomically

FULL = """
import resource, signal, sys
from d3codec.errors import OutputError
from d3codec.format.file import save_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_atomically(sys.argv[1], bytes(5000))
except OutputError as error:
    print(error)
"""


def test_saved_bytes_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.d3m"
    save_atomically(path, b"first")
    save_atomically(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.d3m"
    path.write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="this is a folder"):
        save_atomically(tmp_path, b"")
    with pytest.raises(OutputError, match="No such file or directory"):
        save_atomically(tmp_path / "missing" / "a.d3m", b"")
    with pytest.raises(OutputError, match="null"):
        save_atomically(f"{tmp_path}/a\0b", b"")
    with pytest.raises(OutputError, match="File name too long"):
        save_atomically(tmp_path / ("x" * 300), b"")
    with pytest.raises(OutputError):
        save_atomically("", b"")
    assert not list(tmp_path.iterdir())


def test_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    code = (
        "import os, sys; from d3codec.errors import *; from d3codec.format.file import save_atomically\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"  # root writes everywhere
        "try: save_atomically('a.d3m', b'data')\n"
        "except OutputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "a.d3m: the file cannot be written: Permission denied\n"
    assert not list(folder.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from d3codec.format.file import save_atomically\n"
        "os.fsync = lambda handle: (_ for _ in ()).throw(KeyboardInterrupt)\n"
        "save_atomically(sys.argv[1], b'data')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.d3m")], capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr
    assert not list(tmp_path.iterdir())
