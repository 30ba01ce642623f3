"""The specification says what the records say: error codes, keys and limits that both name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from d3codec.conditioning import transform_stream
from d3codec.errors import FORMAT_CODES
from d3codec.format import limits, manifest
from d3codec.format.record import ListRecord, Record, wire_names
from d3codec.labels import topk

SPEC = (Path(__file__).parents[2] / "spec" / "d3m-1.0.md").read_text("utf-8")


def section(title: str) -> str:
    """The text of a section, without those that follow it."""
    found = re.search(rf"^###? {re.escape(title)}.*?(?=^##)", SPEC, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[0]


def keys(record: type[Record]) -> str:
    return "".join(sorted(wire_names(record)))


def first_cells(text: str) -> set[str]:
    """What stands in backquotes in the first cells of the tables of a text."""
    return set(re.findall(r"^\| `([^`|]+)` \|", text, re.MULTILINE))


def test_codes() -> None:
    rows = re.findall(r"^\| (`E_.*?`) \|", section("8. Order of checks"), re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"E_\w+", row)} == set(FORMAT_CODES)
    assert set(re.findall(r"E_[A-Z0-9_]+", SPEC.replace("E_PACK_*", ""))) == set(FORMAT_CODES)
    assert f"These {len(FORMAT_CODES)} codes are all" in SPEC


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("delta", manifest.DeltaConditioning),
        ("words", manifest.WordsConditioning),
        ("tokens", manifest.TokensConditioning),
        ("vectors", manifest.VectorsConditioning),
        ("class-id", manifest.ClassIdConditioning),
        ("none", manifest.NoConditioning),
    ],
)
def test_keys_of_conditioning(kind: str, record: type[Record]) -> None:
    text = section("3.3 conditioning")
    row = re.search(rf"^\| `{kind}` \| `([a-z ]+)` \|", text, re.MULTILINE)
    assert row is not None
    assert row[1].replace(" ", "") == keys(record)
    assert set(keys(record)) <= first_cells(text) | {"k"}


def test_keys_of_recipes() -> None:
    text = section("3.4 recipe")
    assert "Samplers have `b g n p s t z`; `ddim` besides `e f`; `ddim-reinject` besides `f`" in text
    assert keys(manifest.DdimRecipe) == "befgnpstz"
    assert keys(manifest.ReinjectRecipe) == "bfgnpstz"
    assert "`euler` and `euler-ancestral`\nbesides `i q`" in text
    assert keys(manifest.EulerRecipe) == "bginpqstz"
    assert "`decode` has `s z`" in text
    assert keys(manifest.DecodeRecipe) == "sz"
    assert "`stored` has `c f n s`" in text
    assert keys(manifest.SheetsRecipe) == "cfns"
    assert first_cells(text) == set("bcefginpqstz")


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("h", manifest.HardLabels),
        ("q", manifest.QuantizedLabels),
        ("f", manifest.Raw16Labels),
        ("t", manifest.TopkLabels),
        ("r", manifest.RankedHeadLabels),
        ("a", manifest.AdaptiveLabels),
    ],
)
def test_keys_of_labels(kind: str, record: type[Record]) -> None:
    text = section("3.5 labels")
    row = re.search(rf"^\| `{kind}` \| `([a-z ]+)` \|", text, re.MULTILINE)
    assert row is not None
    assert row[1].replace(" ", "") == keys(record)
    assert set(keys(record)) <= first_cells(text) | {"k"}


def test_keys_of_other_records() -> None:
    content, group = section("3.1 `content`"), section("3.2 group")
    assert first_cells(content) == set(keys(manifest.Content)) | {"k", "reproducible", "exact", "exact-fixed"}
    assert first_cells(group) == set(keys(manifest.Group)) | set(keys(manifest.Images))
    assert first_cells(section("3.6 `about`")) == set(keys(manifest.About))
    assert "| `exact` | `d`, `f` |" in content
    assert keys(manifest.Exact) == "dfk"
    assert keys(manifest.ExactFixed) == "dk"
    assert keys(manifest.GddAugmentation) == "ck"
    assert keys(manifest.SecondEncoder) == "ptw"
    for record in (manifest.Window, manifest.Start, manifest.StoredLatents):
        assert issubclass(record, ListRecord)


def test_limits() -> None:
    for number in (
        *(limits.MANIFEST_BYTES, limits.PARTS, limits.PACK_ENTRIES, limits.PACK_NODES, limits.ONE_DIGEST_BYTES),
        *(limits.CLASSES, limits.IMAGES_PER_CLASS, limits.SIDE, limits.TOKENS, limits.TIME_ID, limits.WIDTH),
        *(limits.MILLION, limits.GUIDANCE, limits.BETA, limits.TRAINING_STEPS, limits.STEPS, limits.LABEL_STEP),
        *(limits.COPIES, limits.CORRECTIONS, limits.TEXT_BYTES, limits.CLASS_TEXT_BYTES, limits.SHEET_SIDE),
    ):
        assert re.search(rf"\b{number:,}\b", SPEC), number
    assert f"32 + {limits.ENTRY_BYTES} n" in SPEC
    assert f"1 to {limits.SLOTS} positions" in SPEC
    assert f"(C 1 to {limits.CHANNELS}, h and w 1 to {limits.SIDE:,})" in section("3.4 recipe")
    assert f"blocks of 1 to {limits.BITS} bits a value" in section("3.4 recipe")
    assert f"2^{limits.SHEET_PIXELS.bit_length() - 1}" in section("3.4 recipe")
    assert f"or b, 1 to {limits.CANDIDATE_BITS}:" in section("3.2 group")
    assert f"2^{limits.CANDIDATES.bit_length() - 1}" in section("3.2 group")
    assert (limits.CHANNELS, limits.TRANSFORM_SIDE) == (transform_stream.MAX_CHANNELS, transform_stream.MAX_SIDE)
    assert f"2: transform-coded, bits 0, h and w at most {limits.TRANSFORM_SIDE}" in section("3.4 recipe")
    assert f"1 to {limits.TRAINING_WEIGHT}" in section("3.6 `about`")
    assert f"w at most {limits.ADAPTIVE_WIDTH}" in section("3.5 labels")
    assert f"| 1 to {limits.TOPK:,}, at most w |" in section("3.5 labels")
    assert f"at most 2^{limits.LABEL_ROWS.bit_length() - 1} labels of kinds `r` and `a`" in section("3.5 labels")
    assert f"u16 if w <= {limits.INDEX16_WIDTH:,}, else u32" in section("5. Sections")
    assert f"2^{limits.CODED_VALUES.bit_length() - 1} values" in section("3.3 conditioning")
    assert f"at most 2^{limits.FREE_BYTES.bit_length() - 1} each" in section("3.1 `content`")
    assert f"`cls` and `fix` (at most {limits.WHOLE_BYTES >> 20} MiB each)" in section("3.1 `content`")
    assert limits.CUT_BYTES == 2**20
    assert topk.MAX_K == limits.TOPK
    assert topk.INDEX16_WIDTH == limits.INDEX16_WIDTH
    assert f"at most {limits.POSITION_BYTES} bytes" in SPEC
    assert f"1 to {limits.COPIES} augmented copies" in section("3.2 group")
    assert limits.SIGNAL == 2.0**-64
    assert "below 2^-64" in section("3.4 recipe")
    assert "below 2^-64" in section("7.2 Tables")


def test_every_constant_of_exact_fixed_stands_in_the_specification() -> None:
    from d3codec.decoder import fixed

    text = " ".join(section("7.6 Profiles").partition("**`exact-fixed`.**")[2].split())
    literals = {
        repr(node.value)
        for node in ast.walk(ast.parse(Path(fixed.__file__).read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and len(repr(node.value)) > 5
    } - {repr(1e-9)}  # the tolerance of a caller's scale, for which ours is taken
    assert {"0.3275911", "0.044715", "1.5957691216057308", "0.7071067811865476", "1.4426950408889634"} <= literals
    for literal in literals:
        assert literal in text, literal
    assert f"LOG2E = {fixed.LOG2E!r}, HIGH = {fixed.LN2_HIGH.hex()}, LOW = {fixed.LN2_LOW.hex()}" in text
    factors = [f"{abs(value)!r}" for value in fixed.ERF_COEFFICIENTS]
    assert [value < 0 for value in fixed.ERF_COEFFICIENTS] == [False, True, False, True, False]
    horner = "".join(f" {sign} {value}) * t" for sign, value in zip("-+-+", factors[1:], strict=True))
    assert f"u = ((((t * {factors[0]}{horner}," in text
    inputs, weights, attention = fixed.ACTIVATION_BITS, fixed.WEIGHT_BITS, fixed.ATTENTION_BITS
    for stated in (
        f"inputs are rounded to 2^-{inputs}, weights to 2^-{weights}, biases to 2^-{inputs + weights}",
        f"queries, keys and values to 2^-{inputs}, attention weights to 2^-{attention}",
        f"(2^-{inputs + weights}; queries times keys 2^-{2 * inputs}; weights times values 2^-{attention + inputs})",
        f"(2^{attention} + number of keys)",
        f"MUST be below 2^{fixed.LIMIT.hex().rpartition('+')[2]}",
        f"c_{len(fixed.EXP_COEFFICIENTS) - 1}, then",
    ):
        assert stated in text, stated


def test_betas_of_one_step() -> None:
    """For count = 1 the divisor is 1, so that `scaled` gives the square of a rounded root."""
    from math import sqrt

    from d3codec.decoder.schedules import alpha_bars

    assert "For count = 1 the divisor is 1." in section("7.2 Tables")
    assert alpha_bars("scaled", 850, 12000, 1).tolist() == [1.0 - sqrt(0.00085) * sqrt(0.00085)]
    assert alpha_bars("linear", 850, 12000, 1).tolist() == [1.0 - 0.00085]
