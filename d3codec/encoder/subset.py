"""A file -> a smaller one with some of its classes, images and groups, whose pixels and labels are the same.

Noise is counted by class position and candidate (spec section 7.1), so images that are sampled keep their pixels only
where their class keeps its position: with any images and groups, but of the classes the first ones alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from d3codec import corrections
from d3codec.decoder.budget import Budget
from d3codec.decoder.choice import class_positions
from d3codec.decoder.digests import pixel_digest
from d3codec.decoder.plan import Extent
from d3codec.decoder.precision import EVERYWHERE, choose_device, fingerprint, has_networks
from d3codec.encoder.drafts import Progress, digests_of, draft_digests
from d3codec.encoder.kept_rows import Kept, kept_corrections, kept_sections
from d3codec.encoder.merge import ProfileName
from d3codec.encoder.pack import Pixels, changed, leaf_section
from d3codec.errors import PixelsError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import About, Classes, Group, HardLabels
from d3codec.format.rewrite import STATEMENTS, repacked
from d3codec.generators.weights import Names

_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)


def subset(
    file: D3MFile,
    *,
    classes: Sequence[int | str] | None = None,
    ipc: int | None = None,
    groups: Sequence[int] | None = None,
    profile: ProfileName | None = None,
    digest: bool = False,
    generator: Names = None,
    device: str = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> bytes:
    """The bytes of a file with some classes, the first `ipc` images of each, and some groups of another file.

    They are the images that `load(file).subset(...)` shows. An exact file states a digest of its pixels, so they are
    decoded for it and compared with those of the file, one by one; below that only if `digest` asks for it. Claims are
    left out, for nobody measured the new dataset, and so are ancillary sections but the digests of images. A subset of
    everything is the same dataset.

    Arguments:
        classes: positions, names, ids, or ranges of positions such as '0-4'; groups: numbers; None: all.
        profile: of the new file; None: that of the file. `reproducible` needs no decode.
        generator, device, budget, progress: as for `decoder.decode.decode`.

    Raises:
        FormatError: the file is damaged. PixelsError: images of the new file differ from those of the file.
        UsageError: what is not there, or cannot be taken without changing a pixel: sampled images of other classes than
            the first ones, sources without their copies, a part of a lossy sheet.
        MissingGeneratorError, GeneratorError, MissingExtraError: what decoding needs is not there.
    """
    extent = Extent.of(file.content, None if classes is None else _positions(file, classes), ipc, groups)
    kept = Kept(extent.classes, dict(extent.wanted))
    _check(file, kept, ipc)
    chosen = _profile(file, profile)
    file.verify()
    if kept.whole(file.content) and chosen == file.content.profile.name:
        return repacked(file)
    records = tuple(_group(file, number, kept) for number in kept.images)
    sections, near = kept_sections(file, kept), kept_corrections(file, kept) if chosen == "exact" else None
    if near is not None and len(near[0]):
        sections["fix", None] = corrections.encode(*near)
    names = Classes(authority=file.content.classes.authority, count=len(kept.classes))
    about = _about(file.about, kept)

    def packed(pixels: bytes, said: About | None, leaves: dict[str, bytes]) -> bytes:
        draft = ContentDraft(names, records, Pixels(chosen, pixels, corrections=near).record())
        return write_d3m(draft, sections, said, leaves)

    if chosen == "reproducible" and not digest:
        if recomposed(file, kept):
            warnings.warn(
                f"{file.path}: images of the new file are computed in other batches than before, which may change a "
                "few of their values by a level; a decode would compare them",
                stacklevel=2,
            )
        return packed(b"", about, {})
    draft = D3MFile.open(packed(bytes(32), None, {}))
    found = _proved(file, extent, draft, chosen, generator, device, budget, progress)
    if chosen == "reproducible":
        here = fingerprint(choose_device(device, has_networks(draft.content)), draft.content)
        about = changed(about or About(), pixels=pixel_digest(found), fingerprint=here)
    return packed(pixel_digest(found), about, leaf_section(found, _leaf_bytes(file)))


def recomposed(file: D3MFile, kept: Kept) -> bool:
    """Whether a reproducible file's images, made by networks, would come in other batches of eight."""
    content = file.content
    return content.profile.name == "reproducible" and any(
        group.generator is not None
        and (len(kept.classes) < content.classes.count or kept.images[number] < group.images.count)
        for number, group in enumerate(content.groups)
        if number in kept.images
    )


# ------------------------------------------------------------------------------------------------ what may stay


