"""Decodes that are killed, and decodes that share a folder and a cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_pipeline import make_file, make_pipeline


def test_kills_and_company(tmp_path):
    """Three decodes killed at random moments and continued, and two at once into one folder and one cache."""
    pipeline = make_pipeline(tmp_path / "pipeline")
    file = make_file(tmp_path / "many.d3m", pipeline, ipc=24, labels="h", pixels=False)
    script = Path(__file__).with_name("killed_decode.py")
    arguments = [sys.executable, str(script), str(tmp_path), str(file), str(pipeline), "7"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] == [True] * 3
    assert found["war"] == found["peace"] == found["together"]
    # Every unit that was told is kept, so a kill costs at most the unit that was being made.
    assert all(kept >= told for told, kept in zip(found["told"], found["kept"], strict=True))
    assert found["kept"] == sorted(found["kept"])
    assert found["made_at_last"] == 9 - found["kept"][-1]
    assert found["left"] == []
