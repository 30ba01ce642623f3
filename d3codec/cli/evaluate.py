"""`d3codec evaluate`: train students on a file's images and test them on real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from d3codec.cli.console import (
    ProgressCallback,
    device_option,
    generator_option,
    json_option,
    print_hint,
    print_json,
    processes_option,
    progress,
    quiet_option,
)
from d3codec.cli.encode import on_error_option

if TYPE_CHECKING:
    from d3codec.training.protocols import TrainingSet


@click.command("evaluate", short_help="What students learn from a file.")
@click.argument("file", metavar="FILE")
@click.option(
    "--test",
    metavar="IMAGES",
    required=True,
    help="Test images: a folder of class folders, a .parquet file, or digits:test.",
)
@click.option(
    "--protocol",
    type=click.Choice(["H", "S0", "S1"]),
    required=True,
    help="H: hard labels, augmented; S0: stored patch labels, plain; S1: stored, augmented.",
)
@click.option(
    "--runs",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Students, each with its own training seed.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Training seed of the first; the others follow.",
)
@click.option("--steps", metavar="N", type=click.IntRange(min=1), help="Steps of the optimiser a student.")
@click.option(
    "--side",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the images in the network. Default: fits the patches.",
)
@click.option("--flip", is_flag=True, help="Mirror images while training (H, S1); not for digits.")
@processes_option
@device_option
@generator_option
@on_error_option
@json_option
@quiet_option
def command(
    file: str,
    test: str,
    protocol: str,
    runs: int,
    seed: int,
    steps: int | None,
    side: int | None,
    flip: bool,
    processes: int | None,
    device: str,
    generator: str | None,
    on_error: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train students on FILE (a path or a URL) and print their accuracy on the test images.

    The accuracy is the mean over the runs and the spread their standard deviation, both in percent.
    """
    from d3codec.decoder.precision import choose_device
    from d3codec.decoder.processes import usable_cores
    from d3codec.sources import LARGE_SIDE, read_images
    from d3codec.training.protocols import evaluate

    chosen = choose_device(device)
    tested = read_images(test, on_error=cast(Any, on_error), max_side=LARGE_SIDE)
    with progress(quiet) as callback:
        training = _training_set(file, chosen, generator, callback)
        report = evaluate(
            training,
            tested,
            protocol=cast(Any, protocol),
            runs=runs,
            steps=steps,
            side=side,
            flip=flip,
            seed=seed,
            device=chosen,
            progress=callback,
            processes=1 if chosen == "cuda" else processes or usable_cores(),
        )
    if tested.skipped:
        print_hint(f"skipped, could not be read: {', '.join(tested.skipped)}", quiet)
    if as_json:
        print_json(report.as_json() | {"skipped": list(tested.skipped)})
    else:
        click.echo(report.as_text())


def _training_set(file: str, device: str, generator: str | None, callback: ProgressCallback | None) -> TrainingSet:
    from d3codec.dataset import load
    from d3codec.training.protocols import TrainingSet

    dataset = load(file)
    logits = None if dataset.labels.kind == "hard" else dataset.labels.logits()
    images = dataset.images(device=device, generator=generator, progress=callback)
    return TrainingSet(
        images, dataset.labels.hard(), logits, dataset.grid, tuple(info.name for info in dataset.classes)
    )
