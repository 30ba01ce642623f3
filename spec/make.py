"""What of the specification is made from the code: `python spec/make.py` writes it anew, a test compares it.

- `schema/manifest.schema.json`, from the records of `d3codec.format.manifest`;
- `schema/info.schema.json`, of `d3codec info --json`;
- appendix A (a file of the tests, byte by byte), B.2, B.3 and B.6 (vectors of the tests) in `d3m-1.0.md`.
"""

from __future__ import annotations

import base64
import json
import re
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from d3codec.format import limits
from d3codec.format.file import D3MFile
from d3codec.format.manifest import Manifest
from d3codec.format.record import ListRecord, Record, wire_names
from d3codec.groups import GroupInfo

SPEC = Path(__file__).resolve().parent
GOLDEN = SPEC.parent / "tests" / "golden"
PAGE = SPEC / "d3m-1.0.md"
VERSION = (0, 9)  # that the text is about
EXAMPLE = "dit.d3m"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
HEX_32 = {"type": "string", "contentEncoding": "base16", "pattern": "^[0-9a-f]{64}$"}
Schema = dict[str, Any]


# ------------------------------------------------------------------------------------------------------ schemas


class _Generator(GenerateJsonSchema):
    """Byte strings in base16, no defaults: a record of the manifest has none."""

    def bytes_schema(self, schema: Any) -> Schema:
        assert (schema["min_length"], schema["max_length"]) == (32, 32)
        return dict(HEX_32)

    def default_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def tagged_union_schema(self, schema: Any) -> Schema:
        kinds: list[Schema] = []
        for member in schema["choices"].values():
            if (kind := self.generate_inner(member)) not in kinds:
                kinds.append(kind)
        return {"anyOf": kinds}


def manifest_schema() -> Schema:
    """JSON Schema of an unpacked manifest, with bin as base16. It has types and ranges, no rule that joins keys."""
    schema = Manifest.model_json_schema(by_alias=True, schema_generator=_Generator)
    records = {record.__name__: record for record in _records(Record)}
    definitions = {
        name: _of_record(records[name], definition) for name, definition in sorted(schema.pop("$defs").items())
    }
    return {
        "$schema": DIALECT,
        "title": "Manifest of a .d3m file, version 0.9",
        "description": "Canonical msgpack as JSON: bin is a string in base16, lower case. "
        "Lengths of strings count bytes of UTF-8 in the format, characters here.",
        **_of_record(Manifest, schema),
        "$defs": definitions,
    }


def _records(record: type[Record]) -> Iterator[type[Record]]:
    for child in record.__subclasses__():
        yield child
        yield from _records(child)


def _of_record(record: type[Record], schema: Schema) -> Schema:
    names = wire_names(record)
    fields = {key: _plain(value) | {"title": names[key]} for key, value in schema["properties"].items()}
    for key, field in fields.items():
        if field.get("type") == "string" and not {"const", "enum", "pattern"} & set(field):
            fields[key] = field | _text(names[key])
    if issubclass(record, ListRecord):
        return _of_list(record, fields)
    complete = record._complete  # the one place that says whether keys may be absent
    if not complete:
        fields = {key: _not_nil(value) for key, value in fields.items()}
    required = sorted(fields) if complete else ["c"] if record is Manifest else []
    ordered = {key: fields[key] for key in sorted(fields)}
    return {"type": "object", "properties": ordered, "required": required, "additionalProperties": False}


def _text(name: str) -> Schema:
    most = limits.NAME_BYTES if name in ("authority", "name") else limits.TEXT_BYTES
    return {"minLength": 1, "maxLength": most, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}


