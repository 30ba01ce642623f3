"""Sinusoids of timesteps and positions in binary64, the same bits on every machine (spec/generators.md, "Sinusoids").

diffusers computes them in float32 with the platform's exp, sin and cos: other bits elsewhere, and an error of up to
4e-5 at timestep 1000 in a decode that is float64 otherwise. `Sinusoids` takes the place of its module.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from d3codec.portable import nearest, power, sine_cosine

PERIOD = 10_000


@lru_cache(maxsize=16_384)
def sinusoids(value: float, width: int, cosines_first: bool, shift: Fraction) -> NDArray[np.float64]:
    """Sines and cosines of value * 10000 ** (-i / (half - shift)) for i = 0 .. half - 1, float64 [width], read-only.

    half = width div 2; sines come first unless `cosines_first`; an odd width ends with a zero. Each is the binary64
    nearest to the exact value. `value` may be fractional.
    Source: Vaswani et al. 2017, section 3.5; Ho et al. 2020 for timesteps (diffusers' get_timestep_embedding).
    """
    half = width // 2
    numerator, denominator = float(value).as_integer_ratio()
    pairs = [sine_cosine(power(PERIOD, -Fraction(i) / (half - shift)) * numerator // denominator) for i in range(half)]
    sines, cosines = ([nearest(pair[place]) for pair in pairs] for place in (0, 1))
    row = np.array([*(cosines + sines if cosines_first else sines + cosines), *[0.0] * (width % 2)])
    row.setflags(write=False)
    return row


def position_table(width: int, side: int) -> NDArray[np.float64]:
    """Embeddings of the cells of a square grid, row by row: float64 [side * side, width].

    The first half of a row says the cell's column, the second half its row (Peebles and Xie 2023 as in diffusers'
    get_2d_sincos_pos_embed). `width` is a multiple of 4.
    """
    places = [sinusoids(place, width // 2, False, Fraction(0)) for place in range(side)]
    return np.array([np.concatenate([places[column], places[row]]) for row in range(side) for column in range(side)])


class Sinusoids(torch.nn.Module):
    """Timesteps [N] -> their sinusoids [N, width] in a dtype, rounded once from binary64; in place of `Timesteps`.

    Timesteps had better lie on the CPU: their values are needed there. What was computed is kept, a row a timestep.
    """

    def __init__(
        self, width: int, cosines_first: bool, shift: float, dtype: torch.dtype, device: str | torch.device
    ) -> None:
        super().__init__()
        self._form = width, bool(cosines_first), Fraction(shift)
        self._dtype, self._device = dtype, device
        self._rows: dict[float, torch.Tensor] = {}

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        values = timesteps.tolist()
        if len(set(values)) == 1:
            return self._row(values[0]).expand(len(values), -1).contiguous()
        return torch.stack([self._row(value) for value in values])

    def _row(self, value: float) -> torch.Tensor:
        if value not in self._rows:
            with torch.inference_mode(False):  # what is kept must serve where gradients are wanted, too
                row = torch.tensor(sinusoids(value, *self._form)).to(self._dtype)
                self._rows[value] = row.to(self._device)
        return self._rows[value]
