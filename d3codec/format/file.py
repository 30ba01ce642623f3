"""A .d3m file as a whole: open, read sections, verify, write.

Opening reads and checks the head, which names the dataset and bounds every later allocation. Parts are read
when they are asked for, each checked before use. The order of checks is that of spec/d3m-0.4.md section 8.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, BinaryIO

from d3codec.errors import FormatError, HeadError, MissingFileError, SectionError, UsageError
from d3codec.format import canonical, wire
from d3codec.format.limits import BUDGET_BYTES, ONE_DIGEST_BYTES, VERSION
from d3codec.format.manifest import REPRODUCIBLE, About, AncillaryEntry, Classes, Content, Group, Manifest, Profile
from d3codec.format.plan import PlannedSection, critical_parts, planned_parts, section_plan
from d3codec.format.save import save_atomically
from d3codec.format.sections import (
    WHOLE,
    ClassRecord,
    Key,
    check_ancillary_sizes,
    check_rows,
    check_values,
    pack_classes,
    section_title,
    unpack_classes,
)

__all__ = [
    "ClassRecord",
    "ContentDraft",
    "D3MFile",
    "Part",
    "content_id",
    "pack_classes",
    "save_atomically",
    "write_d3m",
]

CONTENT_TAG = b"d3m-content-0\0"


@dataclass(frozen=True)
class Part:
    """A part of a section: `number` counts in the file, `offset` is where its stored bytes begin."""

    number: int
    section: str
    group: int | None
    raw_length: int
    offset: int
    entry: wire.Entry

    @property
    def key(self) -> Key:
        return self.section, self.group

    @property
    def field(self) -> str:
        return f"{section_title(self.section, self.group)} (part {self.number})"


def content_id(content: Content) -> str:
    """Identity of a dataset, 64 hexadecimal digits (spec section 4)."""
    return hashlib.sha256(CONTENT_TAG + canonical.pack(content.to_wire())).hexdigest()


@dataclass(frozen=True, eq=False)
class D3MFile:
    """An opened file whose head is checked. `path` is "<memory>" for a file that was given as bytes."""

    path: str
    manifest: Manifest
    content_id: str
    bytes_total: int
    head: wire.Head = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    data: bytes | None = field(repr=False)

    @classmethod
    def open(cls, source: str | os.PathLike[str] | bytes, *, budget: int = BUDGET_BYTES) -> D3MFile:
        """Reads and checks the head of a file (a path, or the bytes of a whole file); its parts are not read.

        A file of more than `budget` raw bytes over all sections is refused. Raises FormatError with the code
        of the first fault, MissingFileError (not there, unreadable), UsageError (a folder or a device).
        """
        if isinstance(source, (bytes, bytearray, memoryview)):
            path, data = "<memory>", bytes(source)
        else:
            path, data = os.fspath(source), None
        with _naming(path), _opened(path, data) as handle:
            size = handle.seek(0, os.SEEK_END)
            head = wire.read_head(lambda offset, length: _read(handle, offset, length), size)
            manifest = Manifest.from_wire(canonical.unpack(head.manifest))
            parts = _parts(head, manifest)
            if head.file_length != size:
                raise HeadError(
                    "E_LENGTH",
                    "the file is cut off or has a tail",
                    found=f"{size} bytes",
                    expected=head.file_length,
                    hint="Fetch it again.",
                )
            if (total := sum(part.raw_length for part in parts)) > budget:
                raise HeadError("E_BUDGET", found=f"{total} bytes", expected=f"at most {budget}")
            return cls(path, manifest, content_id(manifest.content), size, head, parts, data)

    @property
    def content(self) -> Content:
        return self.manifest.content

    @property
    def about(self) -> About | None:
        return self.manifest.about

    @property
    def version(self) -> tuple[int, int]:
        return VERSION

    @property
    def head_bytes(self) -> int:
        return self.head.size

    def section(self, name: str, group: int | None = None) -> bytes:
        """The raw bytes of a section, after all its checks: CRC, compression, digest, size and values.

        Values of labels and of coded rows are checked by their codecs. Raises SectionError, and UsageError for a
        section that the file does not have.
        """
        wanted = self._parts_of(name, group)
        with _naming(self.path), _opened(self.path, self.data) as handle:
            self._check_digests(handle, wanted)
            return b"".join(self._checked(handle, wanted))

    def section_length(self, name: str, group: int | None = None) -> int:
        """Raw bytes of a section, from the head alone. Raises UsageError for one that the file does not have."""
        return sum(part.raw_length for part in self._parts_of(name, group))

    def section_range(self, name: str, group: int | None, start: int, stop: int) -> bytes:
        """The raw bytes start to stop of a section, cut off at its end.

        Only the parts that they lie in are read, and those that share a digest with them: their CRC, compression and
        digest are checked, their values where a part can be judged by itself. Raises as `section` does.
        """
        parts = self._parts_of(name, group)
        firsts = [0, *accumulate(part.raw_length for part in parts)]
        wanted = [
            (part, first)
            for part, first in zip(parts, firsts, strict=False)
            if first < stop and start < first + part.raw_length
        ]
        pieces = []
        with _naming(self.path), _opened(self.path, self.data) as handle:
            self._check_digests(handle, tuple(part for part, _ in wanted))
            for part, first in wanted:
                raw = _raw(handle, part)
                if name not in WHOLE:
                    check_values(self.content, part.key, raw, first)
                pieces.append(raw[max(start - first, 0) : max(stop - first, 0)])
        return b"".join(pieces)

    def _parts_of(self, name: str, group: int | None) -> tuple[Part, ...]:
        wanted = tuple(part for part in self.parts if part.key == (name, group))
        if not wanted:
            there = dict.fromkeys(section_title(*part.key) for part in self.parts)
            raise UsageError(f"no section {section_title(name, group)}", file=self.path, expected=", ".join(there))
        return wanted

    def class_records(self) -> list[ClassRecord]:
        """Ids and names of the classes, in class order."""
        return unpack_classes(self.section("cls"), self.content.classes.authority, self.content.classes.count)

    def verify(self) -> None:
        """Checks every part, every digest, and the size and values of every section. Raises SectionError.

        Values of labels and of coded rows are left to their codecs: `decoder.verify.verify` asks them too.
        """
        with _naming(self.path), _opened(self.path, self.data) as handle:
            self._check_digests(handle, self.parts)
            for _ in self._checked(handle, self.parts):
                pass

    def section_sizes(self) -> list[dict[str, Any]]:
        """One entry a section, in file order: name, group, bytes (stored), raw_bytes."""
        sizes: dict[Key, dict[str, Any]] = {}
        for part in self.parts:
            size = sizes.setdefault(part.key, {"name": part.section, "group": part.group, "bytes": 0, "raw_bytes": 0})
            size["bytes"] += part.entry.stored
            size["raw_bytes"] += part.raw_length
        return list(sizes.values())

    def explain(self) -> list[tuple[int, int, str]]:
        """(offset, length, text) of every piece of the file, in order and without hole (`info --bytes`)."""
        from d3codec.format.explain import explain

        return explain(self)

    def _check_digests(self, handle: BinaryIO, wanted: tuple[Part, ...]) -> None:
        """CRC and compression, then digests, of these parts and of all that share a digest with them."""
        ancillary = tuple(part for part in self.parts if part.section.startswith("x-"))
        critical = self.parts[: len(self.parts) - len(ancillary)]
        digests = self.content.digests
        covered: list[tuple[tuple[Part, ...], bytes]]
        if isinstance(digests, bytes):
            covered = [(critical, digests)]
        else:
            covered = [((part,), digest) for part, digest in zip(critical, digests, strict=True)]
        if self.about is not None and self.about.digest is not None:
            covered.append((ancillary, self.about.digest))
        numbers = {part.number for part in wanted}
        damaged = []
        for parts, expected in covered:
            if not numbers.isdisjoint(part.number for part in parts):
                digest = hashlib.sha256()
                for part in parts:
                    digest.update(_raw(handle, part))
                if digest.digest() != expected:
                    damaged.append(" to ".join(dict.fromkeys((parts[0].field, parts[-1].field))))
        if damaged:
            raise SectionError("E_SECTION_DIGEST", field=damaged[0])

    def _checked(self, handle: BinaryIO, wanted: tuple[Part, ...]) -> Iterator[bytes]:
        """Raw bytes of whole sections, as far as possible a part at a time, with sizes and values checked."""
        check_ancillary_sizes(self.manifest, {part.section for part in wanted})
        for key, parts in groupby(wanted, lambda part: part.key):
            pieces = (_raw(handle, part) for part in parts)
            first = 0
            for raw in (b"".join(pieces),) if key[0] in WHOLE else pieces:
                check_values(self.content, key, raw, first)
                first += len(raw)
                yield raw


def _raw(handle: BinaryIO, part: Part) -> bytes:
    stored = _read(handle, part.offset, part.entry.stored)
    return wire.unpack_part(stored, part.entry, part.raw_length, part.field)


def _read(handle: BinaryIO, offset: int, length: int) -> bytes:
    handle.seek(offset)
    return handle.read(length)


@contextlib.contextmanager
def _opened(path: str, data: bytes | None) -> Iterator[BinaryIO]:
    """The bytes of a file for reading; what the system says about it comes as an error of ours."""
    if data is not None:
        yield io.BytesIO(data)
        return
    if "\0" in path:
        raise MissingFileError("no such file", file=repr(path))
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe or a device could keep us waiting for ever
            raise UsageError(
                "this is a folder" if stat.S_ISDIR(mode) else "not a regular file", file=path, expected="a .d3m file"
            )
        with open(path, "rb") as handle:
            yield handle
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("no such file", file=path) from None
    except OSError as error:
        raise MissingFileError(f"the file cannot be read: {error.strerror}", file=path) from None


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors about a file name the file."""
    try:
        yield
    except FormatError as error:
        error.file = error.file or path
        raise


