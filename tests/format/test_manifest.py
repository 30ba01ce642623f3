"""The records: strict, closed, bounded, with errors that name the field; the wire form and back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from format.craft import delta, digits_draft, filled, group, recipe, rich_draft, words
from hypothesis import given
from hypothesis import strategies as st

from d3codec.errors import D3MError, ManifestError
from d3codec.format import manifest as module
from d3codec.format.canonical import pack, unpack
from d3codec.format.file import D3MFile, content_id, write_d3m
from d3codec.format.manifest import (
    About,
    AncillaryEntry,
    Classes,
    Images,
    Manifest,
    part_count,
    part_lengths,
    section_plan,
)
from d3codec.format.record import Record, wire_names

ABOUT = About(
    citation="A. Author, 2025",
    claims={"S0 accuracy": "90.1 %"},
    licence="CC0-1.0",
    method="d3m",
    fingerprint="torch 2.13",
    pixels=bytes(32),
    source="digits",
    teacher="ConvNet",
)
FILES = [
    write_d3m(draft, filled(draft, sparse=True), ABOUT, {"x-leaf": bytes(2 * images)})
    for draft, images in ((digits_draft(), 10), (rich_draft(), 30 * 43))
]
WIRE = [D3MFile.open(data).manifest.to_wire() for data in FILES]
RECORDS = [
    record
    for _, record in inspect.getmembers(module, inspect.isclass)
    if issubclass(record, Record) and record is not Record
]


@pytest.mark.parametrize("wire", WIRE, ids=["digits", "rich"])
def test_wire_form_and_back(wire: Any) -> None:
    manifest = Manifest.from_wire(copy.deepcopy(wire))
    assert manifest.to_wire() == wire
    assert pack(manifest.to_wire()) == pack(wire)
    assert Manifest.from_wire(unpack(pack(wire))) == manifest


def test_keys_are_those_of_the_specification() -> None:
    content = WIRE[1]["c"]
    assert sorted(content) == ["c", "g", "h", "p", "s"]
    assert sorted(content["c"]) == ["a", "n"]
    learned, named = content["g"]
    assert sorted(learned) == ["c", "d", "g", "i", "k", "l", "r"]
    assert sorted(learned["c"]) == ["a", "b", "e", "i", "k", "n", "p", "r", "s", "w"]
    assert sorted(named["c"]) == ["e", "i", "k", "n", "p", "r", "s"]
    assert sorted(learned["i"]) == ["c", "g", "n", "s"]
    assert sorted(learned["r"]) == ["b", "e", "f", "g", "n", "p", "s", "t", "z"]
    assert learned["l"] == {"k": "q", "s": 8, "w": 30}
    assert named["l"] == {"k": "h"}
    assert learned["r"]["z"] == [0, 1_000_000]


def test_every_record_is_strict_closed_and_frozen() -> None:
    assert len(RECORDS) == 14
    for record in RECORDS:
        config = record.model_config
        assert config["strict"]
        assert config["frozen"]
        assert config["extra"] == "forbid"
        assert config["allow_inf_nan"] is False
        assert config["revalidate_instances"] == "always"
        for name, field in record.model_fields.items():
            assert "float" not in str(field.annotation), f"{record.__name__}.{name}"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a wire value, containers included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def changed(wire: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.deepcopy(wire)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return result


HOSTILE: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    65_536,
    2**31,
    2**63,
    2**64 - 1,
    -(2**63),
    1.0,
    1.5,
    1e300,
    "",
    "x",
    "x-a",
    "1",
    "a\nb",
    "\x7f",
    "é" * 3_000,
    b"",
    b"x" * 32,
    b"x" * 33,
    [],
    [1],
    [[1]],
    [None] * 3,
    {},
    {"k": 1},
    {"k": "delta"},
    {"k": ["delta"]},
    ["x"] * 1_025,
    {"c": {}},
    "delta",
    "h",
]
PATHS = [(wire, path) for wire in WIRE for path in leaves(wire)]


@given(st.sampled_from(PATHS), st.sampled_from(HOSTILE))
def test_a_hostile_value_anywhere_is_refused_or_kept_as_it_is(place: tuple[Any, tuple[Any, ...]], new: Any) -> None:
    wire, path = place
    candidate = changed(wire, path, new)
    manifest, message = None, ""
    try:
        manifest = Manifest.from_wire(candidate)
    except ManifestError as error:
        message = str(error)
    assert len(message) < 400
    if manifest is not None:
        assert pack(manifest.to_wire()) == pack(candidate)  # one content, one encoding


def test_every_key_is_needed_and_no_other_taken() -> None:
    refused = 0
    for wire in WIRE:
        for path in leaves(wire):
            inner = wire
            for key in path:
                inner = inner[key]
            if not isinstance(inner, dict):
                continue
            in_about = path[:1] == ("a",)
            for key in inner:
                without = {name: item for name, item in inner.items() if name != key}
                if not in_about and (path, key) != ((), "a"):
                    with pytest.raises(ManifestError):
                        Manifest.from_wire(changed(wire, path, without))
                    refused += 1
            if path != ("a", "c"):
                for key in ("zz", "guidance", "count", "content", "citation "):
                    with pytest.raises(ManifestError, match="unknown key"):
                        Manifest.from_wire(changed(wire, path, inner | {key: None}))
    assert refused > 80


def test_long_names_are_no_keys_on_the_wire() -> None:
    value = {name: WIRE[0]["c"][key] for key, name in wire_names(module.Content).items()}
    with pytest.raises(ManifestError, match="unknown key 'classes'"):
        Manifest.from_wire({"c": value})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"guidance": -1}, "Recipe.guidance"),
        ({"guidance": 1_000_000_001}, "Recipe.guidance"),
        ({"guidance": True}, "Recipe.guidance"),
        ({"guidance": 2.0}, "Recipe.guidance"),
        ({"guidance": "2"}, "Recipe.guidance"),
        ({"guidance": None}, "Recipe.guidance"),
        ({"eta": 1}, "Recipe.eta"),
        ({"steps": 0}, "Recipe.steps"),
        ({"steps": 1_001}, "Recipe.steps"),
        ({"final_alpha": "last"}, "Recipe.final_alpha"),
        ({"prediction": "x"}, "Recipe.prediction"),
        ({"sampler": "euler"}, "Recipe.sampler"),
        ({"betas": ("cosine", 1, 2, 3)}, "Recipe.betas[0]"),
        ({"betas": ("linear", 0, 2, 10)}, "Recipe.betas[1]"),
        ({"betas": ("linear", 1, 1_000_000, 10)}, "Recipe.betas[2]"),
        ({"betas": ("linear", 1, 2, 10_001)}, "Recipe.betas[3]"),
        ({"betas": ("linear", 1, 2)}, "Recipe.betas[3]"),
        ({"timesteps": ("trailing", 0)}, "Recipe.timesteps[0]"),
        ({"timesteps": ("leading", -1)}, "Recipe.timesteps[1]"),
        ({"timesteps": ("leading", 100)}, "Recipe"),
        ({"start": (1, 1_000_000)}, "Recipe"),
        ({"steps": 11, "betas": ("linear", 1, 2, 10)}, "Recipe"),
        ({"extra": 1}, "Recipe.extra"),
    ],
)
def test_recipe_is_bounded(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as error:
        recipe(**change)
    assert error.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"template": ()},
        {"template": (1,) * 1_025},
        {"template": (-1,)},
        {"template": (2**31,) * 7},
        {"template": "abc"},
        {"slots": ()},
        {"slots": (2, 2)},
        {"slots": (3, 2)},
        {"slots": (7,)},
        {"slots": (-1,)},
        {"slots": (True,)},
        {"padding": (0, 6)},
        {"padding": (0, 0)},
        {"padding": (0, 1_025)},
        {"negative": (1,) * 17},
        {"negative": ()},
        {"bits": 0},
        {"bits": 9},
        {"width": 0},
        {"width": 8_193},
        {"enters": "denoiser"},
        {"rows": "image"},
        {"initial_token": -1},
        {"kind": "words"},
    ],
)
def test_conditioning_is_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        delta(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"grid": (0, 1)},
        {"grid": (3, 1)},
        {"grid": (1, 3)},
        {"size": (4_097, 64)},
        {"size": (64,)},
        {"count": 0},
        {"count": 2**20 + 1},
        {"candidates": "column"},
        {"grid": (128, 1)},
    ],
)
def test_images_are_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        Images(**(dict[str, Any](grid=(2, 2), count=1, size=(64, 64)) | change))


@pytest.mark.parametrize(
    "change",
    [
        {"cast": "f32"},
        {"generator": bytes(31)},
        {"generator": "x" * 32},
        {"noise_key": -1},
        {"noise_key": 2**64},
        {"noise_key": 10**400},
        {"conditioning": words()},
        {"conditioning": None},
        {"labels": "h"},
        {"images": None},
    ],
)
def test_groups_are_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        group(**change)


def test_largest_and_smallest_values_are_taken() -> None:
    assert group(noise_key=2**64 - 1).noise_key == 2**64 - 1
    assert recipe(guidance=0, timesteps=("leading", 99)).timesteps == ("leading", 99)
    assert recipe(steps=1_000, betas=("linear", 1, 999_999, 1_000), timesteps=("leading", 0)).steps == 1_000
    assert len(delta(template=[2**31 - 1] * 1_024, padding=(0, 1_024), slots=list(range(64))).slots) == 64
    assert Images(grid=(1, 1), count=2**20, size=(4_096, 1)).count == 2**20
    assert Classes(authority="a" * 64, count=2**20).count == 2**20
    assert group(conditioning=words(), recipe=recipe(guidance=1_000_000)).conditioning.kind == "words"


@pytest.mark.parametrize(
    "change",
    [
        {"licence": ""},
        {"licence": "x" * 4_097},
        {"licence": "é" * 2_049},
        {"licence": "a\0"},
        {"licence": "\x9b31m"},
        {"licence": "\ud800"},
        {"licence": b"x"},
        {"fingerprint": "x"},
        {"pixels": bytes(32)},
        {"digest": bytes(32)},
        {"claims": {"a": 1}},
        {"claims": {"": "a"}},
        {"claims": {str(n): "a" for n in range(257)}},
        {"claims": ["a"]},
        {"ancillary": (AncillaryEntry(name="x-a", raw_lengths=(1,)),)},
        {"created": "today"},
    ],
)
def test_about_is_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as error:
        About(**change)
    assert len(str(error.value)) < 400


def test_a_record_that_got_round_its_checks_is_refused_inside_another() -> None:
    bad = recipe().model_copy(update={"guidance": -5})
    with pytest.raises(ManifestError):
        group(recipe=bad)
    with pytest.raises(pydantic.ValidationError):
        recipe().guidance = 3


def test_messages_name_the_field_in_the_words_of_the_specification() -> None:
    cases = {
        ("c", "g", 0, "r", "g"): "content.groups[0].recipe.guidance",
        ("c", "g", 0, "c", "i", 3): "content.groups[0].conditioning.template[3]",
        ("c", "g", 0, "l", "w"): "content.groups[0].labels.width",
        ("c", "g", 0, "c"): "content.groups[0].conditioning",
        ("c", "s", 1): "content.sections[1]",
        ("c", "s", 1, 2): "content.sections[1].raw_lengths[0]",
        ("c", "h"): "content.digests",
        ("a", "c", "S0 accuracy"): "about.claims['S0 accuracy']",
        ("a",): "about",
    }
    for path, field in cases.items():
        with pytest.raises(ManifestError) as error:
            Manifest.from_wire(changed(WIRE[0], path, -1))
        assert error.value.field == field
        assert "pydantic" not in str(error.value)
    with pytest.raises(ManifestError) as error:
        Manifest.from_wire(changed(WIRE[0], ("c", "p"), "evil" * 100_000))
    assert len(str(error.value)) < 300
    without = {key: value for key, value in WIRE[0]["c"]["g"][0]["r"].items() if key != "e"}
    with pytest.raises(ManifestError, match=r"content\.groups\[0\]\.recipe: .*eta \(key 'e'\) is missing"):
        Manifest.from_wire(changed(WIRE[0], ("c", "g", 0, "r"), without))
    with pytest.raises(ManifestError) as error:
        Manifest.from_wire([])
    assert (error.value.field, error.value.expected) == ("manifest", "a map")


def test_content_id_follows_content_alone() -> None:
    file = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft()), ABOUT))
    plain = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft())))
    assert file.content_id == plain.content_id == content_id(plain.content)
    other = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft(), seed=2)))
    assert other.content_id != plain.content_id


def test_plan_of_sections() -> None:
    assert section_plan(rich_draft()) == [
        ("cls", None, None, None),
        ("emb", 0, 30, 4),
        ("lab", 0, 30 * 40 * 4, 30),
        ("wrd", 1, 30, 4),
    ]


@given(st.integers(1, 5_000_000), st.integers(1, 3 << 20))
def test_parts_are_whole_rows_of_up_to_1_mib(rows: int, row_bytes: int) -> None:
    if part_count(rows, row_bytes) > 5_000:
        return
    lengths = part_lengths(rows, row_bytes)
    assert len(lengths) == part_count(rows, row_bytes)
    assert sum(lengths) == rows * row_bytes
    assert all(length % row_bytes == 0 and 0 < length <= max(1 << 20, row_bytes) for length in lengths)
    assert len(set(lengths[:-1])) <= 1
    assert lengths[-1] <= lengths[0]


def test_thousands_of_faults_cost_little() -> None:
    wire = changed(WIRE[0], ("c", "s"), [[0, 0, -1]] * 16_000)
    with pytest.raises(D3MError):
        Manifest.from_wire(wire)


def test_label_width_is_the_number_of_classes() -> None:
    with pytest.raises(ManifestError, match="label width must be the number of classes"):
        Manifest.from_wire(changed(WIRE[0], ("c", "g", 0, "l", "w"), 11))
