"""The cache of finished units: what is written comes back, what is damaged does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from d3codec.decoder import cache as module
from d3codec.decoder.cache import UnitCache, cache_entries, cache_key, cache_limit, make_room, remove_cached
from d3codec.decoder.plan import unit_at
from d3codec.decoder.precision import machine
from d3codec.errors import OutputError, UsageError

UNIT = unit_at(0, 3, 10, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 4, 3), np.uint8)


@pytest.fixture
def cache(tmp_path):
    return UnitCache(tmp_path, cache_key("ab" * 32, "reproducible", "cpu here"))


def test_what_is_put_comes_back(cache):
    assert cache.get(UNIT) is None
    cache.put(UNIT, PIXELS)
    assert np.array_equal(cache.get(UNIT), PIXELS)
    assert [path.name for path in cache.path(UNIT).parent.iterdir()] == ["00-000003.unit"]


def test_every_damage_is_found(cache):
    cache.put(UNIT, PIXELS)
    path, data = cache.path(UNIT), cache.path(UNIT).read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        assert cache.get(UNIT) is None
    for length in (0, 20, 32, 43, len(data) - 1):
        path.write_bytes(data[:length])
        assert cache.get(UNIT) is None
    path.write_bytes(data + b"\0")
    assert cache.get(UNIT) is None
    cache.put(UNIT, PIXELS)
    assert np.array_equal(cache.get(UNIT), PIXELS)


def test_a_unit_is_not_taken_for_another(cache):
    cache.put(UNIT, PIXELS)
    for other in (unit_at(0, 4, 10, 4), unit_at(1, 3, 10, 4), replace(UNIT, classes=UNIT.classes[:3] + (9,) * 5)):
        if cache.path(other) != cache.path(UNIT):
            shutil.copy(cache.path(UNIT), cache.path(other))
        assert cache.get(other) is None


def test_the_key_separates_content_profile_and_fingerprint():
    keys = {
        cache_key(content, profile, machine)
        for content in ("a", "b")
        for profile in ("reproducible", "fast")
        for machine in ("here", "there")
    }
    assert len(keys) == 8


@pytest.mark.parametrize("profile", ["exact", "exact-fixed"])
def test_what_is_promised_everywhere_depends_on_the_version_of_the_decoder_alone(profile, monkeypatch):
    """A fault of one version does not stay in the cache of the next."""
    assert machine(profile, profile, "here") is None
    assert machine(profile, "reproducible", "here") == "here", "not what the file promises"
    assert machine("reproducible", "reproducible", "here") == "here"
    first = cache_key("a", profile, None)
    monkeypatch.setattr(module, "DECODE_VERSION", module.DECODE_VERSION + 1)
    assert len({first, cache_key("a", profile, None), cache_key("a", profile, "here")}) == 3


def test_pixels_of_another_shape_are_not_kept(cache):
    for pixels in (PIXELS[:3], PIXELS[0], PIXELS.astype(np.float32)):
        with pytest.raises(ValueError, match="pixels"):
            cache.put(UNIT, pixels)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        UnitCache(tmp_path / "file", "key").put(UNIT, PIXELS)


def test_processes_do_not_disturb_each_other(tmp_path):
    """Two writers of one unit, and a reader that never sees half of one."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import test_cache as t; from d3codec.decoder.cache import UnitCache\n"
        "cache = UnitCache(sys.argv[1], 'key')\n"
        "for _ in range(60): cache.put(t.UNIT, t.PIXELS)"
    )
    here = str(__file__).rsplit("/", 1)[0]
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), here]) for _ in range(2)]
    cache, seen = UnitCache(tmp_path, "key"), 0
    while any(writer.poll() is None for writer in writers):
        if cache.path(UNIT).exists():
            pixels = cache.get(UNIT)
            assert pixels is not None
            assert np.array_equal(pixels, PIXELS)
            seen += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen > 0
    assert len(list((tmp_path / "key").iterdir())) == 1


# ------------------------------------------------------------------------------------------------- size and use


def fill(home, units, *, limit=None, content="ab" * 32, profile="reproducible", machine="here", protect=False):
    """A cache whose units are a minute apart, the first the oldest; returns it and its units."""
    cache = UnitCache(home, cache_key(content, profile, machine), limit, protect)
    made = [unit_at(0, number, 1000, 10) for number in range(units)]
    for number, unit in enumerate(made):
        cache.put(unit, PIXELS)
        if limit is None:
            moment = time.time() - 60 * (units - number)
            os.utime(cache.path(unit), (moment, moment))
    return cache, made


SIZE = 32 + 12 + PIXELS.size


def test_the_units_used_longest_ago_make_room(tmp_path):
    cache, units = fill(tmp_path, 50)
    used = UnitCache(tmp_path, cache_key("ab" * 32, "reproducible", "here"), limit=10**9)
    for unit in units[:5]:  # a hit is a use
        assert used.get(unit) is not None
    assert make_room(tmp_path, 45 * SIZE) == 40 * SIZE
    left = [unit for unit in units if cache.path(unit).exists()]
    assert left == units[:5] + units[15:]
    assert make_room(tmp_path, 45 * SIZE) == 40 * SIZE, "what fits is left alone"


