"""`d3codec edit`: what a file says of itself."""

from __future__ import annotations

import click

from d3codec.cli.console import json_option, print_json


def _pairs(_ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{text!r} is not {param.metavar}")
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice")
        found[key] = value
    return found


@click.command("edit", short_help="What a file says of itself.")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="The new file. Default: FILE itself, replaced.")
@click.option(
    "--set",
    "values",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_pairs,
    help="Say licence (SPDX), source, citation, method or teacher.",
)
@click.option("--unset", metavar="KEY", multiple=True, help="Leave one of these out, or all claims.")
@click.option(
    "--claim",
    "claims",
    metavar="NAME=TEXT",
    multiple=True,
    callback=_pairs,
    help="Add or replace a claim, such as an accuracy with the training that gave it; without TEXT it is left out.",
)
@json_option
def command(
    file: str, output: str | None, values: dict[str, str], unset: tuple[str, ...], claims: dict[str, str], as_json: bool
) -> None:
    """Change what FILE (a path or a URL) says of itself: licence, source, citation, method, teacher, claims.

    Pixels, labels and the content id stay, and so does every stored byte of the sections. What the file states of its
    pixels, digest and fingerprint, only a decode can state, so it is not edited.
    """
    from d3codec.dataset import open_file
    from d3codec.format.file import D3MFile, save_atomically
    from d3codec.format.limits import MAGIC
    from d3codec.format.rewrite import edited
    from d3codec.format.save import check_writable

    if not (values or unset or claims):
        raise click.UsageError("say what to change: --set, --unset or --claim")
    opened = open_file(file)
    if output is None and opened.source is not None:
        raise click.UsageError("what is behind a URL cannot be replaced: say where to, -o FILE")
    target = output or file
    check_writable(target, lambda start: start.startswith(MAGIC))
    data = edited(opened, values=values, unset=unset, claims=claims)
    save_atomically(target, data)
    made = D3MFile.open(data)
    if as_json:
        said = {
            name: getattr(made.about, name, None) for name in ("licence", "source", "citation", "method", "teacher")
        }
        about = said | {"claims": getattr(made.about, "claims", None)}
        print_json({"output": target, "bytes": len(data), "content_id": made.content_id, "about": about})
    else:
        click.echo(f"{target}: {len(data):,} bytes, content id {made.content_id} as before")
