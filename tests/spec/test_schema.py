"""What machines read of the specification: schemas and appendices are those of the code, the Kaitai text fits."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cli.commands import answer
from format.craft import (
    Pieces,
    coded_draft,
    digits_draft,
    exact_digits_draft,
    filled,
    kinds_draft,
    rich_draft,
    stored_draft,
    write_d3m,
)

from d3codec.errors import FormatError
from d3codec.format import canonical, manifest
from d3codec.format.file import D3MFile
from d3codec.format.record import wire_names

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.d3m"))
DRAFTS = [digits_draft, exact_digits_draft, rich_draft, kinds_draft, stored_draft, coded_draft]


def make() -> Any:
    """The script that writes what is made."""
    found = importlib.util.spec_from_file_location("spec_make", SPEC / "make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def test_what_is_made_is_what_is_committed() -> None:
    for path, text in make().made().items():
        assert path.read_text("utf-8") == text, f"python spec/make.py writes {path.name} anew"


# ----------------------------------------------------------------------------------------------------- JSON Schema


def fits(value: Any, schema: Any, root: Any) -> bool:
    """Whether a value follows a schema, of which only the words are known that ours use."""
    known = {
        *("$schema", "$defs", "$ref", "title", "description", "type", "properties", "required", "additionalProperties"),
        *("items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "exclusiveMaximum", "minLength"),
        *("maxLength", "pattern", "contentEncoding", "enum", "const", "anyOf", "maxProperties"),
    }
    if isinstance(schema, bool):
        return schema
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    if "anyOf" in schema and not any(fits(value, kind, root) for kind in schema["anyOf"]):
        return False
    if "const" in schema and (type(value) is not type(schema["const"]) or value != schema["const"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = {"null": type(None), "boolean": bool, "integer": int, "string": str, "array": list, "object": dict}
    if "type" in schema and type(value) is not kinds[schema["type"]]:
        return False
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 1 << 30) and bool(
            re.search(schema.get("pattern", ""), value)
        )
    if type(value) is int:
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return low <= value <= high and value < schema.get("exclusiveMaximum", value + 1)
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = schema.get("items", True)
        return (
            schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 1 << 30)
            and all(fits(item, kind, root) for item, kind in zip(value, first, strict=False))
            and all(fits(item, rest, root) for item in value[len(first) :])
        )
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        return (
            set(schema.get("required", [])) <= set(value)
            and len(value) <= schema.get("maxProperties", 1 << 30)
            and all(
                fits(item, fields.get(key, schema.get("additionalProperties", True)), root)
                for key, item in value.items()
            )
        )
    return True


def as_json(value: Any) -> Any:
    """An unpacked manifest with bin as base16."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return {key: as_json(item) for key, item in value.items()} if isinstance(value, dict) else value


def schema(name: str) -> Any:
    return json.loads((SPEC / "schema" / f"{name}.schema.json").read_text("utf-8"))


@cache
def manifests() -> list[Any]:
    whole = [canonical.unpack(D3MFile.open(path).head.manifest) for path in GOLDEN]
    return whole + [Pieces.of(write_d3m(draft(), filled(draft()))).manifest for draft in DRAFTS]


def test_manifests_follow_the_schema() -> None:
    rules = schema("manifest")
    for value in manifests():
        assert fits(as_json(value), rules, rules)


def places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Paths to everything in a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@pytest.mark.parametrize("new", [None, True, -1, 1 << 70, "x", "", [], {}, 0.5, ["x"], {"k": "z"}])
def test_what_the_schema_refuses_is_refused(new: Any) -> None:
    """The schema knows types and ranges: never is it stricter than the records."""
    rules = schema("manifest")
    for value in manifests()[-3:]:
        for path in places(value):
            if not path:
                continue
            changed = copy.deepcopy(value)
            where = changed
            for key in path[:-1]:
                where = where[key]
            where[path[-1]] = new
            if not fits(as_json(changed), rules, rules):
                with pytest.raises(FormatError):
                    manifest.Manifest.from_wire(changed)


