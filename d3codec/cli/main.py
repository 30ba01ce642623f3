"""The command `d3codec`: finds the sub-command, turns every end into an exit code and one clear message.

Exit codes: 0 good, 1 failure, 2 usage, 3 damaged or mismatch, 4 something needed is missing, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from d3codec import __version__
from d3codec.errors import D3MError, MissingExtraError

COMMANDS = {  # in the order in which a newcomer meets them; name -> module of d3codec.cli, imported when used
    "demo": "demo",
    "info": "info",
    "verify": "verify",
    "decode": "decode",
    "join": "join",
    "merge": "merge",
    "subset": "subset",
    "edit": "edit",
    "repack": "repack",
    "diff": "diff",
    "cache": "cache",
    "train-teacher": "train_teacher",
    "encode": "encode",
    "evaluate": "evaluate",
    "generators": "generators",
}
EXTRAS = {  # what is not in the base installation -> the extra that brings it
    "torch": "decode",
    "diffusers": "decode",
    "transformers": "decode",
    "safetensors": "decode",
    "pyarrow": "encode",
    "sklearn": "demo",
    "matplotlib": "demo",
    "aiohttp": "remote",
    "huggingface_hub": "hub",
}
EXTRA_OF = {"demo": "demo", "encode": "encode", "train-teacher": "encode"}  # of commands that need more
RESUMABLE = frozenset({"decode", "encode", "generators", "join", "merge", "subset"})


class Commands(click.Group):
    """A group whose commands are imported on use, and whose errors become messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"d3codec.cli.{COMMANDS[cmd_name]}").command
        return command

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = self._run(arguments, *rest, **extra)
            sys.stdout.flush()  # here, where a reader that went away is still met with good manners
        except BrokenPipeError:
            _drop_stdout()
            code = 1
        sys.exit(code)

    def _run(self, arguments: list[str], *rest: Any, **extra: Any) -> int:
        machine = "--json" in arguments
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code = super().main(arguments, *rest, **extra)
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            raise
        except click.Abort as error:  # click's name for Ctrl-C, and for the end of a file, which is another matter
            if isinstance(error.__cause__, EOFError):
                if os.environ.get("D3CODEC_DEBUG") == "1":
                    raise
                return fail(as_d3m_error(error.__cause__), machine)
            return _interrupted(RESUMABLE.intersection(arguments[:1]), machine)
        except click.ClickException as error:
            return _misused(error, machine)
        except Exception as error:
            if os.environ.get("D3CODEC_DEBUG") == "1":
                raise
            return fail(_whole_extra(as_d3m_error(error), arguments), machine)


def fail(error: D3MError, machine: bool) -> int:
    """Say what is wrong, to a person on stderr or to a machine on stdout; returns the exit code."""
    from d3codec.cli.console import print_error, print_json

    if machine:
        print_json(error.as_json())
    else:
        print_error(str(error))
    return error.exit_code


def as_d3m_error(error: Exception) -> D3MError:
    """Anything unexpected as an error with one message: the system's own words, or a request to report it."""
    if isinstance(error, D3MError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return D3MError(error.strerror, file=None if error.filename is None else str(error.filename))
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        return MissingExtraError(extra)
    if isinstance(error, MemoryError):
        return D3MError("not enough memory", hint="a smaller --batch-size, --limit or --classes needs less")
    return D3MError(
        f"unexpected {type(error).__name__}: {error}",
        hint="This is a fault of d3codec: please report it, with what the same command says under D3CODEC_DEBUG=1.",
    )


def _whole_extra(error: D3MError, arguments: list[str]) -> D3MError:
    """The extra that serves the whole command, so that one installation is enough."""
    command = arguments[0] if arguments else ""
    if isinstance(error, MissingExtraError) and error.extra == "decode" and command in EXTRA_OF:
        return MissingExtraError(EXTRA_OF[command])
    return error


def _misused(error: click.ClickException, machine: bool) -> int:
    if machine:
        from d3codec.cli.console import print_json

        print_json({"error": "E_USAGE", "message": error.format_message()})
    else:
        error.show()
    return error.exit_code


def _interrupted(resumable: Any, machine: bool) -> int:
    text = "interrupted" + (": finished work is saved, the same command continues there" if resumable else "")
    if machine:
        from d3codec.cli.console import print_json

        print_json({"error": "E_INTERRUPTED", "message": text})
    print(text, file=sys.stderr)
    return 130


def _show_warning(message: Warning | str, category: type[Warning], *_place: Any, **_more: Any) -> None:
    """Warnings for users, in one line; those for programmers are not for the command line."""
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)


def _drop_stdout() -> None:
    """Let the interpreter's last flush go to nowhere instead of to a pipe without a reader."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="d3codec")
def main() -> None:
    """Publish a distilled dataset as one tiny file, and read it back.

    Every command takes --json (machine-readable result on stdout); progress and hints go to stderr.

    Exit codes: 0 good, 1 failure, 2 usage, 3 damaged or mismatch, 4 something needed is missing,
    130 interrupted.
    """


if __name__ == "__main__":
    main()
