"""What a look at a file may cost, in CPU time above that of a bare interpreter, and what it must not load."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from cli.commands import bare_file

HEAVY = {"torch", "diffusers", "transformers", "safetensors", "pyarrow", "sklearn", "matplotlib"}
LIBRARIES = "import click; from pydantic import BaseModel"
AFTER = "\nimport sys; print(*sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
INFO = """from d3codec.cli.main import main
try:
    main({arguments!r})
except SystemExit as ended:
    assert not ended.code"""


def loaded(code):
    """Top-level modules that a fresh interpreter has after some code."""
    result = subprocess.run([sys.executable, "-c", code + AFTER], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def cpu_seconds(code):
    """CPU time of a fresh interpreter that may keep bytecode, as installed packages do."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def within(budget_ms, code):
    """Whether one of a few runs stays within a budget above a bare interpreter, at the speed of the machine now.

    A busy machine runs everything slower, so the budget grows as the time of two imports does, measured in turns.
    """
    quiet = 0.10  # seconds that LIBRARIES takes above a bare interpreter on the idle machine the budgets are for
    bare = min(cpu_seconds("pass") for _ in range(5))
    runs = [(cpu_seconds(LIBRARIES) - bare, cpu_seconds(code) - bare) for _ in range(8)]
    libraries, ours = map(min, zip(*runs, strict=True))
    return ours < budget_ms / 1000 * max(1, libraries / quiet)


@pytest.fixture
def file(tmp_path):
    return str(bare_file(tmp_path / "bare.d3m"))


def test_importing_the_package_loads_almost_nothing():
    modules = loaded("import d3codec")
    others = {"numpy", "pydantic", "click", "rich", "msgpack", "zstandard", "PIL", "fsspec"}
    assert not modules & {*HEAVY, *others}
    assert not loaded("import d3codec; d3codec.D3MError") & {*HEAVY, "numpy", "pydantic"}


def test_importing_the_package_is_quick():
    assert within(100, "import d3codec")


@pytest.mark.parametrize("options", [[], ["--json"], ["--bytes"]])
def test_info_loads_no_numpy(file, options):
    modules = loaded(INFO.format(arguments=["info", file, *options]))
    assert "d3codec" in modules
    assert not modules & {*HEAVY, "numpy", "PIL", "fsspec", "aiohttp"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_info_is_quick(file, options):
    assert within(300, INFO.format(arguments=["info", file, *options]))


def test_verify_and_labels_load_no_torch(file):
    assert not loaded(INFO.format(arguments=["verify", file])) & HEAVY
    reading = f"import d3codec; d = d3codec.load({file!r}); d.labels.logits(); d.labels.hard(); d.classes"
    assert not loaded(reading) & HEAVY


def test_help_loads_little():
    modules = loaded(INFO.format(arguments=["--help"]))
    assert not modules & {*HEAVY, "numpy", "pydantic", "rich"}
