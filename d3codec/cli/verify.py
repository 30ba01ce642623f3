"""`d3codec verify`: is a file what it was, and does it decode to the pixels it promises."""

from __future__ import annotations

from typing import Any

import click

from d3codec.cli.console import (
    device_option,
    fetched,
    json_option,
    print_error,
    print_hint,
    print_json,
    progress,
    quiet_option,
)
from d3codec.cli.decode import generators_option
from d3codec.errors import D3MError


def _decode_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is None or value == "all":
        return value
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'all' nor a number of images from 1 up")


@click.command("verify", short_help="Is a file what it was?")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--level",
    type=click.IntRange(0, 3),
    help="How deep: 0 head, parts and digests, 1 also noise and tables, 2 also every coded row, latent and label, 3 "
    "also all pixels, as --decode all. Default: 2.",
)
@click.option(
    "--decode",
    metavar="all|N",
    callback=_decode_value,
    help="Also decode all images, or N of them, and compare them with the digests in the file.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Code 3 also for a sound file that states no pixel digest, no licence or source, claims without method or "
    "labels, carries sections that the specification does not know or could be 1 % smaller, and for decoded pixels "
    "that were not proved.",
)
@click.option("-y", "--yes", is_flag=True, help="Decode however much it is.")
@generators_option
@device_option
@json_option
@quiet_option
def command(
    files: tuple[str, ...],
    level: int | None,
    decode: Any,
    strict: bool,
    yes: bool,
    generator: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check each FILE (a path or a URL): head, sections, digests, values; with --decode the pixels too.

    Exit code 0: good, also where this machine cannot prove the pixels. 3: damaged, other pixels than it
    promises, or not as --strict wants it. 4: the file or something needed is missing. With several files the worst of
    their codes; --json prints one line a file. As much as d3codec decode refuses without --yes is refused here too.
    """
    from d3codec.decoder.budget import Budget

    options = {
        "level": level,
        "decode": decode,
        "strict": strict,
        "generator": generator or None,
        "device": device,
        "budget": None if yes else Budget(),
    }
    codes = [_verify(file, options, as_json, quiet) for file in files]
    return 3 if 3 in codes else max(codes)


def _verify(file: str, options: dict[str, Any], as_json: bool, quiet: bool) -> int:
    from d3codec.dataset import open_file
    from d3codec.decoder.verify import verify

    try:
        with progress(quiet) as callback:
            opened = open_file(file)
            report = verify(opened, progress=callback, **options)
    except D3MError as error:
        if as_json:
            print_json({"file": file, **error.as_json()}, indent=None)
        else:
            click.echo(f"{file}: {error.code}")
            print_error(str(error))
        return error.exit_code
    facts = report.as_json() | {"fetched": fetched(opened)}
    if as_json:
        print_json(facts, indent=None)
    else:
        click.echo(f"{file}: good, content id {facts['content_id']}{_pixels(facts)}")
        for warning in facts.get("warnings", []):
            print_hint(f"warning: {warning}", quiet)
    return 0


def _pixels(facts: dict[str, Any]) -> str:
    if facts["pixels"] == "not checked":
        return ""
    return f", pixels of {facts['images_checked']} images {facts['pixels']}"