def test_keys_of_the_schema_are_those_of_records_and_text() -> None:
    rules, text = schema("manifest"), (SPEC / "d3m-1.0.md").read_text("utf-8")
    for name, record in vars(manifest).items():
        if name in rules["$defs"] and rules["$defs"][name]["type"] == "object":
            fields = rules["$defs"][name]["properties"]
            assert {key: field["title"] for key, field in fields.items()} == wire_names(record)
    kinds = dict(re.findall(r"^\| `([\w-]+)` \| `([a-z ]+)` \|", text, re.MULTILINE))
    del kinds["exact-fixed"]  # whose row leaves out the k
    assert set(kinds) == {"delta", "words", "tokens", "vectors", "class-id", "none", *"hqftra"}
    found = {
        fields["k"]["const"]: " ".join(sorted(fields))
        for fields in (kind.get("properties", {}) for kind in rules["$defs"].values())
        if "const" in fields.get("k", {})
    }
    for kind, keys in kinds.items():
        assert found[kind] == keys
    assert set(found) - set(kinds) == {"gdd", "reproducible", "exact", "exact-fixed"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_info_follows_its_schema(path: Path) -> None:
    rules, facts = schema("info"), answer("info", path)
    assert set(facts) == set(rules["properties"]) == set(rules["required"])
    for group in facts["groups"]:
        assert set(group) == set(rules["$defs"]["GroupInfo"]["properties"])
    assert fits(facts, rules, rules)


# ---------------------------------------------------------------------------------------------------------- Kaitai


class Parsed(dict[str, Any]):
    """What a type of the description found in some bytes: an interpreter of the few words that ours uses."""

    def __init__(self, types: dict[str, Any], kind: Any, data: bytes, at: int = 0) -> None:
        super().__init__()
        self.types, self.data, self.at = types, data, at
        for field in kind["seq"]:
            if "repeat" in field:
                assert field["repeat"] == "expr"
                count = self.value(field["repeat-expr"])
                self[field["id"]] = [self.take(field, index) for index in range(count)]
            else:
                self[field["id"]] = self.take(field, 0)
        for name, instance in kind.get("instances", {}).items():
            self[name] = self.value(instance["value"])

    def value(self, expression: Any, index: int = 0) -> int:
        names = {**self, "_index": index}
        for found in re.findall(r"\]\.(\w+)", str(expression)):
            expression = expression.replace(f"].{found}", f"]['{found}']")
        return int(eval(str(expression), {"__builtins__": {}}, names))

    def take(self, field: dict[str, Any], index: int) -> Any:
        assert set(field) <= {"id", "type", "size", "contents", "repeat", "repeat-expr", "doc", "enum"}
        kind = field.get("type")
        if kind in self.types:
            inner = Parsed(self.types, self.types[kind], self.data, self.at)
            self.at = inner.at
            return inner
        contents = bytes(field["contents"]) if "contents" in field else None
        size = int(kind[1:]) if kind else len(contents) if contents is not None else self.value(field["size"], index)
        data, self.at = self.data[self.at : self.at + size], self.at + size
        assert len(data) == size
        assert contents in (None, data)
        return int.from_bytes(data, "little") if kind else data


def test_kaitai_description_dumps_the_corpus() -> None:
    yaml = pytest.importorskip("yaml")
    kind = yaml.safe_load((SPEC / "d3m.ksy").read_text("utf-8"))
    assert kind["meta"]["endian"] == "le"
    corpus = [path.read_bytes() for path in GOLDEN]
    corpus += [path.read_bytes() for path in sorted((SPEC / "vectors").glob("*/accept/*.d3m"))]
    corpus += [write_d3m(draft(), filled(draft(), sparse=True)) for draft in DRAFTS]
    for data in corpus:
        file, found = D3MFile.open(data), Parsed(kind["types"], kind, data)
        assert found.at == len(data) == found["file_length"]
        assert (found["version_major"], found["version_minor"], found["required_features"]) == (*file.version, 0)
        assert found["manifest"] == file.head.manifest
        entries = [(entry["stored_length"], entry["codec"], entry["crc"]) for entry in found["part_table"]]
        assert entries == [(entry.stored, entry.codec, entry.crc) for entry in file.head.entries]
        assert found["parts"] == [data[part.offset : part.offset + part.entry.stored] for part in file.parts]
    names = kind["enums"]["codec"]
    assert names == {0: "raw", 1: "zstd"}
