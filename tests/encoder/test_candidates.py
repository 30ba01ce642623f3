"""Choosing noises: the stage by itself, on a tiny pipeline and a teacher that knows three greys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_case import grey_teacher
from tiny_pipeline import make_group, make_pipeline

from d3codec.conditioning import candidates as candidate_rows
from d3codec.decoder.precision import round_levels
from d3codec.encoder.candidates import bits_of, candidate_group, try_candidates
from d3codec.encoder.pack import changed
from d3codec.format.manifest import HardLabels
from d3codec.grid import cut

CLASSES, SOURCES, BITS = 3, 3, 2
NUMBER = 1 << BITS


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A group of three classes of three sources with four candidates each, and the renderer of all 36."""
    import torch

    from d3codec.decoder.render import Renderer
    from d3codec.generators.stable_diffusion import StableDiffusion

    torch.set_num_threads(1)
    pipeline = make_pipeline(tmp_path_factory.mktemp("candidates") / "pipeline")
    group, rows = make_group(pipeline, classes=CLASSES, ipc=SOURCES)
    group = changed(group, labels=HardLabels(), images=changed(group.images, candidates=BITS))
    generator = StableDiffusion.load(pipeline, cast="f16")
    renderer = Renderer(candidate_group(group), rows, generator, "reproducible", CLASSES)
    return SimpleNamespace(group=group, rows=rows, generator=generator, renderer=renderer, pipeline=pipeline)


def trial_of(case: SimpleNamespace, **options: Any) -> Any:
    return try_candidates(case.group, case.renderer, grey_teacher, CLASSES, **options)


def test_bits_of_a_choice() -> None:
    assert [bits_of(number) for number in (1, 2, 4, 8, 65_536)] == [None, 1, 2, 3, 16]


def test_the_group_of_candidates(case: SimpleNamespace) -> None:
    images = candidate_group(case.group).images
    assert (images.sources, images.candidates, images.augmentation) == (SOURCES * NUMBER, None, None)
    assert (images.grid, images.size) == (case.group.images.grid, case.group.images.size)


def test_the_score_is_the_mean_log_probability_of_the_patches(case: SimpleNamespace) -> None:
    calls: list[tuple[str, int, int]] = []
    trial = trial_of(case, progress=lambda *event: calls.append(event))
    assert trial.scores.shape == trial.hits.shape == (CLASSES, SOURCES, NUMBER)
    assert calls == [("candidates", done, 5) for done in range(1, 6)]
    for label, source, choice in [(0, 0, 0), (1, 2, 3), (2, 1, 2)]:
        pixels = round_levels(case.renderer.levels([(label, source * NUMBER + choice)]))
        logits = grey_teacher(cut(pixels, case.group.images.grid)[0]).astype(np.float64)
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        # Another place in the unit of eight may change a level of the pixels by one.
        assert trial.scores[label, source, choice] == pytest.approx(np.log(chances[:, label]).mean(), abs=1e-2)
    assert ((trial.hits >= 0) & (trial.hits <= 4)).all()
    best = np.take_along_axis(trial.scores, trial.choices[:, :, None], 2)[:, :, 0]
    assert (best == trial.scores.max(axis=2)).all()
    assert (trial.choices > 0).any()


def test_of_equal_candidates_the_first_is_kept(case: SimpleNamespace) -> None:
    trial = try_candidates(case.group, case.renderer, lambda images: np.zeros((len(images), CLASSES)), CLASSES)
    assert (trial.choices == 0).all()
    assert trial.scores == pytest.approx(-np.log(CLASSES))


@pytest.mark.parametrize("units", [1, 3, 5])
def test_what_is_saved_is_not_done_again(case: SimpleNamespace, units: int) -> None:
    whole, saved = trial_of(case), []

    def killed(_stage: str, done: int, _total: int) -> None:
        if done == units:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial_of(case, save=saved.append, save_seconds=0.0, progress=killed)
    assert [len(arrays["scores"]) for arrays in saved] == [8, 16, 24, 32, 36][:units]
    done: list[int] = []
    again = trial_of(case, saved=saved[-1], progress=lambda _stage, number, _total: done.append(number))
    assert done == list(range(units + 1, 6))
    assert (again.scores == whole.scores).all()
    assert (again.hits == whole.hits).all()


def test_it_is_saved_after_the_last_unit(case: SimpleNamespace) -> None:
    saved: list[dict[str, np.ndarray]] = []
    trial = trial_of(case, save=saved.append, save_seconds=1e9)
    assert len(saved) == 1
    assert (saved[0]["scores"] == trial.scores.reshape(-1)).all()


@pytest.mark.parametrize("profile", ["reproducible", "exact"])
def test_a_reader_sees_the_chosen_candidates(case: SimpleNamespace, profile: str) -> None:
    """What the group with choices renders are those sources of the group of candidates that were chosen."""
    from d3codec.decoder.precision import compute_dtype
    from d3codec.decoder.render import Renderer
    from d3codec.generators.stable_diffusion import StableDiffusion

    choices = np.random.default_rng(3).integers(0, NUMBER, (CLASSES, SOURCES))
    data = candidate_rows.pack(choices, BITS)
    generator = StableDiffusion.load(case.pipeline, cast="f16", dtype=compute_dtype(profile))
    chosen = Renderer(case.group, case.rows, generator, profile, CLASSES, choices=data)
    tried = Renderer(candidate_group(case.group), case.rows, generator, profile, CLASSES)
    sources = [(label, source) for label in range(CLASSES) for source in range(SOURCES)][:8]
    numbers = [(label, source * NUMBER + int(choices[label, source])) for label, source in sources]
    assert np.abs(chosen.levels(sources) - tried.levels(numbers)).max() < 1e-9
    assert np.abs(chosen.levels(sources) - tried.levels([(label, s * NUMBER) for label, s in sources])).max() > 1
