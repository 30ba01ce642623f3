"""`d3codec encode`: labelled images to a `.d3m` file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from d3codec.cli.console import device_option, json_option, print_json, progress, quiet_option

images_argument = click.argument("images", metavar="IMAGES")
on_error_option = click.option(
    "--on-error",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="What to do with files that are no readable images.",
)
_positive = click.IntRange(min=1)
_key = click.IntRange(0, 2**64 - 1)


@click.command("encode", short_help="Images to a file.")
@images_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="The file to write; an older .d3m there is replaced at the end.",
)
@click.option(
    "--bytes",
    "max_bytes",
    metavar="N",
    type=_positive,
    help="The best file of at most N bytes, everything counted: methods, counts and rates are tried, and students "
    "choose on images held out.",
)
@click.option(
    "--method",
    type=click.Choice(["d3m", "rded", "latents", "images"]),
    help="d3m: one learned prompt a class; rded: collages of real patches; latents: real images as quantized latents, "
    "images: on contact sheets (both with --bytes). Default: d3m, and with --bytes what students like best.",
)
@click.option(
    "--profile",
    type=click.Choice(["exact", "exact-fixed", "reproducible"]),
    default="exact",
    show_default=True,
    help="What the file promises about its pixels: exact on every machine, or reproducible (a third of the work).",
)
@click.option(
    "--generator",
    "generators",
    metavar="PATH|NAME|REPO",
    multiple=True,
    help="A Stable Diffusion pipeline, or (for latents) an autoencoder: its folder, or the name (sd-1.5, taesd3) or "
    "repository of one that `d3codec generators fetch` brought; may be given twice with --bytes. Default: the bundled "
    "one, with --bytes an autoencoder of the Hugging Face cache.",
)
@click.option(
    "--teacher",
    metavar="FILE|MODULE:FUNCTION",
    help="A file of train-teacher, or a Python function images -> logits. Default: with --bytes three small networks "
    "are trained on the images; else it must be given.",
)
@click.option(
    "--ipc", metavar="N", type=_positive, help="Images (collages) a class. Default: with --bytes as many as pay."
)
@click.option(
    "--grid", metavar="N", type=_positive, help="Patches a side of a collage. Default: the generator's hint, else 2."
)
@click.option(
    "--template",
    metavar="TEXT",
    help="Prompt in which every * is a learned embedding. Default: the generator's hint, else 'a photo of *'.",
)
@click.option(
    "--initial-token", metavar="WORD", help="The word that learning starts from. Default: the generator's hint."
)
@click.option(
    "--guidance",
    metavar="X",
    type=float,
    help="Classifier-free guidance scale, 1 for none. Default: the generator's hint, else 7.5.",
)
@click.option(
    "--steps", metavar="N", type=_positive, help="Steps of the sampler. Default: the generator's hint, else 50."
)
@click.option(
    "--resolution",
    metavar="PIXELS",
    type=_positive,
    help="Side of a collage, with --bytes of an image: 16, 32, 64, 128 or 256. Default: the generator's hint, else its "
    "own side; of rded that of the smallest image up to 224, with --bytes 32.",
)
@click.option(
    "--size",
    metavar="PIXELS",
    type=_positive,
    help="Side to which decoded collages are resized. Default: they stay as they are.",
)
@click.option(
    "--cast",
    type=click.Choice(["f16", "stored"]),
    default="f16",
    show_default=True,
    help="Dtype of the weights for identity and use.",
)
@click.option(
    "--bits",
    metavar="N",
    type=click.FloatRange(1, 8),
    default=2.5,
    show_default=True,
    help="Bits a value of the learned embeddings, at most; a whole number with --fixed-width.",
)
@click.option("--fixed-width", is_flag=True, help="Embeddings in codes of whole bits, without the entropy coder.")
@click.option(
    "--labels",
    type=click.Choice(["hard", "int8", "fp16", "top-k", "ranked-head", "adaptive"]),
    help="How the teacher's logits of every decoded patch are stored; hard: the class alone. Default: adaptive up to "
    "64 classes, else ranked-head (d3m: int8 with --label-step).",
)
@click.option(
    "--label-bytes",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="At most so many bytes a label of ranked-head or top-k. Default: ranked-head 10 from 90 classes and 2 of 10, "
    "top-k 40.",
)
@click.option(
    "--label-step",
    metavar="N",
    type=_positive,
    help="Step of int8 labels in 1/256 nat; coarser is smaller. Default: the finest possible.",
)
@click.option("--noise-key", metavar="N", type=_key, default=0, show_default=True, help="Key of the images' noise.")
@click.option(
    "--candidates",
    metavar="N",
    type=_positive,
    default=1,
    show_default=True,
    help="Noises tried an image, a power of two; the teacher keeps the best. Costs log2 N bits an image.",
)
@click.option(
    "--crops",
    metavar="N",
    type=_positive,
    default=5,
    show_default=True,
    help="Random squares an image to choose patches from.",
)
@click.option(
    "--crop-scale",
    metavar="LOW HIGH",
    type=float,
    nargs=2,
    default=(0.08, 1.0),
    show_default=True,
    help="Share of the image's area in a square; 1 1 with --crops 1 takes whole images.",
)
@click.option(
    "--patches-per-class",
    metavar="N",
    type=_positive,
    help="How many of the best patches are learned from. Default: all that fill collages.",
)
@click.option(
    "--inversion-steps",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Steps of textual inversion.",
)
@click.option(
    "--inversion-batch", metavar="N", type=_positive, help="Collages in a step of inversion. Default: six a class."
)
@click.option(
    "--learning-rate",
    metavar="X",
    type=float,
    default=2e-2,
    show_default=True,
    help="Learning rate of textual inversion.",
)
@click.option("--seed", metavar="N", type=_key, default=0, show_default=True, help="Of crops and inversion.")
@on_error_option
@click.option(
    "--leaf-bytes",
    type=click.Choice(["0", "2", "4", "8"]),
    default="2",
    show_default=True,
    help="Bytes of each image's digest in the file, so that a mismatch names the image.",
)
@click.option("--licence", metavar="SPDX", help="Licence of the data, stored in the file.")
@click.option("--source", metavar="TEXT", help="Origin of the images, stored in the file.")
@click.option(
    "--class-ids",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Stable ids of the classes, one a line in class order; with --authority.",
)
@click.option(
    "--authority",
    metavar="NAME",
    default="none",
    show_default=True,
    help="Who gave the class ids, such as wordnet-3.0.",
)
@click.option("--work", metavar="DIR", type=click.Path(), help="Unfinished work. Default: FILE.work.")
@click.option("--restart", is_flag=True, help="Throw away unfinished work instead of continuing it.")
@click.option("--keep-work", is_flag=True, help="Do not remove the work folder at the end.")
@click.option("--report", metavar="JSON", type=click.Path(), help="Write the report to this file too.")
@click.option(
    "--image-format",
    type=click.Choice(["avif", "webp", "png"]),
    help="Of stored collages of rded: png is exact, the others are smaller. Default: avif.",
)
@click.option("--quality", metavar="N", type=click.IntRange(0, 100), help="Of avif and webp. Default: 60.")
@click.option(
    "--processes",
    metavar="N",
    type=_positive,
    help="With --bytes: students and teachers trained at once. Default: as many as there are cores.",
)
@device_option
@json_option
@quiet_option
def command(images: str, as_json: bool, quiet: bool, class_ids: str | None, leaf_bytes: str, **given: Any) -> None:
    """Distil IMAGES into a `.d3m` file.

    IMAGES is a folder of class folders, a .parquet file in the Hugging Face layout, or digits:train. If it is
    interrupted or killed, the same command continues where it was and ends with the same bytes.
    """
    ids = None if class_ids is None else Path(class_ids).read_text(encoding="utf-8").splitlines()
    given |= {"class_ids": ids, "leaf_bytes": int(leaf_bytes)}
    encode, options = _chosen(click.get_current_context(), given)
    with progress(quiet) as callback:
        report = encode(images, progress=callback, **options)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.as_text())


def _chosen(context: click.Context, given: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that is asked for, and its options; options that it does not have must not be given."""
    import inspect

    from d3codec.methods.plans import METHODS

    encode: Callable[..., Any]
    method = given.pop("method")
    given["generators"] = list(given["generators"])
    if given["max_bytes"] is not None and method != "rded":
        from d3codec.methods.sized import encode_to_size as encode

        given |= {"methods": METHODS if method is None else (method,)}
        given["processes"] = given["processes"] or os.cpu_count() or 1
    elif method == "rded":
        from d3codec.methods.rded import encode

        given["image_format"] = given["image_format"] or "avif"
    elif method in (None, "d3m"):
        from d3codec.methods.d3m import encode

        given["generator"] = given["generators"][0] if given["generators"] else None
        if len(given["generators"]) > 1:
            raise click.UsageError("d3m takes one --generator")
    else:
        raise click.UsageError(f"--method {method} needs --bytes: the size of the file")
    known = inspect.signature(encode).parameters
    for name in ("teacher", "ipc"):
        if given[name] is None and known[name].default is inspect.Parameter.empty:
            raise click.UsageError(f"--{name} must be given")
    for option in context.command.params:
        asked = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        name = "generator" if option.name == "generators" and "generator" in known else option.name
        if asked and name in given and name not in known:
            raise click.UsageError(f"{option.opts[0]} is of no use here: it belongs to another method")
    return encode, {name: value for name, value in given.items() if name in known and _told(name, value, known)}


def _told(name: str, value: Any, known: Any) -> bool:
    """Whether an option is passed on: None leaves a function's own default."""
    return value is not None or known[name].default is None
