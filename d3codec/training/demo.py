"""The demo: the bundled file against other ways to spend its bytes, as a table and two pictures.

Everything it needs is in the package or in scikit-learn; no network, no GPU.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import d3codec
from d3codec.dataset import load
from d3codec.decoder.writers import contact_sheet, parted
from d3codec.errors import OutputError
from d3codec.format.save import check_writable, save_atomically
from d3codec.sources import read_images
from d3codec.training import students
from d3codec.training.comparison import Progress, Row, compare
from d3codec.training.plots import accuracy_against_bytes, require_matplotlib
from d3codec.training.teachers import load_teacher

ASSETS = Path(d3codec.__file__).parent / "assets"
FILE, TEACHER = ASSETS / "digits.d3m", ASSETS / "digits-teacher.safetensors"
LIMITS = (
    "The generator is shared and not counted, and it was trained on the same training digits: it contains the "
    "data set. Even so, real digits at 1 bit a pixel are as good or better at the same bytes. Digits show that the "
    "machinery works; they are no argument for the method."
)


@dataclass(frozen=True)
class DemoReport:
    """What the demo found: the rows of its table, the pictures it drew, seconds, and where it ran."""

    rows: Sequence[Row]
    pictures: list[Path]
    seconds: float
    generator_bytes: int
    environment: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": [row.as_json() for row in self.rows],
            "pictures": [str(path) for path in self.pictures],
            "seconds": round(self.seconds, 1),
            "generator_bytes": self.generator_bytes,
            "test_images": "digits:test",
            "environment": self.environment,
        }

    def as_table(self) -> str:
        """The rows as text, one line each, for a person."""
        lines = [
            f"{'trained on':16}{'bytes':>8}  {'images':>6}  {'H: accuracy %':16}  {'S0: accuracy %':16}  what it is"
        ]
        for row in self.rows:
            accuracy = f"{row.accuracy_percent:5.1f}" + (f" ± {row.spread:.1f} ({row.runs})" if row.runs > 1 else "")
            cells = [accuracy if row.protocol in (protocol, "-") else "" for protocol in ("H", "S0")]
            lines.append(f"{row.name:16}{row.bytes:>8,}  {row.images:>6,}  {cells[0]:16}  {cells[1]:16}  {row.what}")
        error = max(row.binomial_error for row in self.rows if row.role != "reference")
        notes = (
            "H: hard labels, augmented; S0: stored patch labels, not augmented. ± is the spread over runs; the test "
            f"part itself adds up to {error} points (binomial). {LIMITS}"
        )
        return "\n".join([*lines, notes])


def run_demo(
    output: Path, *, processes: int = 2, seeds: int = 3, steps: int = students.STEPS, progress: Progress | None = None
) -> DemoReport:
    """Decode the bundled file, train all students, draw `accuracy.png` and `contact-sheet.png`, write `demo.json`.

    Arguments:
        output: folder, made if it is not there; files of an earlier run are replaced.
        processes: students trained at once, each on one thread; seeds: runs a row; steps: of each student.

    Raises:
        MissingExtraError: the extra `demo` is not installed.
        OutputError: the folder cannot be written.
    """
    started = time.monotonic()
    train, test = read_images("digits:train"), read_images("digits:test")  # first: it needs an extra
    require_matplotlib()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made: {error.strerror}", file=str(output)) from None
    check_writable(output / "demo.json", lambda start: start.startswith(b"{"))
    rows = compare(
        FILE, train, test, load_teacher(TEACHER), seeds=seeds, steps=steps, processes=processes, progress=progress
    )
    dataset = load(FILE)
    images = [parted(image, dataset.groups[0].grid) for image in dataset.images()]
    ipc = dataset.images_per_class
    sheet = output / "contact-sheet.png"
    contact_sheet([(info.name, images[n * ipc : (n + 1) * ipc]) for n, info in enumerate(dataset.classes)], sheet)
    plot = accuracy_against_bytes(
        rows, output / "accuracy.png", title=f"Digits: one small student, {seeds} runs a row, same optimiser steps"
    )
    weights = sum(path.stat().st_size for path in (ASSETS / "digits-generator").rglob("*.safetensors"))
    report = DemoReport(
        rows,
        [plot, sheet],
        time.monotonic() - started,
        weights,
        environment() | {"seeds": seeds, "steps": steps, "processes": processes},
    )
    save_atomically(output / "demo.json", (json.dumps(report.as_json(), indent=1) + "\n").encode())
    return report


def environment() -> dict[str, Any]:
    """Versions and machine, for figures that others should be able to place."""
    packages = ("torch", "diffusers", "transformers", "numpy", "scikit-learn")
    return {
        "d3codec": d3codec.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }
