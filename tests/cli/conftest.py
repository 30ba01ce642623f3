"""A tiny generator and files that it decodes, made once a process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from cli.commands import bare_file


@pytest.fixture
def bare(tmp_path):
    return bare_file(tmp_path / "bare.d3m")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """pipeline: a folder; file: three classes of five images, with pixel digest."""
    import torch
    from tiny_pipeline import make_file, make_pipeline

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        pipeline = make_pipeline(folder / "pipeline")
        return SimpleNamespace(pipeline=pipeline, file=make_file(folder / "tiny.d3m", pipeline, ipc=5))