def _positions(file: D3MFile, words: Sequence[int | str]) -> list[int]:
    """Positions of classes; of strings that name no class those may be ranges."""
    known = {text for record in file.class_records() for text in (record.name, record.id)}
    found: list[int | str] = []
    for word in words:
        span = _RANGE.fullmatch(word) if isinstance(word, str) and word not in known else None
        if span is None:
            found.append(word)
            continue
        first, last = int(span[1]), int(span[2])
        if not first <= last < file.content.classes.count:
            raise UsageError(
                "no such range of classes",
                file=file.path,
                field="classes",
                found=span[0],
                expected=f"within 0-{file.content.classes.count - 1}",
            )
        found += range(first, last + 1)
    return class_positions(file, found)


def _check(file: D3MFile, kept: Kept, ipc: int | None) -> None:
    """UsageError for a selection that is not there, or not without other pixels."""
    if ipc is not None and ipc > (most := sum(kept.images.values())):
        raise UsageError(
            "not that many images a class", file=file.path, field="ipc", found=ipc, expected=f"1 to {most}"
        )
    first = bool(kept.classes[-1] == len(kept.classes) - 1)
    for number, count in kept.images.items():
        group = file.content.groups[number]
        if count % (group.images.copies + 1):
            raise UsageError(
                f"group {number} has {group.images.copies + 1} images of each source, which stay together",
                file=file.path,
                field="ipc",
                found=ipc,
            )
        if not first and (group.recipe.steps or group.images.copies):
            raise UsageError(
                f"the images of group {number} depend on the positions of their classes, which would change",
                file=file.path,
                field="classes",
                found=", ".join(map(str, kept.classes[:10].tolist())) + (", ..." if len(kept.classes) > 10 else ""),
                expected=f"the first ones, 0-{len(kept.classes) - 1}",
                hint="Noise is counted by class position. Groups of stored images and latents have no such bounds: "
                "--groups.",
            )


def _profile(file: D3MFile, asked: ProfileName | None) -> ProfileName:
    own = file.content.profile.name
    if asked is None or asked == own:
        return own
    if asked != "reproducible":
        raise UsageError(
            "the file does not promise that",
            file=file.path,
            field="profile",
            found=asked,
            expected=f"{own}, reproducible",
        )
    return asked


# ------------------------------------------------------------------------------------------------ what is said


def _group(file: D3MFile, number: int, kept: Kept) -> Group:
    group: Group = file.content.groups[number]
    new: Group = changed(group, images=changed(group.images, count=kept.images[number]))
    if len(kept.classes) < file.content.classes.count and not isinstance(group.labels, HardLabels):
        new = changed(new, labels=changed(group.labels, columns="col"))
    return new


def _about(about: About | None, kept: Kept) -> About | None:
    said: dict[str, Any] = {name: getattr(about, name, None) for name in STATEMENTS}
    if about is not None and about.weights is not None:
        said["weights"] = tuple(about.weights[number] for number in kept.images)
    return About(**said) if any(value is not None for value in said.values()) else None


def _leaf_bytes(file: D3MFile) -> int:
    return len(_leaves(file)) // Extent.of(file.content).images


def _leaves(file: D3MFile) -> bytes:
    named = {entry.name for entry in (file.about.ancillary if file.about else None) or ()}
    return file.section("x-leaf") if "x-leaf" in named else b""


# ------------------------------------------------------------------------------------------------ what is decoded


def _proved(
    file: D3MFile,
    extent: Extent,
    draft: D3MFile,
    profile: ProfileName,
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> list[bytes]:
    """SHA-256 of every image of the new file, in order; PixelsError if one is not that of the old file."""
    plan, digests = draft_digests(draft, profile, generator, device, budget, progress)
    found = [digests[image] for image in plan.images]
    old = extent.plan()
    size, leaves = _leaf_bytes(file), _leaves(file)
    if size and profile == file.content.profile.name and profile in EVERYWHERE:
        a_class = Extent.of(file.content).images // file.content.classes.count
        places = [class_ * a_class + old.number_in_class(group, index) for group, class_, index in old.images]
        expected = [leaves[place * size : (place + 1) * size] for place in places]
    else:
        decoded = digests_of(file, old, profile, generator, device, budget, progress)
        expected = [decoded[image] for image in old.images]
    for (_, class_, index), mine, theirs in zip(plan.images, found, expected, strict=True):
        if mine[: len(theirs)] != theirs:
            raise PixelsError(
                "an image of the new file is not that of the file",
                file=file.path,
                field=f"class {int(extent.classes[class_])}, image {index}",
                found=mine[: len(theirs)].hex(),
                expected=theirs.hex(),
                hint=None
                if profile in EVERYWHERE
                else "Batches of other images may change a level. Without a digest "
                "of its pixels the file can be written.",
            )
    return found
