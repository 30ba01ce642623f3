import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A tiny pipeline, images of three greys, and one encode of them whose work folder is kept."""
    import torch
    from tiny_case import OPTIONS, grey_teacher, three_greys
    from tiny_pipeline import make_pipeline

    from d3codec.methods.d3m import encode

    folder = tmp_path_factory.mktemp("tiny")
    before, threads = os.environ.get("D3CODEC_HOME"), torch.get_num_threads()
    os.environ["D3CODEC_HOME"] = str(folder / "home")
    torch.set_num_threads(1)
    pipeline = make_pipeline(folder / "pipeline")
    options: dict[str, Any] = {**OPTIONS, "generator": pipeline, "teacher": grey_teacher}
    calls: list[tuple[str, int, int]] = []
    output = folder / "tiny.d3m"
    report = encode(
        three_greys(),
        output,
        **options,
        keep_work=True,
        report=folder / "report.json",
        progress=lambda *event: calls.append(event),
    )
    yield SimpleNamespace(
        folder=folder,
        pipeline=pipeline,
        options=options,
        output=output,
        report=report,
        calls=calls,
        images=three_greys(),
        work=Path(f"{output}.work"),
    )
    torch.set_num_threads(threads)
    os.environ.pop("D3CODEC_HOME")
    if before is not None:
        os.environ["D3CODEC_HOME"] = before
