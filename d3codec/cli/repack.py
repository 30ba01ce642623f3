"""`d3codec repack`: the same dataset, compressed anew."""

from __future__ import annotations

import click

from d3codec.cli.console import json_option, print_json


@click.command("repack", short_help="The same dataset, compressed anew.")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="The new file. Default: FILE itself, replaced.")
@click.option(
    "--level",
    metavar="0-22",
    type=click.IntRange(0, 22),
    default=19,
    show_default=True,
    help="Of zstd; 0 stores every section as it is.",
)
@json_option
def command(file: str, output: str | None, level: int, as_json: bool) -> None:
    """Compress the sections of FILE (a path or a URL) anew, and write its head anew.

    Content id, pixels, labels and what the file says of itself stay. A section that compression does not make smaller
    is stored as it is, whatever the level.
    """
    from d3codec.dataset import open_file
    from d3codec.format.file import save_atomically
    from d3codec.format.limits import MAGIC
    from d3codec.format.rewrite import repacked
    from d3codec.format.save import check_writable

    opened = open_file(file)
    if output is None and opened.source is not None:
        raise click.UsageError("what is behind a URL cannot be replaced: say where to, -o FILE")
    target = output or file
    check_writable(target, lambda start: start.startswith(MAGIC))
    data = repacked(opened, level or None)
    save_atomically(target, data)
    facts = {"output": target, "bytes_before": opened.bytes_total, "bytes": len(data), "content_id": opened.content_id}
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"{target}: {len(data):,} bytes, {opened.bytes_total:,} before, content id {opened.content_id} as before"
        )