def _parts(head: wire.Head, manifest: Manifest) -> tuple[Part, ...]:
    """Joins the part table with the raw lengths of the manifest."""
    plan, content = section_plan(manifest.content), manifest.content
    extra = [
        (entry.name, None, length)
        for entry in (manifest.about.ancillary if manifest.about else None) or ()
        for length in entry.raw_lengths
    ]
    if (count := critical_parts(plan, content.lengths) + len(extra)) != len(head.entries):
        raise HeadError("E_LENGTH", "number of parts", found=len(head.entries), expected=count)
    critical = [(section.name, section.group, length) for section, length in planned_parts(plan, content.lengths)]
    parts, offset = [], head.size
    for number, ((name, group, length), entry) in enumerate(zip([*critical, *extra], head.entries, strict=True)):
        part = Part(number, name, group, length, offset, entry)
        wire.check_raw_length(entry, length, part.field)
        parts.append(part)
        offset += entry.stored
    return tuple(parts)


@dataclass(frozen=True)
class ContentDraft:
    """The part of `content` that a writer decides; sections and digests follow from the data."""

    classes: Classes
    groups: tuple[Group, ...]
    profile: Profile = REPRODUCIBLE


def write_d3m(
    draft: ContentDraft,
    sections: Mapping[Key, bytes],
    about: About | None = None,
    ancillary: Mapping[str, bytes] | None = None,
) -> bytes:
    """The bytes of a file: raw sections keyed by (name, group or None), ancillary ones (`x-...`) by name.

    Equal input gives equal bytes (with one version of zstd; the content id never depends on it). The result
    has been opened and verified. Raises the FormatError that a reader would, and UsageError for a section that the
    records do not call for or that is missing.
    """
    plan = section_plan(draft)
    _check_keys(plan, sections)
    lengths = tuple(len(sections[part.name, part.group]) for part in plan if part.rows is None)
    raw_parts = _cut(plan, lengths, sections)
    content = Content(
        classes=draft.classes, groups=draft.groups, digests=_digests(raw_parts), profile=draft.profile, lengths=lengths
    )
    extra = sorted((ancillary or {}).items())
    raw_parts += [data for _, data in extra]
    manifest = Manifest(about=_with_ancillary(about, extra), content=content)
    data = wire.build(canonical.pack(manifest.to_wire()), [wire.pack_part(raw) for raw in raw_parts])
    try:
        D3MFile.open(data, budget=sum(map(len, raw_parts))).verify()
    except FormatError as error:
        error.file = None  # there is no file yet
        raise
    return data


