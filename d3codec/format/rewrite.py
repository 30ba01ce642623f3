"""The same dataset in another file: other words about it, or other compression. The content id never changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from d3codec.errors import D3MError, ManifestError, UsageError
from d3codec.format import canonical, wire
from d3codec.format.file import D3MFile
from d3codec.format.manifest import About, Manifest

STATEMENTS = ("licence", "source", "citation", "method", "teacher")  # what may be said in one text each
CLAIMS = "claims"
_DECODED = ("pixels", "fingerprint")
LARGEST_LEVEL = 22  # of zstd


def edited(
    file: D3MFile,
    *,
    values: Mapping[str, str] | None = None,
    unset: Iterable[str] = (),
    claims: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a file that says something else of itself in `about`; every part keeps its stored bytes.

    Arguments:
        values: texts of STATEMENTS. unset: STATEMENTS, or `claims` for all of them, to leave out.
        claims: added to those that are there, or in the place of one of the same name; "" leaves one out.

    Raises:
        FormatError: the file is damaged.
        UsageError: another field, one that is both set and left out, a text that `about` cannot hold.
    """
    values, claims, unset = values or {}, claims or {}, set(unset)
    for key in (*values, *sorted(unset)):
        _check_key(key, file)
    if CLAIMS in values:
        raise UsageError("claims have a name each", file=file.path, field=CLAIMS, hint="Say --claim NAME=TEXT.")
    if both := sorted(unset & {*values, *([CLAIMS] if claims else [])}):
        raise UsageError("set and left out at once", file=file.path, field=both[0])
    about = file.about
    said: dict[str, Any] = {name: getattr(about, name, None) for name in About.model_fields}
    said |= dict.fromkeys(unset) | dict(values)
    for name in claims:
        if not claims[name] and name not in (said[CLAIMS] or {}):
            raise UsageError("no such claim to leave out", file=file.path, field=CLAIMS, found=name)
    kept = {name: text for name, text in ((said[CLAIMS] or {}) | dict(claims)).items() if text}
    said[CLAIMS] = kept or None
    file.verify()
    return _built(file, _about(said, file), file.stored_parts())


def repacked(file: D3MFile, level: int | None = wire.LEVEL) -> bytes:
    """The bytes of a file whose parts are compressed again, by zstd at a level of 1 to 22 or not at all (None).

    Raises FormatError if the file is damaged, UsageError for another level.
    """
    if level is not None and not 1 <= level <= LARGEST_LEVEL:
        raise UsageError("no such level", field="level", found=level, expected=f"1 to {LARGEST_LEVEL}")
    file.verify()
    sections = dict.fromkeys(part.key for part in file.parts)
    raw = {key: file.section(*key) for key in sections}
    parts, at = [], dict.fromkeys(sections, 0)
    for part in file.parts:
        first = at[part.key]
        at[part.key] = first + part.raw_length
        parts.append(wire.pack_part(raw[part.key][first : at[part.key]], level))
    return _built(file, file.about, parts)


def _about(said: dict[str, Any], file: D3MFile) -> About | None:
    if all(value is None for value in said.values()):
        return None
    try:
        return About(**said)
    except ManifestError as error:  # the file was sound: it is what was asked for that is not
        raise UsageError(
            error.message, file=file.path, field=error.field, found=error.found, expected=error.expected
        ) from None


def _check_key(key: str, file: D3MFile) -> None:
    if key in (*STATEMENTS, CLAIMS):
        return
    fixed = key in _DECODED
    raise UsageError(
        "only a decode can state what the pixels are" if fixed else "not something that can be edited",
        file=file.path,
        field=key,
        expected=", ".join((*STATEMENTS, CLAIMS)),
    )


def _built(file: D3MFile, about: About | None, parts: Sequence[tuple[int, bytes]]) -> bytes:
    """The file with this `about` and these parts, checked: sound, and the same dataset."""
    manifest = Manifest(about=about, content=file.content)
    data = wire.build(canonical.pack(manifest.to_wire()), parts)
    made = D3MFile.open(data, budget=sum(part.raw_length for part in file.parts))
    made.verify()
    if made.content_id != file.content_id:
        raise D3MError(
            "the new file would be another dataset, so it was not written",
            file=file.path,
            field="content id",
            found=made.content_id,
            expected=file.content_id,
            hint="This is a fault of d3codec: please report it.",
        )
    return data
