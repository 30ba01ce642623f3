"""Samplers: against diffusers in float64 at every step, against the mathematics, and against stored vectors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from d3codec.decoder.samplers import PREDICTIONS, ddim, ddim_reinject, euler, euler_ancestral  # noqa: E402
from d3codec.decoder.schedules import SPACINGS, alpha_bars, euler_schedule, timesteps  # noqa: E402

torch.set_num_threads(1)
BETAS = ("scaled", 850, 12000, 1000)
TABLE = alpha_bars(*BETAS)
NAMES = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
GOLDEN = Path(__file__).parents[1] / "golden" / "samplers.json"
AGREEMENT = 1e-9


def state(dtype: torch.dtype = torch.float64, seed: int = 3) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw(step: int) -> torch.Tensor:
    return state(seed=100 + step)


def denoiser(x: torch.Tensor, t: float) -> torch.Tensor:
    """Not a network, but as nonlinear as one and different at every step."""
    return torch.tanh(1.3 * x + 0.1 * x.roll(1, dims=-1)) * 0.9 + 0.2 * math.cos(t / 100)


def agree(found: torch.Tensor, true: torch.Tensor) -> bool:
    return float((found - true).abs().max()) <= AGREEMENT * float(true.abs().max())


def diffusers_ddim(spacing: str, offset: int, prediction: str, final: float):  # type: ignore[no-untyped-def]
    """diffusers' scheduler on our table."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        prediction_type=NAMES[prediction],
        clip_sample=False,
        steps_offset=offset,
        set_alpha_to_one=final == 1.0,
        timestep_spacing=spacing,
    )
    scheduler.alphas_cumprod = torch.from_numpy(TABLE)
    scheduler.final_alpha_cumprod = torch.tensor(final, dtype=torch.float64)
    return scheduler


# --------------------------------------------------------------------------------------------------- DDIM


@pytest.mark.parametrize("final", [1.0, float(TABLE[0])])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "offset"), [(20, 1), (50, 1), (1, 0), (7, 0), (4, 2)])
def test_every_step_agrees_with_diffusers(steps: int, offset: int, eta: float, prediction: str, final: float) -> None:
    reference = diffusers_ddim("leading", offset, prediction, final)
    reference.set_timesteps(steps)
    expected, x = [], state()
    for step, t in enumerate(reference.timesteps, start=1):
        noise = draw(step) if eta else None
        x = reference.step(denoiser(x, int(t)), t, x, eta=eta, variance_noise=noise).prev_sample
        expected.append(x)
    seen: list[tuple[int, torch.Tensor]] = []
    last = ddim(
        denoiser,
        state(),
        timesteps("leading", offset, steps, 1000),
        TABLE,
        final,
        prediction,
        eta=eta,
        draw=draw,
        on_step=lambda t, x: seen.append((t, x)),
    )
    assert [t for t, _ in seen] == reference.timesteps.tolist()
    for (_, found), true in zip(seen, expected, strict=True):
        assert found.dtype == torch.float64
        assert agree(found, true)
    assert torch.equal(last, seen[-1][1])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 7, 13, 20])
def test_steps_agree_with_diffusers_at_its_own_targets(spacing: str, eta: float, prediction: str, steps: int) -> None:
    """diffusers aims at t - 1000 // steps, not at the next timestep of its list: step by step, at its target."""
    reference = diffusers_ddim(spacing, 0, prediction, 1.0)
    reference.set_timesteps(steps)
    assert reference.timesteps.tolist() == timesteps(spacing, 0, steps, 1000).tolist()
    x = state()
    for step, t in enumerate(reference.timesteps.tolist(), start=1):
        noise = draw(step)
        true = reference.step(denoiser(x, t), t, x, eta=eta, variance_noise=noise if eta else None).prev_sample
        before = t - 1000 // steps
        target = float(TABLE[before]) if before >= 0 else 1.0
        found = ddim(denoiser, x, [t], TABLE, target, prediction, eta=eta, draw=lambda _, noise=noise: noise)
        assert agree(found, true)
        x = true


