"""`d3codec evaluate`: train students on a file's images and test them on real ones."""

from __future__ import annotations

import click

from d3codec.cli.console import (
    device_option,
    generator_option,
    json_option,
    print_json,
    progress,
    quiet_option,
)
from d3codec.cli.encode import on_error_option


@click.command("evaluate", short_help="What students learn from a file.")
@click.argument("file", metavar="FILE")
@click.option("--test", metavar="IMAGES", required=True,
              help="Test images: a folder of class folders, a .parquet file, or digits:test.")
@click.option("--protocol", type=click.Choice(["H", "S0", "S1"]), required=True,
              help="H: hard labels, augmented; S0: stored patch labels, plain; S1: stored, augmented.")
@click.option("--runs", metavar="N", type=click.IntRange(min=1), default=3, show_default=True,
              help="Students, each with its own training seed.")
@click.option("--steps", metavar="N", type=click.IntRange(min=1), help="Steps of the optimiser a student.")
@click.option("--flip", is_flag=True, help="Mirror images while training (not for digits).")
@device_option
@generator_option
@on_error_option
@json_option
@quiet_option
def command(file: str, test: str, protocol: str, runs: int, steps: int | None, flip: bool, device: str,
            generator: str | None, on_error: str, as_json: bool, quiet: bool) -> None:
    """Train students on FILE (a path or a URL) and print their accuracy on the test images.

    The accuracy is the mean over the runs, the spread their standard deviation; both are in percent.
    """
    raise NotImplementedError
