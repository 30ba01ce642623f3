"""`d3codec demo`: the main job end to end, on the digits, with the generator that the package carries."""

from __future__ import annotations

from pathlib import Path

import click

from d3codec.cli.console import json_option, print_json, processes_option, progress, quiet_option


@click.command("demo", short_help="See it work on the digits, in a few minutes.")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(),
    default="d3codec-demo",
    show_default=True,
    help="Where pictures and the table go.",
)
@processes_option
@json_option
@quiet_option
def command(output: str, processes: int | None, as_json: bool, quiet: bool) -> None:
    """Decode the bundled digits, train classifiers on them and on real digits of equal size, and compare.

    Needs the extra `demo`; no GPU, no download.
    """
    from d3codec.decoder.processes import usable_cores
    from d3codec.training.demo import run_demo

    with progress(quiet) as callback:
        report = run_demo(Path(output), processes=processes or usable_cores(), progress=callback)
    if as_json:
        print_json(report.as_json())
        return
    click.echo(report.as_table())
    for picture in report.pictures:
        click.echo(f"picture: {picture}")