def _of_list(record: type[ListRecord], fields: dict[str, Schema]) -> Schema:
    """A list of the fields; the last one may go on to the end."""
    items = list(fields.values())
    schema: Schema = {"type": "array"}
    if record._open:
        rest = items.pop()
        items += [item | {"title": rest["title"]} for item in rest.get("prefixItems", [])]
        if "prefixItems" not in rest:
            return schema | {"prefixItems": items, "items": rest["items"], "minItems": len(items) + rest["minItems"]}
    return schema | {"prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}


def _plain(value: Any) -> Any:
    """Without titles, descriptions and unions of one."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _plain(item) for key, item in value.items() if key not in ("title", "description", "default")}


def _not_nil(schema: Schema) -> Schema:
    """A field that is absent rather than nil."""
    if "anyOf" not in schema:
        return schema
    (kind,) = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    kind = kind | _text(schema["title"]) if kind == {"type": "string"} else kind
    return {**kind, "title": schema["title"]}


@dataclass
class Sizes:
    file: int
    file_and_outside: int
    generators: list[str]


@dataclass
class SectionSize:
    name: str
    group: int | None
    bytes: int
    raw_bytes: int


@dataclass
class Fetched:
    bytes: int
    requests: int


@dataclass
class Info:
    """What `d3codec info --json` prints."""

    file: str
    bytes: int
    sizes: Sizes
    head_bytes: int
    content_id: str
    version: str
    profile: str
    corrections: int
    classes: int
    authority: str
    images_per_class: int
    images: int
    label_kind: str
    weights: list[int] | None
    method: str | None
    licence: str | None
    source: str | None
    teacher: str | None
    citation: str | None
    claims: dict[str, str] | None
    fingerprint: str | None
    pixel_digest: str | None
    sections: list[SectionSize]
    groups: list[GroupInfo]
    fetched: Fetched | None


def info_schema() -> Schema:
    """JSON Schema of `d3codec info --json`: a reader of it allows for keys that are added later."""
    schema = _plain(TypeAdapter(Info).json_schema())
    for definition in schema["$defs"].values():
        definition["required"] = list(definition["properties"])
    for key in ("content_id", "pixel_digest"):
        _set_string(schema["properties"][key], HEX_32)
    _set_string(schema["properties"]["version"], {"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"})
    return {"$schema": DIALECT, "title": "d3codec info --json", **schema}


def _set_string(schema: Schema, kind: Schema) -> None:
    for place in [schema, *schema.get("anyOf", [])]:
        if place.get("type") == "string":
            place.update(kind)


# --------------------------------------------------------------------------------------------------- appendices


def example_bytes() -> bytes:
    """The file of appendix A: that of the tests, with the version of the text."""
    data = bytearray((GOLDEN / EXAMPLE).read_bytes())
    data[8:12] = b"".join(number.to_bytes(2, "little") for number in VERSION)
    end = 36 + 8 * int.from_bytes(data[20:22], "little") + int.from_bytes(data[16:20], "little")
    data[end - 4 : end] = zlib.crc32(data[: end - 4]).to_bytes(4, "little")
    return bytes(data)


def appendix_a() -> str:
    """Every byte of the example with its meaning."""
    data, file = example_bytes(), D3MFile.open(GOLDEN / EXAMPLE)
    lines = ["    offset  bytes                                             what"]
    for offset, length, text in file.explain():
        text = re.sub(r"^(minor|major) version = .*", lambda found: f"{found[1]} version", text)
        text = re.sub(r" = [0-9a-f]{64}", ", 32 bytes", text)
        pieces = [data[at : min(at + 16, offset + length)] for at in range(offset, offset + length, 16)]
        words = textwrap.wrap(text, 58)
        for row in range(max(len(pieces), len(words))):
            place = str(offset + 16 * row) if row < len(pieces) else ""
            code = pieces[row].hex(" ").upper() if row < len(pieces) else ""
            said = words[row] if row < len(words) else ""
            lines.append(f"    {place:>6}  {code:<48}  {said}".rstrip())
    lines += ["", f"Its content id is `{file.content_id}`."]
    return "\n".join(lines)


def appendix_b2() -> str:
    """Alpha-bars, timesteps and sigmas."""
    golden, lines = json.loads((GOLDEN / "samplers.json").read_text()), []
    rule, first, last, count = golden["betas"]
    table = _alpha_bars(rule, first, last, count)
    lines += [
        f"Betas `{rule}`, {first} to {last:,} millionths, {count:,} training steps: alpha-bars 0, 499 and 999 are",
        "",
        "    " + "  ".join(_short(table[i]) for i in (0, 499, 999)),
    ]
    table = _alpha_bars("linear", 100, 20_000, 1_000)
    lines += [
        "",
        "and for `linear`, 100 to 20,000 millionths, 1,000 training steps",
        "",
        "    " + "  ".join(_short(table[i]) for i in (0, 499, 999)),
    ]
    for row in golden["tables"]:
        steps, spacing, offset = row["steps"], row["spacing"], row["offset"]
        name = f"{steps} step{'s' if steps > 1 else ''}, `{spacing}`" + (f", offset {offset}" if offset else "")
        lines += [
            "",
            f"With the first of these schedules, {name}: timesteps of the DDIM samplers, then of the",
            "Euler samplers with `table` and with `karras`, then their sigmas:",
            "",
            "    ddim        " + " ".join(map(str, row["ddim timesteps"])),
        ]
        for key in ("table timesteps", "karras timesteps", "table sigmas", "karras sigmas"):
            kind, what = key.split()
            lines += _columns(f"    {kind:<6} {'t' if what == 'timesteps' else 'sigma':<5}", row[key])
    return "\n".join(lines)


def appendix_b3() -> str:
    """States of the samplers after each step."""
    golden, lines = json.loads((GOLDEN / "samplers.json").read_text()), []
    for prediction, runs in golden["states"].items():
        for name, states in runs.items():
            lines += ["", f"`{prediction}`; {name}:", ""] if lines else [f"`{prediction}`; {name}:", ""]
            lines += [f"    {_short(a):<24} {_short(b)}" for a, b in states]
    return "\n".join(lines)


def appendix_b6() -> str:
    """A section of kind `r` with shipped statistics."""
    golden = json.loads((GOLDEN / "labels.json").read_text())["shipped statistics"]
    classes = ", ".join(map(str, golden["classes"]))
    data, width, labels = base64.b64decode(golden["data"]), golden["width"], golden["labels"]
    text = (
        f"{labels} labels of {width:,} columns, of the classes {classes}, with shipped statistics; the SHA-256 of "
        f"their logits, binary32, little-endian, label after label, is `{golden['logits']}`. The section has "
        f"{len(data)} bytes:"
    )
    rows = [data[at : at + 32].hex() for at in range(0, len(data), 32)]
    return "\n".join([*textwrap.wrap(text, 120, break_on_hyphens=False), "", *(f"    {row}" for row in rows)])


def _alpha_bars(rule: str, first: int, last: int, count: int) -> list[str]:
    from d3codec.decoder.schedules import alpha_bars

    return [value.hex() for value in alpha_bars(rule, first, last, count).tolist()]


def _short(number: str) -> str:
    """A hexadecimal float without the zeros at its end."""
    return re.sub(r"\.?0*p", "p", number) if "." in number else number


def _columns(head: str, numbers: list[str]) -> list[str]:
    rows = [numbers[at : at + 4] for at in range(0, len(numbers), 4)]
    return [
        (head if at == 0 else " " * len(head)) + " " + " ".join(f"{_short(number):<23}" for number in row).rstrip()
        for at, row in enumerate(rows)
    ]


# ---------------------------------------------------------------------------------------------------------- files


def made() -> dict[Path, str]:
    """The text of every file that is made, or has a piece that is made."""
    page = PAGE.read_text("utf-8")
    for name, text in (("A", appendix_a()), ("B.2", appendix_b2()), ("B.3", appendix_b3()), ("B.6", appendix_b6())):
        begin, end = f"<!-- appendix {name}: made by spec/make.py -->", f"<!-- end of appendix {name} -->"
        before, found, rest = page.partition(begin)
        assert found, begin
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    folder = SPEC / "schema"
    return {
        PAGE: page,
        folder / "manifest.schema.json": json.dumps(manifest_schema(), indent=1) + "\n",
        folder / "info.schema.json": json.dumps(info_schema(), indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