def test_one_step_by_hand() -> None:
    # alpha 0.64 -> 0.36: signal 0.8, spread 0.6; x = 1, eps = 0.5: clean = (1 - 0.3) / 0.8 = 0.875
    x, half = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    found = ddim(lambda x, t: half, x, [0], [0.64], 0.36)
    assert float(found) == pytest.approx(0.6 * 0.875 + 0.8 * 0.5, rel=1e-15)


def test_one_noisy_step_by_hand() -> None:
    # alpha 0.36 -> 0.64: sigma^2 = 0.36 / 0.64 * (1 - 0.36 / 0.64) = 0.24609375; clean = (1 - 0.8 * 0.5) / 0.6 = 1
    found = ddim(lambda x, t: 0.5, 1.0, [0], [0.36], 0.64, eta=1.0, draw=lambda step: 2.0 * step)
    sigma = math.sqrt(0.24609375)
    assert found == pytest.approx(0.8 + 0.5 * math.sqrt(0.36 - 0.24609375) + 2 * sigma, rel=1e-15)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_denoiser_leads_to_its_clean_signal(prediction: str, spacing: str) -> None:
    """x = signal * clean + spread * noise: told the truth at every step, DDIM is at the next timestep after it."""
    clean, noise = state(), state().flip(0)

    def noisy(alpha: float) -> torch.Tensor:
        return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise

    def truth(x: torch.Tensor, t: int) -> torch.Tensor:
        signal, spread = math.sqrt(TABLE[t]), math.sqrt(1 - TABLE[t])
        return {"eps": noise, "v": signal * noise - spread * clean, "sample": clean}[prediction]

    visited = timesteps(spacing, 0, 7, 1000)
    seen: list[torch.Tensor] = []
    start = noisy(TABLE[visited[0]])
    last = ddim(truth, start, visited, TABLE, 1.0, prediction, on_step=lambda t, x: seen.append(x))
    for found, t in zip(seen[:-1], visited[1:], strict=True):
        assert torch.allclose(found, noisy(TABLE[t]), rtol=0, atol=1e-12)
    assert torch.allclose(last, clean, rtol=0, atol=1e-12)


def test_a_draw_belongs_to_its_step() -> None:
    """Steps ask in order, and the last one, which adds nothing, does not ask."""
    asked: list[int] = []

    def listening(step: int) -> torch.Tensor:
        asked.append(step)
        return draw(step)

    visited = timesteps("trailing", 0, 5, 1000)
    ddim(denoiser, state(), visited, TABLE, 1.0, eta=0.5, draw=listening)
    assert asked == [1, 2, 3, 4]
    ddim(denoiser, state(), visited, TABLE, float(TABLE[0]), eta=0.5, draw=listening)
    assert asked[4:] == [1, 2, 3, 4, 5]
    euler_ancestral(denoiser, state(), *euler_schedule("table", "trailing", 0, 3, TABLE), "eps", listening)
    assert asked[9:] == [1, 2]
    ddim(denoiser, state(), visited, TABLE, 1.0, eta=0.0, draw=listening)
    assert len(asked) == 11


