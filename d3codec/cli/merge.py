"""`d3codec merge`: the groups of several files in one file."""

from __future__ import annotations

from typing import Any

import click

from d3codec.cli.console import device_option, json_option, print_json, progress, quiet_option
from d3codec.cli.decode import generators_option
from d3codec.cli.made import save_made


def _weights(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    words = () if text is None else text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= 255 for word in words):
        raise click.BadParameter(f"{text!r} is not a list of numbers from 1 to 255, such as 1,3")
    return tuple(int(word) for word in words) or None


@click.command("merge", short_help="Groups of several files in one file.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), required=True, help="The new .d3m file.")
@click.option(
    "--profile",
    type=click.Choice(["exact", "exact-fixed", "reproducible"]),
    help="Promise of the new file, by default that of all files, reproducible if they differ.",
)
@click.option("--weights", metavar="A,B,...", callback=_weights, help="Share of each group in a training batch, 1-255.")
@click.option("--licence", metavar="SPDX", help="Licence of the new file, where the files differ.")
@click.option("--source", metavar="TEXT", help="Where the images came from, where the files differ.")
@click.option("--teacher", metavar="TEXT", help="Whose labels they are, where the files differ.")
@click.option("--method", metavar="TEXT", help="Default: the methods of the files, joined by +.")
@click.option("--decode", "digest", is_flag=True, help="Decode a reproducible file too, and state its pixel digest.")
@click.option("-y", "--yes", is_flag=True, help="Decode however much it is.")
@generators_option
@device_option
@json_option
@quiet_option
def command(
    files: tuple[str, ...],
    output: str,
    profile: Any,
    weights: tuple[int, ...] | None,
    licence: str | None,
    source: str | None,
    teacher: str | None,
    method: str | None,
    digest: bool,
    yes: bool,
    generator: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put the groups of each FILE (a path or a URL) into one file, in the order given.

    The files must have the same classes in the same order. Sections are copied as they are: nothing is encoded again,
    and groups keep generator, recipe and labels. A file of the profile exact or exact-fixed states a digest of its
    pixels, so all images are decoded for it; a reproducible one states none unless --decode is given. Claims of
    accuracy are left out, since they were measured on the single files. Interrupted, the same command continues.
    """
    from d3codec.dataset import open_file
    from d3codec.decoder.budget import Budget
    from d3codec.encoder.merge import Statement, merge
    from d3codec.format.limits import MAGIC
    from d3codec.format.save import check_writable

    check_writable(output, lambda start: start.startswith(MAGIC))
    statement = Statement(licence, source, teacher, method, weights)
    with progress(quiet) as callback:
        data = merge(
            [open_file(file) for file in files],
            statement,
            profile=profile,
            digest=digest,
            generator=generator or None,
            device=device,
            budget=None if yes else Budget(),
            progress=callback,
        )
    facts = save_made(output, data, quiet)
    if as_json:
        print_json(facts)
        return
    click.echo(
        f"{output}: {facts['bytes']:,} bytes, {facts['groups']} groups, {facts['images_per_class']} images a class, "
        f"profile {facts['profile']}, content id {facts['content_id']}"
    )
