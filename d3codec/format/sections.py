"""What the container itself can judge about sections (spec/d3m-0.1.md sections 3.1 and 5).

Which sections there are, how long they are and how they are cut follows from the records; of the values,
only class names and the scales of embeddings are checked here: labels/ and conditioning/ know what they mean.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from d3codec.errors import SectionError
from d3codec.format.limits import CLASS_TEXT_BYTES
from d3codec.format.manifest import Content, DeltaConditioning, Manifest, part_count, part_lengths, section_plan

Key = tuple[str, int | None]  # name of a section and index of its group

NO_AUTHORITY = "none"
LEAF_BYTES = (2, 4, 8)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class ClassRecord:
    """A class: `id` under the file's authority ("" when the authority is `none`) and a name for people."""

    id: str
    name: str


def section_title(name: str, group: int | None) -> str:
    """A section for a person: "cls", "emb of group 0"."""
    return name if group is None else f"{name} of group {group}"


def check_presence(content: Content) -> None:
    """The sections are those the records call for, in order (E_SECTION_UNKNOWN, then E_SECTION_ORDER)."""
    planned = [(section.name, section.group) for section in section_plan(content)]
    actual = [(section.name, section.group) for section in content.sections]
    for section in actual:
        if section not in planned:
            raise SectionError("E_SECTION_UNKNOWN", field=section_title(*section))
    if actual != planned:
        raise SectionError("E_SECTION_ORDER", found=_titles(actual[:50]), expected=_titles(planned))


def _titles(sections: Sequence[Key]) -> str:
    return ", ".join(section_title(*section) for section in sections)


def check_sizes(manifest: Manifest, wanted: set[Key]) -> None:
    """Length and cut of these sections (E_SECTION_SIZE), from the manifest alone."""
    content = manifest.content
    for planned, section in zip(section_plan(content), content.sections, strict=True):
        if (section.name, section.group) in wanted:
            title = section_title(section.name, section.group)
            if planned.rows is None or planned.row_bytes is None:
                _check_single(title, section.raw_lengths)
            else:
                check_rows(title, sum(section.raw_lengths), planned.rows, planned.row_bytes)
                _check_cut(title, section.raw_lengths, planned.rows, planned.row_bytes)
    images = content.classes.count * sum(group.images.count for group in content.groups)
    for ancillary in (manifest.about.ancillary if manifest.about else None) or ():
        if (ancillary.name, None) in wanted:
            _check_single(ancillary.name, ancillary.raw_lengths)
            size = ancillary.raw_lengths[0]
            if ancillary.name == "x-leaf" and size not in [leaf * images for leaf in LEAF_BYTES]:
                raise SectionError(
                    "E_SECTION_SIZE",
                    field="x-leaf",
                    found=f"{size} bytes",
                    expected=f"2, 4 or 8 for each of {images} images",
                )


def check_rows(title: str, size: int, rows: int, row_bytes: int) -> None:
    if size != rows * row_bytes:
        raise SectionError(
            "E_SECTION_SIZE", field=title, found=f"{size} bytes", expected=f"{rows} rows of {row_bytes} bytes"
        )


def _check_single(title: str, raw_lengths: Sequence[int]) -> None:
    if len(raw_lengths) != 1:
        raise SectionError("E_SECTION_SIZE", field=title, found=f"{len(raw_lengths)} parts", expected="one")


def _check_cut(title: str, raw_lengths: Sequence[int], rows: int, row_bytes: int) -> None:
    # The count comes first: 2^60 rows must not become a list.
    if len(raw_lengths) != part_count(rows, row_bytes) or list(raw_lengths) != part_lengths(rows, row_bytes):
        raise SectionError("E_SECTION_SIZE", "cut into wrong parts", field=title)


def check_values(content: Content, key: Key, raw: bytes, first: int) -> None:
    """Values of one part of a section (E_SECTION_VALUE); `first` is the offset of the part in its section."""
    name, group = key
    if name == "cls":
        unpack_classes(raw, content.classes.authority, content.classes.count)
    elif name == "emb" and group is not None:
        conditioning = content.groups[group].conditioning
        if isinstance(conditioning, DeltaConditioning):
            bits = len(conditioning.slots) * conditioning.width * conditioning.bits
            _check_embeddings(section_title(name, group), raw, first, bits)


def _check_embeddings(title: str, raw: bytes, first: int, bits: int) -> None:
    """Whole rows: a float16 scale, finite and > 0, then `bits` bits of codes, then zero bits to the byte."""
    row_bytes, used = 2 + -(-bits // 8), bits % 8
    for start in range(0, len(raw), row_bytes):
        scale = struct.unpack_from("<e", raw, start)[0]
        row = f"{title} row {(first + start) // row_bytes}"
        if not (math.isfinite(scale) and scale > 0):
            raise SectionError("E_SECTION_VALUE", "scale", field=row, found=scale, expected="finite, > 0")
        if used and raw[start + row_bytes - 1] >> used:
            raise SectionError("E_SECTION_VALUE", "padding bits that are not zero", field=row)


def pack_classes(classes: Sequence[ClassRecord]) -> bytes:
    """The `cls` section of these classes, in order. Its values are checked by write_d3m."""
    return "".join(f"{record.id}\t{record.name}\n" for record in classes).encode("utf-8", "surrogatepass")


def unpack_classes(data: bytes, authority: str, count: int) -> list[ClassRecord]:
    """The classes of a `cls` section. Raises SectionError (E_SECTION_VALUE) naming the line, from 1."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SectionError("E_SECTION_VALUE", "not UTF-8", field="cls") from None
    lines = text.split("\n")
    if lines.pop() or len(lines) != count:
        raise SectionError(
            "E_SECTION_VALUE",
            "one line a class, each ended by a line feed",
            field="cls",
            found=f"{len(lines)} lines",
            expected=count,
        )
    records = []
    ids, names = {""}, {""}
    for number, line in enumerate(lines, start=1):
        record = _class_record(line, authority, f"cls line {number}")
        if record.name in names or (record.id and record.id in ids):
            raise SectionError("E_SECTION_VALUE", "name or id of another class", field=f"cls line {number}")
        ids.add(record.id)
        names.add(record.name)
        records.append(record)
    return records


def _class_record(line: str, authority: str, field: str) -> ClassRecord:
    identity, tab, name = line.partition("\t")
    if not tab or _CONTROL.search(identity) or _CONTROL.search(name):
        raise SectionError("E_SECTION_VALUE", "id, TAB, name, no control characters", field=field)
    if not 1 <= len(name.encode()) <= CLASS_TEXT_BYTES or len(identity.encode()) > CLASS_TEXT_BYTES:
        raise SectionError("E_SECTION_VALUE", f"a name of 1 to {CLASS_TEXT_BYTES} bytes", field=field)
    if bool(identity) == (authority == NO_AUTHORITY):
        raise SectionError("E_SECTION_VALUE", "ids if and only if there is an authority", field=field)
    return ClassRecord(identity, name)
