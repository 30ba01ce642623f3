"""The identity of a generator: the registry, the digests, and what must and must not change them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError, MissingGeneratorError, UsageError
from d3codec.format import canonical
from d3codec.generators.graphs import (
    AUTOENCODER_KL,
    AUTOENCODER_TINY,
    CLIP_TEXT,
    CLIP_TEXT_PROJECTION,
    DIT_TRANSFORMER_2D,
    FAMILIES,
    GRAPHS,
    UNET_2D_CONDITION,
    choose,
    resolve,
)
from d3codec.generators.load import load_generator
from d3codec.generators.weights import bundled_generator, describe

SPEC = Path(__file__).parents[2] / "spec" / "generators.md"
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp("original") / "pipeline")


@pytest.fixture
def pipeline(original, tmp_path, monkeypatch):
    """A copy to spoil, and a home without records."""
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(original, tmp_path / "pipeline"))


def edit_config(pipeline: Path, part: str, **changes: object) -> None:
    path = pipeline / part / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def edit_weights(pipeline: Path, part: str, edit) -> None:
    path = pipeline / part / WEIGHTS[part]
    save_file(edit(load_file(path)), path)


# --------------------------------------------------------------------------------------------------- registry


def test_the_specification_has_the_same_tables():
    text = SPEC.read_text()
    for graph in GRAPHS.values():
        section = text.split(f"## Graph `{graph.id}`")[1].split("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| `(.*)` \| ?(fixed)? ?\|$", section, re.MULTILINE)
        assert {name: json.loads(value) for name, value, _ in rows} == graph.defaults
        assert {name for name, _, mark in rows if mark} == graph.fixed
        everywhere = re.search(r"ignored in every graph: (.*?)\.\n", text, re.DOTALL)[1]
        obsolete = re.search(r"Obsolete: (.*?)\.\n", section, re.DOTALL)
        fields = re.findall(r"`(\w+)` `([^`]*)`", obsolete[1]) if obsolete else []
        assert {name: json.loads(value) for name, value in fields} == graph.obsolete
        assert re.findall(r"alias `(\w+)`", section) == list(graph.aliases)
        choices = re.search(r"Values: (.*?)\.\n", section, re.DOTALL)
        pieces = re.findall(r"`(\w+)`:\s+([^;]*)", choices[1])
        assert {
            name: tuple(map(json.loads, re.findall(r"`(.*?)`", values))) for name, values in pieces
        } == graph.choices
        own = re.split(r"Ignored: |\n\n", section.split("Ignored: ")[1])[0]
        assert set(re.findall(r"`(\w+)`", everywhere + own)) == graph.ignored
        row = re.search(rf"^\| `{graph.id}` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert re.findall(r"`\*\.([\w.]+)`", row[1]) == list(graph.dropped)
        assert re.findall(r"`(\S+)`", row[2]) == [graph.prefix] * bool(graph.prefix)
        assert dict(re.findall(r"`(\S+)` to `(\S+)`", row[3])) == graph.renamed
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| (`.*`) \| (.*) \|$", text, re.MULTILINE)
    assert {(family, part): (re.findall(r"`([\w-]+)`", graphs), allowed) for family, part, graphs, allowed in rows} == {
        (family, name): (
            [graph.id for graph in part.graphs],
            ", ".join(f"`{field}` {' or '.join(map(quoted, values))}" for field, values in part.allowed.items()) or "-",
        )
        for family, parts in FAMILIES.items()
        for name, part in parts.items()
    }


def quoted(value: object) -> str:
    return f"`{json.dumps(value)}`"


def test_no_field_of_the_installed_networks_is_missing():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    for network, graph in (
        (AutoencoderKL, AUTOENCODER_KL),
        (AutoencoderTiny, AUTOENCODER_TINY),
        (DiTTransformer2DModel, DIT_TRANSFORMER_2D),
        (UNet2DConditionModel, UNET_2D_CONDITION),
    ):
        assert network.__name__ == graph.class_name
        installed = {name: parameter.default for name, parameter in inspect.signature(network).parameters.items()}
        for name, default in installed.items():
            assert name in graph.defaults or name in graph.ignored, name
            if name in graph.defaults:
                plain = list(default) if isinstance(default, tuple) else default
                assert plain == graph.defaults[name], name


def test_no_field_of_the_installed_text_encoder_is_missing():
    from transformers.models.clip.configuration_clip import CLIPTextConfig

    own = {
        field.name: field.default for field in fields(CLIPTextConfig) if field.name in CLIPTextConfig.__annotations__
    }
    assert own.keys() - {"model_type", "base_config_key"} <= CLIP_TEXT.defaults.keys() | CLIP_TEXT.ignored
    for graph in (CLIP_TEXT, CLIP_TEXT_PROJECTION):
        assert {name: own[name] for name in graph.defaults} == graph.defaults
        assert own.keys() - {"model_type", "base_config_key"} <= graph.defaults.keys() | graph.ignored


# Shows D3M-177.
def test_a_resolved_configuration_has_every_field():
    resolved = resolve(UNET_2D_CONDITION, {"norm_num_groups": 16, "mid_block_scale_factor": 1, "x": None}, "f")
    assert resolved.keys() == UNET_2D_CONDITION.defaults.keys()
    assert resolved["norm_num_groups"] == 16
    assert type(resolved["mid_block_scale_factor"]) is float
    assert resolved["layers_per_block"] == 2


def test_negative_zero_does_not_rename():
    assert str(resolve(AUTOENCODER_KL, {"scaling_factor": -0.0}, "f")["scaling_factor"]) == "0.0"


@pytest.mark.parametrize(
    ("graph", "config", "field", "found"),
    [
        (UNET_2D_CONDITION, {"sparkle": 3}, "sparkle", "3"),
        (AUTOENCODER_KL, {"shift_factor": 0.1}, "shift_factor", "0.1"),
        (UNET_2D_CONDITION, {"addition_embed_type": "text_time"}, "addition_embed_type", "text_time"),
        (AUTOENCODER_KL, {"scaling_factor": {"a": 1}}, "scaling_factor", "{'a': 1}"),
        (AUTOENCODER_KL, {"_class_name": "AutoencoderTiny"}, None, "AutoencoderTiny"),
        (CLIP_TEXT, {"architectures": ["CLIPTextModelWithProjection"]}, None, "CLIPTextModelWithProjection"),
        (UNET_2D_CONDITION, {"time_embedding_type": "fourier"}, "time_embedding_type", "fourier"),
        (UNET_2D_CONDITION, {"up_block_types": ["UpBlock2D", "SkipUpBlock2D"]}, "up_block_types", "SkipUpBlock2D"),
        (UNET_2D_CONDITION, {"act_fn": "silu_fp32"}, "act_fn", "silu_fp32"),
        (DIT_TRANSFORMER_2D, {"only_cross_attention": True}, "only_cross_attention", "True"),
        (DIT_TRANSFORMER_2D, {"norm_type": "layer_norm"}, "norm_type", "layer_norm"),
        (CLIP_TEXT, {"architectures": 5}, "architectures", "5"),
        (CLIP_TEXT, {"architectures": {"CLIPTextModel": 1}}, "architectures", "CLIPTextModel"),
        (CLIP_TEXT, {"layer_norm_eps": 10**400}, "layer_norm_eps", "inf"),
        (UNET_2D_CONDITION, {"freq_shift": None}, "freq_shift", "None"),
        (UNET_2D_CONDITION, {"freq_shift": "a"}, "freq_shift", "a"),
        (UNET_2D_CONDITION, {"freq_shift": True}, "freq_shift", "True"),
        (UNET_2D_CONDITION, {"freq_shift": [0]}, "freq_shift", "[0]"),
        (UNET_2D_CONDITION, {"freq_shift": 160}, "freq_shift", "160"),
        (UNET_2D_CONDITION, {"freq_shift": 159.5}, "freq_shift", "159.5"),
        (UNET_2D_CONDITION, {"freq_shift": -1}, "freq_shift", "-1"),
        (UNET_2D_CONDITION, {"freq_shift": 1, "block_out_channels": [3]}, "freq_shift", "1"),
    ],
)
# Shows D3M-178, D3M-179, D3M-180, D3M-182, D3M-183, D3M-184.
def test_what_the_registry_does_not_describe_is_refused(graph, config, field, found):
    with pytest.raises(GeneratorError) as caught:
        resolve(graph, config, "folder/config.json")
    assert caught.value.field == field
    assert found in caught.value.found
    assert "folder/config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "kinds"),
    [("stable-diffusion", (None, "text")), ("stable-diffusion-xl", ("text_time",)), ("latent-diffusion", (None,))],
)
def test_a_family_says_what_joins_the_timestep(family, kinds):
    for kind in (None, "text", "text_time", "text_image", "image", "image_hint"):
        given = (UNET_2D_CONDITION, {"addition_embed_type": kind}, "f", FAMILIES[family]["unet"].allowed)
        if kind in kinds:
            assert resolve(*given)["addition_embed_type"] == kind
        else:
            with pytest.raises(GeneratorError, match="addition_embed_type") as caught:
                resolve(*given)
            assert caught.value.expected == " or ".join(map(repr, kinds))


def test_the_shift_of_the_sinusoids_fits_every_width_that_is_used():
    for shift in (0, 1, 0.5, 159):
        assert resolve(UNET_2D_CONDITION, {"freq_shift": shift}, "f")["freq_shift"] == shift
    config = {"freq_shift": 128, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    with pytest.raises(GeneratorError, match="freq_shift") as caught:
        resolve(UNET_2D_CONDITION, config, "f", FAMILIES["stable-diffusion-xl"]["unet"].allowed)
    assert caught.value.expected == "a number from 0 to 127"
    assert resolve(UNET_2D_CONDITION, config | {"addition_embed_type": None}, "f")["freq_shift"] == 128


@pytest.mark.parametrize("shift", [4, None, "a"])  # the width is 8
# Shows D3M-189.
def test_a_shift_that_has_no_sinusoids_is_refused_at_once(pipeline, shift):
    edit_config(pipeline, "unet", freq_shift=shift)
    for refuse in (describe, load_generator):
        with pytest.raises(GeneratorError, match="freq_shift"):
            refuse(pipeline, cast="f16")


def test_graphs_of_a_part_are_told_apart_by_class():
    both = AUTOENCODER_KL, AUTOENCODER_TINY
    assert choose(both, {"_class_name": "AutoencoderTiny"}, "f") is AUTOENCODER_TINY
    assert choose((CLIP_TEXT,), {}, "f") is CLIP_TEXT
    for config in ({}, {"_class_name": "VQModel"}):
        with pytest.raises(GeneratorError, match="AutoencoderKL or AutoencoderTiny"):
            choose(both, config, "f")


# ---------------------------------------------------------------------------------------------------- digests


def test_the_bundled_generator_has_its_id():
    """Files name it: neither the registry nor the rules may give it another."""
    expected = "9859fb8017196b5064ddac268df07f241daa17eb63715b624d67bd7d78c33761"
    assert describe(bundled_generator(), "f16", trust_records=False).id.hex() == expected


# Shows D3M-097, D3M-098, D3M-099.
def test_the_id_is_that_of_section_6(original):
    """Computed again with nothing but hashlib, numpy and the canonical packing of the specification."""

    def sha(value: bytes) -> bytes:
        return hashlib.sha256(value).digest()

    parts = {}
    for part, graph in {"text_encoder": CLIP_TEXT, "unet": UNET_2D_CONDITION, "vae": AUTOENCODER_KL}.items():
        config = json.loads((original / part / "config.json").read_text())
        resolved = {
            name: float(config[name]) if isinstance(default, float) else config.get(name, default)
            for name, default in graph.defaults.items()
        }
        arrays = {name: array.astype("<f2") for name, array in load_file(original / part / WEIGHTS[part]).items()}
        rows = [[name, "float16", list(array.shape), sha(array.tobytes())] for name, array in sorted(arrays.items())]
        parts[part] = sha(canonical.pack({"config": resolved, "graph": graph.id, "weights": sha(canonical.pack(rows))}))
    record = describe(original, "f16")
    assert record.parts == parts
    assert record.id == sha(canonical.pack({"family": "stable-diffusion", "parts": parts}))
    assert (record.lora, record.outside_bytes) == (None, 0)
    assert record.bytes_by_part["vae"] == 2 * sum(
        array.size for array in load_file(original / "vae" / WEIGHTS["vae"]).values()
    )


def halve(arrays):
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def test_float32_and_float16_publications_are_one_generator(original, pipeline):
    for part in WEIGHTS:
        edit_weights(pipeline, part, halve)
    assert describe(pipeline, "f16").id == describe(original, "f16").id
    assert describe(pipeline, "stored").id != describe(original, "stored").id


def test_the_float16_variant_is_read_if_it_is_alone(original, pipeline):
    for part, name in WEIGHTS.items():
        edit_weights(pipeline, part, halve)
        (pipeline / part / name).rename(pipeline / part / name.replace(".safetensors", ".fp16.safetensors"))
    assert describe(pipeline, "f16").id == describe(original, "f16").id


# Shows D3M-190.
def test_shards_are_one_file(original, pipeline):
    arrays = load_file(pipeline / "unet" / WEIGHTS["unet"])
    names = sorted(arrays)
    where = {name: f"diffusion_pytorch_model-{1 + (place > 20)}.safetensors" for place, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({name: arrays[name] for name in names if where[name] == shard}, pipeline / "unet" / shard)
    (pipeline / "unet" / WEIGHTS["unet"]).unlink()
    (pipeline / "unet" / f"{WEIGHTS['unet']}.index.json").write_text(json.dumps({"weight_map": where}))
    assert describe(pipeline, "f16").id == describe(original, "f16").id


# Shows D3M-185.
def test_names_of_older_publications(original, pipeline):
    def older(arrays):
        return {f"text_model.{name}": array for name, array in arrays.items()} | {
            "text_model.embeddings.position_ids": np.arange(8)[None]
        }

    edit_weights(pipeline, "text_encoder", older)
    assert describe(pipeline, "f16").id == describe(original, "f16").id
    assert (
        AUTOENCODER_KL.tensor_name("encoder.mid_block.attentions.0.proj_attn.weight")
        == "encoder.mid_block.attentions.0.to_out.0.weight"
    )
    assert (
        AUTOENCODER_KL.tensor_name("decoder.mid_block.attentions.0.key.bias")
        == "decoder.mid_block.attentions.0.to_k.bias"
    )


# Shows D3M-181.
def test_what_changes_no_pixel_does_not_rename(original, pipeline):
    edit_config(pipeline, "vae", sample_size=512, force_upcast=False, _diffusers_version="0.1", _name_or_path="x")
    edit_config(pipeline, "text_encoder", projection_dim=3, torch_dtype="float16", transformers_version="4.1")
    edit_config(pipeline, "unet", sample_size=64, act_fn=..., layers_per_block=1, future_field=None)
    shutil.rmtree(pipeline / "tokenizer")
    shutil.rmtree(pipeline / "scheduler")
    assert describe(pipeline, "f16").id == describe(original, "f16").id


@pytest.mark.parametrize(
    ("part", "change"),
    [("vae", {"scaling_factor": 0.75}), ("unet", {"norm_eps": 1e-6}), ("text_encoder", {"hidden_act": "gelu"})],
)
def test_a_field_that_changes_pixels_renames_its_part(original, pipeline, part, change):
    edit_config(pipeline, part, **change)
    before, after = describe(original, "f16"), describe(pipeline, "f16")
    assert {name for name in WEIGHTS if before.parts[name] != after.parts[name]} == {part}
    assert before.id != after.id


def test_one_weight_renames(original, pipeline):
    def nudge(arrays):
        arrays["conv_in.bias"] = arrays["conv_in.bias"] + np.float32(0.01)
        return arrays

    edit_weights(pipeline, "unet", nudge)
    assert describe(pipeline, "f16").id != describe(original, "f16").id


# --------------------------------------------------------------------------------------------------- refusals


# Shows D3M-144, D3M-190.
def test_pickled_weights_are_never_read(pipeline):
    (pipeline / "unet" / WEIGHTS["unet"]).rename(pipeline / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(MissingGeneratorError, match="never reads pickled"):
        describe(pipeline, "f16")


# Shows D3M-186.
def test_a_weight_that_float16_cannot_hold(pipeline):
    edit_weights(pipeline, "vae", lambda arrays: arrays | {"decoder.conv_in.bias": np.full(8, 1e6, np.float32)})
    with pytest.raises(GeneratorError, match="range of float16") as caught:
        describe(pipeline, "f16")
    assert caught.value.field == "decoder.conv_in.bias"
    assert len(describe(pipeline, "stored").id) == 32


@pytest.mark.parametrize("damage", ["cut", "config", "no config", "no part", "shard outside"])
def test_damaged_folders(pipeline, damage):
    weights, config = pipeline / "unet" / WEIGHTS["unet"], pipeline / "unet" / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif damage == "config":
        config.write_text("{")
    elif damage == "no config":
        config.unlink()
    elif damage == "no part":
        shutil.rmtree(pipeline / "unet")
    else:
        weights.unlink()
        Path(f"{weights}.index.json").write_text(json.dumps({"weight_map": {"a": "../vae/x.safetensors"}}))
    with pytest.raises(MissingGeneratorError if damage == "no part" else GeneratorError, match="unet"):
        describe(pipeline, "f16")


def test_an_unknown_cast(pipeline):
    with pytest.raises(UsageError, match="cast"):
        describe(pipeline, "f8")


# ---------------------------------------------------------------------------------------------------- records


def flip_last_byte(path: Path) -> None:
    """Another content of the same size and time."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_record_saves_the_hashing(pipeline):
    first = describe(pipeline, "stored")
    flip_last_byte(pipeline / "unet" / WEIGHTS["unet"])
    assert describe(pipeline, "stored") == first
    assert describe(pipeline, "stored", trust_records=False).id != first.id


def test_a_record_does_not_outlive_its_files(pipeline):
    first = describe(pipeline, "stored")
    path = pipeline / "unet" / WEIGHTS["unet"]
    flip_last_byte(path)
    os.utime(path, ns=(0, 12345))
    assert describe(pipeline, "stored").id != first.id


def test_a_damaged_record_is_made_again(pipeline, tmp_path):
    first = describe(pipeline, "f16")
    [record] = (tmp_path / "home" / "generators").glob("*.json")
    record.write_text(record.read_text()[:50])
    assert describe(pipeline, "f16") == first
    assert json.loads(record.read_text())["id"] == first.id.hex()


def test_a_home_that_cannot_be_written_costs_only_time(original, pipeline, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "file" / "home"))
    assert describe(pipeline, "f16").id == describe(original, "f16").id
