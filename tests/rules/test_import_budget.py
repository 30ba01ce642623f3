"""What a look at a file may cost, in CPU time above that of a bare interpreter, and what it must not load."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from cli.commands import bare_file

HEAVY = {"torch", "diffusers", "transformers", "safetensors", "pyarrow", "sklearn", "matplotlib"}
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
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def within(budget_ms, code):
    """Whether one of a few runs stays within a budget above a bare interpreter; a busy machine only adds."""
    bare = min(cpu_seconds("pass") for _ in range(5))
    return any(cpu_seconds(code) - bare < budget_ms / 1000 for _ in range(10))


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
