"""Integrity of a `.d3m` file, and proof of its pixels where this machine can give one.

How deep a check goes is its level: 0 the container (head, parts, digests, values of fixed rows), 1 also noise and
tables of the recipes, 2 also every coded row, latent and label, 3 also all pixels. Images are decoded afresh, never
taken from the cache, with weights hashed again, and compared with the digests in the file. Importing this module does
not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.precision import EVERYWHERE
from d3codec.decoder.recipe import check_tables
from d3codec.decoder.strict import UNPROVABLE, findings
from d3codec.decoder.values import check_coded, check_coded_work
from d3codec.errors import PixelsError, StrictError, UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import Exact, ExactFixed
from d3codec.generators.weights import Names

CONTAINER, TABLES, VALUES, PIXELS = range(4)
"""Levels of a verification."""

Progress = Callable[[str, int, int], None]
Image = tuple[int, int, int]  # group, class, index


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found; a file that breaks the format or differs where it must not raises instead.

    `level` is how deep it went, `profile` the file's. `pixels` is 'proved' (the images decoded here have the digests
    of the file), 'sampled' (some of them have the digests that stand beside the content: only the whole set proves
    it), 'unproved' (below `exact`: they differ under another fingerprint, or there is nothing to compare with) or
    'not checked'. `fingerprint` is this machine's, None if nothing was decoded.
    """

    file: str
    bytes: int
    content_id: str
    level: int
    profile: str
    images: int
    images_checked: int
    pixels: Literal["proved", "sampled", "unproved", "not checked"]
    fingerprint: str | None
    file_fingerprint: str | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"warnings": list(self.warnings)}