def test_a_cache_with_a_limit_stays_below_it(tmp_path):
    limit = 60 * SIZE
    cache, units = fill(tmp_path, 200, limit=limit)
    (entry,) = cache_entries(tmp_path)
    assert 0.8 * limit <= entry.bytes <= limit
    assert cache.get(units[-1]) is not None
    assert cache.get(units[0]) is None


def test_several_datasets_share_the_limit(tmp_path):
    fill(tmp_path, 40, content="aa" * 32)
    fill(tmp_path, 60, content="bb" * 32, limit=70 * SIZE)
    units = {entry.content_id[:2]: entry.units for entry in cache_entries(tmp_path)}
    assert units.get("aa", 0) < 20
    assert units["bb"] >= 50


def test_a_running_decode_keeps_its_units(tmp_path):
    """Of 60 that fit: the others make room, although these are older."""
    limit = 65 * SIZE
    fill(tmp_path, 60, content="bb" * 32)
    moment = time.time() - 10**6
    cache = UnitCache(tmp_path, cache_key("aa" * 32, "reproducible", "here"), limit, protect=True)
    for number in range(60):
        unit = unit_at(0, number, 1000, 10)
        cache.put(unit, PIXELS)
        os.utime(cache.path(unit), (moment, moment))
    units = {entry.content_id[:2]: entry.units for entry in cache_entries(tmp_path)}
    assert units["aa"] == 60
    assert units["bb"] <= module.NEWEST


def test_a_key_is_cleared_alone(tmp_path):
    cache, units = fill(tmp_path, 3)
    other, _ = fill(tmp_path, 2, profile="fast")
    cache.clear()
    cache.clear()
    assert cache.get(units[0]) is None
    assert other.get(units[0]) is not None


def test_the_newest_stay_whatever_the_limit(tmp_path):
    cache, units = fill(tmp_path, 100, limit=0)
    assert all(cache.path(unit).exists() for unit in units[-module.NEWEST :])
    assert cache_entries(tmp_path)[0].units == module.NEWEST


def test_a_cache_without_limit_keeps_everything_and_touches_nothing(tmp_path):
    """As that of an encode, whose folder is its state."""
    cache, units = fill(tmp_path, 40)
    before = cache.path(units[0]).stat().st_mtime_ns
    assert cache.get(units[0]) is not None
    assert cache.path(units[0]).stat().st_mtime_ns == before


def test_temporary_files_of_killed_processes_go_after_an_hour(tmp_path):
    cache, units = fill(tmp_path, 2)
    old, new = (cache.path(units[0]).with_name(f".d3m-{digit * 16}") for digit in "01")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    UnitCache(tmp_path, "decoded/x/y", limit=10**9).put(UNIT, PIXELS)
    assert not old.exists()
    assert new.exists()


def test_what_the_cache_holds(tmp_path):
    assert cache_entries(tmp_path) == []
    fill(tmp_path, 3, content="ab" * 32)
    fill(tmp_path, 2, content="ab" * 32, profile="exact", machine=None)
    fill(tmp_path, 1, content="cd" * 32, profile="exact-fixed")
    entries = cache_entries(tmp_path)
    assert sorted((entry.content_id[:2], entry.profile, entry.units, entry.bytes) for entry in entries) == [
        ("ab", "exact", 2, 2 * SIZE),
        ("ab", "reproducible", 3, 3 * SIZE),
        ("cd", "exact-fixed", 1, SIZE),
    ]
    assert [entry.last_used for entry in entries] == sorted((entry.last_used for entry in entries), reverse=True)
    assert time.time() - 200 < entries[-1].last_used < time.time()


def test_datasets_are_removed_by_the_beginning_of_their_id(tmp_path):
    (tmp_path / "generators").mkdir()
    for content in ("ab" * 32, "ac" * 32, "cd" * 32):
        fill(tmp_path, 2, content=content)
    with pytest.raises(UsageError, match="several"):
        remove_cached(tmp_path, "a")
    with pytest.raises(UsageError, match="no cached"):
        remove_cached(tmp_path, "ff")
    with pytest.raises(UsageError, match="no cached"):
        remove_cached(tmp_path, "../")
    assert [entry.units for entry in remove_cached(tmp_path, "ab")] == [2]
    assert {entry.content_id[:2] for entry in cache_entries(tmp_path)} == {"ac", "cd"}
    with pytest.raises(UsageError, match="empty"):
        remove_cached(tmp_path, "")
    assert len(remove_cached(tmp_path, None)) == 2
    assert remove_cached(tmp_path, None) == []
    assert [path.name for path in tmp_path.iterdir()] == ["generators"]


def test_the_limit_is_the_callers_or_the_environments(monkeypatch):
    monkeypatch.delenv("D3CODEC_CACHE_GB", raising=False)
    assert cache_limit() == 10_000_000_000
    monkeypatch.setenv("D3CODEC_CACHE_GB", "2.5")
    assert cache_limit() == 2_500_000_000
    assert cache_limit(0) == 0
    for text in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("D3CODEC_CACHE_GB", text)
        with pytest.raises(UsageError, match="D3CODEC_CACHE_GB"):
            cache_limit()
    for number in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="cache_gigabytes"):
            cache_limit(number)
