"""Tables of levels: the weights of the specification, cost, packing, refusals."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import spec_decoder

from d3codec.errors import SectionError
from d3codec.labels import levels
from d3codec.labels.levels import NEVER

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 63))


def random_table(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Levels, no row of which is never alone."""
    table = np.random.default_rng(seed).integers(0, 16, shape, dtype=np.uint8)
    table[(table == NEVER).all(axis=1), -1] = 14
    return table


# Shows D3M-158.
def test_weights_are_halves_of_a_power_of_two() -> None:
    exact = [Decimal(2) ** (12 - Decimal(n) / 2) for n in range(NEVER)]
    assert levels.WEIGHTS.tolist() == [int(w.quantize(Decimal(1), ROUND_HALF_UP)) for w in exact] + [0]
    assert levels.WEIGHTS.tolist() == spec_decoder.LEVEL_WEIGHTS


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 2**32))
def test_round_trip(shape: tuple[int, int], seed: int) -> None:
    table = random_table(shape, seed)
    packed = levels.pack(table)
    assert len(packed) == levels.packed_bytes(*shape) == (table.size + 1) // 2
    np.testing.assert_array_equal(levels.unpack(packed, *shape), table)
    assert spec_decoder.Bytes(packed).levels(*shape) == table.tolist()


def test_the_lower_half_comes_first() -> None:
    assert levels.pack(np.array([[1, 2, 3]], np.uint8)).hex() == "2103"
    assert levels.pack(np.array([[15], [14]], np.uint8)).hex() == "ef"


@pytest.mark.parametrize(
    ("text", "shape"), [("ffff", (1, 4)), ("ff", (1, 1)), ("f0ffff", (2, 3)), ("0010", (1, 3)), ("00f0", (3, 1))]
)
def test_no_symbol_and_filling_are_refused(text: str, shape: tuple[int, int]) -> None:
    with pytest.raises(SectionError, match="allows no symbol") as caught:
        levels.unpack(bytes.fromhex(text), *shape)
    assert (caught.value.code, caught.value.field) == ("E_SECTION_VALUE", "lab")
    with pytest.raises(spec_decoder.Refused):
        spec_decoder.Bytes(bytes.fromhex(text)).levels(*shape)


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 2**32))
def test_tables_are_those_of_the_specification(shape: tuple[int, int], seed: int) -> None:
    table = random_table(shape, seed)
    found = levels.tables(table).frequencies
    assert found.tolist() == [spec_decoder.table_of(row).f for row in table.tolist()]
    assert ((found > 0) == (table != NEVER)).all()
    cost = levels.bits(table)
    assert (np.isinf(cost) == (table == NEVER)).all()
    np.testing.assert_allclose((2.0**-cost).sum(axis=1), 1)


def test_chosen_levels_cost_little_more_than_the_counts() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(2, 1.5, (50, 33))))
    share = counts / counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ideal = -np.where(counts, share * np.log2(share), 0).sum(axis=1)
        paid = np.where(counts, share * levels.bits(levels.choose(counts)), 0).sum(axis=1)
    assert (paid >= ideal).all()
    assert (paid - ideal).mean() < 0.02


def test_what_occurs_is_always_allowed() -> None:
    chosen = levels.choose([[1, 0, 10**9], [0, 0, 0], [0, 5, 0]])
    assert chosen.tolist() == [[14, NEVER, 0], [0, 0, 0], [NEVER, 0, NEVER]]
    assert chosen.dtype == np.uint8
