"""Low-rank updates: the sum, its names in the wild, its identity and its bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import make_xl
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError
from d3codec.generators.load import load_generator
from d3codec.generators.lora import LORA_FILE, Update
from d3codec.generators.weights import describe

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
LAYER = "text_model.encoder.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp("original") / "pipeline")


@pytest.fixture
def pipeline(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "pipeline"))


def factors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Rank 3, of a linear layer and a convolution of the U-Net and of a layer of the text encoder; float32."""
    random = torch.Generator().manual_seed(seed)
    shapes = {
        f"unet.{ATTENTION}.to_k": ((3, 16), (16, 3)),
        "unet.conv_in": ((3, 4, 3, 3), (8, 3, 1, 1)),
        f"text_encoder.{LAYER}": ((3, 16), (16, 3)),
    }
    found = {}
    for name, (down, up) in shapes.items():
        found[f"{name}.lora_A.weight"] = torch.randn(down, generator=random) / 10
        found[f"{name}.lora_B.weight"] = torch.randn(up, generator=random) / 10
    return found


def wanted(generator, base, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """The changed weights by the formula, with numpy, from the tensors of a generator without update."""
    lora, found = factors(), {}
    for name in {name.rpartition(".lora_")[0] for name in lora}:
        part, _, module = name.partition(".")
        module = module.removeprefix("text_model.")
        weight = dict(getattr(base, part).named_parameters())[f"{module}.weight"].numpy()
        down, up = (lora[f"{name}.lora_{letter}.weight"].numpy().astype(np.float64) for letter in "AB")
        delta = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        found[f"{part}.{module}.weight"] = torch.from_numpy(weight + scale * delta.reshape(weight.shape))
    return found


def check(pipeline, original, scale: float = 1.0) -> None:
    changed, base = (load_generator(folder, cast="stored", dtype=torch.float64) for folder in (pipeline, original))
    expected = wanted(changed, base, scale)
    for part in ("text_encoder", "unet", "vae"):
        for (name, one), other in zip(
            getattr(changed, part).named_parameters(), getattr(base, part).parameters(), strict=True
        ):
            target = expected.pop(f"{part}.{name.removeprefix('text_model.')}", other)
            np.testing.assert_allclose(one, target, rtol=0, atol=1e-15 if target is not other else 0, err_msg=name)
    assert not expected


def test_the_sum_in_the_layout_of_save_lora_weights(pipeline, original):
    """As diffusers writes it, from what peft gives for the U-Net and the text encoder."""
    from diffusers import StableDiffusionPipeline

    lora = factors()
    StableDiffusionPipeline.save_lora_weights(
        pipeline,
        unet_lora_layers={name.removeprefix("unet."): lora[name] for name in lora if name.startswith("unet.")},
        text_encoder_lora_layers={
            name.removeprefix("text_encoder."): lora[name] for name in lora if name.startswith("text_encoder.")
        },
    )
    assert (pipeline / LORA_FILE).is_file()
    check(pipeline, original)


@pytest.mark.parametrize(
    ("endings", "processor"),
    [
        (("lora.down.weight", "lora.up.weight"), False),
        (("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), False),
        (("down.weight", "up.weight"), True),
    ],
)
def test_older_names(pipeline, original, endings, processor):
    renamed = {}
    for name, tensor in factors().items():
        module, _, letter = name.partition(".lora_")
        if processor and module.endswith("attn2.to_k"):
            module = f"{module.removesuffix('.to_k')}.processor.to_k_lora"
            renamed[f"{module}.{endings[letter[0] == 'B']}"] = tensor
        elif processor:
            renamed[name] = tensor
        else:
            renamed[f"{module}.{endings[letter[0] == 'B']}"] = tensor
    save_file(renamed, pipeline / LORA_FILE)
    check(pipeline, original)


def test_alpha_of_the_file_and_of_its_head(pipeline, original):
    alphas = {f"{name.rpartition('.lora_')[0]}.alpha": torch.tensor(6.0) for name in factors()}
    save_file(factors() | alphas, pipeline / LORA_FILE)
    check(pipeline, original, scale=2.0)
    head = {
        f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in {"r": 3, "lora_alpha": 6}.items()
    }
    save_file(factors(), pipeline / LORA_FILE, metadata={"lora_adapter_metadata": json.dumps(head)})
    check(pipeline, original, scale=2.0)


def test_two_encoders_of_xl(tmp_path):
    folder = make_xl(tmp_path / "xl")
    before = load_generator(folder, cast="stored").text_encoder_2
    module = "encoder.layers.0.mlp.fc1"
    lora = {"down": torch.ones(2, 24), "up": torch.ones(48, 2)}
    save_file(
        {f"text_encoder_2.text_model.{module}.lora_linear_layer.{kind}.weight": value for kind, value in lora.items()},
        folder / LORA_FILE,
    )
    after = load_generator(folder, cast="stored").text_encoder_2
    changed = {
        name
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert {name.removeprefix("text_model.") for name in changed} == {f"{module}.weight"}


def test_the_cast_rounds_weight_and_factors_but_not_their_sum(pipeline):
    save_file(factors(), pipeline / LORA_FILE)
    generator = load_generator(pipeline, cast="f16", dtype=torch.float64)
    weight = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
    down, up = (factors()[f"unet.conv_in.lora_{letter}.weight"].half().double() for letter in "AB")
    delta = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    np.testing.assert_allclose(generator.unet.conv_in.weight, weight.half().double() + delta, rtol=0, atol=1e-15)


def test_one_rank_after_the_other():
    """The bits of the sum are those of IEEE 754 in this order, on every machine."""
    random = np.random.default_rng(0)
    down, up, weight = random.normal(size=(5, 7)), random.normal(size=(6, 5)), random.normal(size=(6, 7))
    total = np.zeros((6, 7))
    for rank in range(5):
        total = total + np.outer(up[:, rank], down[rank])
    found = Update(torch.from_numpy(down), torch.from_numpy(up), 2.0).added_to(torch.from_numpy(weight))
    assert np.array_equal(found.numpy(), weight + total * (2.0 / 5))


def test_identity_and_bytes(original, pipeline):
    plain = describe(original, "f16")
    save_file(factors(), pipeline / LORA_FILE)
    full = describe(pipeline, "f16")
    count = sum(tensor.numel() for tensor in factors().values())
    assert full.parts == plain.parts
    assert full.id != plain.id
    assert (plain.lora, plain.outside_bytes) == (None, 0)
    assert full.outside_bytes == 2 * count
    assert describe(pipeline, "stored").outside_bytes == 4 * count
    assert describe(pipeline, "f16") == full  # from the record
    save_file({name: tensor.half() for name, tensor in factors().items()}, pipeline / LORA_FILE)
    assert describe(pipeline, "f16").id == full.id
    save_file(factors(seed=1), pipeline / LORA_FILE)
    assert describe(pipeline, "f16").id not in (full.id, plain.id)
    head = json.dumps({"unet.lora_alpha": 1})
    save_file(factors(), pipeline / LORA_FILE, metadata={"lora_adapter_metadata": head})
    assert describe(pipeline, "f16").id not in (full.id, plain.id)
    (pipeline / LORA_FILE).unlink()
    assert describe(pipeline, "f16") == plain


# Shows D3M-101.
def test_the_id_is_that_of_section_6(pipeline):
    """With nothing but hashlib and the canonical packing."""
    import hashlib

    from d3codec.format import canonical

    save_file(factors(), pipeline / LORA_FILE)
    rows = []
    for name in sorted({name.rpartition(".lora_")[0] for name in factors()}, key=str.encode):
        part, _, module = name.partition(".")
        row = [part, f"{module.removeprefix('text_model.')}.weight", 3.0]
        for letter in "AB":
            data = factors()[f"{name}.lora_{letter}.weight"].numpy().astype("<f2")
            row += ["float16", list(data.shape), hashlib.sha256(data.tobytes()).digest()]
        rows.append(row)
    record = describe(pipeline, "f16")
    assert record.lora == hashlib.sha256(canonical.pack(rows)).digest()
    whole = {"family": "stable-diffusion", "lora": record.lora, "parts": record.parts}
    assert record.id == hashlib.sha256(canonical.pack(whole)).digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": torch.ones(2, 2)}, "not a low-rank update"),
        ({"transformer.a.lora_A.weight": torch.ones(2, 2)}, "not a low-rank update"),
        ({"unet.conv_in.lora_magnitude_vector": torch.ones(8)}, "not a low-rank update"),
        ({"unet.conv_out.lora_A.weight": torch.ones(3, 8, 3, 3)}, "half of"),
        ({"unet.no.such.lora_A.weight": torch.ones(1, 2), "unet.no.such.lora_B.weight": torch.ones(2, 1)}, "not there"),
        (
            {
                "unet.conv_out.lora_A.weight": torch.ones(1, 7, 3, 3),
                "unet.conv_out.lora_B.weight": torch.ones(4, 1, 1, 1),
            },
            "does not fit",
        ),
    ],
)
def test_updates_that_cannot_be_added(pipeline, change, words):
    save_file(factors() | change, pipeline / LORA_FILE)
    with pytest.raises(GeneratorError, match=words) as caught:
        load_generator(pipeline, cast="stored")
    assert LORA_FILE in str(caught.value)


def two(module: str, down: str = "lora_A", up: str = "lora_B", rank: int = 2) -> dict[str, torch.Tensor]:
    return {f"unet.{module}.{down}.weight": torch.ones(rank, 16), f"unet.{module}.{up}.weight": torch.ones(16, rank)}


def in_the_autoencoder(module: str) -> dict[str, torch.Tensor]:
    name = f"vae.decoder.mid_block.attentions.0.{module}"
    return {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}


NAN = float("nan")
DOWN = f"unet.{ATTENTION}.to_k.lora_A.weight"
UP = f"unet.{ATTENTION}.to_k.lora_B.weight"
ALPHA = f"unet.{ATTENTION}.to_k.alpha"


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (factors() | two(f"{ATTENTION}.to_k", "lora.down", "lora.up"), "two updates of one weight"),
        (factors() | two(f"{ATTENTION}.processor", "to_k_lora.down", "to_k_lora.up"), "two updates of one weight"),
        (factors() | two(f"{ATTENTION}.to_q", "lora_A", "lora.up"), "names of two kinds"),
        (
            {name: value for name, value in factors().items() if name != UP}
            | {f"unet.{ATTENTION}.processor.to_k_lora.up.weight": torch.ones(16, 3)},
            "names of two kinds",
        ),
        (in_the_autoencoder("query") | in_the_autoencoder("to_q"), "two updates of one weight"),
        (
            {
                name.replace("to_q", "query") if "lora_B" in name else name: value
                for name, value in in_the_autoencoder("to_q").items()
            },
            "names of two kinds",
        ),
        (factors() | {UP: torch.ones(16, 2)}, "factors"),
        (factors() | {UP: torch.ones(16)}, "factors"),
        (factors() | {DOWN: torch.tensor(1.0)}, "factors"),
        (factors() | {DOWN: torch.ones(0, 16), UP: torch.ones(16, 0)}, "factors"),
        (factors() | {DOWN: torch.ones(3, 15)}, "does not fit the weight"),
        (factors() | {UP: torch.ones(15, 3)}, "does not fit the weight"),
        (two("no.such.module"), "not there"),
        (factors() | {ALPHA: torch.tensor([1.0, 2.0])}, "alpha"),
        (factors() | {ALPHA: torch.tensor(NAN)}, "alpha"),
        (factors() | {ALPHA: torch.tensor(-0.0)}, "alpha"),
        (factors() | {ALPHA: torch.tensor(1j)}, "alpha"),
    ],
)
# Shows D3M-187.
def test_an_update_that_is_not_one_has_no_id(pipeline, lora, words):
    """Neither an id nor networks; nothing is dropped in silence."""
    save_file(lora, pipeline / LORA_FILE)
    for refuse in (describe, load_generator):
        with pytest.raises(GeneratorError, match=words) as caught:
            refuse(pipeline, cast="stored")
        assert LORA_FILE in str(caught.value)


