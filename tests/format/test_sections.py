"""Values of sections with many rows: the first wrong one is named, and looking costs little."""

from __future__ import annotations

import math
import struct
import time

import pytest
from format.craft import LATENTS, SECOND, class_ids, delta, group, recipe, tokens, vectors
from hypothesis import example, given
from hypothesis import strategies as st

from d3codec.errors import SectionError
from d3codec.format.file import ContentDraft
from d3codec.format.manifest import Classes, Content, Group, HardLabels, Images, Start, section_plan
from d3codec.format.plan import critical_parts, quantized_blocks
from d3codec.format.sections import check_corrections, check_values

SMALL = Images(grid=(1, 1), count=2, size=(8, 8))
TINY = group(conditioning=vectors(bits=1, slots=1, width=1, negative="zeros"), images=SMALL, labels=HardLabels())
TWO = group(
    conditioning=delta(bits=3, slots=(1, 4), width=3, second=SECOND.model_copy(update={"width": 2})),
    images=SMALL,
    labels=HardLabels(),
)
WHOLE_BYTES = group(conditioning=vectors(bits=8, slots=1, width=2), images=SMALL, labels=HardLabels())
STORED = group(recipe=recipe(start=Start(a=1, b=0, stored=LATENTS)), images=SMALL, labels=HardLabels())


def content(record: Group, classes: int) -> Content:
    """Whatever its sections hold: nothing here looks at digests and lengths."""
    draft = ContentDraft(Classes(authority="none", count=classes), (record,))
    plan = section_plan(draft)
    lengths = (0,) * sum(section.rows is None for section in plan)
    large = sum((rows or 0) * (row_bytes or 0) for _, _, rows, row_bytes in plan) > 65_536
    return Content(
        classes=draft.classes,
        groups=draft.groups,
        digests=(bytes(32),) * critical_parts(plan, lengths) if large else bytes(32),
        lengths=lengths,
    )


def message(record: Group, name: str, raw: bytes, first: int = 0, classes: int = 2) -> str:
    """What is wrong with the values of a part, or ""."""
    try:
        check_values(content(record, classes), (name, 0), raw, first)
    except SectionError as error:
        return str(error)
    return ""


def blocks(record: Group, name: str) -> list[int]:
    """Bits of codes in each block of a row."""
    stored, conditioning = record.recipe.start.stored, record.conditioning
    if name == "lat":
        assert stored is not None
        return [stored.values * stored.bits]
    assert conditioning.kind in ("delta", "vectors")
    return [size * conditioning.bits for size in quantized_blocks(record)]


def first_fault(raw: bytes, bits_of_blocks: list[int]) -> tuple[int, float | None] | None:
    """The first row that breaks a rule of section 5, block by block, and its scale, or None for padding bits."""
    at = row = 0
    while at < len(raw):
        for bits in bits_of_blocks:
            scale = struct.unpack_from("<e", raw, at)[0]
            if not (math.isfinite(scale) and scale > 0):
                return row, scale
            at += 2 + -(-bits // 8)
            if bits % 8 and raw[at - 1] >> bits % 8:
                return row, None
        row += 1
    return None


@st.composite
def sections(draw: st.DrawFn) -> tuple[Group, str, bytes, int]:
    """Rows with a few changed bytes, most of them where a scale or padding is, that follow others of their section."""
    record, name = draw(st.sampled_from([(TINY, "emb"), (TWO, "emb"), (WHOLE_BYTES, "emb"), (STORED, "lat")]))
    row = b"".join(struct.pack("<e", 0.5) + bytes(-(-bits // 8)) for bits in blocks(record, name))
    raw = bytearray(row * draw(st.integers(1, 5)))
    changes = st.tuples(st.integers(0, len(raw) - 1), st.sampled_from([0, 1, 2, 3, 0x7B, 0x7C, 0x80, 0xFF]))
    for at, value in draw(st.lists(changes, max_size=6)):
        raw[at] = value
    return record, name, bytes(raw), draw(st.integers(0, 3)) * len(row)


@given(sections())
@example((TINY, "emb", b"\0\x3c\1\1\0\1\0\1\1", 0))  # scales 1, 2^-24 and 2^-16: one byte of them 0
@example((TINY, "emb", b"\0\x3c\1\0\0\1\0\0\2", 300))
@example((TINY, "emb", b"\0\x80\1", 0))  # -0.0
@example((TINY, "emb", b"\xff\x7b\3\0\x7c\1", 0))  # padding bits in the row before a scale
@example((TWO, "emb", (b"\0\x3c\0\0\xff" + b"\0\0\0\0") * 2, 0))  # the padding of a block before the scale of the next
def test_the_first_wrong_row_is_named(section: tuple[Group, str, bytes, int]) -> None:
    record, name, raw, first = section
    bits_of_blocks = blocks(record, name)
    fault = first_fault(raw, bits_of_blocks)
    found = message(record, name, raw, first)
    if fault is None:
        assert not found
        return
    row = first // sum(2 + -(-bits // 8) for bits in bits_of_blocks) + fault[0]
    assert found.startswith(f"{name} of group 0 row {row}: E_SECTION_VALUE"), found
    if fault[1] is None:
        assert "padding bits that are not zero" in found
    else:
        assert f"scale (found {fault[1]}, expected finite, > 0)" in found


@given(st.lists(st.integers(0, 2**32 - 1) | st.sampled_from([2**31 - 1, 2**31]), min_size=1, max_size=6))
def test_the_first_wrong_class_id_is_named(ids: list[int]) -> None:
    record = group(conditioning=class_ids(), labels=HardLabels(), images=SMALL)
    found = message(record, "ids", struct.pack(f"<{len(ids)}I", *ids), first=40, classes=len(ids))
    wrong = [(row, number) for row, number in enumerate(ids) if number >= 2**31]
    assert bool(found) == bool(wrong)
    if wrong:
        assert found.startswith(f"ids of group 0 row {10 + wrong[0][0]}: E_SECTION_VALUE")
        assert f"found {wrong[0][1]}" in found


@pytest.mark.parametrize(("at", "row"), [(0, 0), (-3, (8 << 20) // 3 - 1)])
def test_many_tiny_rows_cost_little(at: int, row: int) -> None:
    """8 MiB in rows of three bytes; a row at a time they took a second and more."""
    raw = bytearray(b"\0\x3c\1" * ((8 << 20) // 3))
    start = time.process_time()
    assert not message(TINY, "emb", bytes(raw))
    assert time.process_time() - start < 0.4
    raw[at + 1] = 0x7C
    assert message(TINY, "emb", bytes(raw)).startswith(f"emb of group 0 row {row}: ")
    raw[at + 1], raw[at + 2] = 0x3C, 0x80
    assert "padding" in message(TINY, "emb", bytes(raw))


def test_a_part_of_class_ids_token_ids_or_corrections_costs_little() -> None:
    record = group(conditioning=class_ids(), labels=HardLabels(), images=SMALL)
    sequences = group(conditioning=tokens(rows="class"), labels=HardLabels(), images=SMALL)
    start = time.process_time()
    assert not message(record, "ids", bytes(8 << 20), classes=1 << 20)
    assert not message(sequences, "tok", b"\1\0\1\0" * (1 << 20), classes=1 << 20)
    check_corrections(b"\1\1" * (1 << 22), 1 << 22, 1 << 30)
    assert time.process_time() - start < 3
