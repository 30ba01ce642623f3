"""The conformance corpus: d3codec finds in every file what stands beside it, and the script makes these bytes."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from d3codec.errors import FORMAT_CODES
from d3codec.format.file import D3MFile

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
SET = VECTORS / "1.0"
FILES = sorted(path.relative_to(SET).with_suffix("").as_posix() for path in SET.glob("*/*.d3m"))
LEAST = {"accept": 25, "unusual": 12, "reject": 60}
MOST_BYTES = 1_500_000


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(VECTORS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(VECTORS))
    return module


@pytest.mark.parametrize("name", FILES)
def test_every_vector(name: str) -> None:
    data = (SET / f"{name}.d3m").read_bytes()
    stated = json.loads((SET / f"{name}.json").read_text("utf-8"))
    found = script().verdict(data)
    assert stated["reason"]
    assert stated["requirements"]
    if name.startswith("reject/"):
        assert found == stated["error"]
        return
    assert isinstance(found, D3MFile), found
    assert "error" not in stated
    facts = json.loads(json.dumps(script().expectation(found)))
    assert facts == {
        key: stated[key] for key in ("content_id", "bytes", "sections", "values", "noise") if key in stated
    }
    if (other := stated.get("same_content_as")) is not None:
        (path,) = SET.glob(f"*/{other}.json")
        assert json.loads(path.read_text("utf-8"))["content_id"] == stated["content_id"]


def test_the_script_makes_these_bytes(tmp_path: Path) -> None:
    files, found = script().make()
    assert files == {path.relative_to(SET).as_posix(): path.read_bytes() for path in SET.rglob("*") if path.is_file()}
    page = (VECTORS / "README.md").read_text("utf-8")
    assert script().table.with_table(page, found) == page
    (tmp_path / "accept").mkdir()
    (tmp_path / "accept" / "of-before.d3m").write_bytes(b"old")
    some = {name: files[name] for name in ("accept/minimal.d3m", "reject/empty.d3m")}
    for _ in range(2):
        script().save(some, tmp_path)
        saved = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.*")}
        assert saved == some


def test_there_are_enough() -> None:
    for folder, least in LEAST.items():
        assert len([name for name in FILES if name.startswith(f"{folder}/")]) >= least
    stated = [json.loads(path.read_text("utf-8")) for path in SET.glob("reject/*.json")]
    assert {found["error"] for found in stated} == set(FORMAT_CODES)
    for code in ("E_MANIFEST", "E_SECTION_VALUE", "E_SECTION_SIZE", "E_SECTION_DIGEST"):
        assert [found["error"] for found in stated].count(code) >= 2
    assert sum(path.stat().st_size for path in SET.rglob("*") if path.is_file()) < MOST_BYTES
