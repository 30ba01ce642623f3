"""Several files with the same classes -> one file whose groups are theirs. Sections are copied, never encoded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d3codec import corrections
from d3codec.decoder.budget import Budget
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import Extent
from d3codec.decoder.precision import choose_device, fingerprint, has_networks
from d3codec.encoder.drafts import draft_digests
from d3codec.encoder.pack import Pixels
from d3codec.errors import PixelsError, UsageError
from d3codec.format import limits
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import About, Content, Exact, Group, Reproducible, section_plan
from d3codec.format.sections import Key
from d3codec.generators.weights import Names

ProfileName = Literal["exact", "exact-fixed", "reproducible"]
Progress = Callable[[str, int, int], None]
STATED = ("licence", "source", "teacher")  # must be the same in all files, or be given


@dataclass(frozen=True)
class Statement:
    """What the new file says of itself where the files do not agree: None leaves it to them. `weights`: one a group."""

    licence: str | None = None
    source: str | None = None
    teacher: str | None = None
    method: str | None = None
    weights: tuple[int, ...] | None = None


def merge(
    files: Sequence[D3MFile],
    statement: Statement = Statement(),
    *,
    profile: ProfileName | None = None,
    digest: bool = False,
    decoded: Sequence[NDArray[np.uint8]] | None = None,
    generator: Names = None,
    device: str = "auto",
    budget: Budget | None = Budget(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> bytes:
    """The bytes of one file with the groups of several, in the order given.

    An exact file states a digest of its pixels, so all images are decoded for it, and every file must keep its own
    promise. Below that nothing is decoded unless `digest` asks for a digest under this machine's fingerprint. Claims
    are left out: nobody measured the new dataset.

    Arguments:
        profile: of the new file; None: that of all files, `reproducible` if they differ.
        decoded: all images of each file, uint8 [images, height, width, 3] in order of class and image, if the caller
            has just decoded them in the new file's profile; None: they are decoded here.
        generator, device, budget, progress: as for `decoder.decode.decode`.

    Raises:
        FormatError: a file is damaged. PixelsError: a file decodes to other pixels than it promises.
        UsageError: files that cannot be one: other classes, equal noise keys, statements that differ.
        MissingGeneratorError, GeneratorError, MissingExtraError: what decoding needs is not there.
    """
    if len(files) < 2:
        raise UsageError("at least two files are needed", field="files", found=len(files))
    _check_classes(files)
    _check_keys(files)
    chosen = _profile(files, profile)
    groups = tuple(group for file in files for group in file.content.groups)
    if len(groups) > limits.GROUPS:
        raise UsageError("too many groups for a file", found=len(groups), expected=f"at most {limits.GROUPS}")
    about = _about(files, statement, len(groups))
    for file in files:
        file.verify()
    sections = _sections(files)
    near = _corrections(files) if chosen == "exact" else None
    if near is not None and len(near[0]):
        sections["fix", None] = corrections.encode(*near)

    def packed(digest: bytes, said: About | None) -> bytes:
        promise = Pixels(chosen, digest, corrections=near).record()
        return write_d3m(ContentDraft(files[0].content.classes, groups, promise), sections, said)

    if chosen == "reproducible" and not digest:
        return packed(b"", about)
    # The new file itself is decoded, all but complete: so moved corrections are proved too.
    draft = D3MFile.open(packed(bytes(32), None))
    if decoded is None:
        found = _decoded_digest(files, draft, chosen, generator, device, budget, progress)
    else:
        found = _known_digest(draft, decoded)
    if chosen == "reproducible":
        here = fingerprint(choose_device(device, has_networks(draft.content)), draft.content)
        about = About(**({} if about is None else _fields(about)) | {"pixels": found, "fingerprint": here})
    return packed(found, about)


def _fields(about: About) -> dict[str, Any]:
    return {name: getattr(about, name) for name in About.model_fields}


# ------------------------------------------------------------------------------------------------ what fits


def _check_classes(files: Sequence[D3MFile]) -> None:
    first, lists = files[0], [file.class_records() for file in files]
    for file, records in zip(files[1:], lists[1:], strict=True):
        one, other = first.content.classes, file.content.classes
        for field in ("count", "authority"):
            if (wanted := getattr(one, field)) != (found := getattr(other, field)):
                raise _other_classes(file, first, f"classes.{field}", found, wanted)
        for number, (mine, theirs) in enumerate(zip(lists[0], records, strict=True)):
            if mine != theirs:
                raise _other_classes(
                    file, first, f"class {number}", f"{theirs.id} {theirs.name}", f"{mine.id} {mine.name}"
                )


def _other_classes(file: D3MFile, first: D3MFile, field: str, found: object, wanted: object) -> UsageError:
    return UsageError(
        f"the classes are not those of {first.path}, in the same order",
        file=file.path,
        field=field,
        found=str(found).strip(),
        expected=str(wanted).strip(),
        hint="A group has images of all classes of its dataset: encode both for one list of classes.",
    )


def _check_keys(files: Sequence[D3MFile]) -> None:
    """Groups of one noise key would have the same noises: less variety than their number says."""
    owners: dict[int, D3MFile] = {}
    for file in files:
        keys = {group.noise_key for group in file.content.groups if _draws(group)}
        for key in sorted(keys):
            if key in owners:
                raise UsageError(
                    f"groups of this file and of {owners[key].path} draw the same noise",
                    file=file.path,
                    field="noise key",
                    found=key,
                    hint="Encode one of them again with another --noise-key.",
                )
        owners |= dict.fromkeys(keys, file)


def _draws(group: Group) -> bool:
    return group.recipe.steps > 0 or group.images.copies > 0


def _profile(files: Sequence[D3MFile], asked: ProfileName | None) -> ProfileName:
    names = {file.content.profile.name for file in files}
    if asked is None or asked == "reproducible":
        return names.pop() if asked is None and len(names) == 1 else "reproducible"
    for file in files:
        if (found := file.content.profile.name) != asked:
            raise UsageError(
                f"a file of the profile {asked} takes files of that profile, whose pixels are proved",
                file=file.path,
                field="profile",
                found=found,
                expected=asked,
            )
    return asked


# ------------------------------------------------------------------------------------------------ what is said


def _about(files: Sequence[D3MFile], statement: Statement, groups: int) -> About | None:
    values: dict[str, Any] = {name: _agreed(files, name, getattr(statement, name)) for name in STATED}
    values["method"] = statement.method or _joined(files, "method", "+")
    values["citation"] = _joined(files, "citation", "; ")
    if statement.weights is not None:
        if len(statement.weights) != groups:
            raise UsageError(
                "as many weights as groups", field="weights", found=len(statement.weights), expected=groups
            )
        values["weights"] = statement.weights
    return About(**values) if any(value is not None for value in values.values()) else None


def _agreed(files: Sequence[D3MFile], name: str, given: str | None) -> str | None:
    if given is not None:
        return given
    said: list[str | None] = [getattr(file.about, name, None) for file in files]
    for file, text in zip(files, said, strict=True):
        if text != said[0]:
            raise UsageError(
                f"the files do not state the same {name}",
                file=file.path,
                field=name,
                found=text or "nothing",
                expected=said[0] or "nothing",
                hint=f"Say what holds for the new file: --{name}.",
            )
    return said[0]


def _joined(files: Sequence[D3MFile], name: str, between: str) -> str | None:
    said = dict.fromkeys(text for file in files if (text := getattr(file.about, name, None)))
    return between.join(said) or None


# ------------------------------------------------------------------------------------------------ what is copied


def _sections(files: Sequence[D3MFile]) -> dict[Key, bytes]:
    """The sections of all groups, counted through, and the class list of the first file."""
    sections: dict[Key, bytes] = {("cls", None): files[0].section("cls")}
    before = 0
    for file in files:
        for name, number, _, _ in section_plan(file.content):
            if number is not None:
                sections[name, before + number] = file.section(name, number)
        before += len(file.content.groups)
    return sections


def _corrections(files: Sequence[D3MFile]) -> tuple[np.ndarray, np.ndarray]:
    """The corrections of all files at their places among the bytes of all generated images (spec section 5)."""
    sizes = [_generated_bytes(file.content) for file in files]
    total = sum(sum(each) for each in sizes)
    places, levels, before = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], 0
    for file, own in zip(files, sizes, strict=True):
        promised = file.content.profile
        if isinstance(promised, Exact) and promised.corrections:
            positions, values = corrections.decode(file.section("fix"))
            classes, within = np.divmod(positions, sum(own))  # groups of a file stay beside one another
            places.append(classes * total + before + within)
            levels.append(values)
        before += sum(own)
    positions, values = np.concatenate(places), np.concatenate(levels)
    order = np.argsort(positions)
    return positions[order], values[order]


def _generated_bytes(content: Content) -> list[int]:
    """Bytes of the generated images of a class in each group."""
    sides = [(group.images.sources, *group.images.generated) for group in content.groups]
    return [3 * sources * height * width for sources, height, width in sides]


# ------------------------------------------------------------------------------------------------ what is decoded


def _known_digest(draft: D3MFile, decoded: Sequence[NDArray[np.uint8]]) -> bytes:
    """The pixel digest of a new file, one group an array."""
    classes = draft.content.classes.count
    of_class = [images.reshape(classes, -1, *images.shape[1:]) for images in decoded]
    plan = Extent.of(draft.content).plan()
    return pixel_digest(image_digest(of_class[group][class_, index]) for group, class_, index in plan.images)


def _decoded_digest(
    files: Sequence[D3MFile],
    draft: D3MFile,
    profile: ProfileName,
    generator: Names,
    device: str,
    budget: Budget | None,
    progress: Progress | None,
) -> bytes:
    """The pixel digest of all images of the new file. PixelsError if a file does not keep its promise."""
    plan, digests = draft_digests(draft, profile, generator, device, budget, progress)
    first = 0
    for file in files:
        last, promised = first + len(file.content.groups), file.content.profile
        own = (digests[image] for image in plan.images if first <= image[0] < last)
        if not isinstance(promised, Reproducible) and profile == promised.name and pixel_digest(own) != promised.pixels:
            raise PixelsError(
                "the pixels decoded here are not those that the file promises", file=file.path, field="pixel digest"
            )
        first = last
    return pixel_digest(digests[image] for image in plan.images)
