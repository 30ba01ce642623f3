"""Schedules: exact decimals in, against decimal arithmetic of 50 digits and against diffusers' tables."""

from __future__ import annotations

import ast
import hashlib
import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

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
TABLE = schedules.alpha_bars(*STABLE_DIFFUSION)
SPACINGS = [("leading", 1), ("leading", 0), ("trailing", 0), ("linspace", 0)]


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
# Shows D3M-109, D3M-110.
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


# ---------------------------------------------------------------------------------------------- timesteps


@pytest.mark.parametrize(
    ("spacing", "offset", "steps", "expected"),
    [
        ("leading", 1, 20, [*range(951, 0, -50)]),
        ("leading", 1, 10, [*range(901, 0, -100)]),  # LD3M
        ("trailing", 0, 1, [999]),  # SDXL-Turbo
        ("trailing", 0, 4, [999, 749, 499, 249]),
        ("trailing", 0, 7, [999, 856, 713, 570, 428, 285, 142]),
        ("linspace", 0, 4, [999, 666, 333, 0]),
        ("linspace", 0, 3, [999, 500, 0]),  # 499.5 goes to the even side
        ("linspace", 0, 1, [0]),
    ],
)
# Shows D3M-111.
def test_timesteps_by_hand(spacing: str, offset: int, steps: int, expected: list[int]) -> None:
    assert schedules.timesteps(spacing, offset, steps, 1000).tolist() == expected


@pytest.mark.parametrize(("spacing", "offset"), [*SPACINGS, ("leading", 2)])
def test_timesteps_agree_with_diffusers(spacing: str, offset: int) -> None:
    """For every number of steps up to where diffusers' own arithmetic fails, and all usual ones."""
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    whole = {"leading": 499, "trailing": 47, "linspace": 26}[spacing]
    for steps in [*range(1, whole + 1), 50, 100, 200, 250]:
        reference.set_timesteps(steps)
        found = schedules.timesteps(spacing, offset, steps, 1000)
        assert found.dtype == np.int64
        assert found.tolist() == reference.timesteps.tolist(), steps


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_timesteps_differ_from_diffusers_only_at_exact_halves(spacing: str) -> None:
    """diffusers gets the halves from binary64 products, and sometimes one element too many."""
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDIMScheduler(timestep_spacing=spacing)
    for steps in range(2, 1001):
        reference.set_timesteps(steps)
        theirs, ours = reference.timesteps.tolist(), schedules.timesteps(spacing, 0, steps, 1000).tolist()
        if len(theirs) > steps:
            assert theirs.pop() == -1
        for i, (found, other) in enumerate(zip(ours, theirs, strict=True)):
            if found != other:
                up = steps - i if spacing == "trailing" else steps - 1 - i
                exact = Fraction(up * 1000, steps) if spacing == "trailing" else Fraction(up * 999, steps - 1)
                assert exact.denominator == 2
                assert abs(found - other) == 1


