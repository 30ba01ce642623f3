"""A .d3m file as a whole: open, read sections, verify, write.

Opening reads and checks the head, which names the dataset and bounds every later allocation. Parts are read
when they are asked for, each checked before use. The order of checks is that of spec/d3m-1.0.md section 8.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

from d3codec.errors import FormatError, HeadError, SectionError, UsageError
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
from d3codec.format.source import Reader, Source, opened

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
    """An opened file whose head is checked.

    `path` is "<memory>" for a file that was given as bytes, the name of its source for one that was given so; `source`
    is what was given, None for a path.
    """

    path: str
    manifest: Manifest
    content_id: str
    bytes_total: int
    head: wire.Head = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    source: bytes | Source | None = field(repr=False)

    @classmethod
    def open(cls, source: str | os.PathLike[str] | bytes | Source, *, budget: int = BUDGET_BYTES) -> D3MFile:
        """Reads and checks the head of a file (a path, the bytes of a whole file, or what reads them from elsewhere);
        its parts are not read.

        A file of more than `budget` raw bytes over all sections is refused. Raises FormatError with the code
        of the first fault, MissingFileError (not there, unreadable), UsageError (a folder or a device), and whatever
        the source raises.
        """
        kept: bytes | Source | None
        if isinstance(source, (bytes, bytearray, memoryview)):
            path, kept = "<memory>", bytes(source)
        elif isinstance(source, (str, os.PathLike)):
            path, kept = os.fspath(source), None
        else:
            path, kept = source.name, source
        with _naming(path), opened(path, kept) as reader:
            size = reader.size
            head = wire.read_head(reader.read, size)
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
            return cls(path, manifest, content_id(manifest.content), size, head, parts, kept)

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

    @property
    def fetched(self) -> tuple[int, int] | None:
        """Requests made and bytes received so far, None for a file that is on this machine."""
        return None if self.source is None or isinstance(self.source, bytes) else self.source.fetched

    @property
    def data(self) -> bytes | None:
        """The bytes of the file if they are all in memory already, as they are of one given as bytes."""
        return self.source if self.source is None or isinstance(self.source, bytes) else self.source.whole()

    def read_all(self) -> bytes:
        """The bytes of the file, unchecked but for the head. Raises as `open` does."""
        with opened(self.path, self.source) as reader:
            return reader.read(0, self.bytes_total)

    def section(self, name: str, group: int | None = None) -> bytes:
        """The raw bytes of a section, after all its checks: CRC, compression, digest, size and values.

        Values of labels and of coded rows are checked by their codecs. Raises SectionError, and UsageError for a
        section that the file does not have.
        """
        wanted = self._parts_of(name, group)
        with _naming(self.path), opened(self.path, self.source) as reader:
            self._check_digests(reader, wanted)
            return b"".join(self._checked(reader, wanted))

    def section_length(self, name: str, group: int | None = None) -> int:
        """Raw bytes of a section, from the head alone. Raises UsageError for one that the file does not have."""
        return sum(part.raw_length for part in self._parts_of(name, group))

    def section_range(self, name: str, group: int | None, start: int, stop: int) -> bytes:
        """The raw bytes start to stop of a section, cut off at its end.

        Only the parts that they lie in are read, and those that share a digest with them: their CRC, compression and
        digest are checked, their values where a part can be judged by itself. Raises as `section` does.
        """
        wanted, pieces = self._parts_within(name, group, start, stop), []
        with _naming(self.path), opened(self.path, self.source) as reader:
            self._check_digests(reader, tuple(part for part, _ in wanted))
            for part, first in wanted:
                raw = _raw(reader, part)
                if name not in WHOLE:
                    check_values(self.content, part.key, raw, first)
                pieces.append(raw[max(start - first, 0) : max(stop - first, 0)])
        return b"".join(pieces)

    def expect(self, ranges: Iterable[tuple[str, int | None, int, int]]) -> None:
        """Says which raw bytes will be read soon, as (name, group, start, stop) of `section_range`.

        Nothing is read yet. Of a file behind a URL what lies near each other is then fetched in one request, also
        across sections; for others it means nothing. Raises UsageError for a section that the file does not have.
        """
        if self.source is not None and not isinstance(self.source, bytes):
            wanted = {part.number: part for item in ranges for part, _ in self._parts_within(*item)}
            _expect(self.source, self._with_covered(wanted.values()))

    def _parts_within(self, name: str, group: int | None, start: int, stop: int) -> list[tuple[Part, int]]:
        """The parts in which these raw bytes of a section lie, and where in the section each begins."""
        parts = self._parts_of(name, group)
        firsts = [0, *accumulate(part.raw_length for part in parts)]
        return [
            (part, first)
            for part, first in zip(parts, firsts, strict=False)
            if first < stop and start < first + part.raw_length
        ]

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
        with _naming(self.path), opened(self.path, self.source) as reader:
            self._check_digests(reader, self.parts)
            for _ in self._checked(reader, self.parts):
                pass

    def stored_parts(self) -> list[tuple[int, bytes]]:
        """Codec and stored bytes of every part, in order and unchecked: what `wire.build` takes."""
        with opened(self.path, self.source) as reader:
            _expect(reader, self.parts)
            return [(part.entry.codec, reader.read(part.offset, part.entry.stored)) for part in self.parts]

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

    def _check_digests(self, reader: Reader, wanted: tuple[Part, ...]) -> None:
        """CRC and compression, then digests, of these parts and of all that share a digest with them."""
        _expect(reader, self._with_covered(wanted))
        damaged = []
        for parts, expected in self._covering(wanted):
            digest = hashlib.sha256()
            for part in parts:
                digest.update(_raw(reader, part))
            if digest.digest() != expected:
                damaged.append(" to ".join(dict.fromkeys((parts[0].field, parts[-1].field))))
        if damaged:
            raise SectionError("E_SECTION_DIGEST", field=damaged[0])

    def _covering(self, wanted: Iterable[Part]) -> Iterator[tuple[tuple[Part, ...], bytes]]:
        """The digests that these parts must have, each with all the parts that it is of."""
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
        for parts, expected in covered:
            if not numbers.isdisjoint(part.number for part in parts):
                yield parts, expected

    def _with_covered(self, wanted: Iterable[Part]) -> list[Part]:
        """These parts and all that share a digest with them: what is read to have them checked."""
        wanted = tuple(wanted)
        every = [*wanted, *(part for parts, _ in self._covering(wanted) for part in parts)]
        return [*{part.number: part for part in every}.values()]

    def _checked(self, reader: Reader, wanted: tuple[Part, ...]) -> Iterator[bytes]:
        """Raw bytes of whole sections, as far as possible a part at a time, with sizes and values checked."""
        check_ancillary_sizes(self.manifest, {part.section for part in wanted})
        for key, parts in groupby(wanted, lambda part: part.key):
            pieces = (_raw(reader, part) for part in parts)
            first = 0
            for raw in (b"".join(pieces),) if key[0] in WHOLE else pieces:
                check_values(self.content, key, raw, first)
                first += len(raw)
                yield raw


def _raw(reader: Reader, part: Part) -> bytes:
    stored = reader.read(part.offset, part.entry.stored)
    return wire.unpack_part(stored, part.entry, part.raw_length, part.field)


def _expect(reader: Reader, parts: Iterable[Part]) -> None:
    reader.expect((part.offset, part.entry.stored) for part in parts)


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