def verify(
    path: str | os.PathLike[str] | D3MFile,
    *,
    level: int | None = None,
    decode: Literal["all"] | int | None = None,
    strict: bool = False,
    generator: Names = None,
    device: str = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a file, and with `decode` its pixels.

    Arguments:
        level: 0 to 3, how deep; 3 is `decode='all'`. None: 2, or 3 with `decode`.
        decode: None checks no pixels; a number checks so many images, spread over the classes, where the
            file stores digests of single images, else the whole set; 'all' checks the whole set.
        strict: refuse also what a published file should not leave out or carry (`decoder/strict.py`), and pixels that
            were decoded and not proved.
        generator, device, budget, progress: as for `decoder.decode.decode`.

    Raises:
        FormatError: the file breaks the specification.
        PixelsError: other pixels: in the profiles `exact` and `exact-fixed` anywhere, in `reproducible` under the
            fingerprint of the file.
        StrictError: a sound file that is not as `strict` wants it.
        MissingGeneratorError, GeneratorError, MissingExtraError: what decoding needs is not there.
        UsageError: more to decode than the budget allows, of images or of labels.
    """
    if decode not in (None, "all") and (type(decode) is not int or decode < 1):
        raise UsageError("decode takes 'all' or a number of images", field="decode", found=decode)
    level, decode = _depth(level, decode)
    file = path if isinstance(path, D3MFile) else D3MFile.open(path)
    report = _checked(file, level, decode, generator, device, budget, progress)
    if strict:
        _be_strict(file, report)
    return report


def _be_strict(file: D3MFile, report: VerifyReport) -> None:
    unproved = report.warnings if report.pixels == "unproved" else ()
    if found := list(dict.fromkeys([*findings(file), *(f"pixels: {warning}" for warning in unproved)])):
        raise StrictError(found, file=file.path)


def _depth(level: int | None, decode: Literal["all"] | int | None) -> tuple[int, Literal["all"] | int | None]:
    """Level and images that are asked for, each following from the other. UsageError where they do not fit."""
    if level is None:
        return (VALUES if decode is None else PIXELS), decode
    if type(level) is not int or not CONTAINER <= level <= PIXELS:
        raise UsageError("no such level", field="level", found=level, expected=f"{CONTAINER} to {PIXELS}")
    if level < PIXELS and decode is not None:
        raise UsageError("no image is decoded below level 3", field="level", found=level, expected=PIXELS)
    return level, "all" if level == PIXELS and decode is None else decode


def _checked(
    file: D3MFile,
    level: int,
    decode: Literal["all"] | int | None,
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> VerifyReport:
    file.verify()
    if level >= TABLES:
        check_tables(file.content)
    if level >= VALUES:
        if budget is not None:
            check_coded_work(file)
        check_coded(file)
    found = _Found(file)
    report = VerifyReport(
        file.path,
        file.bytes_total,
        file.content_id,
        level,
        found.profile,
        found.total,
        0,
        "not checked",
        None,
        found.fingerprint,
        (),
    )
    if decode is None:
        return report
    if found.digest is None:
        return replace(report, pixels="unproved", warnings=(UNPROVABLE,))
    return _check_pixels(report, file, found, decode, generator, device, budget, progress)


class _Found:
    """What a file says about its pixels: profile, fingerprint, digest of the set, leaves (b'' if none) of `size`
    bytes."""

    def __init__(self, file: D3MFile) -> None:
        about = file.about
        self.total = file.content.classes.count * sum(group.images.count for group in file.content.groups)
        self.profile = file.content.profile.name
        self.everywhere = self.profile in EVERYWHERE
        self.fingerprint = about.fingerprint if about else None
        self.digest: bytes | None = about.pixels if about else None
        if isinstance(file.content.profile, (Exact, ExactFixed)):
            self.digest = file.content.profile.pixels
        named = {entry.name for entry in about.ancillary or ()} if about else set()
        self.leaves = file.section("x-leaf") if "x-leaf" in named else b""
        self.size = len(self.leaves) // self.total

    def leaf(self, place: int) -> bytes:
        """What is stored of the digest of an image (b'' if nothing is)."""
        return self.leaves[place * self.size : (place + 1) * self.size]


def _check_pixels(
    report: VerifyReport,
    file: D3MFile,
    found: _Found,
    decode: Literal["all"] | int,
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> VerifyReport:
    from d3codec.decoder.digests import pixel_digest
    from d3codec.decoder.plan import Extent
    from d3codec.decoder.precision import choose_device, differences, fingerprint, has_networks

    device = choose_device(device, has_networks(file.content))
    here, warnings = fingerprint(device, file.content), []
    classes, extent = file.content.classes.count, Extent.of(file.content)
    if decode != "all" and found.leaves:
        extent = Extent.of(file.content, range(min(classes, decode)), -(-decode // classes))
    if budget is not None:
        budget.check(Work.of(extent), file.path)
    plan = extent.plan()
    wanted = list(plan.images)
    if decode != "all" and found.leaves:
        # The first image of every class, then the second of every class, ...
        wanted.sort(key=lambda image: (plan.number_in_class(image[0], image[2]), image[1]))
        del wanted[decode:]
    elif decode != "all" and decode < found.total:
        warnings.append(f"the file stores no digests of single images, so all {found.total} were decoded")
    digests = dict(_digests(file, plan, set(wanted), generator, device, budget, progress))
    places = {
        image: image[1] * (found.total // classes) + plan.number_in_class(image[0], image[2])
        for image in plan.images
        if image in digests
    }
    different = [(place, image) for image, place in places.items() if digests[image][: found.size] != found.leaf(place)]
    same = not different and (
        len(digests) < found.total or pixel_digest(digests[image] for image in plan.images) == found.digest
    )
    if not same and (found.everywhere or here == found.fingerprint):
        raise _different(file, plan, different, digests, found)
    if not same:
        unlike = "; ".join(differences(found.fingerprint or "", here))
        count = f" ({len(different)} of {len(digests)} images)" if different else ""
        warnings.append(f"other pixels{count} than where the file was made, which cannot be proved here: {unlike}")
    return replace(
        report,
        images_checked=len(digests),
        pixels="unproved" if not same else "proved" if len(digests) == found.total else "sampled",
        fingerprint=here,
        warnings=tuple(warnings),
    )


def _digests(
    file: D3MFile,
    plan: Any,
    wanted: set[Image],
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> Iterator[tuple[Image, bytes]]:
    """SHA-256 of each wanted image, decoded afresh."""
    from d3codec.decoder.decode import decoded_units
    from d3codec.decoder.digests import image_digest

    def keys(unit: Any) -> list[Image]:
        return [(unit.group, *pair) for pair in zip(unit.classes, unit.indices, strict=True)]

    plan = replace(plan, units=tuple(unit for unit in plan.units if wanted.intersection(keys(unit))))
    for unit, pixels in decoded_units(
        file,
        plan,
        profile=file.content.profile.name,
        device=device,
        generator=generator,
        cache=False,
        budget=budget,
        progress=progress,
        trust_records=False,
    ):
        for key, image in zip(keys(unit), pixels, strict=True):
            if key in wanted:
                yield key, image_digest(image)


def _different(
    file: D3MFile, plan: Any, different: list[tuple[int, Image]], digests: dict[Image, bytes], found: _Found
) -> PixelsError:
    promise = "which the file promises everywhere" if found.everywhere else "under the same fingerprint"
    message = f"the pixels decoded here differ from those of the file, {promise}"
    if not different:
        return PixelsError(
            f"{message} (the set as a whole: no stored digest of a single image differs)" if found.leaves else message,
            file=file.path,
            field="pixel digest",
        )
    place, (group, class_, index) = different[0]
    return PixelsError(
        f"{message}: {len(different)} of {len(digests)} images",
        file=file.path,
        field=f"class {class_}, image {plan.number_in_class(group, index)}",
        found=digests[group, class_, index][: found.size].hex(),
        expected=found.leaf(place).hex(),
    )
