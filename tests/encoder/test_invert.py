from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from d3codec.decoder.schedules import alpha_bars
from d3codec.encoder import invert as module
from d3codec.encoder.invert import Inversion, encode_collages, invert
from d3codec.encoder.prompt import read_prompt
from d3codec.errors import UsageError

TABLE = alpha_bars("scaled", 850, 12000, 1000)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import torch
    from tiny_pipeline import make_pipeline

    from d3codec.generators.stable_diffusion import StableDiffusion

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield StableDiffusion.load(make_pipeline(tmp_path_factory.mktemp("pipeline")), cast="f16")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def latents() -> list[np.ndarray]:
    """Of three classes, each with its own mean in every channel; not equally many."""
    rng = np.random.default_rng(0)
    return [
        (0.3 * rng.normal(0, 1, (count, 4, 4, 4)) + rng.normal(0, 1, (1, 4, 1, 1))).astype(np.float32)
        for count in (5, 2, 7)
    ]


def learn(generator: Any, latents: list[np.ndarray], **changes: Any) -> Inversion:
    values: dict[str, Any] = {"steps": 40, "batch": 24, "learning_rate": 0.1, "seed": 0} | changes
    prediction = values.pop("prediction", "eps")
    return invert(generator, latents, read_prompt(generator, "a * *", "b"), TABLE, prediction, **values)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_falls_and_the_generator_stays(generator: Any, latents: list[np.ndarray], seed: int) -> None:
    import torch

    before = [parameter.clone() for parameter in generator.unet.parameters()]
    found = learn(generator, latents, steps=60, batch=60, prediction="sample", seed=seed)
    assert found.deltas.shape == (3, 2, 16)
    assert found.deltas.dtype == np.float64
    assert found.losses.shape == (60,)
    run = module._Run(generator, latents, read_prompt(generator, "a * *", "b"), TABLE, "sample")
    probe = run.draw(np.random.SeedSequence([seed, 1]), 60)
    turned = [
        run.loss(torch.from_numpy(found.deltas[:, :, order]), probe)  # as long, in other directions
        for order in np.random.default_rng(0).permuted(np.tile(np.arange(16), (8, 1)), axis=1)
    ]
    assert run.loss(torch.from_numpy(found.deltas), probe) == found.end
    assert found.end < min(turned) - 0.003
    assert found.end < found.start - 0.003
    assert all((a == b).all() for a, b in zip(before, generator.unet.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in generator.text_encoder.parameters())


@pytest.mark.parametrize("prediction", ["eps", "v", "sample"])
def test_the_gradient_is_that_of_the_loss(generator: Any, latents: list[np.ndarray], prediction: str) -> None:
    import torch

    run = module._Run(generator, latents, read_prompt(generator, "a * *", "b"), TABLE, prediction)
    draw = run.draw(np.random.SeedSequence([3]), 24)
    point = torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, (3, 2, 16)))
    loss, gradient = run.gradient(point, draw)
    assert loss == pytest.approx(run.loss(point, draw), rel=1e-6)
    step = 0.05 * gradient / gradient.norm()
    slope = (run.loss(point + step, draw) - run.loss(point - step, draw)) / (2 * step.norm())
    assert float(slope) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_a_class_learns_from_its_own_collages_alone(generator: Any, latents: list[np.ndarray]) -> None:
    import torch

    other = [latents[0], latents[1] + 1, latents[2]]
    prompt = read_prompt(generator, "a *", "b")
    runs = [module._Run(generator, part, prompt, TABLE, "eps") for part in (latents, other)]
    draw = runs[0].draw(np.random.SeedSequence([3]), 24)
    one, two = (run.gradient(torch.zeros(3, 1, 16, dtype=torch.float64), draw)[1] for run in runs)
    np.testing.assert_allclose(one[[0, 2]], two[[0, 2]], rtol=1e-4, atol=1e-9)
    assert not np.allclose(one[1], two[1], rtol=1e-2)


def test_a_draw_is_fair_and_depends_on_its_source_alone(generator: Any, latents: list[np.ndarray]) -> None:
    run = module._Run(generator, latents, read_prompt(generator, "a *", "b"), TABLE, "eps")
    draws = [run.draw(np.random.SeedSequence([0, 0, step]), 19) for step in range(200)]
    assert draws[0].classes.tolist() == [0] * 7 + [1] * 6 + [2] * 6
    again = run.draw(np.random.SeedSequence([0, 0, 7]), 19)
    assert again.times.tolist() == draws[7].times.tolist()
    assert (again.noise == draws[7].noise).all()
    assert draws[0].times.tolist() != draws[1].times.tolist()
    times = np.concatenate([draw.times.numpy() for draw in draws])
    assert times.min() < 10
    assert times.max() > 990
    assert abs(times.mean() - 499.5) < 10  # sd of the mean below 288 / sqrt(3800) = 4.7
    for label, count in enumerate((5, 2, 7)):
        drawn = np.concatenate([draw.images[draw.classes == label].numpy() for draw in draws])
        assert set(drawn.tolist()) == set(range(count))
        assert np.bincount(drawn).min() > 0.7 * len(drawn) / count


