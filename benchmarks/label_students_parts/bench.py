"""Rows of the result: students on what a codec gives back, in every view."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from d3codec.format.save import save_atomically
from d3codec.training import students
from d3codec.training.crops import crop_batches

from .codecs import Family, Floats, divergence, families, probabilities
from .material import GRID, SIDE, Material, Problem

TEMPERATURES = (1, 4, 20)  # those tried for students, and those of the KL
AUGMENT = replace(students.SMALL_AFFINE, flip=True)  # of S1


@dataclass(frozen=True)
class Bench:
    """A dataset with the students that it has already had: `finished` is the file of their figures."""

    problem: Problem
    stuff: Material
    finished: Path
    seeds: int

    def rows(self, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """The rows of the wanted families, each with what fixed its temperatures."""
        for family in families(self.problem.tops, self.problem.budgets, self.problem.mr):
            if family.name not in wanted:
                continue
            tuning = self.tune(family)
            best = {view: int(max(scores, key=lambda t: scores[t])) for view, scores in tuning.items()}
            for name, (codec, k) in family.rows.items():
                views = {"softmax": best.get("softmax", 1)} | ({f"mr-{k}": best["mr"]} if k else {})
                start = {"dataset": self.problem.name, "codec": family.name, "row": name}
                try:
                    coded = codec(self.stuff.logits, self.stuff.classes)
                except ValueError as error:  # a budget that cannot be kept
                    yield start | {"refused": str(error)}
                    continue
                yield start | self.row(*coded, views) | {"tuning": tuning}

    def tune(self, family: Family) -> dict[str, dict[str, float]]:
        """Validation accuracy in percent by view ("softmax", "mr") and temperature: one S0 student each, of one row."""
        if family.tuned is None:
            return {}
        codec, k = family.rows[family.tuned]
        decoded, _ = codec(self.stuff.logits, self.stuff.classes)
        return {
            view.partition("-")[0]: {
                str(t): round(self.student(probabilities(decoded, view, t), "S0", 0)["validation"], 2)
                for t in TEMPERATURES
            }
            for view in ("softmax", f"mr-{k}")
        }

    def row(self, decoded: Floats, size: float, views: dict[str, int]) -> dict[str, Any]:
        """S0 in every view (view -> temperature), S1 in the view that validates best."""
        shown = {view: self.runs(decoded, view, t, "S0") for view, t in views.items()}
        best = max(shown, key=lambda view: shown[view]["validation_percent"])
        finite = decoded.min() > -float("inf")  # hard labels have no KL
        logits = self.stuff.logits
        return {
            "bytes_per_label": round(size, 3),
            "kl": {str(t): float(f"{divergence(logits, decoded, t):.4g}") for t in TEMPERATURES} if finite else None,
            "top1_agreement_percent": round(100 * float((decoded.argmax(1) == logits.argmax(1)).mean()), 2),
            "view": best,
            "temperature": views[best],
            "S0": shown[best],
            "S1": self.runs(decoded, best, views[best], "S1"),
            "S0_views": {view: {"temperature": views[view]} | figures for view, figures in shown.items()},
        }

    def runs(self, decoded: Floats, view: str, temperature: float, protocol: str) -> dict[str, Any]:
        """Figures of one student a seed."""
        targets = probabilities(decoded, view, temperature)
        each = [self.student(targets, protocol, seed) for seed in range(self.seeds)]
        tests = [run["test"] for run in each]
        return {
            "accuracy_percent": round(fmean(tests), 2),
            "spread": round(stdev(tests), 2) if len(tests) > 1 else None,
            "binomial_error": round(students.binomial_error(fmean(tests), len(self.stuff.test[1])), 2),
            "validation_percent": round(fmean(run["validation"] for run in each), 2),
            "per_run": [round(value, 2) for value in tests],
            "cpu_seconds": round(sum(run["seconds"] for run in each), 1),
        }

    def student(self, targets: Floats, protocol: str, seed: int) -> dict[str, float]:
        """Percent right of the validation and the test images, and CPU seconds. Trained once, known by what it saw."""
        key = hashlib.sha256(self.stuff.patches.tobytes() + targets.tobytes()).hexdigest()[:16]
        key = f"{self.problem.name} {protocol} {self.problem.steps} {seed} {key}"
        known = json.loads(self.finished.read_text()) if self.finished.exists() else {}
        if key not in known:
            started = time.process_time()
            net = train(self.stuff, targets, protocol, self.problem.steps, seed)
            parts = {"validation": self.stuff.validation, "test": self.stuff.test}
            right = {name: students.accuracy(students.predict(net, x), y) for name, (x, y) in parts.items()}
            known[key] = right | {"seconds": round(time.process_time() - started, 1)}
            save_atomically(self.finished, json.dumps(known, indent=0).encode())
        return dict(known[key])


def train(stuff: Material, targets: Floats, protocol: str, steps: int, seed: int) -> students.ConvNet:
    width = targets.shape[1]
    if protocol == "S0":
        return students.train(stuff.patches, targets, classes=width, steps=steps, seed=seed, side=SIDE)
    generator = torch.Generator().manual_seed(seed)
    net = students.fresh(width, SIDE, stuff.collages, generator)
    batches = crop_batches(stuff.collages, targets.reshape(len(stuff.collages), -1, width), GRID, SIDE, generator)
    return students.fit(net, batches, steps=steps, generator=generator, augment=AUGMENT)
