"""What differs between two files, by their records and raw bytes; what labels mean is left to `decoder/compare.py`.

How parts are compressed is no difference. Large sections are compared a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from d3codec.format.file import ClassRecord, D3MFile
from d3codec.format.limits import CUT_BYTES
from d3codec.format.manifest import About, Content, PlannedSection, section_plan
from d3codec.format.record import Record
from d3codec.format.sections import Key, section_title

ROWS_NAMED = 5  # of those that differ

Verdict = Literal["equal", "different", "only in A", "only in B"]


class Nothing(Enum):
    """A field that one of the files does not have."""

    ABSENT = "absent"


ABSENT = Nothing.ABSENT


@dataclass(frozen=True)
class FieldDifference:
    """A field of the manifest: its path, and its plain value in each file, ABSENT where there is none."""

    path: str
    values: tuple[Any, Any]

    def as_json(self) -> dict[str, Any]:
        """The path, and `a` and `b` where the file has the field."""
        said = {name: value for name, value in zip("ab", self.values, strict=True) if value is not ABSENT}
        return {"path": self.path, **said}


@dataclass(frozen=True)
class SectionDifference:
    """A section of either file.

    `bytes`: raw, in each file (None where there is none). `first_byte`: the first that differs. `rows`: how many rows
    of a fixed length differ, None where they are no rows or not of one length; `named`: the first of them.
    """

    name: str
    group: int | None
    verdict: Verdict
    bytes: tuple[int | None, int | None]
    first_byte: int | None = None
    rows: int | None = None
    named: tuple[dict[str, Any], ...] = ()

    @property
    def title(self) -> str:
        return section_title(self.name, self.group)

    def as_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": self.name, "group": self.group, "verdict": self.verdict}
        facts["bytes"] = list(self.bytes)
        if self.first_byte is not None:
            facts["first_byte"] = self.first_byte
        if self.rows is not None:
            facts |= {"rows_different": self.rows, "first_rows": list(self.named)}
        return facts


def content_differences(one: Content, other: Content) -> list[FieldDifference]:
    """Fields of `content` that differ, but digests and lengths, which say no more than the sections do."""
    skipped = {"digests", "lengths"}
    return list(_differences("", _plain(one, skipped), _plain(other, skipped)))


def about_differences(one: About | None, other: About | None) -> list[FieldDifference]:
    """Fields of `about` that differ, but the list of ancillary sections and its digest."""
    skipped = {"ancillary", "digest"}
    plain = [{} if about is None else _plain(about, skipped) for about in (one, other)]
    said = [{name: value for name, value in each.items() if value is not None} for each in plain]
    return list(_differences("", *said))


def section_differences(one: D3MFile, other: D3MFile) -> list[SectionDifference]:
    """Every section of either file, equal ones too, in the order of the first and then of the second.

    Both files are verified first. Raises FormatError for damage.
    """
    for file in (one, other):
        file.verify()
    lengths = [_lengths(file) for file in (one, other)]
    return [_compare(one, other, key, (lengths[0].get(key), lengths[1].get(key))) for key in lengths[0] | lengths[1]]


def _lengths(file: D3MFile) -> dict[Key, int]:
    return {(size["name"], size["group"]): size["raw_bytes"] for size in file.section_sizes()}


def _compare(one: D3MFile, other: D3MFile, key: Key, sizes: tuple[int | None, int | None]) -> SectionDifference:
    if sizes[0] is None or sizes[1] is None:
        return SectionDifference(*key, "only in B" if sizes[0] is None else "only in A", sizes)
    if key[0] == "cls":
        lines = _lines(one.class_records(), other.class_records())
        return SectionDifference(*key, _verdict(not lines), sizes, None, len(lines), tuple(lines[:ROWS_NAMED]))
    plans = [_planned(file, key) for file in (one, other)]
    row_bytes = plans[0].row_bytes if plans[0] is not None and plans[0] == plans[1] else None
    first_byte, rows, named = _bytes_apart(one, other, key, max(sizes[0], sizes[1]), row_bytes)
    if row_bytes is None:
        return SectionDifference(*key, _verdict(first_byte is None), sizes, first_byte)
    said = tuple(map(_namer(one, key), named)) if named else ()
    return SectionDifference(*key, _verdict(first_byte is None), sizes, first_byte, rows, said)


def _bytes_apart(
    one: D3MFile, other: D3MFile, key: Key, size: int, row_bytes: int | None
) -> tuple[int | None, int, list[int]]:
    """The first byte of a section that differs, how many rows do, and the first of them; with no `row_bytes` the byte
    alone."""
    first_byte, rows, named = None, 0, list[int]()
    step = CUT_BYTES if row_bytes is None else max(1, CUT_BYTES // row_bytes) * row_bytes
    for start in range(0, size, step):
        pieces = [file.section_range(*key, start, start + step) for file in (one, other)]
        if pieces[0] == pieces[1]:
            continue
        if first_byte is None:
            first_byte = start + _first_difference(*pieces)
        if row_bytes is None:
            break
        for at in range(0, len(pieces[0]), row_bytes):
            if pieces[0][at : at + row_bytes] != pieces[1][at : at + row_bytes]:
                rows += 1
                if len(named) < ROWS_NAMED:
                    named.append((start + at) // row_bytes)
    return first_byte, rows, named


def _verdict(same: bool) -> Verdict:
    return "equal" if same else "different"


def _planned(file: D3MFile, key: Key) -> PlannedSection | None:
    return next((section for section in section_plan(file.content) if (section.name, section.group) == key), None)


def _first_difference(one: bytes, other: bytes) -> int:
    """Of two unlike byte strings; their common length where one begins with the other."""
    common = min(len(one), len(other))
    low, high = 0, common  # in Python a byte at a time would take long
    while low < high:
        middle = (low + high) // 2
        if one[low : middle + 1] == other[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low


def _lines(one: Sequence[ClassRecord], other: Sequence[ClassRecord]) -> list[dict[str, Any]]:
    """Classes that differ, by position."""
    found = []
    for number in range(max(len(one), len(other))):
        pair = [records[number] if number < len(records) else None for records in (one, other)]
        if pair[0] != pair[1]:
            said = {
                name: f"{record.id} {record.name}".strip()
                for name, record in zip("ab", pair, strict=True)
                if record is not None
            }
            found.append({"row": number, **said})
    return found


def _namer(file: D3MFile, key: Key) -> Callable[[int], dict[str, Any]]:
    """What a row of a section is: its number, and the class, image and patch that it belongs to."""
    name, number = key
    assert number is not None  # sections without a group have no fixed rows
    group, names = file.content.groups[number], [record.name for record in file.class_records()]
    per_class, patches = 1, 1
    if name == "lab":
        patches = group.images.grid[0] * group.images.grid[1]
        per_class = group.images.count * patches
    elif name == "lat" or (name in ("emb", "wrd") and getattr(group.conditioning, "rows", "class") == "image"):
        per_class = group.images.sources

    def named(row: int) -> dict[str, Any]:
        class_, place = divmod(row, per_class)
        if class_ >= len(names):
            return {"row": row, "class": None}  # the unconditional row
        facts: dict[str, Any] = {"row": row, "class": names[class_]}
        if per_class > 1:
            facts["image" if name == "lab" else "source"] = place // patches
        return facts | ({"patch": place % patches} if patches > 1 else {})

    return named


def _plain(value: Any, skipped: set[str] | None = None) -> Any:
    """A record as maps, lists and plain values, by the names of its attributes."""
    if isinstance(value, Record):
        return {
            name: _plain(getattr(value, name)) for name in type(value).model_fields if name not in (skipped or set())
        }
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _differences(path: str, one: Any, other: Any) -> Iterator[FieldDifference]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one | other:
            inner = f"{path}.{name}" if path else name
            yield from _differences(inner, one.get(name, ABSENT), other.get(name, ABSENT))
    elif _of_maps(one) and _of_maps(other):
        for number in range(max(len(one), len(other))):
            pair = [items[number] if number < len(items) else ABSENT for items in (one, other)]
            yield from _differences(f"{path}[{number}]", *pair)
    elif one != other:
        yield FieldDifference(path, (one, other))


def _of_maps(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