def test_a_continued_run_ends_with_the_same_bits(generator: Any, latents: list[np.ndarray]) -> None:
    states: list[dict[str, np.ndarray]] = []
    whole = learn(generator, latents, steps=9, save=states.append, save_seconds=0.0)
    assert [int(state["step"][0]) for state in states] == list(range(1, 10))
    for number in (0, 4, 8):
        left: list[dict[str, np.ndarray]] = []
        again = learn(generator, latents, steps=9, saved=states[number], save=left.append, save_seconds=0.0)
        assert [int(state["step"][0]) for state in left] == list(range(number + 2, 10))
        assert again.deltas.tobytes() == whole.deltas.tobytes()
        assert again.losses.tobytes() == whole.losses.tobytes()
        assert (again.start, again.end) == (whole.start, whole.end)


def test_memory_is_bounded_without_changing_the_sum(
    generator: Any, latents: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(generator, latents, steps=1)
    monkeypatch.setattr(module, "LATENT_POSITIONS", 16 * 5)  # five images at once
    parts = learn(generator, latents, steps=1)
    assert parts.losses[0] == pytest.approx(whole.losses[0], rel=1e-5)
    assert parts.start == pytest.approx(whole.start, rel=1e-5)


def test_no_steps_learn_nothing(generator: Any, latents: list[np.ndarray]) -> None:
    found = learn(generator, latents, steps=0)
    assert not found.deltas.any()
    assert found.start == found.end


def test_adam_is_that_of_torch() -> None:
    import torch

    rng = np.random.default_rng(0)
    gradients = torch.from_numpy(rng.normal(0, 1, (6, 2, 3)))
    state = {key: torch.zeros(2, 3, dtype=torch.float64) for key in ("delta", "first", "second")}
    leaf = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([leaf], lr=0.1)
    for step, gradient in enumerate(gradients):
        module._adam(state, gradient, step, 0.1)
        leaf.grad = gradient.clone()
        theirs.step()
    np.testing.assert_allclose(state["delta"].numpy(), leaf.detach().numpy(), rtol=1e-12)


def test_a_loss_that_is_not_finite_is_an_error(generator: Any, latents: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r"learning_rate.*not finite"):
        learn(generator, [part * np.float32(np.inf) for part in latents], steps=1)


def test_latents_of_collages(generator: Any) -> None:
    import torch

    collages = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), np.uint8)
    latents = encode_collages(generator, collages)
    assert latents.shape == (11, 4, 4, 4)
    assert latents.dtype == np.float32
    image = torch.from_numpy(collages[9:10].astype(np.float32) / 255 * 2 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        np.testing.assert_allclose(latents[9:10], generator.encode_images(image).numpy(), atol=1e-5)


def test_templates(generator: Any) -> None:
    prompt = read_prompt(generator, "a * cd*", "b")
    begin, end = generator.tokenize("")
    a, b, c, d = (generator.tokenize(text)[1:-1] for text in ("a", "b", "cd", "cd"))
    assert prompt.ids == (begin, *a, *b, *c, *b, end)
    assert prompt.slots == (2, 5)
    assert (prompt.initial_token,) == tuple(b)
    assert prompt.padded == [*prompt.ids, *[prompt.padding[0]] * (8 - len(prompt.ids))]
    np.testing.assert_array_equal(prompt.initial_vector, generator.token_embedding(b[0]))
    assert d == c


@pytest.mark.parametrize(
    ("template", "word", "message"),
    [
        ("a photo", "b", r"1 to 64 slots.*'a photo'"),
        ("a *", "bc", r"'bc' is the tokens \[\d+, \d+\]"),
        ("a *", "", r"'' is the tokens \[\]"),
        ("a 7 *", "b", r"template.*'a 7"),
        ("a *", "é", r"initial_token.*'é'"),
        ("abcdef *", "b", "too long.*9 tokens.*at most 8"),
    ],
)
def test_templates_that_cannot_be_used(generator: Any, template: str, word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_prompt(generator, template, word)
