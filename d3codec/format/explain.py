"""Every byte of a file in words, for `info --bytes`.

Canonical bytes make it easy: a value is as long as its packing, so the walk follows the records and needs no
second parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from d3codec.format import wire
from d3codec.format.canonical import pack
from d3codec.format.limits import CRC_BYTES, ENTRY_BYTES, HEAD_BYTES, MILLION
from d3codec.format.manifest import AncillaryEntry, SectionEntry, section_plan
from d3codec.format.record import Record, shorten, wire_names
from d3codec.format.sections import section_title

if TYPE_CHECKING:
    from d3codec.format.file import D3MFile, Part

_Words = Callable[[Any], str]
Row = tuple[int, int, str]  # offset, length, text


def explain(file: D3MFile) -> list[Row]:
    """(offset, length, text) of every piece of a file, in order, without hole or overlap."""
    rows = [*_fixed(file), *_table(file)]
    start = HEAD_BYTES + ENTRY_BYTES * len(file.parts)
    rows += _record(start, "", "manifest", file.manifest)
    rows.append((file.head.size - CRC_BYTES, CRC_BYTES, "CRC-32 of the head"))
    rows += [(part.offset, part.entry.stored, text) for part, text in _parts(file)]
    return rows


def _fixed(file: D3MFile) -> list[Row]:
    return [
        (0, 8, "magic: a .d3m file"),
        (8, 2, f"major version = {file.version[0]}"),
        (10, 2, f"minor version = {file.version[1]}"),
        (12, 4, "required features = none"),
        (16, 4, f"manifest length = {len(file.head.manifest)} bytes"),
        (20, 2, f"number of parts = {len(file.parts)}"),
        (22, 2, "reserved = 0"),
        (24, 8, f"file length = {file.head.file_length} bytes"),
    ]


def _table(file: D3MFile) -> Iterator[Row]:
    for part in file.parts:
        entry = part.entry
        yield (
            HEAD_BYTES + ENTRY_BYTES * part.number,
            ENTRY_BYTES,
            f"part {part.number}: {entry.stored} bytes stored, codec {wire.CODECS[entry.codec]}, "
            f"CRC-32 {entry.crc:08x}",
        )


def _parts(file: D3MFile) -> Iterator[tuple[Part, str]]:
    row_bytes = {(section.name, section.group): section.row_bytes for section in section_plan(file.content)}
    before: dict[tuple[str, int | None], int] = {}
    for part in file.parts:
        key = part.section, part.group
        first, size = before.get(key, 0), row_bytes.get(key)
        before[key] = first + part.raw_length
        rows = f", rows {first // size} to {before[key] // size - 1}" if size else ""
        codec = "as they are" if part.entry.codec == wire.RAW else f"as {part.entry.stored} bytes of zstd"
        yield part, f"part {part.number}: {section_title(*key)}{rows}, {part.raw_length} bytes {codec}"


def _record(start: int, key: str, path: str, record: Record) -> Iterator[Row]:
    """The rows of a record's map and of everything in it; `start` is where its key begins."""
    values, names = record.to_wire(), wire_names(type(record))
    length = _key_bytes(key) + _header_bytes(values)
    yield start, length, f"{path}: map of {len(values)}{_key_note(key)}"
    start += length
    for name_on_wire in sorted(values):
        name = names[name_on_wire]
        inner = name if path == "manifest" else f"{path}.{name}"
        words = _WORDS.get((type(record).__name__, name))
        for row in _value(start, name_on_wire, inner, getattr(record, name), words):
            yield row
            start = row[0] + row[1]


def _value(start: int, key: str, path: str, value: Any, words: _Words | None = None) -> Iterator[Row]:
    """The rows of one value with its key ("" in a list). A list of plain numbers and names is one row."""
    if isinstance(value, (SectionEntry, AncillaryEntry)):
        lengths = ", ".join(str(length) for length in value.raw_lengths)
        title = section_title(value.name, getattr(value, "group", None))
        yield start, len(pack(value.to_wire())), f"{path}: {title}, raw length {lengths}"
    elif isinstance(value, Record):
        yield from _record(start, key, path, value)
    elif isinstance(value, dict):
        items = [(name, f"[{shorten(name)}]", value[name]) for name in sorted(value, key=str.encode)]
        yield from _entries(start, key, f"{path}: map", path, items)
    elif isinstance(value, tuple) and isinstance(value[0], (Record, bytes)):
        items = [("", f"[{number}]", item) for number, item in enumerate(value)]
        yield from _entries(start, key, f"{path}: list", path, items)
    else:
        plain = list(value) if isinstance(value, tuple) else value
        text = words(value) if words else _plain(value)
        yield start, _key_bytes(key) + len(pack(plain)), f"{path} = {text}{_key_note(key)}"


def _entries(start: int, key: str, title: str, path: str, items: list[tuple[str, str, Any]]) -> Iterator[Row]:
    """A map or list whose entries have rows of their own: (key, step of the path, value) each."""
    length = _key_bytes(key) + _header_bytes(items)
    yield start, length, f"{title} of {len(items)}{_key_note(key)}"
    start += length
    for name, step, item in items:
        for row in _value(start, name, path + step, item):
            yield row
            start = row[0] + row[1]


def _key_bytes(key: str) -> int:
    return len(pack(key)) if key else 0


def _key_note(key: str) -> str:
    return f" (key {shorten(key)})" if key else ""


def _header_bytes(container: Any) -> int:
    return 1 if len(container) < 16 else 3


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bytes):
        return value.hex()
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def _real(millionths: int) -> str:
    return str(millionths / MILLION)


_WORDS: dict[tuple[str, str], _Words] = {
    ("Images", "grid"): lambda value: f"{value[0]} rows of {value[1]} patches",
    ("Images", "count"): lambda value: f"{value} a class",
    ("Images", "size"): lambda value: f"{value[0]} x {value[1]} pixels (height, width)",
    ("DeltaConditioning", "padding"): lambda value: f"id {value[0]} up to length {value[1]}",
    ("WordsConditioning", "padding"): lambda value: f"id {value[0]} up to length {value[1]}",
    ("DeltaConditioning", "bits"): lambda value: f"{value} a value",
    ("Recipe", "betas"): lambda value: f"{value[0]}, {_real(value[1])} to {_real(value[2])}, {value[3]} training steps",
    ("Recipe", "eta"): _real,
    ("Recipe", "guidance"): _real,
    ("Recipe", "start"): lambda value: f"{_real(value[0])} * stored + {_real(value[1])} * noise",
    ("Recipe", "timesteps"): lambda value: f"{value[0]}, offset {value[1]}",
    ("HardLabels", "kind"): lambda _: "hard (the class)",
    ("QuantizedLabels", "kind"): lambda _: "quantized logits",
    ("QuantizedLabels", "step"): lambda value: f"{value}/256 nat",
    ("QuantizedLabels", "width"): lambda value: f"{value} logits a patch",
}