def test_the_older_names_of_the_autoencoder(pipeline):
    ids = set()
    for module in ("to_q", "query"):
        save_file(in_the_autoencoder(module), pipeline / LORA_FILE)
        ids.add(describe(pipeline, "stored").id)
        load_generator(pipeline, cast="stored")
    assert len(ids) == 1


@pytest.mark.parametrize("alpha", ["NaN", "Infinity", "-0.0", "null", "[1]", "1" + "0" * 400])
def test_an_alpha_of_the_head_that_is_none(pipeline, alpha):
    head = f'{{"unet.lora_alpha": {alpha}}}'
    save_file(factors(), pipeline / LORA_FILE, metadata={"lora_adapter_metadata": head})
    with pytest.raises(GeneratorError, match="alpha"):
        describe(pipeline, "stored")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('{"unet.use_dora": true}', "another kind"),
        ('{"unet.alpha_pattern": {"a": 1}}', "another kind"),
        ("[", "settings"),
        ("[]", "settings"),
        ("[" * 100_000, "settings"),
    ],
)
def test_other_kinds_of_updates(pipeline, head, words):
    save_file(factors(), pipeline / LORA_FILE, metadata={"lora_adapter_metadata": head})
    with pytest.raises(GeneratorError, match=words):
        load_generator(pipeline, cast="stored")


def test_a_damaged_file(pipeline):
    (pipeline / LORA_FILE).write_bytes(b"nothing")
    with pytest.raises(GeneratorError, match=LORA_FILE):
        describe(pipeline, "f16")