def test_noise_keeps_the_variance() -> None:
    """Without any signal every state is noise of the schedule's size, at any eta."""
    visited = timesteps("leading", 1, 10, 1000)
    for eta in (0.0, 0.5, 1.0):
        start = torch.randn(100_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        last = ddim(
            lambda x, t: x * (1.0 / math.sqrt(1 - TABLE[t])),
            start * math.sqrt(1 - TABLE[visited[0]]),
            visited,
            TABLE,
            float(TABLE[0]),
            eta=eta,
            draw=lambda s: torch.randn(100_000, generator=torch.Generator().manual_seed(1000 + s), dtype=torch.float64),
        )
        # variance of a variance of n normal numbers is 2 / n: five standard deviations
        assert float(last.var()) == pytest.approx(1 - TABLE[0], rel=5 * math.sqrt(2 / 100_000))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_float32_stays_float32_and_close(prediction: str) -> None:
    visited = timesteps("leading", 1, 20, 1000)
    precise = ddim(denoiser, state(), visited, TABLE, float(TABLE[0]), prediction)
    found = ddim(denoiser, state(torch.float32), visited, TABLE, float(TABLE[0]), prediction)
    assert found.dtype == torch.float32
    assert float((found.double() - precise).abs().max()) < 1e-4 * float(precise.abs().max())


def test_images_of_a_batch_do_not_meet() -> None:
    visited = timesteps("leading", 1, 5, 1000)
    both = ddim(denoiser, state(), visited, TABLE, 1.0)
    alone = ddim(denoiser, state()[1:], visited, TABLE, 1.0)
    assert torch.equal(both[1:], alone)


def test_no_steps_return_the_start() -> None:
    x = state()
    assert torch.equal(ddim(denoiser, x, np.array([], np.int64), TABLE, 1.0), x)


def test_the_start_is_left_alone() -> None:
    x = state()
    ddim(denoiser, x, [900, 400], TABLE, 1.0, eta=1.0, draw=draw)
    ddim_reinject(denoiser, x, [900, 400], TABLE, 1.0, "eps", x)
    euler_ancestral(denoiser, x, *euler_schedule("karras", "leading", 1, 3, TABLE), "eps", draw)
    assert torch.equal(x, state())


# ------------------------------------------------------------------------------------------- re-injection


def as_noise(prediction: str) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """The denoiser's answer read as `prediction`, turned into noise."""

    def noise(x: torch.Tensor, t: int) -> torch.Tensor:
        signal, spread, output = math.sqrt(TABLE[t]), math.sqrt(1 - TABLE[t]), denoiser(x, t)
        return {"eps": output, "v": signal * output + spread * x, "sample": (x - signal * output) / spread}[prediction]

    return noise


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [2, 10, 20])
def test_reinjection_as_the_published_code_does_it(prediction: str, steps: int) -> None:
    """LD3M's `p_sample_ddim` with its arrays of alphas: index runs from steps - 1 to 0, T is steps - 1."""
    stored, x = state(seed=8), state()
    visited = [i * (1000 // steps) + 1 for i in range(steps)]
    alphas = [float(TABLE[t]) for t in visited]
    alphas_before = [float(TABLE[0]), *alphas[:-1]]
    expected = []
    for index in range(steps - 1, -1, -1):
        noise = as_noise(prediction)(x, visited[index])
        clean = (x - math.sqrt(1 - alphas[index]) * noise) / math.sqrt(alphas[index])
        clean = (1.0 - index / (steps - 1)) * clean + (index / (steps - 1)) * stored
        x = math.sqrt(alphas_before[index]) * clean + math.sqrt(1 - alphas_before[index]) * noise
        expected.append(x)
    seen: list[torch.Tensor] = []
    chosen = timesteps("leading", 1, steps, 1000)
    ddim_reinject(
        denoiser, state(), chosen, TABLE, float(TABLE[0]), prediction, stored, on_step=lambda t, x: seen.append(x)
    )
    assert len(seen) == steps
    assert all(agree(found, true) for found, true in zip(seen, expected, strict=True))


def test_the_first_step_takes_the_stored_latent_and_the_last_one_ddim() -> None:
    stored, chosen = state(seed=8), timesteps("leading", 1, 2, 1000)
    seen: list[torch.Tensor] = []
    ddim_reinject(denoiser, state(), chosen, TABLE, 1.0, "eps", stored, on_step=lambda t, x: seen.append(x))
    alpha = float(TABLE[chosen[1]])
    first = stored * math.sqrt(alpha) + denoiser(state(), int(chosen[0])) * math.sqrt(1 - alpha)
    assert agree(seen[0], first)
    assert agree(seen[1], ddim(denoiser, seen[0], chosen[1:], TABLE, 1.0))


def test_one_step_alone_has_no_weight() -> None:
    with pytest.raises(ValueError, match="two steps or more"):
        ddim_reinject(denoiser, state(), [500], TABLE, 1.0, "eps", state())


# -------------------------------------------------------------------------------------------------- Euler


class Binary64(torch.Tensor):
    """A tensor that ignores the cast to float32 by which diffusers' Euler steps want to gain precision."""

    def to(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return self if args == (torch.float32,) else super().to(*args, **kwargs)


def diffusers_euler(kind: str, rule: str, spacing: str, offset: int, prediction: str, steps: int):  # type: ignore[no-untyped-def]
    """diffusers' scheduler with our timesteps and sigmas."""
    diffusers = pytest.importorskip("diffusers")
    options = {"use_karras_sigmas": rule == "karras"} if kind == "EulerDiscreteScheduler" else {}
    scheduler = getattr(diffusers, kind)(
        prediction_type=NAMES[prediction], timestep_spacing=spacing, steps_offset=offset, **options
    )
    scheduler.set_timesteps(steps)
    visited, sigmas = euler_schedule(rule, spacing, offset, steps, TABLE)
    scheduler.timesteps, scheduler.sigmas = torch.from_numpy(visited), torch.from_numpy(sigmas)
    scheduler.set_begin_index(0)
    return scheduler


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("rule", ["table", "karras"])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 1), ("trailing", 0), ("linspace", 0)])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_every_step_of_euler_agrees(steps: int, spacing: str, offset: int, rule: str, prediction: str) -> None:
    reference = diffusers_euler("EulerDiscreteScheduler", rule, spacing, offset, prediction, steps)
    x = start = state() * float(reference.init_noise_sigma)
    expected = []
    for t in reference.timesteps:
        output = denoiser(reference.scale_model_input(x, t), float(t))
        x = reference.step(output, t, x.as_subclass(Binary64)).prev_sample.as_subclass(torch.Tensor)
        expected.append(x)
    seen: list[tuple[float, torch.Tensor]] = []
    visited, sigmas = euler_schedule(rule, spacing, offset, steps, TABLE)
    last = euler(denoiser, start, visited, sigmas, prediction, on_step=lambda t, x: seen.append((t, x)))
    assert [t for t, _ in seen] == visited.tolist()
    assert all(
        found.dtype == torch.float64 and agree(found, true) for (_, found), true in zip(seen, expected, strict=True)
    )
    assert torch.equal(last, seen[-1][1])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 1), ("trailing", 0), ("linspace", 0)])
