"""DDIM: against diffusers in float64 at every step, and against what the mathematics says must come out."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from d3codec.decoder.samplers import PREDICTIONS, ddim  # noqa: E402
from d3codec.decoder.schedules import alpha_bars, timesteps  # noqa: E402

torch.set_num_threads(1)
TABLE = alpha_bars("scaled", 850, 12000, 1000)
NAMES = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}


def state(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def denoiser(x: torch.Tensor, t: int) -> torch.Tensor:
    """Not a network, but as nonlinear as one and different at every step."""
    return torch.tanh(1.3 * x + 0.1 * x.roll(1, dims=-1)) * 0.9 + 0.2 * math.cos(t / 100)


@pytest.mark.parametrize("final_is_one", [False, True])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("steps", "offset"), [(20, 1), (50, 1), (1, 0), (7, 0), (4, 2)])
def test_every_step_agrees_with_diffusers(steps: int, offset: int, prediction: str, final_is_one: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDIMScheduler(
        prediction_type=NAMES[prediction],
        clip_sample=False,
        steps_offset=offset,
        set_alpha_to_one=final_is_one,
        timestep_spacing="leading",
    )
    reference.alphas_cumprod = torch.from_numpy(TABLE)
    final = 1.0 if final_is_one else float(TABLE[0])
    reference.final_alpha_cumprod = torch.tensor(final, dtype=torch.float64)
    reference.set_timesteps(steps)
    expected, x = [], state()
    for t in reference.timesteps:
        x = reference.step(denoiser(x, int(t)), t, x, eta=0.0).prev_sample
        expected.append(x)
    seen: list[tuple[int, torch.Tensor]] = []
    last = ddim(
        denoiser,
        state(),
        timesteps("leading", offset, steps, 1000),
        TABLE,
        final,
        prediction,
        on_step=lambda t, x: seen.append((t, x)),
    )
    assert [t for t, _ in seen] == reference.timesteps.tolist()
    for (_, found), true in zip(seen, expected, strict=True):
        assert found.dtype == torch.float64
        assert float((found - true).abs().max()) <= 1e-9 * float(true.abs().max())
    assert torch.equal(last, seen[-1][1])


def test_one_step_by_hand() -> None:
    # alpha 0.64 -> 0.36: signal 0.8, spread 0.6; x = 1, eps = 0.5: clean = (1 - 0.3) / 0.8 = 0.875
    x, half = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    found = ddim(lambda x, t: half, x, [0], [0.64], 0.36)
    assert float(found) == pytest.approx(0.6 * 0.875 + 0.8 * 0.5, rel=1e-15)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_denoiser_leads_to_its_clean_signal(prediction: str) -> None:
    """x = signal * clean + spread * noise: told the truth at every step, DDIM follows it to the end."""
    clean, noise = state(), state().flip(0)

    def truth(x: torch.Tensor, t: int) -> torch.Tensor:
        signal, spread = math.sqrt(TABLE[t]), math.sqrt(1 - TABLE[t])
        return {"eps": noise, "v": signal * noise - spread * clean, "sample": clean}[prediction]

    visited = timesteps("leading", 1, 20, 1000)
    start = math.sqrt(TABLE[visited[0]]) * clean + math.sqrt(1 - TABLE[visited[0]]) * noise
    assert torch.allclose(ddim(truth, start, visited, TABLE, 1.0, prediction), clean, rtol=0, atol=1e-12)


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
    ddim(denoiser, x, [900, 400], TABLE, 1.0)
    assert torch.equal(x, state())


def test_unknown_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown prediction: 'epsilon'"):
        ddim(denoiser, state(), [900], TABLE, 1.0, "epsilon")
