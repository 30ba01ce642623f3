"""`d3codec train-teacher`: a classifier of real images, which judges patches and gives soft labels."""

from __future__ import annotations

from pathlib import Path

import click

from d3codec.cli.console import json_option, print_hint, print_json, progress, quiet_option
from d3codec.cli.encode import images_argument, on_error_option


@click.command("train-teacher", short_help="A classifier that judges and labels patches.")
@images_argument
@click.option(
    "-o", "--output", metavar="FILE", required=True, type=click.Path(), help="Where the teacher goes, .safetensors."
)
@click.option(
    "--steps", metavar="N", type=click.IntRange(min=1), default=1500, show_default=True, help="Steps of the optimiser."
)
@click.option(
    "--side",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side to which images are resized. Default: fits the images.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the training.")
@on_error_option
@json_option
@quiet_option
def command(
    images: str, output: str, steps: int, side: int | None, seed: int, on_error: str, as_json: bool, quiet: bool
) -> None:
    """Train a teacher on IMAGES and save it.

    IMAGES is a folder of class folders, a .parquet file in the Hugging Face layout, or digits:train.
    """
    from d3codec.sources import LARGE_SIDE, read_images
    from d3codec.training.teachers import train_teacher

    with progress(quiet) as callback:
        read = read_images(images, on_error=on_error, max_side=LARGE_SIDE)  # type: ignore[arg-type]
        report = train_teacher(read, Path(output), side=side, steps=steps, seed=seed, progress=callback)
    if read.skipped:
        print_hint(f"skipped, could not be read: {', '.join(read.skipped)}", quiet)
    if as_json:
        print_json(report.as_json() | {"skipped": list(read.skipped)})
    else:
        click.echo(report.as_text())
