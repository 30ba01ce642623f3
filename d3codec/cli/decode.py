"""`d3codec decode`: a file to a folder of images, an npz or a contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d3codec.cli.console import device_option, generator_option, json_option, print_json, progress, quiet_option

if TYPE_CHECKING:
    from d3codec.dataset import Dataset
    from d3codec.decoder.decode import DecodeReport


@click.command("decode", short_help="A file to images.")
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(),
    help="Folder for imagefolder, file for npz. An unfinished folder of the same data is continued.",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["imagefolder", "npz"]),
    default="imagefolder",
    show_default=True,
    help="imagefolder: PATH/00003/000017.png and classes.json; npz: arrays in one file.",
)
@click.option(
    "--contact-sheet",
    metavar="PNG",
    type=click.Path(),
    help="Also draw one picture with the first images of each class; without -o nothing else is decoded.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the first N images of each class.")
@click.option("--classes", metavar="A,B,...", help="Only these classes: names, ids or positions.")
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(min=1),
    help="Images computed at once in profile fast; reproducible always computes eight.",
)
@click.option(
    "--profile",
    type=click.Choice(["reproducible", "fast"]),
    help="Arithmetic, by default that of the file. fast does not promise the same pixels twice.",
)
@device_option
@generator_option
@json_option
@quiet_option
def command(
    file: str,
    output: str | None,
    format: str,
    contact_sheet: str | None,
    limit: int | None,
    classes: str | None,
    batch_size: int | None,
    profile: str | None,
    device: str,
    generator: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Decode FILE (a path or a URL) into images.

    Needs the extra `decode` and the generator. Ctrl-C leaves a folder that the same command continues.
    """
    if output is None and contact_sheet is None:
        raise click.UsageError("say where to: -o PATH, --contact-sheet PNG, or both")
    from d3codec.dataset import load
    from d3codec.decoder.decode import decode

    dataset = load(file, profile=profile)
    chosen = None if classes is None else class_positions(dataset, classes)
    with progress(quiet) as callback:
        report = decode(
            dataset.file,
            output,
            format=format,
            classes=chosen,
            limit=limit,
            contact_sheet=contact_sheet,
            batch_size=batch_size,
            profile=profile,
            device=device,
            generator=generator,
            progress=callback,
        )
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)


def _show(report: DecodeReport) -> None:
    places = [place for place in (report.output, report.contact_sheet) if place is not None]
    click.echo(
        f"{report.images:,} images of {report.content_id[:16]}..., profile {report.profile}: " + " and ".join(places)
    )


def class_positions(dataset: Dataset, words: str) -> list[int]:
    """Positions of classes given as `zero,n01440764,3`: names and ids come before numbers."""
    from d3codec.errors import UsageError

    positions = []
    for word in (word.strip() for word in words.split(",")):
        try:
            positions.append(dataset.position(word))
        except UsageError:
            if not (word.isascii() and word.isdecimal()):
                raise
            positions.append(dataset.position(int(word)))
    return positions
