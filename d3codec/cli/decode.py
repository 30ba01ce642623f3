"""`d3codec decode`: a file to a folder of images, arrays, tar shards, parquet files or a contact sheet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from d3codec.cli.console import device_option, json_option, print_hint, print_json, print_table, progress, quiet_option

if TYPE_CHECKING:
    from d3codec.decoder.budget import Work
    from d3codec.decoder.decode import DecodeReport
    from d3codec.decoder.estimate import Estimate

FORMATS = ["imagefolder", "npz", "webdataset", "parquet"]

generators_option = click.option(
    "--generator",
    metavar="PATH|NAME|REPO",
    multiple=True,
    help="The generator's folder, or the name (sd-1.5) or repository of one in the Hugging Face cache; once for each "
    "of several. What is not named is searched in the package and in that cache.",
)


def _process_count(_ctx: click.Context, _param: click.Parameter, text: str) -> int | str:
    if text == "auto":
        return text
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise click.BadParameter(f"{text!r} is neither 'auto' nor a number above 0")
    return int(text)


def _finite(_ctx: click.Context, _param: click.Parameter, number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"{number} is not a size in GB")
    return number


format_option = click.option(
    "--format",
    "format",
    type=click.Choice(FORMATS),
    default="imagefolder",
    show_default=True,
    help="imagefolder: PATH/00003/000017.png and classes.json; npz: arrays in one file; webdataset: PATH/000000.tar "
    "and so on, of at most 1 GB each; parquet: a folder that datasets.load_dataset reads.",
)


@click.command("decode", short_help="A file to images.")
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(),
    help="A file for npz, else a folder. An unfinished folder of the same data is continued.",
)
@format_option
@click.option(
    "--contact-sheet",
    metavar="PNG",
    type=click.Path(),
    help="Also draw one picture with the first images of each class; without -o nothing else is decoded.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the first N images of each class.")
@click.option("--classes", metavar="A,B,...", help="Only these classes: names, ids or positions.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Only part I (from 0) of N equal parts of the work, as a folder of pictures for d3codec join.",
)
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(min=1),
    help="Images computed at once in profile fast, above eight rounded down to whole units of eight; the other "
    "profiles always compute units of eight.",
)
@click.option(
    "--profile",
    type=click.Choice(["exact", "exact-fixed", "reproducible", "fast"]),
    help="Arithmetic, by default that of the file. fast does not promise the same pixels twice.",
)
@device_option
@click.option(
    "--processes",
    metavar="N|auto",
    callback=_process_count,
    default="auto",
    show_default=True,
    help="Processes on this machine, one thread each when there are several; auto: one a GPU, or one a core where "
    "the work is worth their start (20 s each) and memory suffices.",
)
@click.option(
    "--cache-gb",
    metavar="GB",
    type=click.FloatRange(min=0),
    callback=_finite,
    help="Size of the cache of finished units; those used longest ago go first, units of this decode only if it alone "
    "is larger. Default: D3CODEC_CACHE_GB, else 10.",
)
@click.option("--dry-run", is_flag=True, help="Only say how much there is to decode, after timing up to eight images.")
@click.option("-y", "--yes", is_flag=True, help="Decode however much it is.")
@generators_option
@json_option
@quiet_option
def command(
    file: str,
    output: str | None,
    format: str,
    contact_sheet: str | None,
    limit: int | None,
    classes: str | None,
    shard: str | None,
    batch_size: int | None,
    profile: str | None,
    device: str,
    processes: Any,
    cache_gb: float | None,
    dry_run: bool,
    yes: bool,
    generator: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Decode FILE (a path or a URL) into images.

    Needs the extra `decode` and the generator, but for stored images, which need neither. After Ctrl-C or a crash the
    same command continues: finished units of eight images are kept in a cache. Without --yes more than 100,000 images,
    more than 10 GB of pixels, 4 GB of memory for the images of a unit, or what is expected to take more than 24 hours
    is refused.
    """
    if output is None and contact_sheet is None and not dry_run:
        raise click.UsageError("say where to: -o PATH, --contact-sheet PNG, or both")
    if dry_run and contact_sheet is not None:
        raise click.UsageError("--dry-run estimates the whole decode and draws no --contact-sheet")
    from d3codec.dataset import open_file
    from d3codec.decoder.budget import Budget
    from d3codec.decoder.choice import Choice
    from d3codec.decoder.decode import decode
    from d3codec.decoder.estimate import estimate

    opened = open_file(file)
    what: dict[str, Any] = {
        "classes": None if classes is None else [word.strip() for word in classes.split(",")],
        "limit": limit,
        "shard": shard,
        "profile": profile,
        "device": device,
    }
    if not quiet:
        print_hint(in_words(Choice.of(opened, **what, sheet_only=output is None and not dry_run).work))
    options: dict[str, Any] = what | {
        "format": format,
        "batch_size": batch_size,
        "generator": generator or None,
        "processes": processes,
        "budget": None if yes else Budget(),
        "cache_gigabytes": cache_gb,
    }
    with progress(quiet) as callback:
        options["progress"] = callback
        if dry_run:
            found = estimate(opened, output, **options)
        else:
            report = decode(opened, output, contact_sheet=contact_sheet, **options)
    if as_json:
        print_json(found.as_json() if dry_run else report.as_json())
    elif dry_run:
        _show_estimate(found)
        print_hint("Nothing was written but the timed images, to the cache.", quiet)
    else:
        _show(report)


def in_words(work: Work) -> str:
    """What there is to decode, in one line."""
    return (
        f"{work.images:,} images, {size(work.pixel_bytes)} of pixels, {work.evaluations:.2g} evaluations of pixels by "
        "the denoiser"
    )


def _show(report: DecodeReport) -> None:
    places = [place for place in (report.output, report.contact_sheet) if place is not None]
    part = "" if report.shard is None else f", shard {report.shard}"
    click.echo(
        f"{report.images:,} images of {report.content_id[:16]}..., profile {report.profile}{part}: "
        + " and ".join(places)
    )


def _show_estimate(found: Estimate) -> None:
    device = "GPU" if found.device == "cuda" else "CPU"
    if found.hours is None or found.device_hours is None:
        time = "not measured"
    else:
        times = f"{found.processes} process{'es' if found.processes > 1 else ''}"
        time = f"{found.device_hours:,.4f} {device} hours; {duration(3600 * found.hours)} with {times}"
    cached = "" if found.units_cached is None else f", {found.units_cached:,} of them in the cache"
    rows = [
        ["images", f"{found.images:,} in {found.units:,} units{cached}"],
        ["output", f"about {size(found.output_bytes)} as {found.format}, {size(found.pixel_bytes)} of pixels"],
        ["time", time],
    ]
    if (needed := found.cache_bytes or 0) > found.cache_limit_bytes:
        short = f"{size(needed)} are more than its {size(found.cache_limit_bytes)}"
        rows.append(["cache", f"{short}: a rerun cannot continue without --cache-gb {-(-needed // 10**9)}"])
    if found.refused is not None:
        rows.append(["refused", f"without --yes: {found.refused}"])
    print_table(["", ""], rows, heading=False)


def size(number: float) -> str:
    """Bytes for people: `812 B`, `3.4 MB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def duration(seconds: float) -> str:
    """Time for people: `40 s`, `12 minutes`, `3.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"