@settings(deadline=None)
@given(st.sampled_from(["leading", "trailing", "linspace"]), st.integers(1, 2000), st.data())
def test_timesteps_fall_and_stay_inside(spacing: str, count: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, count))
    found = schedules.timesteps(spacing, 0, steps, count)
    between = schedules.euler_timesteps(spacing, 0, steps, count)
    for visited in (found, between):
        assert len(visited) == steps
        assert (np.diff(visited) < 0).all()
        assert visited[-1] >= 0
        assert visited[0] < count
    assert np.abs(found - between).max() <= (0.5 if spacing == "linspace" else 0)
    if spacing != "leading":
        assert found[0] == count - 1 or (spacing, steps) == ("linspace", 1)


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_offsets_move_leading_timesteps(count: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, count))
    room = count - 1 - (steps - 1) * (count // steps)
    offset = data.draw(st.integers(0, room))
    found = schedules.timesteps("leading", offset, steps, count)
    assert found[-1] == offset
    assert (np.diff(found) == -(count // steps)).all()
    with pytest.raises(ValueError, match="of a schedule with steps 0 to"):
        schedules.timesteps("leading", room + 1, steps, count)


def test_timesteps_of_euler_may_lie_between() -> None:
    found = schedules.euler_timesteps("linspace", 0, 20, 1000)
    assert found.dtype == np.float64
    assert found.tolist() == [i * 999 / 19 for i in range(19, -1, -1)]
    assert schedules.euler_timesteps("linspace", 0, 1, 1000).tolist() == [0.0]
    assert schedules.euler_timesteps("trailing", 0, 2, 1000).tolist() == [999.0, 499.0]


@pytest.mark.parametrize("function", [schedules.timesteps, schedules.euler_timesteps])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("karras", 0, 5, 10), "unknown spacing"),
        (("leading", 0, 0, 10), "0 steps"),
        (("leading", 0, 11, 10), "11 steps"),
        (("linspace", 0, 11, 10), "11 steps"),
        (("leading", -1, 5, 10), "timesteps -1 to 7"),
        (("leading", 1, 10, 10), "timesteps 1 to 10"),
        (("trailing", 1, 5, 10), "an offset of 1 with spacing 'trailing'"),
        (("linspace", 1, 5, 10), "an offset of 1 with spacing 'linspace'"),
    ],
)
def test_impossible_timesteps_are_refused(function, arguments: tuple, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        function(*arguments)


# ------------------------------------------------------------------------------------------------- sigmas


def euler_of_diffusers(rule: str, spacing: str, offset: int):  # type: ignore[no-untyped-def]
    diffusers = pytest.importorskip("diffusers")
    return diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        steps_offset=offset,
        use_karras_sigmas=rule == "karras",
    )


