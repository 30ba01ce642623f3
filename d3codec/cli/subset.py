"""`d3codec subset`: some classes, images and groups of a file as a file of their own."""

from __future__ import annotations

from typing import Any

import click

from d3codec.cli.console import device_option, json_option, print_json, progress, quiet_option
from d3codec.cli.decode import generators_option
from d3codec.cli.made import save_made


def _numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise click.BadParameter(f"{text!r} is not a list of numbers, such as 0,2")
    return [int(word) for word in words]


@click.command("subset", short_help="Some classes, images and groups of a file.")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), required=True, help="The new .d3m file.")
@click.option("--classes", metavar="A,B,...", help="Only these classes: names, ids, positions or ranges such as 0-4.")
@click.option("--ipc", metavar="N", type=click.IntRange(min=1), help="Only the first N images of each class.")
@click.option("--groups", metavar="A,B,...", callback=_numbers, help="Only these groups, by number.")
@click.option(
    "--profile",
    type=click.Choice(["exact", "exact-fixed", "reproducible"]),
    help="Promise of the new file, by default that of FILE; reproducible needs no decode.",
)
@click.option("--decode", "digest", is_flag=True, help="Decode a reproducible file too, and state its pixel digest.")
@click.option("-y", "--yes", is_flag=True, help="Decode however much it is.")
@generators_option
@device_option
@json_option
@quiet_option
def command(
    file: str,
    output: str,
    classes: str | None,
    ipc: int | None,
    groups: list[int] | None,
    profile: Any,
    digest: bool,
    yes: bool,
    generator: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write some classes, images and groups of FILE (a path or a URL) as a file of their own.

    Their pixels and labels stay. Noise is counted by class position, so of groups that are sampled, or have augmented
    copies, the classes can only be the first ones, such as 0-4; of groups of stored images and latents they can be any.
    A file of the profile exact or exact-fixed states a digest of its pixels, so its images are decoded and compared
    with those of FILE; a reproducible one states none unless --decode is given. Claims of accuracy and ancillary
    sections but the digests of images are left out. A subset of everything has the same content id.
    """
    from d3codec.dataset import open_file
    from d3codec.decoder.budget import Budget
    from d3codec.encoder.subset import subset
    from d3codec.format.limits import MAGIC
    from d3codec.format.save import check_writable

    check_writable(output, lambda start: start.startswith(MAGIC))
    with progress(quiet) as callback:
        data = subset(
            open_file(file),
            classes=None if classes is None else [word.strip() for word in classes.split(",")],
            ipc=ipc,
            groups=groups,
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
        f"{output}: {facts['bytes']:,} bytes, {facts['classes']} classes x {facts['images_per_class']} images, "
        f"profile {facts['profile']}, content id {facts['content_id']}"
    )
