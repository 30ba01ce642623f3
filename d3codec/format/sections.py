"""What the container itself can judge about the values of sections (spec/d3m-1.0.md section 5), in plain Python.

What they mean is known to labels/, conditioning/ and corrections.py; values of labels and of coded rows are judged by
their codecs (`decoder/verify.py`). Names of classes are packed and unpacked here.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from d3codec.errors import SectionError
from d3codec.format.limits import CLASS_ID, CLASS_TEXT_BYTES, POSITION_BYTES
from d3codec.format.manifest import Content, Exact, HardLabels, Manifest
from d3codec.format.plan import conditioning_rows, quantized_blocks

Key = tuple[str, int | None]  # name of a section and index of its group

NO_AUTHORITY = "none"
LEAF_BYTES = (2, 4, 8)
WHOLE = {"cls", "fix", "col", "tok"}  # sections whose parts cannot be judged one by one
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class ClassRecord:
    """A class: `id` under the file's authority ("" when the authority is `none`) and a name for people."""

    id: str
    name: str


def section_title(name: str, group: int | None) -> str:
    """A section for a person: "cls", "emb of group 0"."""
    return name if group is None else f"{name} of group {group}"


def check_ancillary_sizes(manifest: Manifest, wanted: set[str]) -> None:
    """Length and cut of these ancillary sections (E_SECTION_SIZE), from the manifest alone."""
    content = manifest.content
    images = content.classes.count * sum(group.images.count for group in content.groups)
    for ancillary in (manifest.about.ancillary if manifest.about else None) or ():
        if ancillary.name not in wanted:
            continue
        if len(ancillary.raw_lengths) != 1:
            found = f"{len(ancillary.raw_lengths)} parts"
            raise SectionError("E_SECTION_SIZE", field=ancillary.name, found=found, expected="one")
        size = ancillary.raw_lengths[0]
        if ancillary.name == "x-leaf" and size not in [leaf * images for leaf in LEAF_BYTES]:
            raise SectionError(
                "E_SECTION_SIZE",
                field="x-leaf",
                found=f"{size} bytes",
                expected=f"2, 4 or 8 for each of {images} images",
            )


def check_rows(title: str, size: int, rows: int, row_bytes: int) -> None:
    """The length that a writer gives to a section of fixed rows (E_SECTION_SIZE)."""
    if size != rows * row_bytes:
        raise SectionError(
            "E_SECTION_SIZE", field=title, found=f"{size} bytes", expected=f"{rows} rows of {row_bytes} bytes"
        )


def check_values(content: Content, key: Key, raw: bytes, first: int) -> None:
    """Values of one part of a section, or of a whole one of WHOLE (E_SECTION_VALUE).

    `first` is the offset of the part in its section.
    """
    name, number = key
    title = section_title(name, number)
    if name == "cls":
        unpack_classes(raw, content.classes.authority, content.classes.count)
    elif name == "fix" and isinstance(content.profile, Exact):
        check_corrections(raw, content.profile.corrections, generated_bytes(content))
    elif number is not None:
        group = content.groups[number]
        stored = group.recipe.start.stored
        if name == "emb" and group.conditioning.kind in ("delta", "vectors") and not group.conditioning.coded:
            bits = group.conditioning.bits
            _check_quantized(title, raw, first, [size * bits for size in quantized_blocks(group)])
        elif name == "lat" and stored is not None and not stored.coded:
            _check_quantized(title, raw, first, [stored.values * stored.bits])
        elif name == "cnd" and group.images.candidates is not None:
            _check_choices(title, raw, first, group.images.choice_bytes, group.images.sources * group.images.candidates)
        elif name == "col" and not isinstance(group.labels, HardLabels):
            _check_columns(title, raw, group.labels.width)
        elif name == "ids":
            _check_ids(title, raw, first)
        elif name == "tok" and group.conditioning.kind == "tokens":
            rows = conditioning_rows(group, content.classes.count)
            _check_tokens(title, raw, rows, group.conditioning.padding[1])


