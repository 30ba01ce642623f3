"""A training loop that survives kill -9: atomic checkpoints, randomness that depends on the step alone."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open


def step_generator(seed: int, stage: int, step: int) -> torch.Generator:
    """The random numbers of one step, on the CPU whatever the device: nothing to save, nothing to restore."""
    state = np.random.SeedSequence([seed, stage, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename: a reader finds the old bytes or the new ones, never a part."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """A safetensors file with a JSON record in its metadata, written atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain, {"about": json.dumps(about)}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `save_tensors` wrote."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


@dataclass
class Training:
    """All that a stage carries from step to step."""

    net: torch.nn.Module
    optimiser: torch.optim.Optimizer
    ema_decay: float | None = None
    step: int = 0
    cpu_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    ema: dict[str, torch.Tensor] = field(default_factory=dict)
    validation: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)

    def __post_init__(self) -> None:
        if self.ema_decay is not None:
            self.ema = {name: p.detach().clone() for name, p in self.net.named_parameters()}

    def follow(self) -> None:
        """Move the averaged weights towards the weights; the average starts short and grows (ramp)."""
        if self.ema_decay is not None:
            decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
            weights = [p.detach() for _, p in self.net.named_parameters()]
            torch._foreach_lerp_(list(self.ema.values()), weights, 1 - decay)

    def save(self, path: Path) -> None:
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        about = {"step": self.step, "cpu_seconds": self.cpu_seconds, "validation": self.validation}
        save_tensors(path, tensors, about)

    def averaged(self) -> torch.nn.Module:
        """A frozen copy of the networks with the averaged weights, in evaluation mode."""
        net = copy.deepcopy(self.net).eval().requires_grad_(False)
        net.load_state_dict(net.state_dict() | self.ema)
        return net

    def restore(self, path: Path) -> None:
        tensors, about = load_tensors(path)
        self.losses = tensors.pop("losses").tolist()
        self.step, self.cpu_seconds = about["step"], about["cpu_seconds"]
        self.validation = [(step, loss) for step, loss in about["validation"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        net = {}
        for name, value in tensors.items():
            part, rest = name.split(".", 1)
            if part == "net":
                net[rest] = value
            elif part == "ema":
                self.ema[rest].copy_(value)
            else:
                number, key = rest.split(".", 1)
                state.setdefault(int(number), {})[key] = value
        self.net.load_state_dict(net)
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})


def train(
    training: Training,
    step_loss: Callable[[int], torch.Tensor],
    *,
    name: str,
    steps: int,
    learning_rate: Callable[[int], float],
    path: Path,
    clip: float | None = None,
    every_seconds: float = 120.0,
    on_checkpoint: Callable[[Training], None] | None = None,
    validate: Callable[[Training], float] | None = None,
    validate_every: int = 1000,
) -> None:
    """Run to `steps` optimiser steps, from the checkpoint at `path` if there is one; leave one there.

    `validate` gives a loss every `validate_every` steps and after the last one.
    """
    if path.exists():
        training.restore(path)
        print(f"{name}: continues at step {training.step}", file=sys.stderr)
    first, started, saved, shown = training.step, time.monotonic(), time.monotonic(), 0.0
    cpu = time.process_time() - training.cpu_seconds
    parameters = list(training.net.parameters())

    def checkpoint() -> None:
        training.cpu_seconds = time.process_time() - cpu
        training.save(path)
        if on_checkpoint:
            on_checkpoint(training)

    while training.step < steps:
        for group in training.optimiser.param_groups:
            group["lr"] = learning_rate(training.step)
        loss = step_loss(training.step)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        training.optimiser.step()
        training.optimiser.zero_grad(set_to_none=True)
        training.follow()
        training.step += 1
        training.losses.append(loss.item())
        if validate and (training.step % validate_every == 0 or training.step == steps):
            training.validation.append((training.step, validate(training)))
            print(f"{name}: validation loss {training.validation[-1][1]:.5f} @{training.step}", file=sys.stderr)
        now = time.monotonic()
        if now - shown > (1 if sys.stderr.isatty() else 15) or training.step == steps:
            shown, rate = now, (training.step - first) / (now - started)
            recent = float(np.mean(training.losses[-100:]))
            end = "\n" if training.step == steps or not sys.stderr.isatty() else "\r"
            line = f"{name}: {training.step}/{steps}  loss {recent:.4f}  {rate:.2f} steps/s"
            left = (steps - training.step) / rate
            cost = 1e3 * (time.process_time() - cpu) / training.step
            print(f"{line}  {cost:.0f} CPU-ms a step  {left:.0f} s left", end=end, file=sys.stderr, flush=True)
        if now - saved > every_seconds and training.step < steps:
            checkpoint()
            saved = time.monotonic()
    if training.step > first:
        checkpoint()
