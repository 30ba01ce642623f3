"""Rows of the benchmark: settings chosen on the validation images by one student a try, then students on the test.

What is finished is kept in a folder, a file a row, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import UsageError
from d3codec.format.save import save_atomically
from d3codec.training import photo_students, students
from d3codec.training.photo_students import PhotoGroup

from .selection import Selection

MOST_TRIES = 4
Role = Literal["d3m", "opponent", "own-coder", "control", "reference"]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A training set as it comes back from its bytes.

    groups: what students get. size: bytes, everything counted (0 where nothing is stored). found: what the method
    found on its way (JSON values: side, quality, step, parts of the size). originals: of each group, the images before
    coding, for eyes only; None for a group that never was an image.
    """

    groups: tuple[PhotoGroup, ...]
    size: int
    found: Settings = field(default_factory=dict)
    originals: tuple[NDArray[np.uint8] | None, ...] = ()

    @property
    def images(self) -> int:
        return sum(map(len, self.groups))


@dataclass(frozen=True)
class Plan:
    """A row that is to be measured.

    budget: bytes, None for controls and references. tries: settings, at most MOST_TRIES, JSON values. store: makes the
    training set of settings and the number of a draw; None if the budget is too small for it. drawn: each run stores
    another draw; otherwise all runs share draw 0.
    """

    name: str
    role: Role
    budget: int | None
    tries: tuple[Settings, ...]
    store: Callable[[Settings, int], Stored | None]
    labels: Literal["hard", "soft"] = "hard"
    protocol: Literal["H", "S0", "S1", "T"] = "H"
    drawn: bool = False

    @property
    def key(self) -> tuple[str, int | None]:
        return self.name, self.budget


@dataclass(frozen=True)
class Bench:
    """Where rows are measured: `folder` keeps a file a row; runs take the seeds 0, 1, ...

    steps: of every student; None for the rule of photo_students.schedule.
    """

    selection: Selection
    folder: Path
    seeds: int
    steps: int | None = None

    def row(self, plan: Plan) -> dict[str, Any]:
        """Measure a row, or what is missing of it. Raises UsageError if no try fits its budget."""
        if not 1 <= len(plan.tries) <= MOST_TRIES:
            raise UsageError("too many choices", field=plan.name, found=len(plan.tries), expected=f"1 to {MOST_TRIES}")
        state = self._read(plan)
        best: tuple[int, Stored] | None = None
        for number, settings in enumerate(plan.tries[len(state["tries"]) :], len(state["tries"])):
            stored = plan.store(settings, 0)
            entry: dict[str, Any] = {"settings": settings}
            if stored is not None:
                self._check(plan, stored)
                entry |= self._run(stored, 0)
            state["tries"].append(entry)
            self._write(plan, state)
            if stored is not None and number == _winner(state["tries"]):
                best = number, stored
        winner = _winner(state["tries"])
        if winner is None:
            raise UsageError("no try fits into the budget", field=plan.name, found=plan.budget)
        first = state["tries"][winner]
        known = {0: first} | {int(seed): run for seed, run in state["runs"].items()}
        for seed in range(1, self.seeds):
            if seed in known:
                continue
            if plan.drawn or best is None or best[0] != winner:
                again = plan.store(first["settings"], seed if plan.drawn else 0)
                if again is None:  # a draw that needs more bytes than draw 0
                    raise UsageError("a draw does not fit into the budget", field=plan.name, found=plan.budget)
                self._check(plan, again)
                best = (-1 if plan.drawn else winner), again
            known[seed] = state["runs"][str(seed)] = self._run(best[1], seed)
            self._write(plan, state)
        return self._finished(plan, state["tries"], first["settings"], [known[seed] for seed in range(self.seeds)])

    def _check(self, plan: Plan, stored: Stored) -> None:
        if plan.budget is not None and stored.size > plan.budget:
            raise UsageError("over the budget", field=plan.name, found=stored.size, expected=plan.budget)

    def _run(self, stored: Stored, seed: int) -> dict[str, Any]:
        """One student. The accuracy on the test is kept from the first, but looked at only for the settings chosen."""
        material, began = self.selection.material, time.process_time()
        parts = {"validation": material.validation, "test": material.test}
        with students.one_thread():
            net = photo_students.train_student(
                stored.groups, classes=material.classes, side=material.side, seed=seed, steps=self.steps
            )
            right = {
                name: students.accuracy(photo_students.predict(net, part.images), part.labels)
                for name, part in parts.items()
            }
        return right | {
            "bytes": stored.size,
            "images": stored.images,
            "steps": self.steps or photo_students.schedule(stored.images, len(stored.groups))[0],
            "found": stored.found,
            "cpu_seconds": round(time.process_time() - began, 1),
        }

    def _finished(
        self, plan: Plan, tries: list[dict[str, Any]], settings: Settings, runs: list[dict[str, Any]]
    ) -> dict[str, Any]:
        tests = [run["test"] for run in runs]
        return self._about(plan) | {
            "bytes": max(run["bytes"] for run in runs),
            "accuracy_percent": round(fmean(tests), 2),
            "spread": round(stdev(tests), 2) if len(tests) > 1 else None,
            "runs": len(tests),
            "per_run": [round(value, 2) for value in tests],
            "binomial_error": round(students.binomial_error(fmean(tests), len(self.selection.material.test)), 2),
            "validation_percent": round(fmean(run["validation"] for run in runs), 2),
            "images": runs[0]["images"],
            "steps": runs[0]["steps"],
            "settings": settings,
            "found": runs[0]["found"],
            "tries": [
                {"settings": each["settings"], "validation_percent": round(each["validation"], 2)}
                if "validation" in each
                else {"settings": each["settings"], "refused": "does not fit"}
                for each in tries
            ],
            "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs), 1),
        }

    def _about(self, plan: Plan) -> dict[str, Any]:
        material = self.selection.material
        return {
            "dataset": material.name,
            "side": material.side,
            "budget": plan.budget,
            "name": plan.name,
            "role": plan.role,
            "labels": plan.labels,
            "protocol": plan.protocol,
        }

    def _path(self, plan: Plan) -> Path:
        material = self.selection.material
        words = f"{material.name} {material.side} {plan.name} {plan.budget or ''}"
        return self.folder / (re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-") + ".json")

    def _read(self, plan: Plan) -> dict[str, Any]:
        """What is known of a row: {"plan", "tries", "runs"}. Nothing, if it was another plan's or teacher's."""
        asked = self._about(plan) | {
            "tries": list(plan.tries),
            "steps": self.steps,
            "teacher": self.selection.ensemble.digest,
        }
        start: dict[str, Any] = {"plan": json.loads(json.dumps(asked)), "tries": [], "runs": {}}
        path = self._path(plan)
        if path.exists():
            state: dict[str, Any] = json.loads(path.read_text())
            if state["plan"] == start["plan"]:
                return state
        return start

    def _write(self, plan: Plan, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        save_atomically(self._path(plan), (json.dumps(state, indent=1) + "\n").encode())


def _winner(tries: list[dict[str, Any]]) -> int | None:
    """The try that validates best, the first of equal ones; None if none fitted."""
    fitting = [number for number, each in enumerate(tries) if "validation" in each]
    return max(fitting, key=lambda number: tries[number]["validation"], default=None)
