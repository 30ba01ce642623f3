"""`d3codec cache`: list, remove, say where."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cli.commands import answer, call

from d3codec.decoder.cache import UnitCache, cache_key
from d3codec.decoder.plan import unit_at

PIXELS = np.zeros((8, 6, 4, 3), np.uint8)


@pytest.fixture
def filled(tmp_path, monkeypatch):
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path))
    for content, profile, units in (("ab" * 32, "exact", 3), ("cd" * 32, "reproducible", 2)):
        for number in range(units):
            UnitCache(tmp_path, cache_key(content, profile, "here")).put(unit_at(0, number, 100, 4), PIXELS)
    return tmp_path


def test_what_there_is(filled):
    facts = answer("cache", "ls")
    rows = {entry["content_id"][:2]: entry for entry in facts["entries"]}
    assert set(rows) == {"ab", "cd"}
    assert (rows["ab"]["profile"], rows["ab"]["units"], rows["ab"]["bytes"]) == ("exact", 3, 3 * (44 + PIXELS.size))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows["ab"]["last_used"])
    assert facts["bytes"] == 5 * (44 + PIXELS.size)
    result = call("cache", "ls")
    assert result.exit_code == 0
    rows = {tuple(line.split()[:3]) for line in result.stdout.splitlines()[1:]}
    assert rows == {("cd" * 8, "reproducible", "2"), ("ab" * 8, "exact", "3")}


def test_where_it_lies(filled, monkeypatch):
    assert call("cache", "path").stdout == f"{filled / 'decoded'}\n"
    monkeypatch.setenv("D3CODEC_CACHE_GB", "3")
    assert answer("cache", "path") == {"path": str(filled / "decoded"), "limit_bytes": 3_000_000_000}
    monkeypatch.setenv("D3CODEC_CACHE_GB", "abc")
    assert call("cache", "path").stdout == f"{filled / 'decoded'}\n"
    assert answer("cache", "path", code=2)["field"] == "D3CODEC_CACHE_GB"


def test_what_is_removed(filled):
    facts = answer("cache", "rm", "abab")
    assert [entry["units"] for entry in facts["removed"]] == [3]
    assert [entry["content_id"][:2] for entry in answer("cache", "ls")["entries"]] == ["cd"]
    result = call("cache", "rm", "--all")
    assert (result.exit_code, result.stdout) == (0, "removed 2 units, 1.2 KB\n")
    assert answer("cache", "ls") == {"entries": [], "bytes": 0}
    assert call("cache", "ls").stderr == "The cache is empty.\n"
    assert call("cache", "rm", "--all").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["clean"],
        ["rm"],
        ["rm", "ab", "--all"],
        ["ls", "ab"],
        ["path", "--all"],
        ["rm", "ff"],
        ["rm", "../ab"],
        ["rm", ""],
    ],
)
def test_misuse_removes_nothing(filled, arguments):
    assert answer("cache", *arguments, code=2)["error"] == "E_USAGE"
    assert len(answer("cache", "ls")["entries"]) == 2
