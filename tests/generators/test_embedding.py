"""Sinusoids of our own, against those of diffusers and of numpy."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from d3codec.generators.embedding import Sinusoids, position_table, sinusoids


def by_numpy(times, width, flip, shift):
    half = width // 2
    angles = np.outer(times, 10_000.0 ** (-np.arange(half) / (half - shift)))
    pieces = [np.cos(angles), np.sin(angles)] if flip else [np.sin(angles), np.cos(angles)]
    return np.concatenate([*pieces, np.zeros((len(times), width % 2))], axis=1)


@pytest.mark.parametrize(("width", "flip", "shift"), [(48, True, 0), (320, True, 0), (256, True, 1), (9, False, 1)])
def test_sinusoids_are_those_of_diffusers(width, flip, shift):
    from diffusers.models.embeddings import Timesteps

    times = [0, 1, 2, 17, 499, 998, 999]
    module = Sinusoids(width, flip, shift, torch.float64, "cpu")
    found = module(torch.tensor(times))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, by_numpy(times, width, flip, shift), rtol=0, atol=5e-13)
    theirs = Timesteps(width, flip, shift)(torch.tensor(times))  # in float32: 4e-5 at 1000
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-4)


def test_fractional_timesteps():
    """Euler with linspace asks for them."""
    times = [999.0, 749.25, 0.1, 1 / 3]
    found = Sinusoids(64, True, 0, torch.float64, "cpu")(torch.tensor(times, dtype=torch.float64))
    np.testing.assert_allclose(found, by_numpy(times, 64, True, 0), rtol=0, atol=5e-13)


# Shows D3M-114, D3M-188.
def test_bits():
    """What every machine must get; numpy's sines and cosines differ from these in some last bits."""
    rows = np.array([sinusoids(time, 320, True, Fraction(0)) for time in (1, 500, 999, 749.25)])
    digest = "e05a78866b096092c31b7ad03ab5028d5558d274156c47dcc09121b5d5ac13c0"
    assert hashlib.sha256(rows.astype("<f8").tobytes()).hexdigest() == digest
    assert sinusoids(0, 4, False, Fraction(0)).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert sinusoids(1, 2, False, Fraction(0)).tolist() == [0.8414709848078965, 0.5403023058681398]


def test_a_batch_of_many_timesteps_is_that_of_single_ones():
    module = Sinusoids(32, True, 0, torch.float32, "cpu")
    times = torch.tensor([5, 999, 5, 0])
    rows = module(times)
    assert rows.dtype == torch.float32
    for time, row in zip(times, rows, strict=True):
        assert torch.equal(module(time[None])[0], row)
        assert torch.equal(row.double(), torch.tensor(sinusoids(int(time), 32, True, Fraction(0))).float().double())


def test_what_was_computed_in_a_decode_serves_where_gradients_are_wanted():
    module = Sinusoids(8, True, 0, torch.float64, "cpu")
    with torch.inference_mode():
        module(torch.tensor([3]))
    weight = torch.ones(8, dtype=torch.float64, requires_grad=True)
    (module(torch.tensor([3])) * weight).sum().backward()
    assert weight.grad is not None


def test_positions_are_those_of_diffusers():
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    theirs = get_2d_sincos_pos_embed(24, 5, base_size=5, output_type="pt")
    np.testing.assert_allclose(position_table(24, 5), theirs, rtol=0, atol=1e-14)
