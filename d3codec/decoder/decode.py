"""File -> pixels -> an output: a folder of pictures, an array file, tar or parquet files, a contact sheet.

An interrupted decode continues where it stopped (see `units`). Importing this module does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d3codec.decoder.background import Background
from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.choice import Choice
from d3codec.decoder.renderers import Progress
from d3codec.decoder.shard import Shard, image_keys
from d3codec.decoder.units import Processes, decoded_units, warn_if_unlike
from d3codec.decoder.writers import FORMATS, ContactSheet, ShardFolder, Writer, contact_sheet
from d3codec.decoder.writers.promise import PixelCheck
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile

__all__ = ["DecodeReport", "contact_sheet", "decode", "decoded_units"]


@dataclass(frozen=True)
class DecodeReport:
    """What a decode made. `images` counts the wanted ones, whether they came from the cache or not."""

    content_id: str
    images: int
    profile: str
    fingerprint: str
    output: str | None
    format: str | None
    shard: str | None
    contact_sheet: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def decode(
    file: D3MFile | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str = "imagefolder",
    classes: Sequence[int | str] | None = None,
    limit: int | None = None,
    shard: Shard | str | None = None,
    contact_sheet: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    profile: str | None = None,
    device: str = "auto",
    generator: str | Path | None = None,
    processes: Processes = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    cache_gigabytes: float | None = None,
    progress: Progress | None = None,
) -> DecodeReport:
    """Decode a `.d3m` file.

    Arguments:
        output: a folder (`imagefolder`: CLASS/IMAGE.png by number, classes.json, decode.json; `webdataset`: tar
            shards; `parquet`: as the Hugging Face hub has datasets) or a file (`npz`: images, classes and, where the
            file has them, labels). None keeps the units in the cache only.
        classes: positions, names or ids of the classes; None: all.
        limit: the first so many images of each class; None: all.
        shard: 'i/n': the i-th (from 0) of n parts of the work, as a folder of pictures for `join`.
        contact_sheet: a PNG with a row of images for each class (at most 40 rows of 10); without `output` nothing
            else is decoded.
        batch_size: images computed at once. It changes the batch in profile `fast` only.
        profile: 'exact', 'exact-fixed', 'reproducible' or 'fast'; None: the file's.
        device: 'auto', 'cpu' or 'cuda'.
        generator: folder or cached Hugging Face repository; None searches the package and the local cache.
        processes: so many on this machine, or 'auto': one a GPU or one a core where the work is worth their start.
        budget: what the decode may cost; None: anything.
        cache_gigabytes: size of the cache, beyond which the units used longest ago go; None: D3CODEC_CACHE_GB, or 10.
        progress: called with (stage, done, total).

    Raises:
        FormatError, MissingFileError: the file; MissingExtraError, MissingGeneratorError, GeneratorError: what it
        needs; OutputError: the output holds something else or cannot be written; PixelsError: a whole dataset whose
        pixels are not those that an exact file promises; UsageError: arguments, or more work than the budget allows.
    """
    choice = Choice.of(file, classes, limit, shard, profile, device, sheet_only=output is None and bool(contact_sheet))
    file, plan, print_ = choice.decoding.file, choice.decoding.plan, choice.decoding.fingerprint
    # Opened before anything is computed: a conflict is told at once.
    writers = _writers(choice, output, format, contact_sheet)
    warn_if_unlike(file, choice.decoding.profile, print_)
    if budget is not None:
        budget.check(Work.of(file.content, plan), file.path)
    units = decoded_units(
        file,
        plan,
        profile=choice.decoding.profile,
        device=choice.device,
        generator=generator,
        batch_size=batch_size,
        progress=progress,
        processes=processes,
        budget=budget,
        cache_gigabytes=cache_gigabytes,
    )
    wanted = set(plan.images)
    with Background() as background, ExitStack() as stack:
        stack.callback(units.close)  # type: ignore[attr-defined]
        for writer in writers:
            stack.callback(writer.abandon)
        begun = False
        for unit, pixels in units:
            if not begun:
                _begin(writers)
                begun = True
            for key, image in zip(image_keys(unit), pixels, strict=True):
                if key in wanted:
                    for writer in writers:
                        background.do(partial(writer.prepare, key, image), writer.add)
        if not begun:  # a shard may be empty
            _begin(writers)
        background.finish()
        for writer in writers:
            writer.finish()
    return DecodeReport(
        file.content_id,
        len(plan.images),
        choice.decoding.profile,
        print_,
        _text(output),
        format if output is not None else None,
        None if choice.shard is None else str(choice.shard),
        _text(contact_sheet),
    )


def _begin(writers: list[Writer]) -> None:
    for writer in writers:
        writer.begin()


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _writers(
    choice: Choice, output: str | os.PathLike[str] | None, format: str, contact_sheet: str | os.PathLike[str] | None
) -> list[Writer]:
    decoding = choice.decoding
    if format not in FORMATS:
        raise UsageError("an unknown output format", field="format", found=format, expected=", ".join(FORMATS))
    if choice.shard is not None and (output is None or format != "imagefolder" or contact_sheet is not None):
        raise UsageError(
            "a shard is decoded into a folder of pictures and nothing else",
            field="shard",
            hint="Name a folder for it; d3codec join makes the other outputs from all shards.",
        )
    if output is not None and contact_sheet is not None and _inside(contact_sheet, output):
        raise UsageError(
            "the contact sheet would lie among the decoded images",
            field="contact_sheet",
            found=os.fspath(contact_sheet),
            hint="Put it beside the output folder.",
        )
    writers: list[Writer] = []
    if (check := PixelCheck.of(decoding)) is not None:
        writers.append(check)  # the first to finish: no output is called finished that differs
    if choice.shard is not None:
        writers.append(ShardFolder(Path(output or ""), decoding, choice.shard))
    elif output is not None:
        writers.append(FORMATS[format](Path(output), decoding))
    if contact_sheet is not None:
        grids = {group.images.grid for group in decoding.file.content.groups}
        names = [record.name for record in decoding.records]
        writers.append(ContactSheet(Path(contact_sheet), names, grids.pop() if len(grids) == 1 else (1, 1)))
    return writers


def _inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    return Path(folder).absolute() in Path(path).absolute().parents
