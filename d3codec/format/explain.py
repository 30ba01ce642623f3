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
from d3codec.format.plan import section_plan
from d3codec.format.record import ListRecord, Record, shorten, wire_names
from d3codec.format.sections import section_title

if TYPE_CHECKING:
    from d3codec.format.file import D3MFile, Part

_Words = Callable[[Any, Any], str]  # a value and the record that holds it
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
        rows = (
            f", rows {first // size} to {before[key] // size - 1}" if size else f", from byte {first}" if first else ""
        )
        if part.section == "fix" and file.content.profile.name == "exact":
            rows = f", {file.content.profile.corrections} corrections"
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
        value = getattr(record, name)
        for row in _value(start, name_on_wire, inner, value, _words(record, name, value)):
            yield row
            start = row[0] + row[1]


def _value(start: int, key: str, path: str, value: Any, text: str = "") -> Iterator[Row]:
    """The rows of one value with its key ("" in a list). A list of plain numbers and names is one row."""
    if isinstance(value, Record) and not isinstance(value, ListRecord):
        yield from _record(start, key, path, value)
    elif isinstance(value, dict):
        items = [(name, f"[{shorten(name)}]", value[name]) for name in sorted(value, key=str.encode)]
        yield from _entries(start, key, f"{path}: map", path, items)
    elif isinstance(value, tuple) and value and isinstance(value[0], (Record, bytes)):
        items = [("", f"[{number}]", item) for number, item in enumerate(value)]
        yield from _entries(start, key, f"{path}: list", path, items)
    else:
        text = text or _plain(value)
        yield start, _key_bytes(key) + len(pack(_on_wire(value))), f"{path} = {text}{_key_note(key)}"


def _on_wire(value: Any) -> Any:
    if isinstance(value, ListRecord):
        return value.to_wire()
    return list(value) if isinstance(value, tuple) else value


def _words(record: Record, name: str, value: Any) -> str:
    """What a value means, or "" where it says so itself."""
    for kind in type(record).__mro__:
        if (words := _WORDS.get((kind.__name__, name))) and value is not None:
            return words(value, record)
    return ""


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
    if isinstance(value, ListRecord):  # the one in a list: an ancillary section
        name, *lengths = value.to_wire()
        return f"{name}, raw length {_plain(tuple(lengths))}"
    return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def _real(millionths: int, _record: Any = None) -> str:
    return str(millionths / MILLION)


def _padding(value: Any, _record: Any) -> str:
    return f"id {value[0]} up to length {value[1]}"


def _window(value: Any, _record: Any) -> str:
    top, left, height, width = value.block
    return f"block of {height} x {width} at row {top}, column {left} of {_sides(value.generated)} generated pixels"


def _start(value: Any, _record: Any) -> str:
    text = f"{_real(value.a)} * stored + {_real(value.b)} * noise"
    if value.stored is None:
        return text
    return f"{text}, stored latents of {_latents(value.stored)}"


def _latents(value: Any, _record: Any = None) -> str:
    coding = ("{} bits", "entropy-coded, at most {} bits", "no bits of their own: transform-coded")[value.coding]
    return f"{' x '.join(map(str, value.shape))} values of {coding.format(value.bits)}"


def _lengths(value: Any, content: Any) -> str:
    free = [section_title(section.name, section.group) for section in section_plan(content) if section.rows is None]
    return ", ".join(f"{title}: {length} raw bytes" for title, length in zip(free, value, strict=True))


def _coded(value: bool, _record: Any) -> str:
    return "yes, a section of free length" if value else "no, rows of fixed length"


def _sides(value: tuple[int, int]) -> str:
    return f"{value[0]} x {value[1]}"


_WORDS: dict[tuple[str, str], _Words] = {
    ("Images", "grid"): lambda value, _: f"{value[0]} rows of {value[1]} patches",
    ("Images", "count"): lambda value, _: f"{value} a class",
    ("Images", "size"): lambda value, _: f"{_sides(value)} pixels (height, width)",
    ("Images", "window"): _window,
    ("Images", "candidates"): lambda value, _: f"choices of {value} bits, one a source, among {1 << value} noises",
    ("GddAugmentation", "copies"): lambda value, _: f"{value} of each source",
    ("DeltaConditioning", "bits"): lambda value, _: f"{value} a value",
    ("DeltaConditioning", "coded"): _coded,
    ("DeltaConditioning", "padding"): _padding,
    ("WordsConditioning", "padding"): _padding,
    ("TokensConditioning", "padding"): _padding,
    ("VectorsConditioning", "bits"): lambda value, _: f"{value} a value",
    ("VectorsConditioning", "coded"): _coded,
    ("VectorsConditioning", "slots"): lambda value, _: f"{value} vectors a row",
    ("Group", "outside_bytes"): lambda value, _: f"{value} of this dataset's own weights outside the file",
    ("_Recipe", "betas"): lambda value, _: (
        f"{value[0]}, {_real(value[1])} to {_real(value[2])}, {value[3]} training steps"
    ),
    ("_Recipe", "guidance"): _real,
    ("_Recipe", "start"): _start,
    ("_Recipe", "timesteps"): lambda value, _: f"{value[0]}, offset {value[1]}",
    ("DdimRecipe", "eta"): _real,
    ("DecodeRecipe", "sampler"): lambda *_: "decode: the autoencoder decodes the stored latents",
    ("DecodeRecipe", "latents"): _latents,
    ("SheetsRecipe", "sampler"): lambda *_: "stored: the file holds the images",
    ("SheetsRecipe", "format"): lambda value, _: f"{value} files",
    ("SheetsRecipe", "per_sheet"): lambda value, _: f"{value} images",
    ("SheetsRecipe", "columns"): lambda value, _: f"{value} images side by side",
    ("HardLabels", "kind"): lambda *_: "hard (the class)",
    ("QuantizedLabels", "kind"): lambda *_: "quantized logits",
    ("QuantizedLabels", "step"): lambda value, _: f"{value}/256 nat",
    ("QuantizedLabels", "width"): lambda value, _: f"{value} logits a patch",
    ("Raw16Labels", "kind"): lambda *_: "float16 logits",
    ("Raw16Labels", "width"): lambda value, _: f"{value} logits a patch",
    ("TopkLabels", "kind"): lambda *_: "top-k logits",
    ("TopkLabels", "kept"): lambda value, _: f"{value} logits a patch",
    ("TopkLabels", "width"): lambda value, _: f"of {value} columns",
    ("RankedHeadLabels", "kind"): lambda *_: "ranked-head logits",
    ("RankedHeadLabels", "width"): lambda value, _: f"{value} logits a patch",
    ("AdaptiveLabels", "kind"): lambda *_: "adaptive logits",
    ("AdaptiveLabels", "width"): lambda value, _: f"{value} logits a patch",
    ("About", "weights"): lambda value, _: f"{' : '.join(map(str, value))}, shares of a training batch",
    ("Content", "lengths"): _lengths,
}
