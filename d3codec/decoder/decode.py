"""File -> pixels -> an output: a folder of pictures, an array file, tar or parquet files, a contact sheet.

An interrupted decode continues where it stopped (see `units`). Importing this module does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from d3codec.decoder.background import Background
from d3codec.decoder.budget import Budget
from d3codec.decoder.cache import UnitCache, home
from d3codec.decoder.choice import Choice, check_format, shard_error
from d3codec.decoder.renderers import Progress
from d3codec.decoder.shard import Shard, image_keys
from d3codec.decoder.units import Processes, decoded_units, warn_if_unlike
from d3codec.decoder.writers import Writer, contact_sheet
from d3codec.errors import PixelsError
from d3codec.format.file import D3MFile
from d3codec.generators.weights import Names

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
    generator: Names = None,
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
        classes: positions, names or ids of the classes; a string that is neither name nor id may be a position; None:
            all.
        limit: the first so many images of each class; None: all.
        shard: 'i/n': the i-th (from 0) of n parts of the work, as a folder of pictures for `join`.
        contact_sheet: a PNG with a row of images for each class (at most 40 rows of 10); without `output` nothing
            else is decoded.
        batch_size: images computed at once, above eight rounded down to a multiple of eight. It changes the batch in
            profile `fast` only.
        profile: 'exact', 'exact-fixed', 'reproducible' or 'fast'; None: the file's.
        device: 'auto', 'cpu' or 'cuda'.
        generator: folder or cached Hugging Face repository, or one for each generator of the file; None searches the
            package and the local cache.
        processes: so many on this machine, or 'auto': one a GPU or one a core where the work is worth their start.
        budget: what the decode may cost; None: anything.
        cache_gigabytes: size of the cache, beyond which the units used longest ago go, those of this decode only if it
            alone is larger; None: D3CODEC_CACHE_GB, or 10.
        progress: called with (stage, done, total).

    Raises:
        FormatError, MissingFileError: the file; MissingExtraError, MissingGeneratorError, GeneratorError: what it
        needs; OutputError: the output holds something else or cannot be written; PixelsError: a whole dataset whose
        pixels are not those that an exact file promises; UsageError: arguments, or more work than the budget allows.
    """
    check_format(format)
    choice = Choice.of(file, classes, limit, shard, profile, device, sheet_only=output is None and bool(contact_sheet))
    if choice.shard is not None and (output is None or contact_sheet is not None):
        raise shard_error()
    choice.check(budget)  # before anything is listed
    file, decoding = choice.file, choice.decoding
    plan = decoding.plan
    # Opened before anything is computed: a conflict is told at once.
    writers = choice.writers(output, format, contact_sheet)
    warn_if_unlike(file, decoding.profile, decoding.fingerprint)
    cache = UnitCache(home(), decoding.cache_key)
    kept = any(cache.path(unit).exists() for unit in plan.units)
    units = decoded_units(
        file,
        plan,
        profile=decoding.profile,
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
        try:
            for writer in writers:
                writer.finish()
        except PixelsError as error:
            if kept:  # whatever is wrong in the cache is not met again
                cache.clear()
                error.hint = "Units kept from before may be wrong and were removed: the same command decodes afresh."
            raise
    return DecodeReport(
        file.content_id,
        len(plan.images),
        decoding.profile,
        decoding.fingerprint,
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
