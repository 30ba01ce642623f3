"""What holds for every command: exit codes, messages, good manners towards pipes, terminals and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import runpy
import subprocess
import sys
import time

import pytest
from cli.commands import COMMAND, answer, bare_file, call, environment, greys, run

import d3codec
from d3codec.cli import console
from d3codec.cli.main import COMMANDS, _interrupted, _show_warning, as_d3m_error, main
from d3codec.errors import D3MError, MissingExtraError
from d3codec.format.manifest import About


def test_the_command_and_the_module_are_one(bare):
    installed = os.path.join(os.path.dirname(sys.executable), "d3codec")  # noqa: PTH118, PTH120
    shown = [
        subprocess.run([*start, "info", str(bare), "--json"], capture_output=True, check=True).stdout
        for start in ([installed], COMMAND)
    ]
    assert shown[0] == shown[1]
    assert json.loads(shown[0])["classes"] == 3
    assert run("--version").stdout == f"d3codec, version {d3codec.__version__}\n"
    assert run("info", "--nothing").stderr.startswith("Usage: d3codec info")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *[[name, "--help"] for name in COMMANDS]])
def test_help_everywhere(arguments):
    result = call(*arguments)
    assert result.exit_code == 0
    assert "--help" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--nothing"],
        ["info"],
        ["info", "--nothing"],
        ["evaluate", "x.d3m", "--test", "x"],
        ["decode", "x.d3m", "--limit", "0", "-o", "x"],
        ["decode", "x.d3m", "--format", "gif", "-o", "x"],
        ["decode", "x.d3m"],
        ["encode", "x"],
    ],
)
def test_misuse_is_2(arguments):
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""
    facts = answer(*arguments, code=2)
    assert facts["error"] == "E_USAGE"
    assert facts["message"] in result.stderr


def test_errors_go_to_stderr_or_as_json_to_stdout(tmp_path):
    none = tmp_path / "none.d3m"
    result = call("info", none)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == f"error: {none}: no such file\n"
    result = call("info", none, "--json")
    assert (result.exit_code, result.stderr) == (4, "")
    assert json.loads(result.stdout) == {"error": "E_MISSING_FILE", "message": "no such file", "file": str(none)}


def test_long_messages_are_not_wrapped(tmp_path):
    none = tmp_path / ("a long name " * 12 + ".d3m")
    assert call("info", none).stderr == f"error: {none}: no such file\n"


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    path = bare_file(tmp_path / "[bold]x[red].d3m", names=("[red]a", "b[/]", ":smile:"))
    result = call("info", path)
    assert "[bold]x[red].d3m" in result.stdout
    assert "[red]a, b[/], :smile:" in result.stdout
    assert "[bold]none[/bold]" in call("info", tmp_path / "[bold]none[/bold]").stderr


# ------------------------------------------------------------------------------------------------- terminals


def on_a_terminal(arguments, **changes):
    """stderr of a command that runs on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", **changes}
    with subprocess.Popen([*COMMAND, *arguments], stderr=follower, stdout=subprocess.PIPE, env=env):
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(leader)
    return shown.decode()


@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_only_where_they_are_wanted(tmp_path, changes, coloured):
    shown = on_a_terminal(["info", str(tmp_path / "none.d3m")], **changes)
    assert "no such file" in shown
    assert ("\x1b[" in shown) == coloured


