import json
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from d3codec.encoder.state import LOCK, OPTIONS, STATE, WorkFolder
from d3codec.errors import OutputError, UsageError

OPTIONS_A = {"seed": 1, "template": "a *", "scale": (0.5, 1.0)}


def test_artefacts_survive(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        assert work.load("a") is None
        work.save("a", x=values, y=np.array(3))
        with work.clock("select"):
            pass
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        again = work.load("a")
        assert again is not None
        assert np.array_equal(again["x"], values)
        assert again["y"] == 3


def test_a_changed_artefact_counts_as_missing(tmp_path: Path) -> None:
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        work.save("a", x=np.zeros(100))
        (path,) = work.path.glob("a-*.npz")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert work.load("a") is None


def test_an_artefact_that_the_state_does_not_name_counts_as_missing(tmp_path: Path) -> None:
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        work.save("a", x=np.zeros(3))
    (tmp_path / "w" / STATE).write_text('{"artefacts": {"a": "00')  # as if cut off
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        assert work.load("a") is None


def test_a_kill_between_artefact_and_state_loses_one_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_work: WorkFolder) -> None:
        raise KeyboardInterrupt

    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        work.save("a", x=np.array(1))
        work.save("a", x=np.array(2))
        assert len(list(work.path.glob("a-*.npz"))) == 1
        monkeypatch.setattr(WorkFolder, "_save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            work.save("a", x=np.array(3))
    monkeypatch.undo()
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        again = work.load("a")
        assert again is not None
        assert int(again["x"]) == 2


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    WorkFolder.open(tmp_path / "w", OPTIONS_A).__exit__(None, None, None)
    with pytest.raises(UsageError, match=r"seed.*now 2.*1 as before[^$]*restart=True") as caught:
        WorkFolder.open(tmp_path / "w", OPTIONS_A | {"seed": 2})
    assert caught.value.field == "seed"
    assert "template" not in str(caught.value)


def test_restart_throws_work_away(tmp_path: Path) -> None:
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        work.save("a", x=np.zeros(3))
        (tmp_path / "w" / "units").mkdir()
    with WorkFolder.open(tmp_path / "w", OPTIONS_A | {"seed": 2}, restart=True) as work:
        assert work.load("a") is None
        assert sorted(path.name for path in work.path.iterdir()) == [LOCK, OPTIONS]
    assert json.loads((tmp_path / "w" / OPTIONS).read_text())["seed"] == 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_of_others_is_not_touched(tmp_path: Path, restart: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds something else"):
        WorkFolder.open(tmp_path, OPTIONS_A, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="holds something else"):
        WorkFolder.open(tmp_path / "thesis.tex", OPTIONS_A, restart=restart)


def test_what_a_kill_before_the_options_leaves_is_ours(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / ".d3m-0011223344556677").write_bytes(b"half")
    with WorkFolder.open(tmp_path, OPTIONS_A) as work:
        assert work.load("a") is None


def test_one_process_at_a_time(tmp_path: Path) -> None:
    tmp_path.joinpath("w").mkdir()
    with FileLock(tmp_path / "w" / LOCK), pytest.raises(OutputError, match="another encode is at work"):
        WorkFolder.open(tmp_path / "w", OPTIONS_A)
    WorkFolder.open(tmp_path / "w", OPTIONS_A).__exit__(None, None, None)


def test_remove(tmp_path: Path) -> None:
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        work.save("a", x=np.zeros(3))
        work.remove()
    assert not (tmp_path / "w").exists()
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        (work.path / "units").mkdir()
        (work.path / "units" / "x").touch()
        work.remove()
    assert not (tmp_path / "w").exists()


def test_seconds_add_up_over_runs(tmp_path: Path) -> None:
    for _ in range(2):
        with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
            with work.clock("select"):
                for _ in range(200):
                    np.linalg.svd(np.ones((20, 20)))
                work.save("a", x=np.zeros(3))
            first = work.seconds["select"]
    state = json.loads((tmp_path / "w" / STATE).read_text())
    assert 0 < state["seconds"]["select"] <= first + 1e-3
    with WorkFolder.open(tmp_path / "w", OPTIONS_A) as work:
        before = work.seconds["select"]
        with work.clock("select"):
            pass
        assert work.seconds["select"] > before > 0