@pytest.mark.parametrize("steps", [1, 2, 4, 20])
def test_every_step_of_euler_ancestral_agrees(steps: int, spacing: str, offset: int, prediction: str) -> None:
    # diffusers has no clean-signal prediction here, so it is told the same as noise.
    told = "eps" if prediction == "sample" else prediction
    kind = "EulerAncestralDiscreteScheduler"
    reference = diffusers_euler(kind, "table", spacing, offset, told, steps)
    generator = torch.Generator().manual_seed(11)
    x = start = state() * float(reference.init_noise_sigma)
    expected = []
    for t, sigma in zip(reference.timesteps, reference.sigmas.tolist(), strict=False):
        output = denoiser(reference.scale_model_input(x, t), float(t))
        if prediction == "sample":
            output = (x - output) / sigma
        stepped = reference.step(output, t, x.as_subclass(Binary64), generator=generator)
        x = stepped.prev_sample.as_subclass(torch.Tensor)
        expected.append(x)
    generator.manual_seed(11)  # diffusers draws in order, used or not
    drawn = [torch.randn(start.shape, generator=generator, dtype=torch.float64) for _ in range(steps)]
    seen: list[torch.Tensor] = []
    euler_ancestral(
        denoiser,
        start,
        *euler_schedule("table", spacing, offset, steps, TABLE),
        prediction,
        lambda step: drawn[step - 1],
        on_step=lambda t, x: seen.append(x),
    )
    assert all(agree(found, true) for found, true in zip(seen, expected, strict=True))
    assert len(seen) == steps


def test_one_ancestral_step_by_hand() -> None:
    # sigma 2 -> 1: down = 1/2, up = sqrt(3)/2; x = 3, clean = 1: slope (3 - 1) / 2 = 1
    found = euler_ancestral(lambda x, t: 1.0, 3.0, [5.0], [2.0, 1.0], "sample", lambda step: 4.0 * step)
    assert found == pytest.approx(3 - 1.5 + 4 * math.sqrt(3) / 2, rel=1e-15)


