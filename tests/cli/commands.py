"""Running `d3codec` in tests: in this process, or as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from PIL import Image
from tiny_case import three_greys
from tiny_pipeline import make_group

from d3codec.cli.main import main
from d3codec.format.file import ContentDraft, write_d3m
from d3codec.format.manifest import About, Classes
from d3codec.format.sections import ClassRecord, pack_classes

COMMAND = [sys.executable, "-m", "d3codec"]


def call(*arguments: Any) -> Result:
    """The command in this process; stdout and stderr apart."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def answer(*arguments: Any, code: int = 0) -> Any:
    """What --json prints."""
    result = call(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def greys(folder: Path) -> Path:
    """A folder of the images of `tiny_case.three_greys`, ten for each of the classes a, b and c."""
    images, labels, names = three_greys()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def bare_file(
    path: Path,
    names: tuple[str, ...] = ("zero", "one", "two"),
    ids: tuple[str, ...] | None = None,
    about: About | None = None,
    groups: int = 1,
    **options: Any,
) -> Path:
    """A sound file whose generator is nowhere, of one group or some equal ones."""
    group, rows = make_group(Path(), classes=len(names), generator=bytes(32), **options)
    records = [ClassRecord(*pair) for pair in zip(ids or [""] * len(names), names, strict=True)]
    images = group.images
    sections = {("cls", None): pack_classes(records)}
    for number in range(groups):
        sections["emb" if group.conditioning.kind == "delta" else "wrd", number] = rows
        if group.labels.kind == "q":
            sections["lab", number] = bytes(len(names) ** 2 * images.count * images.grid[0] * images.grid[1])
    authority = "none" if ids is None else "ours"
    draft = ContentDraft(Classes(authority=authority, count=len(names)), (group,) * groups)
    path.write_bytes(write_d3m(draft, sections, about))
    return path
