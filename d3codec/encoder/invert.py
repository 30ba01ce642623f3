"""Collages -> one learned embedding a slot and class: textual inversion with the generator frozen.

Gal et al. (arXiv 2208.01618) as D3M uses it (arXiv 2403.07142, section 3.2), with all classes in one batch:
what is learned of a class depends on its own collages alone, and the text encoder is asked once for all.
Learns the difference to the embedding of an initial token, since that is what a file stores. The random
numbers of a step depend on the seed and the step's number, so a run that continues from a saved state ends
with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from d3codec.encoder.prompt import Prompt
from d3codec.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from d3codec.generators.condition import Condition
    from d3codec.generators.condition import Generator as Networks

AUTOENCODER_BATCH = 8  # collages; fixed, so that latents do not depend on how many there are
LATENT_POSITIONS = 16_384  # of the images that pass the denoiser together; more are cut up, with the same sum
ADAM = (0.9, 0.999, 1e-8)
LAST_RATE = 0.1  # share of the learning rate that is left at the last step (cosine)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Inversion:
    """What inversion found.

    deltas: float64 (classes, slots, width), to be added to the initial token's embedding; losses: float64
    (steps,), of every step's own random images, noise and timesteps; start, end: losses of the initial and
    of the learned embeddings on one and the same draw. All are mean squared errors of the denoiser's
    prediction.
    """

    deltas: np.ndarray
    losses: np.ndarray
    start: float
    end: float


@dataclass(frozen=True)
class Draw:
    """The random part of one step, item by item in order of class: class, image and timestep int64 (n,),
    noise.
    """

    classes: Tensor
    images: Tensor
    times: Tensor
    noise: Tensor


def encode_collages(generator: Networks, collages: np.ndarray) -> np.ndarray:
    """Latents (mean, scaled) of collages uint8 (n, H, W, 3): float32 (n, channels, h, w)."""
    import torch

    parts = []
    for first in range(0, len(collages), AUTOENCODER_BATCH):
        part = collages[first : first + AUTOENCODER_BATCH].astype(np.float32) / 127.5 - 1
        with torch.no_grad():
            images = torch.from_numpy(part).permute(0, 3, 1, 2).contiguous().to(generator.device)
            parts.append(generator.encode_images(images).cpu().float().numpy())
    return np.concatenate(parts)


def invert(
    generator: Networks,
    latents: Sequence[np.ndarray],
    prompt: Prompt,
    alpha_bars: np.ndarray,
    prediction: str,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    saved: Mapping[str, np.ndarray] | None = None,
    save: Callable[[dict[str, np.ndarray]], None] | None = None,
    save_seconds: float = 10.0,
    progress: Progress | None = None,
) -> Inversion:
    """Learn the difference to the initial token for every class.

    Arguments:
        generator: in float32; its weights do not change.
        latents: for every class float32 (collages, channels, h, w).
        prompt: token ids with the slots whose embeddings are learned.
        alpha_bars: float64 (training steps,), the table of the recipe.
        prediction: what the denoiser predicts: `eps`, `v` or `sample`.
        steps: of Adam; the rate falls from `learning_rate` to a tenth of it, half a cosine.
        batch: images a step over all classes, at least one a class.
        seed: of images, noise and timesteps.
        saved: what `save` got in an earlier run with the same arguments.
        save: takes the state, at least every `save_seconds` and after the last step.

    Returns:
        The inversion. On one thread of a CPU its bits depend on the arguments alone.
    """
    import torch

    from d3codec.decoder.precision import settings

    with settings("reproducible", generator.device.type), torch.inference_mode(False), torch.enable_grad():
        return _learn(
            _Run(generator, latents, prompt, alpha_bars, prediction),
            steps,
            batch,
            learning_rate,
            seed,
            saved,
            save,
            save_seconds,
            progress,
        )


def _learn(
    run: _Run,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    saved: Mapping[str, np.ndarray] | None,
    save: Callable[[dict[str, np.ndarray]], None] | None,
    save_seconds: float,
    progress: Progress | None,
) -> Inversion:
    import torch

    begin = saved or _fresh_state(run, steps)
    state = {key: torch.from_numpy(value.copy()) for key, value in begin.items()}
    probe = run.draw(np.random.SeedSequence([seed, 1]), batch)
    if not saved:
        state["start"][:] = run.loss(state["delta"], probe)
    last_save = time.monotonic()
    for step in range(int(state["step"]), steps):
        draw = run.draw(np.random.SeedSequence([seed, 0, step]), batch)
        loss, gradient = run.gradient(state["delta"], draw)
        share = (1 + math.cos(math.pi * step / steps)) / 2
        _adam(state, gradient, step, learning_rate * (LAST_RATE + (1 - LAST_RATE) * share))
        state["losses"][step], state["step"][...] = loss, step + 1
        if save and (step + 1 == steps or time.monotonic() - last_save >= save_seconds):
            save({key: value.numpy().copy() for key, value in state.items()})
            last_save = time.monotonic()
        if progress:
            progress("invert", step + 1, steps)
    end = run.loss(state["delta"], probe)
    return Inversion(state["delta"].numpy(), state["losses"].numpy(), float(state["start"]), end)


def _fresh_state(run: _Run, steps: int) -> dict[str, np.ndarray]:
    shape = (len(run.latents), len(run.prompt.slots), len(run.prompt.initial_vector))
    zeros = {key: np.zeros(shape) for key in ("delta", "first", "second")}
    return {**zeros, "losses": np.zeros(steps), "start": np.zeros(1), "step": np.array([0])}


def _adam(state: dict[str, Any], gradient: Tensor, step: int, rate: float) -> None:
    """One step in place (Kingma and Ba, arXiv 1412.6980, algorithm 1), in float64."""
    keep, keep_second, small = ADAM
    state["first"].mul_(keep).add_(gradient * (1 - keep))
    state["second"].mul_(keep_second).add_(gradient * gradient * (1 - keep_second))
    mean = state["first"] / (1 - keep ** (step + 1))
    spread = (state["second"] / (1 - keep_second ** (step + 1))).sqrt()
    state["delta"].sub_(rate * mean / (spread + small))


@dataclass(frozen=True)
class _Run:
    """What all steps of one inversion share."""

    generator: Networks
    latents: Sequence[np.ndarray]
    prompt: Prompt
    alpha_bars: np.ndarray
    prediction: str

    def draw(self, source: np.random.SeedSequence, batch: int) -> Draw:
        """Images, noise and timesteps of one step; timesteps of a class are spread over the schedule."""
        import torch

        random = torch.Generator().manual_seed(int(source.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        classes = len(self.latents)
        counts = [batch // classes + (label < batch % classes) for label in range(classes)]
        of = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
        within = torch.cat([torch.arange(count) for count in counts])
        place = (within + _uniform(batch, random)) / torch.tensor(counts)[of]
        times = (place * len(self.alpha_bars)).long().clamp(max=len(self.alpha_bars) - 1)
        sizes = torch.tensor([len(part) for part in self.latents])[of]
        images = (_uniform(batch, random) * sizes).long()
        noise = torch.randn((batch, *self.latents[0].shape[1:]), generator=random)
        return Draw(of, images, times, noise)

    def gradient(self, delta: Tensor, draw: Draw) -> tuple[float, Tensor]:
        """The loss and its gradient, float64, in the shape of delta."""
        import torch

        leaf = delta.clone().requires_grad_(True)
        total = 0.0
        with torch.enable_grad():
            for part in self._parts(draw, leaf):
                part.backward()  # type: ignore[no-untyped-call]
                total += float(part.detach())
        if leaf.grad is None or not math.isfinite(total):
            raise UsageError(
                "inversion diverged: the denoiser's loss is not finite",
                field="learning_rate",
                found=total,
                hint="lower the learning rate",
            )
        return total, leaf.grad

    def loss(self, delta: Tensor, draw: Draw) -> float:
        import torch

        with torch.no_grad():
            return sum(float(part) for part in self._parts(draw, delta))

    def _parts(self, draw: Draw, delta: Tensor) -> Iterator[Tensor]:
        """Shares of the mean squared error, a few images each."""
        import torch

        at_once = max(1, LATENT_POSITIONS // int(np.prod(self.latents[0].shape[2:])))
        for first in range(0, len(draw.classes), at_once):
            items = slice(first, first + at_once)
            classes = draw.classes[items]
            low, high = int(classes[0]), int(classes[-1]) + 1
            condition = self._text(delta[low:high])[classes - low]
            chosen = zip(classes.tolist(), draw.images[items].tolist(), strict=True)
            clean = torch.from_numpy(np.stack([self.latents[label][image] for label, image in chosen]))
            noisy, times, target = self._diffuse(clean, draw.times[items], draw.noise[items])
            error = self.generator.denoise(noisy, times, condition) - target
            yield error.square().mean(dim=(1, 2, 3)).sum() / len(draw.classes)

    def _text(self, delta: Tensor) -> Condition:
        import torch

        device = self.generator.device
        ids = torch.tensor(self.prompt.padded).expand(len(delta), -1).to(device)
        vectors = torch.from_numpy(self.prompt.initial_vector) + delta
        return self.generator.encode_text([ids], self.prompt.slots, [vectors.to(device)])

    def _diffuse(self, clean: Tensor, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """State at the timesteps and what the denoiser should say to it (Ho et al. 2020, equation 4)."""
        import torch

        alpha = torch.from_numpy(self.alpha_bars)[times].reshape(-1, 1, 1, 1)
        signal, spread = alpha.sqrt().float(), (1 - alpha).sqrt().float()
        target = {"eps": noise, "sample": clean, "v": signal * noise - spread * clean}[self.prediction]
        device = self.generator.device
        return (signal * clean + spread * noise).to(device), times, target.to(device)


def _uniform(count: int, random: Generator) -> Tensor:
    import torch

    return torch.rand(count, generator=random, dtype=torch.float64)
