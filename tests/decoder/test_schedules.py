"""Schedules: exact decimals in, against decimal arithmetic of 50 digits and against diffusers' tables."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.decoder import schedules

MILLIONTHS = st.integers(1, 999_999)
STABLE_DIFFUSION = ("scaled", 850, 12000, 1000)
RECIPES = [
    STABLE_DIFFUSION,
    ("linear", 100, 20000, 1000),
    ("scaled", 100, 20000, 1000),
    ("linear", 850, 12000, 1000),
    ("linear", 1, 500000, 50),
    ("scaled", 20000, 100, 10),
]


def precise(rule: str, first: int, last: int, count: int) -> list[Decimal]:
    """The same table with 50 digits."""
    with localcontext() as context:
        context.prec = 50
        a, b, gaps = Decimal(first) / 10**6, Decimal(last) / 10**6, max(count - 1, 1)
        if rule == "scaled":
            a, b = a.sqrt(), b.sqrt()
        product, table = Decimal(1), []
        for i in range(count):
            beta = a + (b - a) * i / gaps
            product *= 1 - (beta * beta if rule == "scaled" else beta)
            table.append(product)
        return table


@pytest.mark.parametrize("recipe", RECIPES)
def test_tables_agree_with_fifty_digits(recipe: tuple[str, int, int, int]) -> None:
    found = schedules.alpha_bars(*recipe)
    assert found.dtype == np.float64
    assert found.shape == (recipe[3],)
    pairs = zip(found.tolist(), precise(*recipe), strict=True)
    errors = [abs(Decimal(value) - true) / true for value, true in pairs]
    assert max(errors) < Decimal("1e-14")


def test_bits_of_the_stable_diffusion_table() -> None:
    """The same binary64 numbers on every machine."""
    table = schedules.alpha_bars(*STABLE_DIFFUSION)
    assert table[0] == 0.99915
    assert [value.hex() for value in table[[1, 499, 999]].tolist()] == [
        "0x1.ff20a82e95f10p-1",
        "0x1.1c556ecf3588ep-2",
        "0x1.31677ab5b5c6fp-8",
    ]
    assert hashlib.sha256(table.astype("<f8").tobytes()).hexdigest() == (
        "64950371762943a246ec1303ed174d293abdfb31300f9d34e7d7792da48b167f"
    )


@pytest.mark.parametrize(("rule", "name"), [("scaled", "scaled_linear"), ("linear", "linear")])
@pytest.mark.parametrize(("first", "last"), [(850, 12000), (100, 20000)])
def test_tables_agree_with_diffusers_float32(rule: str, name: str, first: int, last: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDIMScheduler(beta_start=first / 1e6, beta_end=last / 1e6, beta_schedule=name)
    found = schedules.alpha_bars(rule, first, last, 1000)
    # 1000 factors 1 - beta of float32, each off by up to 2^-25: a random walk ends near 1e-6
    assert found == pytest.approx(reference.alphas_cumprod.numpy().astype(np.float64), rel=1e-6)


@settings(deadline=None)
@given(st.sampled_from(["linear", "scaled"]), MILLIONTHS, MILLIONTHS, st.integers(1, 40))
def test_tables_fall_from_one_towards_zero(rule: str, first: int, last: int, count: int) -> None:
    table = schedules.alpha_bars(rule, first, last, count)
    assert ((table > 0) & (table < 1)).all()
    assert (np.diff(table) < 0).all()
    assert table[0] == pytest.approx(1 - first / 1e6, rel=1e-15, abs=3e-16)


@settings(deadline=None)
@given(MILLIONTHS, MILLIONTHS)
def test_linear_and_scaled_have_the_same_ends(first: int, last: int) -> None:
    linear, scaled = (schedules.alpha_bars(rule, first, last, 2) for rule in ("linear", "scaled"))
    assert linear[0] == 1.0 - first / 1e6
    assert scaled == pytest.approx(linear, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosine", 1, 2, 3), "unknown rule"),
        (("linear", 0, 2, 3), "first beta"),
        (("linear", 1, 1_000_000, 3), "last beta"),
        (("scaled", 1_000_000, 1, 3), "first beta"),
        (("linear", 900_000, 900_000, 400), "leave nothing after 400"),
        (("linear", 1, 2, 0), "at least one step"),
    ],
)
def test_impossible_schedules_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedules.alpha_bars(*arguments)


def test_twenty_steps_of_stable_diffusion() -> None:
    assert schedules.timesteps("leading", 1, 20, 1000).tolist() == [
        951,
        901,
        851,
        801,
        751,
        701,
        651,
        601,
        551,
        501,
        451,
        401,
        351,
        301,
        251,
        201,
        151,
        101,
        51,
        1,
    ]


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 20, 30, 50, 100, 333, 499])
def test_timesteps_agree_with_diffusers(steps: int, offset: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=offset)
    reference.set_timesteps(steps)
    found = schedules.timesteps("leading", offset, steps, 1000)
    assert found.tolist() == reference.timesteps.tolist()
    assert found.dtype == np.int64


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_timesteps_fall_and_stay_inside(count: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, count))
    room = count - 1 - (steps - 1) * (count // steps)
    offset = data.draw(st.integers(0, room))
    found = schedules.timesteps("leading", offset, steps, count)
    assert len(found) == steps
    assert found[-1] == offset
    assert found[0] < count
    assert (np.diff(found) == -(count // steps)).all()
    with pytest.raises(ValueError, match="of a schedule with steps 0 to"):
        schedules.timesteps("leading", room + 1, steps, count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trailing", 0, 5, 10), "unknown spacing"),
        (("leading", 0, 0, 10), "0 steps"),
        (("leading", 0, 11, 10), "11 steps"),
        (("leading", -1, 5, 10), "timesteps -1 to 7"),
        (("leading", 1, 10, 10), "timesteps 1 to 10"),
    ],
)
def test_impossible_timesteps_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedules.timesteps(*arguments)
