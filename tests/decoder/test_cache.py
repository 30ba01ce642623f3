"""The cache of finished units: what is written comes back, what is damaged does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from d3codec.decoder.cache import UnitCache, cache_key
from d3codec.decoder.plan import unit_at
from d3codec.errors import OutputError

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
