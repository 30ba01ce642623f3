"""The independent reader finds in every vector and every file that ships what d3codec finds."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import mutants  # noqa: E402

from d3codec.decoder.verify import verify  # noqa: E402
from d3codec.format.file import D3MFile  # noqa: E402

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

READER = ROOT / "spec" / "reader"
SET = ROOT / "spec" / "vectors" / "1.0"
FILES = sorted(path.relative_to(SET).with_suffix("").as_posix() for path in SET.glob("*/*.d3m"))
SHIPPED = [ROOT / "d3codec" / "assets" / "digits.d3m", *sorted((ROOT / "tests" / "golden").glob("*.d3m"))]
UNCHECKED = ("stored.d3m",)  # random bytes in sections of free length: good up to level 0
LINES = 700


def read(path: Path, level: int = 2) -> dict[str, Any]:
    reader, coding, _ = mutants.modules()
    found: dict[str, Any] = reader.read(path, level, reader.BUDGET, coding.Resources(ROOT / "spec" / "data", 1 << 31))
    return found


@pytest.mark.parametrize("name", FILES)
def test_both_readers_agree(name: str) -> None:
    path, stated = SET / f"{name}.d3m", json.loads((SET / f"{name}.json").read_text("utf-8"))
    if "error" in stated:
        with pytest.raises(mutants.modules()[1].D3mError) as caught:
            read(path)
        assert str(caught.value).split()[0].rstrip(":") == stated["error"]
        return
    found = read(path)
    assert (found["content_id"], found["bytes"]) == (stated["content_id"], stated["bytes"])
    assert found["sections"][: len(stated["sections"])] == stated["sections"]
    digests = {(value["name"], value["group"]): value for value in found["values"]}
    compared = 0
    for value in stated["values"]:
        mine = digests[value["name"], value["group"]]
        key = {"float64": "sha256_float64", "float32": "sha256", "int64": "sha256"}.get(mine.get("form", ""))
        if key in value:
            assert mine["sha256"] == value[key], value["name"]
            compared += 1
    assert compared >= sum(value["name"] in ("emb", "lat", "lab", "ids", "wrd", "col") for value in stated["values"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_files_that_ship(path: Path) -> None:
    file = D3MFile.open(path)
    found = read(path, 0 if path.name in UNCHECKED else 2)
    assert found["content_id"] == file.content_id
    names = list(dict.fromkeys((part.section, part.group) for part in file.parts))
    assert [(section["name"], section["group"]) for section in found["sections"]] == names


def test_as_a_program(tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(READER / "d3m_reader.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run(SHIPPED[0])
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["content_id"] == D3MFile.open(SHIPPED[0]).content_id
    (tmp_path / "x").write_bytes(SHIPPED[0].read_bytes()[:-1])
    bad = run(tmp_path / "x")
    assert (bad.returncode, bad.stdout, bad.stderr.split()[0].rstrip(":")) == (3, "", "E_LENGTH")
    assert run("--selftest").returncode == 0
    assert run(tmp_path / "nowhere").returncode == 2


def test_it_shares_nothing_with_the_package() -> None:
    for path in sorted(READER.glob("*.py")):
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= LINES
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            assert roots <= sys.stdlib_module_names | {"zstandard", "d3m_coding", "d3m_vectors"}, path.name


def test_a_file_made_by_hand_from_the_text_is_good(tmp_path: Path) -> None:
    """Its maker knew the specification alone; d3codec decodes it to the pixels that it states."""
    path = tmp_path / "hand_made.d3m"
    subprocess.run([sys.executable, str(READER / "hand_made.py"), str(path)], check=True, cwd=tmp_path)
    report = verify(D3MFile.open(path), decode="all")
    assert (report.pixels, report.images_checked) == ("proved", 6)
    assert read(path)["content_id"] == report.content_id
