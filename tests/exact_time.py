"""For tests: the place of diffusers' `Timesteps` taken by numpy in float64, independently of d3codec."""

from __future__ import annotations

import numpy as np
import torch


class ExactTime(torch.nn.Module):
    """The sinusoids that the module given computes in float32."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.width, self.flip, self.shift = module.num_channels, module.flip_sin_to_cos, module.downscale_freq_shift

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        frequencies = 10_000.0 ** (-np.arange(half) / (half - self.shift))
        angles = np.outer(timesteps.numpy().astype(np.float64), frequencies)
        pair = np.sin(angles), np.cos(angles)
        return torch.from_numpy(np.concatenate(pair[::-1] if self.flip else pair, axis=1))