def test_the_network_sees_a_state_of_unit_variance() -> None:
    seen: list[tuple[float, float]] = []
    euler(lambda x, t: seen.append((x, t)) or 0.0, 1.0, [5.0], [math.sqrt(3), 0.0])
    assert seen == [(pytest.approx(0.5, rel=1e-15), 5.0)]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("rule", ["table", "karras"])
def test_a_perfect_denoiser_leads_euler_to_its_clean_signal(rule: str, prediction: str) -> None:
    clean, noise = state(), state().flip(0)
    visited, sigmas = euler_schedule(rule, "linspace", 0, 7, TABLE)
    known = dict(zip(visited.tolist(), sigmas.tolist(), strict=False))

    def truth(x: torch.Tensor, t: float) -> torch.Tensor:
        root = math.sqrt(known[t] ** 2 + 1)
        return {"eps": noise, "v": (noise - known[t] * clean) / root, "sample": clean}[prediction]

    seen: list[torch.Tensor] = []
    euler(truth, clean + sigmas[0] * noise, visited, sigmas, prediction, on_step=lambda t, x: seen.append(x))
    for found, sigma in zip(seen, sigmas[1:], strict=True):
        assert torch.allclose(found, clean + sigma * noise, rtol=0, atol=1e-12)


def test_ddim_and_euler_walk_the_same_path() -> None:
    """Both integrate the probability flow; a state of one is sqrt(alpha) times a state of the other."""
    visited, sigmas = euler_schedule("table", "leading", 1, 20, TABLE)
    start = state() * float(sigmas[0])
    by_euler = euler(denoiser, start, visited, sigmas)
    scaled = start * math.sqrt(TABLE[int(visited[0])])
    by_ddim = ddim(denoiser, scaled, visited.astype(np.int64), TABLE, 1.0)
    assert agree(by_ddim, by_euler)


@pytest.mark.parametrize("steps", [1, 3])
def test_sigmas_that_do_not_fit_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="2 timesteps have 3 sigmas"):
        euler(denoiser, state(), [9.0, 1.0], [3.0] * (steps + 1))


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "run",
    [
        lambda name: ddim(denoiser, state(), [900], TABLE, 1.0, name),
        lambda name: ddim_reinject(denoiser, state(), [900, 1], TABLE, 1.0, name, state()),
        lambda name: euler(denoiser, state(), [900.0], [3.0, 0.0], name),
        lambda name: euler_ancestral(denoiser, state(), [900.0], [3.0, 0.0], name, draw),
    ],
)
def test_unknown_predictions_are_refused(run: Callable[[str], torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="unknown prediction: 'epsilon'"):
        run("epsilon")


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="outside 0 to 1"):
        ddim(denoiser, state(), [900], TABLE, 1.0, eta=eta, draw=draw)


def test_eta_needs_noise() -> None:
    with pytest.raises(ValueError, match="needs a source of noise"):
        ddim(denoiser, state(), [900], TABLE, 1.0, eta=0.5)


# ------------------------------------------------------------------------------------------------ vectors

START, STORED = [1.5, -0.25], [0.5, 1.0]
DRAWS = [[0.75, -1.25], [-0.5, 0.375], [2.0, 0.125], [1.0, -1.0]]
STEPS = 4


def polynomial(x: torch.Tensor | float, t: float) -> torch.Tensor | float:
    """The denoiser of the vectors: exact constants, + - * only."""
    return x * 0.75 - x * x * x * 0.0625 + t * 0.000244140625