def test_bars_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with console.progress(quiet=False) as callback:
            for done in range(4):
                callback("decode", done, 3)
            callback("write", 1, 1)
        shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "decode" in shown
    assert "3/3" in shown
    assert "/s" in shown
    assert "write" in shown


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.05)
    with console.progress(quiet=False) as callback:
        callback("decode", 0, 10)
        callback("decode", 1, 10)
        time.sleep(0.06)
        callback("decode", 2, 10)
        callback("decode", 3, 10)
        callback("decode", 10, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2  # not one a call
    assert lines[0].startswith("decode: 2/10, ")
    assert lines[0].endswith(" s left")
    assert lines[1] == "decode: 10/10"
    assert console._rate(2.5) == "2.5/s"
    assert console._rate(0.05) == "20.0 s each"
    with console.progress(quiet=True) as callback:
        assert callback is None


# ------------------------------------------------------------------------------------------------- odd ends


def test_a_reader_that_goes_away_is_no_error(bare):
    process = subprocess.Popen([*COMMAND, "info", str(bare), "--bytes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert said == b""
    assert process.returncode == 1


def test_a_fault_is_one_message_unless_debugging():
    code = (
        "import sys, d3codec.dataset\n"
        "def broken(*_, **__): raise ZeroDivisionError('on purpose')\n"
        "d3codec.dataset.load = broken\n"
        "from d3codec.cli.main import main\n"
        "main(['info', 'x.d3m'])\n"
    )
    command = [sys.executable, "-c", code]
    quiet = subprocess.run(command, capture_output=True, text=True, env=environment(D3CODEC_DEBUG="0"))
    assert quiet.returncode == 1
    assert quiet.stderr.splitlines()[0] == "error: unexpected ZeroDivisionError: on purpose"
    assert "please report" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    loud = subprocess.run(command, capture_output=True, text=True, env=environment(D3CODEC_DEBUG="1"))
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert "on purpose" in loud.stderr


def test_what_the_system_says_is_told_in_its_words(tmp_path):
    error = as_d3m_error(PermissionError(13, "Permission denied", str(tmp_path)))
    assert str(error) == f"{tmp_path}: Permission denied"
    assert error.exit_code == 1
    assert "memory" in str(as_d3m_error(MemoryError()))
    assert as_d3m_error(D3MError("mine")).message == "mine"
    missing = as_d3m_error(ModuleNotFoundError("no", name="sklearn.datasets"))
    assert isinstance(missing, MissingExtraError)
    assert missing.exit_code == 4
    assert "report" in str(as_d3m_error(ModuleNotFoundError("no", name="d3codec.nothing")))


WITHOUT = """import sys
for name in {names!r}: sys.modules[name] = None  # what importing finds where it is not installed
from d3codec.cli.main import main
main({arguments!r})
"""


@pytest.mark.parametrize(
    ("names", "arguments", "extra"),
    [
        (["torch"], ["decode", "FILE", "-o", "out"], "decode"),
        (["torch"], ["decode", "FILE", "--contact-sheet", "sheet.png"], "decode"),
        (["torch"], ["verify", "FILE", "--decode", "all"], "decode"),
        (["torch"], ["demo", "-o", "out"], "demo"),
        (["torch"], ["train-teacher", "IMAGES", "-o", "t.safetensors"], "encode"),
        (["torch"], ["encode", "IMAGES", "-o", "x.d3m", "--teacher", "t", "--ipc", "1"], "encode"),
        (["torch"], ["evaluate", "FILE", "--test", "IMAGES", "--protocol", "H"], "decode"),
        (["aiohttp"], ["info", "https://example.org/x.d3m"], "remote"),
        (["aiohttp"], ["verify", "http://example.org/x.d3m"], "remote"),
    ],
)
def test_a_missing_extra_is_4_with_the_command_that_helps(tmp_path, names, arguments, extra):
    file = bare_file(tmp_path / "bare.d3m", about=About(fingerprint="a machine", pixels=bytes(32)))
    places = {"FILE": str(file), "IMAGES": str(greys(tmp_path / "images"))}
    code = WITHOUT.format(names=names, arguments=[places.get(word, word) for word in arguments])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 4, result.stderr
    assert f"pip install 'd3codec[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr
    files = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"bare.d3m", "images"}


def test_info_and_verify_need_no_torch(bare):
    for arguments in (["info", str(bare)], ["verify", str(bare)]):
        extras = ["torch", "diffusers", "transformers", "safetensors"]
        code = WITHOUT.format(names=extras, arguments=arguments)
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_ctrl_c_before_anything_is_done(bare):
    """A command without work to save says so shortly; nothing like a traceback."""
    code = (
        "import d3codec.dataset\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "d3codec.dataset.load = interrupted\n"
        "from d3codec.cli.main import main\n"
        "main(['info', 'x.d3m', '--json'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 130
    assert result.stderr.strip() == "interrupted"
    assert json.loads(result.stdout)["error"] == "E_INTERRUPTED"


def test_the_end_of_a_file_is_not_ctrl_c(bare, monkeypatch):
    def ends(*_, **__):
        raise EOFError("no data left")

    monkeypatch.setattr("d3codec.dataset.load", ends)
    assert answer("info", bare, code=1)["message"] == "unexpected EOFError: no data left"


def test_interrupted_work_that_continues(capsys):
    assert _interrupted({"decode"}, machine=False) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "interrupted: finished work is saved, the same command continues there\n"
    assert _interrupted(set(), machine=True) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "E_INTERRUPTED", "message": "interrupted"}


def test_warnings_for_users_are_one_line_and_others_are_silent(capsys):
    _show_warning(UserWarning("no room"), UserWarning, "file.py", 3)
    _show_warning(DeprecationWarning("old"), DeprecationWarning, "file.py", 3)
    assert capsys.readouterr().err == "warning: no room\n"


def test_the_demo_says_what_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("mine")
    result = call("demo", "-o", tmp_path / "file", "-q")
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_module_runs(bare, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["d3codec", "info", str(bare)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("d3codec", run_name="__main__")
    assert ended.value.code == 0
    assert "3 classes" in capsys.readouterr().out


def test_main_takes_arguments(bare, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["info", str(bare), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3
