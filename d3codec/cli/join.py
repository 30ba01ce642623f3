"""`d3codec join`: the shards of a decode to one output."""

from __future__ import annotations

import click

from d3codec.cli.console import json_option, print_json, progress, quiet_option
from d3codec.cli.decode import format_option


@click.command("join", short_help="Shards of a decode to one output.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="PATH", type=click.Path(), required=True, help="A file for npz, else a folder.")
@format_option
@json_option
@quiet_option
def command(folders: tuple[str, ...], output: str, format: str, as_json: bool, quiet: bool) -> None:
    """Join the folders DIR... that `d3codec decode --shard` made.

    Every picture is compared with the digest that its shard stored, images that are in none of the folders are named,
    and the whole is compared with the digest in the dataset where it has one for this profile. Shards of another
    dataset, profile or, unless the profile is exact, machine are refused. Interrupted, the same command continues.
    Needs neither torch nor the generator.
    """
    from d3codec.decoder.join import join

    with progress(quiet) as callback:
        report = join(folders, output, format=format, progress=callback)
    if as_json:
        print_json(report.as_json())
        return
    proved = "as the dataset promises" if report.pixels == "proved" else "as their shards made them"
    click.echo(
        f"{report.images:,} images of {report.content_id[:16]}..., profile {report.profile}, "
        f"from {report.folders} shard{'s' if report.folders > 1 else ''}, {proved}: {report.output}"
    )
