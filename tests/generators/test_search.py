"""Where a generator is found: the folder given, the package, the local Hugging Face cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError, MissingGeneratorError
from d3codec.generators.weights import describe, find_generator, home


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    return [make_pipeline(folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache and an empty home."""
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def publish(hub: Path, repository: str, pipeline: Path, revision: str = "0" * 40) -> Path:
    """As huggingface_hub lays out its cache."""
    return Path(shutil.copytree(pipeline, hub / f"models--{repository.replace('/', '--')}" / "snapshots" / revision))


def test_home_is_what_the_variable_says(tmp_path, monkeypatch):
    assert home() == tmp_path / "home"
    monkeypatch.delenv("D3CODEC_HOME")
    assert home().name == "d3codec"


def test_the_folder_given(pipelines):
    assert find_generator(describe(pipelines[0], "f16").id, "f16", given=pipelines[0]) == pipelines[0]


def test_another_generator_is_refused_with_both_ids(pipelines):
    wanted, other = (describe(folder, "f16").id for folder in pipelines)
    with pytest.raises(GeneratorError) as caught:
        find_generator(wanted, "f16", given=pipelines[1])
    assert caught.value.exit_code == 3
    assert (caught.value.found, caught.value.expected) == (other.hex(), wanted.hex())


def test_the_cast_belongs_to_the_id(pipelines):
    with pytest.raises(GeneratorError, match="not the generator"):
        find_generator(describe(pipelines[0], "f16").id, "stored", given=pipelines[0])


def test_the_hugging_face_cache_is_searched(pipelines, hub):
    publish(hub, "someone/other", pipelines[1])
    snapshot = publish(hub, "someone/wanted", pipelines[0])
    (hub / "models--someone--text" / "snapshots" / "1").mkdir(parents=True)
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot


def test_a_broken_snapshot_does_not_stop_the_search(pipelines, hub):
    broken = publish(hub, "a/broken", pipelines[0])
    (broken / "unet" / "config.json").unlink()
    snapshot = publish(hub, "b/good", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot


def test_a_repository_is_found_in_the_cache(pipelines, hub):
    publish(hub, "someone/wanted", pipelines[1], "1" * 40)
    snapshot = publish(hub, "someone/wanted", pipelines[0], "2" * 40)
    assert find_generator(describe(pipelines[0], "f16").id, "f16", given="someone/wanted") == snapshot


def test_another_cache_folder(pipelines, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    snapshot = publish(tmp_path / "elsewhere", "someone/wanted", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (None, "--generator"),
        ("no/where", "hf download no/where"),
        ("/no/such/folder", "Check the path"),
        ("../..x", "Check the path"),
    ],
)
def test_nothing_found(given, hint):
    with pytest.raises(MissingGeneratorError) as caught:
        find_generator(bytes(32), "f16", given=given)
    assert caught.value.exit_code == 4
    assert hint in str(caught.value)
