"""Images generated from one learned prompt a class (D3M), as a part of a file of a size: made once for all trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from d3codec.decoder.cache import UnitCache
from d3codec.decoder.labels import decode_labels
from d3codec.decoder.plan import Plan
from d3codec.format.file import D3MFile
from d3codec.methods import d3m
from d3codec.methods.made import Labelling, Made
from d3codec.methods.plans import GENERATED_IPC
from d3codec.sources import LabelledImages

if TYPE_CHECKING:
    from d3codec.format.manifest import SoftLabels
    from d3codec.methods.pool import Judge

CANDIDATES, BITS = 8, 2.0  # noises tried an image; bits a value of a learned prompt, which cost students nothing

LEARNED_FROM = 240  # images a class: more do not make better prompts

Progress = Callable[[str, int, int], None]


def make(
    images: LabelledImages,
    generator: Path,
    judge: Judge,
    labelling: Labelling,
    folder: Path,
    *,
    side: int,
    profile: str,
    prompt: Mapping[str, str | None],
    licence: str | None,
    source: str | None,
    class_ids: Sequence[str] | None,
    authority: str,
    device: str,
    progress: Progress,
) -> Made:
    """A file with one group of generated images of `side` pixels, kept in a folder with its unfinished work.

    Whole images, each its own patch; the noise of each is the one of CANDIDATES that the teacher likes best. Raises as
    `methods.d3m.encode` does.
    """
    output, work = folder / "generated.d3m", folder / "generated"
    if not output.is_file():
        d3m.encode(
            images,
            output,
            profile=cast(Literal["exact", "reproducible"], profile),
            generator=generator,
            template=prompt["template"],
            initial_token=prompt["initial_token"],
            teacher=judge.teacher,
            ipc=GENERATED_IPC,
            grid=1,
            size=side,
            crops=1,
            crop_scale=(1.0, 1.0),
            candidates=CANDIDATES,
            labels="hard" if labelling.judge is None else cast(Literal["adaptive"], labelling.choice.kind),
            label_step=labelling.choice.step,
            bits=BITS,
            patches_per_class=min(LEARNED_FROM, int(np.bincount(images.labels).min())),
            leaf_bytes=0,
            licence=licence,
            source=source,
            class_ids=None if class_ids is None else list(class_ids),
            authority=authority,
            work=work,
            keep_work=True,
            device=device,
            progress=progress,
        )
    file = D3MFile.open(output)
    cache = UnitCache(work / "units", "encode")
    pixels = np.concatenate([cast(np.ndarray, cache.get(unit)) for unit in Plan.of(file.content).units])
    classes = np.repeat(np.arange(file.content.classes.count), GENERATED_IPC)
    logits = None
    if labelling.judge is not None:
        record = cast("SoftLabels", file.content.groups[0].labels)
        logits = decode_labels(record, file.section("lab", 0), classes)
    return Made(output.read_bytes(), pixels, classes, logits)