def vector_runs(prediction: str) -> dict[str, Callable[..., object]]:
    """The samplers of the vectors as functions of (x, draw, stored, on_step)."""
    leading = timesteps("leading", 1, STEPS, 1000)
    trailing = timesteps("trailing", 0, STEPS, 1000)
    first = float(TABLE[0])
    turbo = euler_schedule("table", "trailing", 0, STEPS, TABLE)
    karras = euler_schedule("karras", "linspace", 0, STEPS, TABLE)
    return {
        "ddim, leading offset 1, eta 0, final alpha first": lambda x, draw, stored, on_step: ddim(
            polynomial, x, leading, TABLE, first, prediction, on_step=on_step
        ),
        "ddim, trailing, eta 0.5, final alpha one": lambda x, draw, stored, on_step: ddim(
            polynomial, x, trailing, TABLE, 1.0, prediction, eta=0.5, draw=draw, on_step=on_step
        ),
        "ddim-reinject, leading offset 1, final alpha first": lambda x, draw, stored, on_step: ddim_reinject(
            polynomial, x, leading, TABLE, first, prediction, stored, on_step=on_step
        ),
        "euler, linspace, karras": lambda x, draw, stored, on_step: euler(
            polynomial, x, *karras, prediction, on_step=on_step
        ),
        "euler-ancestral, trailing, table": lambda x, draw, stored, on_step: euler_ancestral(
            polynomial, x, *turbo, prediction, draw, on_step=on_step
        ),
    }


def by_floats(run: Callable[..., object]) -> list[list[str]]:
    """States after every step, element by element in Python's floats."""
    columns: list[list[str]] = []
    for element, (x, stored) in enumerate(zip(START, STORED, strict=True)):
        column: list[str] = []
        run(x, lambda s, e=element: DRAWS[s - 1][e], stored, lambda t, x, c=column: c.append(x.hex()))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def by_tensors(run: Callable[..., object]) -> list[list[str]]:
    rows: list[list[str]] = []

    def numbers(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    run(
        numbers(START),
        lambda s: numbers(DRAWS[s - 1]),
        numbers(STORED),
        lambda t, x: rows.append([value.hex() for value in x.tolist()]),
    )
    return rows


def table_vectors() -> list[dict[str, object]]:
    rows = []
    for spacing, offset, steps in [("leading", 1, 4), ("trailing", 0, 4), ("linspace", 0, 7), ("linspace", 0, 1)]:
        row: dict[str, object] = {"spacing": spacing, "offset": offset, "steps": steps}
        row["ddim timesteps"] = timesteps(spacing, offset, steps, 1000).tolist()
        for rule in ("table", "karras"):
            visited, sigmas = euler_schedule(rule, spacing, offset, steps, TABLE)
            row[f"{rule} timesteps"] = [t.hex() for t in visited.tolist()]
            row[f"{rule} sigmas"] = [sigma.hex() for sigma in sigmas.tolist()]
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def golden() -> dict[str, object]:
    """The stored vectors; D3M_REGENERATE=1 writes them anew."""
    if os.environ.get("D3M_REGENERATE") == "1":
        content = {
            "betas": list(BETAS),
            "denoiser": "x * 0.75 - x * x * x * 0.0625 + t * 0.000244140625, from left to right",
            "start": START,
            "stored": STORED,
            "draws": DRAWS,
            "tables": table_vectors(),
            "states": {p: {name: by_floats(run) for name, run in vector_runs(p).items()} for p in PREDICTIONS},
        }
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    assert GOLDEN.exists(), f"{GOLDEN} is missing; D3M_REGENERATE=1 writes it"
    return json.loads(GOLDEN.read_text())


# Shows D3M-111, D3M-112, D3M-113.
def test_tables_of_the_vectors(golden: dict[str, object]) -> None:
    assert golden["betas"] == list(BETAS)
    assert golden["tables"] == table_vectors()


@pytest.mark.parametrize("prediction", PREDICTIONS)
# Shows D3M-104, D3M-117, D3M-118, D3M-119, D3M-120, D3M-121.
def test_states_of_the_vectors(golden: dict[str, object], prediction: str) -> None:
    """The same bits from Python's floats, one element at a time, and from tensors."""
    assert [golden[name] for name in ("start", "stored", "draws")] == [START, STORED, DRAWS]
    runs = vector_runs(prediction)
    stored = golden["states"][prediction]  # type: ignore[index]
    assert set(stored) == set(runs)
    for name, run in runs.items():
        assert len(stored[name]) == STEPS
        assert by_floats(run) == stored[name], name
        assert by_tensors(run) == stored[name], name
