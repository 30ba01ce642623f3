"""What the commands share for talking: JSON and data on stdout, errors, hints and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from d3codec.format.file import D3MFile

ProgressCallback = Callable[[str, int, int], None]
SECONDS_BETWEEN_LINES = 5.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress and no hints on stderr.")
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the networks run; auto takes a GPU if there is one.",
)
generator_option = click.option(
    "--generator",
    metavar="PATH|NAME|REPO",
    help="The generator's folder, or the name (sd-1.5) or repository of one in the Hugging Face cache. Without it the "
    "package's own and that cache are searched for the one that the file names.",
)
processes_option = click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(min=1),
    help="Students trained at once, one thread each. Default: as many as there are cores.",
)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    click.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def fetched(file: D3MFile) -> dict[str, int] | None:
    """Requests and bytes that a file behind a URL took so far, None for one that is on this machine."""
    return None if file.fetched is None else dict(zip(("requests", "bytes"), file.fetched, strict=True))


def print_error(text: str) -> None:
    """`error: text` on stderr; the word in red where the terminal has colours and NO_COLOR is not set."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print("error:", style="red", end=" ")
    console.print(text)


def print_hint(text: str, quiet: bool = False) -> None:
    if not quiet:
        click.echo(text, err=True)


def print_table(
    columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = (), heading: bool = True
) -> None:
    """A plain table on stdout, as wide as its content; columns in `right` are aligned to the right."""
    shown = [columns, *rows] if heading else rows
    widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
    for row in shown:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


@contextmanager
def progress(quiet: bool) -> Iterator[ProgressCallback | None]:
    """A callback (stage, done, total): bars with rate and time left on a terminal, else a line now and then.

    None with `quiet`.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bars() as callback:
            yield callback
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(_rate(speed) if speed else "")

    tasks: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    # stdout stays what it is: rich would send it where the bars go
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:

        def callback(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield callback


def _rate(a_second: float) -> str:
    return f"{a_second:.1f}/s" if a_second >= 1 else f"{1 / a_second:.1f} s each"


def _lines() -> ProgressCallback:
    """One line when a stage ends, and one every few seconds while it lasts."""
    started: dict[str, tuple[float, int]] = {}
    last = time.monotonic()

    def callback(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        start, first = started.setdefault(stage, (now, done))
        if done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (done - first) / (now - start) if now > start else 0.0
        rest = f", {_rate(rate)}, {(total - done) / rate:.0f} s left" if rate and done < total else ""
        click.echo(f"{stage}: {done}/{total}{rest}", err=True)

    return callback