def _check_keys(plan: list[PlannedSection], sections: Mapping[Key, bytes]) -> None:
    planned = [(section.name, section.group) for section in plan]
    if sections.keys() != set(planned):
        raise UsageError(
            "not the sections that the records call for",
            field="sections",
            found=", ".join(section_title(*key) for key in sections),
            expected=", ".join(section_title(*key) for key in planned),
        )


def _cut(plan: list[PlannedSection], lengths: tuple[int, ...], sections: Mapping[Key, bytes]) -> list[bytes]:
    """Raw parts in file order. Raises SectionError (E_SECTION_SIZE)."""
    for name, group, rows, row_bytes in plan:
        if rows is not None and row_bytes is not None:
            check_rows(section_title(name, group), len(sections[name, group]), rows, row_bytes)
    parts: list[bytes] = []
    at: dict[Key, int] = {}
    for section, length in planned_parts(plan, lengths):
        key = section.name, section.group
        first = at.get(key, 0)
        parts.append(bytes(sections[key][first : first + length]))
        at[key] = first + length
    return parts


def _digests(parts: list[bytes]) -> bytes | tuple[bytes, ...]:
    if sum(map(len, parts)) <= ONE_DIGEST_BYTES:
        return hashlib.sha256(b"".join(parts)).digest()
    return tuple(hashlib.sha256(part).digest() for part in parts)


def _with_ancillary(about: About | None, extra: list[tuple[str, bytes]]) -> About | None:
    """`about` that lists exactly these ancillary sections."""
    if about is None and not extra:
        return None
    fields = {name: getattr(about, name, None) for name in About.model_fields}
    entries = [AncillaryEntry(name=name, raw_lengths=(len(data),)) for name, data in extra]
    fields["ancillary"] = tuple(entries) or None
    fields["digest"] = hashlib.sha256(b"".join(data for _, data in extra)).digest() if extra else None
    return About(**fields)
