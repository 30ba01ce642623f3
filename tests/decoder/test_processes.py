"""Helper processes: the same pixels, no work lost with one that dies, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_pipeline import make_file, make_pipeline

from d3codec.decoder import processes, renderers
from d3codec.decoder.budget import Budget
from d3codec.decoder.decode import decode, decoded_units
from d3codec.decoder.plan import Plan
from d3codec.decoder.processes import environments, usable_cores, worthwhile
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile

torch.set_num_threads(1)
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(file of 12 units, pipeline, pixels of all units)."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        pipeline = make_pipeline(folder / "pipeline")
        path = make_file(folder / "set.d3m", pipeline, ipc=32, labels="h", pixels=False)
        return path, pipeline, [pixels for _, pixels in units(path, pipeline, processes=1)]


def units(path, pipeline, **options):
    file = D3MFile.open(path)
    return decoded_units(
        file, Plan.of(file.content), profile="reproducible", device="cpu", generator=pipeline, **options
    )


def children(process: int | str = "self") -> list[int]:
    texts = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(number) for text in texts for number in text.split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@linux
@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_helpers_make_the_same_pixels_and_one_that_dies_loses_nothing(made, tmp_path, monkeypatch):
    """`auto`, with work that seems worth it: the helper makes three units while this process waits, and is killed."""
    path, pipeline, pixels = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path))
    monkeypatch.setattr(processes, "START_SECONDS", 1e-6)
    stored = lambda: len(list(tmp_path.glob("decoded/*/*/*.unit")))  # noqa: E731
    before = children()

    def tell(stage, done, total):
        if stage == "decode" and done == 8:
            until(lambda: stored() >= 4)
            for helper in set(children()) - set(before):
                os.kill(helper, signal.SIGKILL)

    with pytest.warns(UserWarning, match="signal 9"):
        found = [pixels for _, pixels in units(path, pipeline, processes="auto", progress=tell)]
    assert all(np.array_equal(one, other) for one, other in zip(found, pixels, strict=True))
    assert stored() == 12
    assert children() == before
    assert torch.get_num_threads() == 1


@linux
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, "close"])
def test_no_helper_outlives_its_decode(made, tmp_path, end):
    """Whatever the helper is at, here its imports."""
    path, pipeline, _ = made
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from d3codec.decoder.cache_filler import Job\n"
        "from d3codec.decoder.plan import Plan\n"
        "from d3codec.decoder.processes import Helpers\n"
        "from d3codec.format.file import D3MFile\n"
        "file = D3MFile.open(sys.argv[1])\n"
        "job = Job.of(file, 'reproducible', 'cpu', 'here', sys.argv[2], True, 8, Path(sys.argv[3]), 10**9, True)\n"
        "helpers = Helpers(job, {0: [Plan.of(file.content).units[0]]}, [{}, {}])\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(1 if sys.argv[4] == 'close' else 60)\n"
        "finally: helpers.close()"
    )
    arguments = [sys.executable, "-c", script, str(path), str(pipeline), str(tmp_path), str(end)]
    parent = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout.readline() == b"ready\n"
    helpers = children(parent.pid)
    assert len(helpers) == 2
    assert all(alive(helper) for helper in helpers)
    if end == signal.SIGINT:  # as a terminal sends it: to all of them
        time.sleep(0.5)
        os.killpg(parent.pid, signal.SIGINT)
    elif end == signal.SIGKILL:
        parent.kill()
    until(lambda: not any(alive(helper) for helper in helpers), 30)
    parent.wait(30)
    parent.stdout.close()


def test_a_helper_that_cannot_start_is_not_needed(made, tmp_path, monkeypatch):
    path, pipeline, _ = made
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = decode(path, generator=pipeline, processes=2)
    assert report.images == 96
    assert any("exit code 1" in str(warning.message) for warning in caught)


def test_without_a_cache_there_are_no_helpers(made):
    path, pipeline, pixels = made
    with pytest.raises(UsageError, match="need the cache"):
        list(units(path, pipeline, cache=False, processes=2))
    before = children()
    found = [pixels for _, pixels in units(path, pipeline, cache=False, processes="auto")]
    assert all(np.array_equal(one, other) for one, other in zip(found, pixels, strict=True))
    assert children() == before


def test_the_first_unit_is_timed_with_one_thread_where_helpers_may_follow(made, tmp_path, monkeypatch):
    """What is divided among processes of one thread is the work of one thread; alone all threads go on, and what is
    long is timed again with them."""
    path, pipeline, _ = made
    alive_before, seen = threading.active_count(), []
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path))
    monkeypatch.setattr("d3codec.decoder.units.most_processes", lambda device: 4)
    monkeypatch.setattr("d3codec.decoder.units.worthwhile", lambda seconds, device: 1)
    monkeypatch.setattr("d3codec.decoder.units.START_SECONDS", 0.0)
    render = renderers.render_units

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return render(*arguments)

    monkeypatch.setattr("d3codec.decoder.units.render_units", watched)
    torch.set_num_threads(3)
    try:
        list(units(path, pipeline, processes="auto"))
        list(units(path, pipeline, processes=1, cache=False))
    finally:
        torch.set_num_threads(1)
    assert seen == [1] + [3] * 11 + [3] * 12
    assert threading.active_count() == alive_before


def test_helpers_that_were_given_up_are_not_counted_on(made, tmp_path, monkeypatch):
    """The first write fails: the rest is the work of this process alone, and the budget knows."""
    path, pipeline, _ = made
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "file" / "home"))
    expected = []
    monkeypatch.setattr(Budget, "check_time", lambda self, seconds, file: expected.append(seconds))
    for number in (2, 1):
        clock = SimpleNamespace(monotonic=count(0.0, 0.25).__next__)  # every unit takes 0.25 s
        monkeypatch.setattr("d3codec.decoder.units.time", clock)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            list(units(path, pipeline, processes=number, budget=Budget()))
    assert expected == [11 * 0.25] * 2


def test_how_many_are_worth_their_start(monkeypatch):
    cores = usable_cores()
    assert worthwhile(5.0, "cpu") == worthwhile(20.0, "cpu") == 1
    assert worthwhile(25.0, "cpu") == min(2, cores)
    assert worthwhile(1e9, "cpu") <= cores
    monkeypatch.setattr(processes, "_copies_in_memory", lambda: 1)
    assert worthwhile(1e9, "cpu") == 1


def test_each_helper_has_one_thread_and_a_gpu_of_its_own(monkeypatch):
    assert environments(1, "cpu") == []
    assert [env["OMP_NUM_THREADS"] for env in environments(3, "cpu")] == ["1", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in environments(4, "cuda")] == ["5", "7", "4"]


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "many"])
def test_numbers_that_make_no_sense(made, number):
    path, pipeline, _ = made
    with pytest.raises(UsageError, match="processes"):
        list(units(path, pipeline, processes=number))
