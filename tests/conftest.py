"""Settings for all tests: one thread a process, no deadline for property tests, nothing outside a temporary folder."""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("d3codec", deadline=None)
settings.load_profile("d3codec")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """Every test has an empty cache of its own."""
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("d3codec-home")))