@pytest.mark.parametrize("rule", ["table", "karras"])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 25, 50])
def test_euler_schedules_agree_with_diffusers(steps: int, spacing: str, offset: int, rule: str) -> None:
    """Given our alpha-bars, diffusers computes in float64 and rounds the results to float32."""
    reference = euler_of_diffusers(rule, spacing, offset)
    reference.alphas_cumprod = torch_table()
    reference.set_timesteps(steps)
    visited, sigmas = schedules.euler_schedule(rule, spacing, offset, steps, TABLE)
    assert visited.dtype == sigmas.dtype == np.float64
    assert visited.shape == (steps,)
    assert sigmas == pytest.approx(reference.sigmas.double().numpy(), rel=1e-6, abs=0)
    assert visited == pytest.approx(reference.timesteps.double().numpy(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("rule", ["table", "karras"])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_sigmas_agree_with_diffusers_float32(spacing: str, offset: int, rule: str) -> None:
    """From its own float32 alpha-bars: 1e-6 of the largest. 1 - alpha-bar loses up to ten bits at the small ones."""
    reference = euler_of_diffusers(rule, spacing, offset)
    for steps in (2, 7, 20, 50):
        reference.set_timesteps(steps)
        _, sigmas = schedules.euler_schedule(rule, spacing, offset, steps, TABLE)
        theirs = reference.sigmas.double().numpy()
        assert np.abs(theirs - sigmas).max() <= 1e-6 * sigmas[0]
        assert sigmas == pytest.approx(theirs, rel=2e-5)


def test_the_ancestral_scheduler_has_the_same_tables() -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    reference.alphas_cumprod = torch_table()
    reference.set_timesteps(4)
    visited, sigmas = schedules.euler_schedule("table", "trailing", 0, 4, TABLE)
    assert visited.tolist() == reference.timesteps.tolist()
    assert sigmas == pytest.approx(reference.sigmas.double().numpy(), rel=1e-6, abs=0)


def torch_table():  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    return torch.from_numpy(TABLE)


def eighty_digits(steps: int, first: float, last: float) -> list[float]:
    """Karras sigmas by another way: powers with a fraction, 80 digits."""
    with localcontext() as context:
        context.prec = 80
        a, b = (Decimal(end) ** (Decimal(1) / 7) for end in (first, last))
        return [float((a + Decimal(i) / Decimal(max(steps - 1, 1)) * (b - a)) ** 7) for i in range(steps)]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(RECIPES), st.data())
# Shows D3M-113.
def test_karras_sigmas_are_the_nearest_numbers(recipe: tuple[str, int, int, int], data: st.DataObject) -> None:
    table = schedules.alpha_bars(*recipe)
    steps = data.draw(st.integers(1, min(len(table), 60)))
    visited = schedules.euler_timesteps("linspace", 0, steps, len(table))
    plain, found = (schedules.sigmas(rule, visited, table) for rule in ("table", "karras"))
    assert found[:-1].tolist() == eighty_digits(steps, plain[0], plain[-2])
    assert found[0] == plain[0]
    assert found[-2] == plain[-2]  # both ends exactly
    assert (np.diff(found) < 0).all()
    assert found[-1] == 0


@settings(deadline=None)
@given(st.floats(0.0, 998.9))
# Shows D3M-112.
def test_sigmas_between_two_steps_lie_on_the_line(t: float) -> None:
    low = math.floor(t)
    ends = [math.sqrt((1 - alpha) / alpha) for alpha in TABLE[low : low + 2]]
    exact = Fraction(ends[0]) + (Fraction(t) - low) * (Fraction(ends[1]) - Fraction(ends[0]))
    found = schedules.sigmas("table", [t], TABLE)[0]
    assert abs(Fraction(float(found)) - exact) <= exact * Fraction(1, 2**51)


@settings(deadline=None)
@given(st.floats(0.001, 40.0))
def test_timesteps_of_sigmas(sigma: float) -> None:
    levels = [math.sqrt((1 - alpha) / alpha) for alpha in TABLE]
    found = float(schedules.timesteps_of([sigma], TABLE)[0])
    if sigma <= levels[0] or sigma >= levels[-1]:
        assert found == (0.0 if sigma <= levels[0] else 999.0)
    else:
        low = bisect_right(levels, sigma) - 1
        share = math.log(sigma / levels[low]) / math.log(levels[low + 1] / levels[low])
        assert found == pytest.approx(low + share, rel=1e-10, abs=1e-10)


def test_sigmas_of_the_table_are_found_again() -> None:
    sigmas = schedules.sigmas("table", [*range(999, -1, -1)], TABLE)
    assert schedules.timesteps_of(sigmas[:-1], TABLE).tolist() == [*range(999, -1, -1)]


def test_a_table_with_a_single_step() -> None:
    table = schedules.alpha_bars("linear", 500_000, 500_000, 1)
    for rule in ("table", "karras"):
        visited, sigmas = schedules.euler_schedule(rule, "trailing", 0, 1, table)
        assert (visited.tolist(), sigmas.tolist()) == ([0.0], [1.0, 0.0])


# Shows D3M-108.
def test_initial_scales() -> None:
    assert schedules.initial_scale("sigma", [3.0, 0.0]) == 3.0
    assert schedules.initial_scale("root", [math.sqrt(3.0), 0.0]) == pytest.approx(2.0, rel=1e-15)
    for spacing, offset in SPACINGS:
        reference = euler_of_diffusers("table", spacing, offset)
        reference.set_timesteps(10)
        initial = "root" if spacing == "leading" else "sigma"
        _, sigmas = schedules.euler_schedule("table", spacing, offset, 10, TABLE)
        assert schedules.initial_scale(initial, sigmas) == pytest.approx(float(reference.init_noise_sigma), rel=1e-6)


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown rule of sigmas: 'exponential'"):
        schedules.sigmas("exponential", [5.0], TABLE)
    with pytest.raises(ValueError, match="unknown initial scale: 'one'"):
        schedules.initial_scale("one", [5.0])


@pytest.mark.parametrize("module", ["schedules", "samplers", "output"])
def test_no_function_whose_last_bit_depends_on_the_machine(module: str) -> None:
    """Of math only correctly rounded or exact ones, of numpy no mathematics, no powers, no torch at run time."""
    source = Path(schedules.__file__).with_name(f"{module}.py").read_text("utf-8")
    used = {"math": {"sqrt", "floor", "prod"}, "np": NUMPY}
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Pow) or module == "output", "a power of the platform"  # there of integers
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr in used.get(node.value.id, {node.attr}), f"{node.value.id}.{node.attr}"


NUMPY = {
    *(
        "array",
        "arange",
        "cumsum",
        "clip",
        "diff",
        "divmod",
        "empty",
        "minimum",
        "take",
        "where",
        "zeros",
        "zeros_like",
    ),
    *("float64", "int64", "uint32", "uint8"),
}
