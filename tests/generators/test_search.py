"""Where a generator is found: the folder given, the package, the local Hugging Face cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_families import make_dit, make_latent_diffusion, make_xl
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError, MissingGeneratorError
from d3codec.generators import ready
from d3codec.generators.lora import LORA_FILE
from d3codec.generators.weights import describe, find_generator, home, hub_cache, repository_of


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


@pytest.mark.parametrize("make", [make_xl, make_dit, make_latent_diffusion])
def test_every_family_is_found_in_the_cache(pipelines, hub, tmp_path, make):
    publish(hub, "a/other", pipelines[0])
    snapshot = publish(hub, "b/wanted", make(tmp_path / "pipeline"))
    assert find_generator(describe(snapshot, "f16").id, "f16") == snapshot


def test_a_repository_of_another_kind_says_why(hub):
    folder = hub / "models--some--flux" / "snapshots" / "1"
    for part in ("transformer", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(b"")
        (folder / part / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(GeneratorError, match="FluxTransformer2DModel"):
        find_generator(bytes(32), "f16", given="some/flux")
    with pytest.raises(MissingGeneratorError):
        find_generator(bytes(32), "f16")


def test_a_broken_snapshot_does_not_stop_the_search(pipelines, hub):
    broken = publish(hub, "a/broken", pipelines[0])
    (broken / "unet" / "config.json").unlink()
    snapshot = publish(hub, "b/good", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot


@pytest.mark.parametrize(
    "config",
    [
        '{"architectures": 5}',
        '{"architectures": {"CLIPTextModel": 1}}',
        '{"layer_norm_eps": 1' + "0" * 400 + "}",
        '{"vocab_size": 1' + "0" * 30 + "}",
        '{"vocab_size": "\\ud800"}',
        '{"vocab_size": ' + "[" * 100_000,
        '{"vocab_size": ' + "[" * 500 + "]" * 500 + "}",
        '{"sparkle": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_a_bad_configuration_does_not_stop_the_search(pipelines, hub, config):
    broken = publish(hub, "a/broken", pipelines[0])
    (broken / "text_encoder" / "config.json").write_text(config)
    snapshot = publish(hub, "b/good", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot
    with pytest.raises(GeneratorError):
        describe(broken, "f16")


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.tensor(float("nan")), torch.tensor(-0.0)])
def test_a_bad_low_rank_update_does_not_stop_the_search(pipelines, hub, alpha):
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    broken = publish(hub, "a/broken", pipelines[0])
    lora = {f"{name}.lora_A.weight": torch.ones(3, 16), f"{name}.lora_B.weight": torch.ones(16, 3)}
    save_file(lora | {f"{name}.alpha": alpha}, broken / LORA_FILE)
    snapshot = publish(hub, "b/good", pipelines[0])
    assert find_generator(describe(pipelines[0], "stored").id, "stored") == snapshot


@pytest.mark.parametrize(
    "index",
    [
        "[" * 100_000,
        '{"weight_map": {}}',
        '{"weight_map": {"a": "b\\u0000.safetensors"}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": "x.bin"}}',
    ],
)
def test_a_bad_index_does_not_stop_the_search(pipelines, hub, index):
    broken = publish(hub, "a/broken", pipelines[0])
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    Path(f"{path}.index.json").write_text(index)
    snapshot = publish(hub, "b/good", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot
    with pytest.raises(GeneratorError, match="unet"):
        describe(broken, "f16")


def test_a_repository_is_found_in_the_cache(pipelines, hub):
    publish(hub, "someone/wanted", pipelines[1], "1" * 40)
    snapshot = publish(hub, "someone/wanted", pipelines[0], "2" * 40)
    assert find_generator(describe(pipelines[0], "f16").id, "f16", given="someone/wanted") == snapshot


@pytest.mark.parametrize(
    "repository", ["stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"]
)
def test_a_ready_configuration_is_found_in_the_cache(pipelines, hub, repository):
    publish(hub, "someone/other", pipelines[1])
    snapshot = publish(hub, repository, pipelines[0])
    wanted = describe(pipelines[0], "f16").id
    for name in ("sd-1.5", "SD-1.5"):
        assert find_generator(wanted, "f16", given=name) == snapshot
    with pytest.raises(GeneratorError, match="not the generator"):
        find_generator(describe(pipelines[1], "f16").id, "f16", given="sd-1.5")


def test_a_folder_comes_before_a_name(pipelines, hub, tmp_path, monkeypatch):
    publish(hub, "stable-diffusion-v1-5/stable-diffusion-v1-5", pipelines[1])
    shutil.copytree(pipelines[0], tmp_path / "sd-1.5")
    monkeypatch.chdir(tmp_path)
    assert find_generator(describe(pipelines[0], "f16").id, "f16", given="sd-1.5") == Path("sd-1.5")


def test_the_repository_of_a_folder(pipelines, hub):
    assert hub_cache() == hub
    snapshot = publish(hub, "some-one/a--b", pipelines[0])
    assert repository_of(snapshot) == "some-one/a--b"
    assert repository_of(snapshot / "unet") is None
    assert repository_of(pipelines[0]) is None
    assert repository_of(Path("/")) is None


def test_weights_of_a_known_id_are_named(monkeypatch):
    found = replace(ready.find("sd-1.5"), ids={"f16": "ab" * 32, "stored": None})
    monkeypatch.setattr(ready, "configurations", lambda: (found,))
    with pytest.raises(
        MissingGeneratorError, match=r"Stable Diffusion 1\.5\. .*4,265 MB\): d3codec generators fetch sd-1\.5$"
    ):
        find_generator(b"\xab" * 32, "f16")
    with pytest.raises(MissingGeneratorError) as caught:
        find_generator(b"\xab" * 32, "stored")
    assert "sd-1.5" not in str(caught.value)


def test_another_cache_folder(pipelines, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    snapshot = publish(tmp_path / "elsewhere", "someone/wanted", pipelines[0])
    assert find_generator(describe(pipelines[0], "f16").id, "f16") == snapshot


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (None, "--generator"),
        (None, "d3codec generators fetch NAME|REPO"),
        ("no/where", "d3codec generators fetch no/where"),
        ("sdxl-turbo", "d3codec generators fetch sdxl-turbo"),
        ("/no/such/folder", "Check the path"),
        ("../..x", "Check the path"),
    ],
)
def test_nothing_found(given, hint):
    with pytest.raises(MissingGeneratorError) as caught:
        find_generator(bytes(32), "f16", given=given)
    assert caught.value.exit_code == 4
    assert hint in str(caught.value)