def _check_quantized(title: str, raw: bytes, first: int, blocks: Sequence[int]) -> None:
    """Whole rows of blocks: a float16 scale, finite and > 0, then so many bits of codes, then zero bits to the byte.

    Column by column, because there may be millions of rows of three bytes.
    """
    sizes = [(2 + -(-bits // 8), bits % 8) for bits in blocks]
    row_bytes = sum(size for size, _ in sizes)
    faults, at = [], 0  # first row with a fault, place in the row, and whether it is the scale
    for size, used in sizes:
        faults.append((_first_bad_scale(raw[at::row_bytes], raw[at + 1 :: row_bytes]), at, True))
        at += size
        if used:
            faults.append((_first_from(1 << used, raw[at - 1 :: row_bytes]), at - 1, False))
    row, at, scale = min(faults)
    if row * row_bytes >= len(raw):
        return
    field = f"{title} row {first // row_bytes + row}"
    if scale:
        (found,) = struct.unpack_from("<e", raw, row * row_bytes + at)
        raise SectionError("E_SECTION_VALUE", "scale", field=field, found=found, expected="finite, > 0")
    raise SectionError("E_SECTION_VALUE", "padding bits that are not zero", field=field)


def _first_bad_scale(low: bytes, high: bytes) -> int:
    """Index of the first float16 that is not finite and > 0, from its low and high bytes; their number without one."""
    either = int.from_bytes(low, "little") | int.from_bytes(high, "little")
    zero = either.to_bytes(len(low), "little").find(0)
    return min(_first_from(0x7C, high), zero if zero >= 0 else len(low))


def _first_from(floor: int, column: bytes) -> int:
    """Index of the first byte of at least `floor`; the number of bytes without one."""
    found = re.search(rb"[\x%02x-\xff]" % floor, column)
    return found.start() if found else len(column)


def _check_choices(title: str, raw: bytes, first: int, row_bytes: int, bits: int) -> None:
    """Whole rows of so many bits, then zero bits to the byte."""
    row = _first_from(1 << bits % 8, raw[row_bytes - 1 :: row_bytes]) if bits % 8 else len(raw)
    if row * row_bytes < len(raw):
        raise SectionError(
            "E_SECTION_VALUE", "padding bits that are not zero", field=f"{title} row {first // row_bytes + row}"
        )


def _check_ids(title: str, raw: bytes, first: int) -> None:
    row = _first_from(0x80, raw[3::4])  # the high byte of a number above CLASS_ID
    if 4 * row < len(raw):
        raise SectionError(
            "E_SECTION_VALUE",
            "class id",
            field=f"{title} row {first // 4 + row}",
            found=int.from_bytes(raw[4 * row : 4 * row + 4], "little"),
            expected=f"at most {CLASS_ID}",
        )


def _check_columns(title: str, raw: bytes, width: int) -> None:
    """Different numbers of columns below the width, one a class."""
    columns = _numbers("I", raw)
    place: dict[int, int] = {}
    for number, column in enumerate(columns):
        if column >= width or place.setdefault(column, number) != number:
            raise SectionError(
                "E_SECTION_VALUE",
                "column of a class",
                field=f"{title} row {number}",
                found=column,
                expected=f"below {width}, and no other class's",
            )


def _numbers(code: str, raw: bytes) -> array[int]:
    """Little-endian numbers; bytes at the end that are no whole one are left out."""
    numbers = array(code)
    numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _check_tokens(title: str, raw: bytes, rows: int, longest: int) -> None:
    """Rows of a count, 1 to `longest`, and so many 16-bit ids; they fill the section."""
    numbers = _numbers("H", raw)
    at, end = 0, len(numbers)
    for row in range(rows):
        count = numbers[at] if at < end else 0
        at += 1 + count
        if not 1 <= count <= longest or at > end:
            raise SectionError(
                "E_SECTION_VALUE",
                "number of token ids",
                field=f"{title} row {row}",
                found=count,
                expected=f"1 to {longest}, all of them in the section",
            )
    if rest := len(raw) - 2 * at:
        raise SectionError("E_SECTION_VALUE", "bytes after the last row", field=title, found=rest, expected=0)


def generated_bytes(content: Content) -> int:
    """Bytes of all images as the generator makes them, before window and augmentation."""
    return content.classes.count * sum(
        group.images.sources * group.images.generated[0] * group.images.generated[1] * 3 for group in content.groups
    )


def check_corrections(raw: bytes, count: int, total: int) -> None:
    """`count` entries of the section `fix`, positions strictly ascending and below `total` (E_SECTION_VALUE)."""
    at, position = 0, 0
    for number in range(count):
        if at < len(raw) and raw[at] < 0x80:  # nearly all of them
            step, at = raw[at], at + 1
        else:
            step, at = _leb128(raw, at, number)
        if number and not step:
            raise SectionError("E_SECTION_VALUE", "the position of the entry before", field=f"fix entry {number}")
        position += step
        if position >= total:
            raise SectionError(
                "E_SECTION_VALUE",
                "position",
                field=f"fix entry {number}",
                found=position,
                expected=f"below {total} generated bytes",
            )
        at += 1  # the value: any byte
    if at != len(raw):
        raise SectionError("E_SECTION_VALUE", "length", field="fix", found=len(raw), expected=f"{at} bytes")


def _leb128(raw: bytes, at: int, entry: int) -> tuple[int, int]:
    """An unsigned number, 7 bits a byte from the lowest, in its shortest form, and where it ends."""
    number = 0
    for index, byte in enumerate(raw[at : at + POSITION_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if index and not byte:
                break
            return number, at + index + 1
    raise SectionError("E_SECTION_VALUE", "not a number in its shortest form", field=f"fix entry {entry}")


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
