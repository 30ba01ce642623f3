"""The records: strict, closed, bounded, with errors that name the field; the wire form and back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from format.craft import (
    LATENTS,
    SECOND,
    class_ids,
    coded_draft,
    delta,
    digits_draft,
    euler,
    exact_digits_draft,
    filled,
    group,
    kinds_draft,
    recipe,
    reinject,
    rich_draft,
    stored_draft,
    tokens,
    vectors,
    words,
)
from hypothesis import example, given
from hypothesis import strategies as st

from d3codec.decoder import schedules
from d3codec.errors import D3MError, ManifestError
from d3codec.format import manifest as module
from d3codec.format.canonical import pack, unpack
from d3codec.format.file import ContentDraft, D3MFile, content_id, write_d3m
from d3codec.format.manifest import (
    About,
    AncillaryEntry,
    Classes,
    Exact,
    ExactFixed,
    GddAugmentation,
    HardLabels,
    Images,
    Manifest,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    SecondEncoder,
    Start,
    StoredLatents,
    TopkLabels,
    Window,
    part_count,
    part_lengths,
    row_section,
    section_plan,
)
from d3codec.format.plan import coded_values
from d3codec.format.record import ListRecord, Record, wire_names
from d3codec.format.sections import ClassRecord, pack_classes

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
SAID = ABOUT.model_copy(update={"pixels": None, "fingerprint": None})
FILES = [
    write_d3m(draft, filled(draft, sparse=True), about, {"x-leaf": bytes(2 * images)})
    for draft, about, images in (
        (digits_draft(), ABOUT, 10),
        (rich_draft(), ABOUT, 30 * 43),
        (kinds_draft(), SAID, 2 * 12),
    )
]
WIRE = [D3MFile.open(data).manifest.to_wire() for data in FILES]
RECORDS = [
    record
    for _, record in inspect.getmembers(module, inspect.isclass)
    if issubclass(record, Record) and record not in (Record, ListRecord)
]


@pytest.mark.parametrize("wire", WIRE, ids=["digits", "rich", "kinds"])
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
    assert sorted(learned) == ["c", "d", "g", "i", "k", "l", "o", "r"]
    assert "".join(sorted(learned["c"])) == "abeiknprswx"
    assert "".join(sorted(named["c"])) == "iknprsx"
    assert learned["i"] == {"a": None, "c": None, "g": [2, 2], "n": 40, "s": [32, 32], "w": None}
    assert "".join(sorted(learned["r"])) == "befgnpstz"
    assert learned["l"] == {"k": "q", "m": None, "s": 8, "w": 30}
    assert named["l"] == {"k": "h"}
    assert learned["r"]["z"] == [0, 1_000_000, None]
    assert content["p"] == {"k": "reproducible"}
    assert content["s"] == [len(filled(rich_draft())["cls", None])]


# Shows D3M-050, D3M-057, D3M-061.
def test_keys_of_every_kind() -> None:
    content = WIRE[2]["c"]
    assert {key: content["p"][key] for key in "kf"} == {"k": "exact", "f": 5}
    assert len(content["p"]["d"]) == 32
    assert len(content["s"]) == 3  # cls, fix, tok
    first, second, third, fourth, fifth = content["g"]
    assert [one["c"]["k"] for one in content["g"]] == ["delta", "tokens", "vectors", "class-id", "words"]
    assert first["c"]["x"] == {"p": 0, "t": [64, 64, 0, 0, 64, 64], "w": 3}
    assert first["i"]["a"] == {"k": "gdd", "c": 1}
    assert second["c"] == {"k": "tokens", "n": "zeros", "p": [0, 9], "r": "image", "x": second["c"]["x"]}
    assert second["i"]["w"] == [[16, 24], [4, 8, 12, 16]]
    assert second["o"] == 12_345
    assert third["c"] == {"b": 3, "e": False, "k": "vectors", "n": "row", "r": "image", "s": 2, "w": 5}
    assert fourth["c"] == {"k": "class-id", "n": 1_000, "r": "class"}
    assert fifth["c"]["n"] == "zeros"
    assert [one["r"]["s"] for one in content["g"]] == ["ddim", "euler", "ddim-reinject", "euler-ancestral", "ddim"]
    assert "".join(sorted(second["r"])) == "bginpqstz"
    assert "".join(sorted(third["r"])) == "bfgnpstz"
    assert third["r"]["z"] == [200_000, 900_000, [3, 0, 4, 2, 3]]
    assert second["l"] == {"k": "f", "m": "col", "w": 5}
    assert fourth["l"] == {"k": "t", "m": "col", "n": 2, "w": 3}
    coded = coded_draft().groups
    assert coded[0].labels.to_wire() == {"k": "r", "m": None, "w": 3}
    assert (coded[0].conditioning.to_wire()["e"], coded[1].conditioning.to_wire()["e"]) == (True, True)
    assert coded[1].recipe.start.to_wire() == [200_000, 900_000, [3, 1, 4, 2, 3]]
    assert coded[2].recipe.to_wire() == {"s": "decode", "z": [0, 2, 4, 2, 3]}
    assert coded[2].labels.to_wire() == {"k": "a", "m": None, "w": 3}
    assert coded[3].recipe.to_wire() == {"s": "stored", "f": "webp", "n": 3, "c": 2}
    assert coded[3].conditioning.to_wire() == {"k": "none"}
    assert coded[3].to_wire()["g"] is None
    assert ExactFixed(pixels=bytes(32)).to_wire() == {"k": "exact-fixed", "d": bytes(32)}


def test_every_record_is_strict_closed_and_frozen() -> None:
    assert len(RECORDS) == 32
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
    {"k": "class-id"},
    {"k": "exact"},
    "zeros",
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


# Shows D3M-034.
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
    assert refused > 250


def test_long_names_are_no_keys_on_the_wire() -> None:
    value = {name: WIRE[0]["c"][key] for key, name in wire_names(module.Content).items()}
    with pytest.raises(ManifestError, match="unknown key 'classes'"):
        Manifest.from_wire({"c": value})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"guidance": -1}, "DdimRecipe.guidance"),
        ({"guidance": 1_000_000_001}, "DdimRecipe.guidance"),
        ({"guidance": True}, "DdimRecipe.guidance"),
        ({"guidance": 2.0}, "DdimRecipe.guidance"),
        ({"guidance": "2"}, "DdimRecipe.guidance"),
        ({"guidance": None}, "DdimRecipe.guidance"),
        ({"eta": -1}, "DdimRecipe.eta"),
        ({"eta": 1_000_001}, "DdimRecipe.eta"),
        ({"steps": 0}, "DdimRecipe.steps"),
        ({"steps": 1_001}, "DdimRecipe.steps"),
        ({"final_alpha": "last"}, "DdimRecipe.final_alpha"),
        ({"prediction": "x"}, "DdimRecipe.prediction"),
        ({"sampler": "euler"}, "DdimRecipe.sampler"),
        ({"betas": ("cosine", 1, 2, 3)}, "DdimRecipe.betas[0]"),
        ({"betas": ("linear", 0, 2, 10)}, "DdimRecipe.betas[1]"),
        ({"betas": ("linear", 1, 1_000_000, 10)}, "DdimRecipe.betas[2]"),
        ({"betas": ("linear", 1, 2, 10_001)}, "DdimRecipe.betas[3]"),
        ({"betas": ("linear", 1, 2)}, "DdimRecipe.betas[3]"),
        ({"betas": ("linear", 999_999, 999_999, 53)}, "DdimRecipe.betas"),
        ({"betas": ("linear", 1, 999_999, 1_000)}, "DdimRecipe.betas"),
        ({"timesteps": ("even", 0)}, "DdimRecipe.timesteps[0]"),
        ({"timesteps": ("trailing", 1)}, "DdimRecipe"),
        ({"timesteps": ("linspace", 1)}, "DdimRecipe"),
        ({"timesteps": ("leading", -1)}, "DdimRecipe.timesteps[1]"),
        ({"timesteps": ("leading", 100)}, "DdimRecipe"),
        ({"start": (0, 1_000_000)}, "DdimRecipe.start"),
        ({"start": Start(a=1, b=1_000_000, stored=None)}, "DdimRecipe"),
        ({"start": Start(a=0, b=1_000_000, stored=LATENTS)}, "DdimRecipe"),
        ({"steps": 11, "betas": ("linear", 1, 2, 10)}, "DdimRecipe"),
        ({"extra": 1}, "DdimRecipe.extra"),
    ],
)
# Shows D3M-054, D3M-055, D3M-057.
def test_recipe_is_bounded(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as error:
        recipe(**change)
    assert error.value.field == field


BETAS = st.tuples(
    st.sampled_from(["linear", "scaled"]), st.integers(1, 999_999), st.integers(1, 999_999), st.integers(2, 300)
)


@given(BETAS)
@example(("linear", 500_000, 500_000, 64))  # 2^-64 itself
@example(("linear", 500_000, 500_000, 65))
@example(("scaled", 500_000, 500_000, 64))  # the square of the root is above 0.5, the product below 2^-64
@example(("linear", 999_999, 999_999, 10_000))  # 0
@example(("scaled", 1, 10_000, 10_000))
def test_betas_leave_something_of_the_signal(betas: tuple[str, int, int, int]) -> None:
    """The bound is on the table that the decoder computes, to the last bit."""
    try:
        left = schedules.alpha_bars(*betas)[-1]
    except ValueError:
        left = 0
    if left >= 2.0**-64:
        assert recipe(betas=betas, steps=1).betas == betas
    else:
        with pytest.raises(ManifestError, match=r"leave nothing of the signal: .* below 2\^-64"):
            recipe(betas=betas, steps=1)


# Shows D3M-053.
def test_the_bound_of_betas_is_exact() -> None:
    assert recipe(betas=("linear", 500_000, 500_000, 64)).betas[3] == 64
    for betas in (("linear", 500_000, 500_000, 65), ("scaled", 500_000, 500_000, 64)):
        with pytest.raises(ManifestError, match="leave nothing"):
            recipe(betas=betas)


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": "heun"},
        {"sampler": "ddim"},
        {"initial": "one"},
        {"sigmas": "exponential"},
        {"eta": 0},
        {"final_alpha": "one"},
        {"timesteps": ("linspace", 1)},
        {"start": Start(a=1, b=0, stored=None)},
    ],
)
def test_euler_is_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        euler(**change)


# Shows D3M-059.
def test_stored_latents_and_their_factor_stand_together() -> None:
    assert recipe(start=Start(a=1, b=0, stored=LATENTS)).start.stored == LATENTS
    assert reinject(start=Start(a=0, b=1_000_000, stored=LATENTS)).start.a == 0
    with pytest.raises(ManifestError, match="re-injection needs stored latents"):
        reinject(start=Start(a=0, b=1_000_000, stored=None))
    with pytest.raises(ManifestError):
        reinject(eta=0)
    assert reinject(steps=2).steps == 2
    with pytest.raises(ManifestError, match="two steps or more"):
        reinject(steps=1)
    assert LATENTS.row_bytes == 2 + 9


@pytest.mark.parametrize(
    ("bits", "shape"),
    [(0, (4, 2, 2)), (9, (4, 2, 2)), (1, (65, 1, 1)), (1, (4, 4_097, 1)), (1, (4, 2)), (8, (4, 2_048, 1_024))],
)
# Shows D3M-052, D3M-056.
def test_stored_latents_are_bounded(bits: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ManifestError):
        StoredLatents(bits=bits, shape=shape)
    assert StoredLatents(bits=8, shape=(4, 2_047, 1_024)).row_bytes < 8 << 20


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
        {"rows": "column"},
        {"negative": "row"},
        {"negative": 3},
        {"second": SECOND},
        {"second": {"p": 0}},
        {"initial_token": -1},
        {"kind": "words"},
    ],
)
# Shows D3M-047, D3M-048, D3M-050.
def test_conditioning_is_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        delta(**change)


# Shows D3M-049, D3M-052.
def test_other_conditionings_are_bounded() -> None:
    wide = SECOND.model_copy(update={"width": 3})
    for refused in (
        lambda: words(second=wide),
        lambda: tokens(second=wide),
        lambda: tokens(template=(1, 2)),
        lambda: tokens(negative=(1,) * 10),
        lambda: words(slots=(4,)),
        lambda: vectors(slots=0),
        lambda: vectors(slots=1_025),
        lambda: vectors(slots=(1,)),
        lambda: vectors(negative=(1, 2)),
        lambda: vectors(bits=8, slots=1_024, width=8_192),  # larger than a part
        lambda: class_ids(negative=-1),
        lambda: class_ids(negative=2**31),
        lambda: class_ids(negative="zeros"),
        lambda: class_ids(rows="image"),
        lambda: SecondEncoder(pad_id=0, time_ids=(1, 2, 3, 4, 5), width=0),
        lambda: SecondEncoder(pad_id=0, time_ids=(1, 2, 3, 4, 5, 65_536), width=0),
        lambda: SecondEncoder(pad_id=-1, time_ids=(1, 2, 3, 4, 5, 6), width=0),
    ):
        with pytest.raises(ManifestError):
            refused()
    assert vectors(bits=7, slots=1_024, width=8_192).slots == 1_024
    assert delta(second=wide).widths == (64, 3)
    assert delta().widths == (64,)


# Shows D3M-047.
def test_every_kind_needs_a_negative_for_guidance() -> None:
    for conditioning in (delta(negative=None), words(), tokens(negative=None), vectors(negative=None)):
        with pytest.raises(ManifestError, match="needs a negative"):
            group(conditioning=conditioning)
        assert group(conditioning=conditioning, recipe=recipe(guidance=1_000_000))
    with pytest.raises(ManifestError, match="needs a negative"):
        group(conditioning=class_ids(negative=None))
    for conditioning in (delta(negative="zeros"), vectors(negative="zeros"), class_ids(negative=0)):
        assert group(conditioning=conditioning)


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
        {"candidates": "index"},
        {"grid": (128, 1)},
        {"count": 4, "augmentation": GddAugmentation(copies=2)},
        {"augmentation": 2},
        {"window": ((64, 64), (0, 0, 32, 32))},
    ],
)
# Shows D3M-043, D3M-046.
def test_images_are_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        Images(**(dict[str, Any](grid=(2, 2), count=1, size=(64, 64)) | change))


@pytest.mark.parametrize(
    "change",
    [
        {"cast": "f32"},
        {"outside_bytes": -1},
        {"outside_bytes": 2**40 + 1},
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
# Shows D3M-038, D3M-045.
def test_groups_are_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        group(**change)


# Shows D3M-043, D3M-044.
def test_window_and_copies() -> None:
    window = Window(generated=(64, 96), block=(0, 32, 64, 64))
    images = Images(grid=(2, 2), count=12, size=(32, 32), window=window, augmentation=GddAugmentation(copies=3))
    assert (images.sources, images.copies, images.generated) == (3, 3, (64, 96))
    plain = Images(grid=(2, 2), count=12, size=(32, 32))
    assert (plain.sources, plain.copies, plain.generated) == (12, 0, (32, 32))
    for block in ((1, 32, 64, 64), (0, 33, 64, 64), (0, 0, 0, 1), (-1, 0, 1, 1), (0, 0, 1), (4_096, 0, 1, 1)):
        with pytest.raises(ManifestError):
            Window(generated=(64, 96), block=block)
    assert Images(grid=(2, 2), count=256, size=(32, 32), augmentation=GddAugmentation(copies=255)).sources == 1
    for copies in (0, 256):
        with pytest.raises(ManifestError):
            GddAugmentation(copies=copies)


# Shows D3M-038.
def test_profiles_are_bounded() -> None:
    for change in ({"pixels": bytes(31)}, {"corrections": -1}, {"corrections": (1 << 22) + 1}, {"name": "fast"}):
        with pytest.raises(ManifestError):
            Exact(**(dict[str, Any](pixels=bytes(32), corrections=0) | change))
    for wire in ("exact", {"k": "exact"}, {"k": "fast"}, {"k": "exact-fixed", "d": bytes(32), "f": 0}, {}):
        with pytest.raises(ManifestError):
            Manifest.from_wire(changed(WIRE[0], ("c", "p"), wire))


# Shows D3M-039.
def test_an_exact_file_has_its_pixel_digest_in_content_alone() -> None:
    draft = exact_digits_draft()
    with pytest.raises(ManifestError, match="in content alone"):
        write_d3m(draft, filled(draft), ABOUT)
    assert D3MFile.open(write_d3m(draft, filled(draft), SAID)).content.profile == draft.profile


def test_largest_and_smallest_values_are_taken() -> None:
    assert group(noise_key=2**64 - 1).noise_key == 2**64 - 1
    assert recipe(guidance=0, timesteps=("leading", 99)).timesteps == ("leading", 99)
    assert recipe(steps=1_000, betas=("linear", 1, 80_000, 1_000), timesteps=("leading", 0)).steps == 1_000
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
# Shows D3M-035, D3M-064, D3M-065.
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
        ("c", "s"): "content.lengths",
        ("c", "s", 0): "content.lengths[0]",
        ("c", "p"): "content.profile",
        ("c", "g", 0, "c", "n", 0): "content.groups[0].conditioning.negative[0]",
        ("c", "g", 0, "r", "z"): "content.groups[0].recipe.start",
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


# Shows D3M-066.
def test_content_id_follows_content_alone() -> None:
    file = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft()), ABOUT))
    plain = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft())))
    assert file.content_id == plain.content_id == content_id(plain.content)
    other = D3MFile.open(write_d3m(digits_draft(), filled(digits_draft(), seed=2)))
    assert other.content_id != plain.content_id


# Shows D3M-067.
def test_plan_of_sections() -> None:
    assert section_plan(rich_draft()) == [
        ("cls", None, None, None),
        ("emb", 0, 30, 4),
        ("lab", 0, 30 * 40 * 4, 30),
        ("wrd", 1, 30, 4),
    ]
    assert section_plan(kinds_draft()) == [
        ("cls", None, None, None),
        ("fix", None, None, None),
        ("emb", 0, 2 * 2, 2 + 2 + 2 + 2),  # a row a source, a block an encoder
        ("lab", 0, 2 * 4, 2),  # a row an image, copies included
        ("tok", 1, None, None),
        ("lat", 1, 2 * 2, 11),
        ("col", 1, 2, 4),
        ("lab", 1, 2 * 2 * 2, 10),
        ("emb", 2, 2 * 2 + 1, 2 + 4),  # with the unconditional row
        ("lat", 2, 2 * 2, 11),
        ("lab", 2, 2 * 2, 2),
        ("ids", 3, 2, 4),
        ("col", 3, 2, 4),
        ("lab", 3, 2 * 2, 2 * (2 + 2)),
        ("wrd", 4, 2 * 2, 4),
    ]
    assert section_plan(coded_draft()) == [
        ("cls", None, None, None),
        ("emb", 0, None, None),
        ("lab", 0, None, None),
        ("emb", 1, None, None),
        ("lat", 1, None, None),
        ("col", 1, 3, 4),
        ("lab", 1, None, None),
        ("lat", 2, None, None),
        ("lab", 2, None, None),
        ("img", 3, None, None),
    ]
    assert section_plan(stored_draft()) == [
        ("cls", None, None, None),
        ("emb", 0, 2, 18),
        ("cnd", 0, 2, 2),
        ("lab", 0, None, None),
        ("lat", 1, 4, 11),
        ("img", 2, None, None),
        ("col", 2, 2, 4),
        ("lab", 2, None, None),
    ]
    assert [row_section(one) for one in stored_draft().groups] == ["emb", None, None]
    assert [row_section(one) for one in kinds_draft().groups] == ["emb", "tok", "emb", "ids", "wrd"]
    assert [section.name for section in section_plan(exact_digits_draft())] == ["cls", "fix", "emb", "lab"]
    none = ContentDraft(Classes(authority="none", count=10), (group(),), Exact(pixels=bytes(32), corrections=0))
    assert "fix" not in [section.name for section in section_plan(none)]


@given(st.integers(1, 5_000_000), st.integers(1, 3 << 20))
# Shows D3M-068.
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
    wire = changed(WIRE[0], ("c", "s"), [-1] * 16_000)
    with pytest.raises(D3MError):
        Manifest.from_wire(wire)


# Shows D3M-060.
def test_label_width_and_columns() -> None:
    for width in (9, 11):
        with pytest.raises(ManifestError, match="without columns the label width must be the number of classes"):
            Manifest.from_wire(changed(WIRE[0], ("c", "g", 0, "l", "w"), width))
    with pytest.raises(ManifestError, match="every class needs a column of its own"):
        Manifest.from_wire(changed(WIRE[2], ("c", "g", 1, "l", "w"), 1))
    for labels, size in (
        (QuantizedLabels(step=1, width=30, columns="col"), 30),
        (Raw16Labels(width=30, columns="col"), 60),
        (TopkLabels(k=7, width=65_536, columns="col"), 7 * 4),
        (TopkLabels(k=7, width=65_537, columns="col"), 7 * 6),
        (TopkLabels(k=1_024, width=2**20, columns="col"), 1_024 * 6),
        (RankedHeadLabels(width=30, columns="col"), None),
    ):
        plan = section_plan(ContentDraft(Classes(authority="none", count=10), (group(labels=labels),)))
        assert plan[-2:] == [("col", 0, 10, 4), ("lab", 0, None if size is None else 40, size)]


def test_top_k_labels_are_made_with_k() -> None:
    labels = TopkLabels(k=3, width=5)
    assert (labels.k, labels.kept, labels.kind, labels.to_wire()) == (3, 3, "t", {"k": "t", "m": None, "n": 3, "w": 5})
    assert group(labels=labels).labels == labels
    assert TopkLabels(kept=3, width=5) == labels
    for wrong in ({"k": 6}, {"k": 0}, {"k": "t"}, {"k": True}, {"k": 1_025, "width": 5_000}, {"k": 1, "columns": "x"}):
        with pytest.raises(ManifestError):
            TopkLabels(**({"width": 5} | wrong))


# Shows D3M-052.
def test_coded_rows_are_bounded() -> None:
    classes, images = Classes(authority="none", count=2**10), Images(grid=(1, 1), count=2**9, size=(8, 8))
    largest = group(conditioning=delta(coded=True, width=8_192, rows="image"), images=images, labels=HardLabels())
    assert list(coded_values(ContentDraft(classes, (largest,)))) == [2**32]
    two = delta(coded=True, width=8_192, rows="image", second=SECOND.model_copy(update={"width": 1}))
    draft = ContentDraft(classes, (group(conditioning=two, images=images, labels=HardLabels()),))
    names = pack_classes([ClassRecord("", str(number)) for number in range(2**10)])
    write_d3m(ContentDraft(classes, (largest,)), {("cls", None): names, ("emb", 0): b""})
    with pytest.raises(ManifestError, match="a coded section has at most 4294967296 values"):
        write_d3m(draft, {("cls", None): names, ("emb", 0): b""})
    assert list(coded_values(coded_draft())) == [3 * 5, (3 * 2 + 1) * 10, 3 * 2 * 24, 3 * 2 * 24]
    for wrong in (1, 0, None, "yes"):
        with pytest.raises(ManifestError):
            vectors(coded=wrong)
        with pytest.raises(ManifestError):
            StoredLatents(bits=3, coding=True if wrong == 1 else wrong or 3, shape=(4, 2, 3))


# Shows D3M-037.
def test_as_many_lengths_as_sections_of_free_length() -> None:
    for lengths in ([], [90, 1], [-1], [(8 << 20) + 1], [(1 << 36) + 1]):
        with pytest.raises(ManifestError):
            Manifest.from_wire(changed(WIRE[0], ("c", "s"), lengths))
    with pytest.raises(ManifestError, match="one length is needed for each of cls, fix, tok"):
        Manifest.from_wire(changed(WIRE[2], ("c", "s"), [18]))
