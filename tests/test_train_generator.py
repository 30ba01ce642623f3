"""The training script in small: killed twice and resumed it leaves the same bytes, which diffusers loads."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
CONFIG = """
name = "stripes"
[images]
source = "to be named on the command line"
patch = 8
grid = 2
[pool]
images = 40
[captions]
tokens = 8
held_out = ["across"]
words = 3
[[captions.templates]]
text = "stripes {name}"
grid = 2
share = 0.4
[[captions.templates]]
text = "stripes {word}"
grid = 2
share = 0.4
[[captions.templates]]
text = "stripes"
grid = 1
share = 0.2
[autoencoder]
widths = [8, 8]
norm_groups = 4
batch = 4
[[autoencoder.phases]]
steps = 10
native = 0.0
kl_weight = 1e-4
[[autoencoder.phases]]
steps = 10
native = 0.7
kl_weight = 2e-5
[text]
width = 16
heads = 2
[unet]
widths = [8, 16]
attention = [false, true]
head_dim = 2
norm_groups = 4
[generator]
steps = 20
batch = 4
warmup = 4
[encoding]
template = "stripes *"
"""
PHOTOGRAPHS = """
name = "flags"
license = "other"
[images]
source = "to be named on the command line"
patch = 16
grid = 1
[captions]
tokens = 8
[words]
start = "flag"
name = 0.5
semantic = { count = 3, share = 0.5 }
layout = { count = 4, share = 0.5 }
fine = { count = 5, share = 0.5 }
side = 16
steps = 4
components = 4
[text]
width = 16
heads = 2
[unet]
widths = [8, 16]
attention = [false, true]
head_dim = 2
norm_groups = 4
pooled_text = true
dropout = 0.1
[generator]
steps = 20
batch = 4
warmup = 4
bfloat16 = true
validate_every = 8
[encoding]
template = "flag *"
"""
FLAGS = ("Red field", "go-kart", "potter's wheel")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A folder of two classes, and the command line that trains on it (the output folder comes last)."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("across", "down")):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(6):
            stripes = (np.arange(9) // 2 % 2 * 200)[:, None] + random.integers(0, 50, (9, 9))
            image = stripes if name == "across" else stripes.T
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / str(label) / f"{number}.png")
    (tmp_path / "images" / "classes.json").write_text('["across", "down"]')
    (tmp_path / "stripes.toml").write_text(CONFIG)
    return [str(tmp_path / "stripes.toml"), "--images", str(tmp_path / "images"), "--device", "cpu", "--out"]


def killed(arguments: list[str], out: Path, name: str, step: int) -> bool:
    """Run the script with a checkpoint at every step; kill it when the one in file `name` holds `step`."""
    command = [sys.executable, str(BENCHMARKS / "train_generator.py"), *arguments, str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*command, "--checkpoint-seconds", "0"], env=environment, stdout=quiet, stderr=quiet)
    while process.poll() is None:
        if (out / name).exists() and steps_in(out / name) >= step:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    return process.wait() == -signal.SIGKILL


def steps_in(path: Path) -> int:
    with path.open("rb") as file:  # safetensors: length, then a JSON header
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["about"])["step"]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries, while they load and save
@pytest.mark.usefixtures("training")
def test_killed_and_resumed_is_the_same_as_never_killed(arguments: list[str], tmp_path: Path) -> None:
    from train_generator import main

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*arguments, str(whole)])
    assert killed(arguments, broken, "autoencoder.safetensors", 3)
    assert steps_in(broken / "autoencoder.safetensors") < 20
    assert not (broken / "vae").exists()
    assert killed(arguments, broken, "generator.safetensors", 2)
    assert steps_in(broken / "generator.safetensors") < 20
    assert not (broken / "pipeline").exists()
    main([*arguments, str(broken)])

    published = sorted(p.relative_to(whole) for p in (whole / "pipeline").rglob("*") if p.is_file())
    assert len([path for path in published if path.suffix == ".safetensors"]) == 3
    for path in published:
        assert (whole / path).read_bytes() == (broken / path).read_bytes(), path
    records = [json.loads((out / "training.json").read_text()) for out in (whole, broken)]
    for key in ("config", "seed", "vae", "losses", "latents"):
        assert records[0][key] == records[1][key], key
    check_pipeline(whole)
    with pytest.raises(SystemExit, match="name another folder"):  # another seed there would mix two runs
        main([*arguments, str(whole), "--seed", "1"])


def check_pipeline(out: Path) -> None:
    folder = out / "pipeline"
    assert json.loads((folder / "encoding.json").read_text()) == {"template": "stripes *"}
    assert "Never named in any caption: across" in (folder / "README.md").read_text()
    for picture in ("curve.png", "samples.png", "vae.png"):
        Image.open(out / picture).verify()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("stripes <k1>", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 16, 16, 3)
    assert np.isfinite(image).all()
    ids = pipeline.tokenizer("stripes <k1>").input_ids
    assert len(ids) == 4  # pseudo-words are one token
    latents = json.loads((out / "training.json").read_text())["latents"]
    np.testing.assert_allclose(latents["mean"], 0, atol=0.01)
    np.testing.assert_allclose(latents["deviation"], 1, atol=0.01)


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    """Two parquet files of three classes, an autoencoder with random weights, and the command line."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        rows = []
        for _ in range(count):
            for label in range(len(FLAGS)):
                pixels = random.integers(0, 80, (16, 16, 3), np.uint8)
                pixels[:, : random.integers(4, 12), label] += 150
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                rows.append({"image": {"bytes": file.getvalue(), "path": "-"}, "label": label})
        table = pyarrow.Table.from_pylist(rows)
        table = table.replace_schema_metadata({"class_names": json.dumps(FLAGS)})
        parquet.write_table(table, tmp_path / f"{part}.parquet")
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    autoencoder = diffusers.AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    autoencoder.half().save_pretrained(tmp_path / "vae")
    (tmp_path / "flags.toml").write_text(PHOTOGRAPHS)
    paths = {"--images": "train.parquet", "--validation": "val.parquet", "--vae": "vae"}
    named = [word for option, name in paths.items() for word in (option, str(tmp_path / name))]
    return [str(tmp_path / "flags.toml"), *named, "--device", "cpu", "--out"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("training")
def test_photographs_in_the_latent_space_of_a_given_autoencoder(photographs: list[str], tmp_path: Path) -> None:
    from train_generator import main

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main([*photographs, str(whole)])
    assert killed(photographs, broken, "generator.safetensors", 10)
    assert 10 <= steps_in(broken / "generator.safetensors") < 20
    main([*photographs, str(broken)])
    published = sorted(p.relative_to(whole) for p in (whole / "pipeline").rglob("*") if p.is_file())
    assert len([path for path in published if path.suffix == ".safetensors"]) == 4  # with the table of words
    for path in published:
        assert (whole / path).read_bytes() == (broken / path).read_bytes(), path

    record = json.loads((broken / "training.json").read_text())
    assert [step for step, _ in record["validation"]] == [8, 16, 20]
    assert record["validation"] == json.loads((whole / "training.json").read_text())["validation"]
    folder = whole / "pipeline"
    card = (folder / "README.md").read_text()
    assert "license: other" in card
    assert "on unseen images" in card
    assert str(tmp_path) not in "".join(p.read_text() for p in [*folder.rglob("*.json"), folder / "README.md"])
    check_photographs(folder)


def check_photographs(folder: Path) -> None:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    assert isinstance(pipeline.vae, diffusers.AutoencoderTiny)
    assert pipeline.unet.config.addition_embed_type == "text"
    pipeline.set_progress_bar_config(disable=True)
    images = {
        prompt: pipeline(
            prompt, num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)
        ).images
        for prompt in ("flag", "flag go-kart")
    }
    assert images["flag"].shape == (1, 16, 16, 3)
    assert np.isfinite(images["flag"]).all()
    assert (images["flag"] != images["flag go-kart"]).any()
    for words in (FLAGS, ("<s0>", "<s2>", "<l0>", "<l3>", "<f0>", "<f4>")):
        ids = [pipeline.tokenizer(f"flag {word}").input_ids for word in words]
        assert {len(row) for row in ids} == {4}  # every name and pseudo-word is one token
        assert len({row[2] for row in ids}) == len(words)
    assert pipeline.tokenizer("flag red field <f1>").input_ids == pipeline.tokenizer("flag Red field <f1>").input_ids


@pytest.mark.usefixtures("training")
def test_drawn_captions_are_what_the_tokenizer_gives(tmp_path: Path) -> None:
    from generator_training.captions import encode_captions
    from generator_training.config import read_config
    from generator_training.words import candidates, drawn_captions, words_tokenizer

    (tmp_path / "flags.toml").write_text(PHOTOGRAPHS)
    config = read_config(tmp_path / "flags.toml")
    tokenizer = words_tokenizer(config, config.words, FLAGS)
    found = torch.tensor([[0, 1, 2], [2, 3, 4]])
    possible = candidates(tokenizer, config.words, FLAGS, np.array([2, 0]), found)
    draw = drawn_captions(tokenizer, config.words, possible, 0.1)
    rows = draw(torch.tensor([0, 1] * 400), torch.Generator().manual_seed(0))
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    names = ("potter's wheel", "<s0>", "<l1>", "<f2>")
    assert not any(word in text for word in ("<s2>", "<l3>", "<f4>", "Red field") for text in texts[::2])
    for name in names:
        assert 130 < sum(name in text for text in texts[::2]) < 230  # half of nine tenths of 400
    assert 50 < sum(not text for text in texts) < 110
    full = [row for row, text in zip(rows.tolist(), texts, strict=True) if all(name in text for name in names)]
    assert len({tuple(row) for row in full}) > 5  # in several orders
    text = "flag <l1> potter's wheel <s0> <f2>"
    ids = encode_captions(tokenizer, [text])[0].tolist()
    assert sorted(ids) in [sorted(row) for row in full]


@pytest.mark.usefixtures("training")
def test_an_image_finds_the_words_of_its_like(tmp_path: Path) -> None:
    from generator_training.config import read_config
    from generator_training.words import find_words, fit_words

    (tmp_path / "flags.toml").write_text(PHOTOGRAPHS)
    words = read_config(tmp_path / "flags.toml").words
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 16, 16, 3), np.uint8)
    latents = torch.randn(60, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    table = fit_words(words, images, images[:, :, ::-1], latents, np.arange(30) % 3, seed=0)
    found = find_words(table, images, latents[:30])
    assert found.shape == (30, 3)
    assert (found.max(0).values < torch.tensor([3, 4, 5])).all()
    assert (found.max(0).values > 0).all()
    torch.testing.assert_close(find_words(table, images[7:9], latents[7:9]), found[7:9])


@pytest.mark.usefixtures("training")
def test_the_feature_network_learns_the_classes(tmp_path: Path) -> None:
    from generator_training.config import read_config
    from generator_training.words import fit_words

    from d3codec.training import students

    (tmp_path / "flags.toml").write_text(PHOTOGRAPHS)
    words = replace(read_config(tmp_path / "flags.toml").words, steps=40)
    labels = np.arange(30) % 3
    images = np.random.default_rng(0).integers(0, 100, (30, 16, 16, 3), np.uint8)
    images[np.arange(30), :, :, labels] += 100
    table = fit_words(words, images, images[:, :, ::-1], torch.randn(60, 4, 8, 8), labels, seed=0)
    net = students.empty_network(3, words.side)
    net.load_state_dict({k.removeprefix("network."): v.float() for k, v in table.items() if k.startswith("network.")})
    assert students.accuracy(students.predict(net.eval(), images), labels) > 90


@pytest.mark.usefixtures("training")
def test_photographs_need_a_published_autoencoder(photographs: list[str], tmp_path: Path) -> None:
    from train_generator import main

    at = photographs.index("--vae")
    with pytest.raises(SystemExit, match="name its folder with --vae"):
        main([*photographs[:at], *photographs[at + 2 :], str(tmp_path / "out")])


@pytest.mark.usefixtures("training")
def test_held_out_classes_are_shown_and_never_named(tmp_path: Path) -> None:
    from generator_training.config import read_config
    from generator_training.pool import build_pool

    from d3codec.sources import read_images

    config = read_config(BENCHMARKS / "generators" / "digits-heldout.toml")
    source = read_images("digits:train")
    pool = build_pool(replace(config, pool=replace(config.pool, images=1000)), source, seed=1)
    assert not any("two" in caption or "five" in caption for caption in pool.captions)
    cells = pool.images.reshape(-1, 2, 8, 2, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 3)
    seen = {cell.tobytes() for cell in cells}
    pairs = zip(source.images, source.labels, strict=True)
    assert {2, 5} <= {int(label) for image, label in pairs if image.tobytes() in seen}


@pytest.mark.usefixtures("training")
def test_unknown_characters_are_refused() -> None:
    from generator_training.captions import encode_captions, make_tokenizer

    tokenizer = make_tokenizer(["a digit zero"], (), 6)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert encode_captions(tokenizer, [""])[0].tolist() == [start] + [end] * 5
    ids = encode_captions(tokenizer, ["a zero"])[0]
    assert tokenizer.convert_ids_to_tokens(ids[1:3]) == ["a</w>", "zero</w>"]
    with pytest.raises(ValueError, match="not in the vocabulary"):
        encode_captions(tokenizer, ["a digit 7"])  # CLIP would quietly make it the end token
    with pytest.raises(ValueError, match="takes 5 tokens of 4"):
        encode_captions(tokenizer, ["a a a a a"])


@pytest.mark.usefixtures("training")
def test_standardised_latents_leave_the_reconstruction_alone() -> None:
    from generator_training.autoencoder import encode_pool, make_autoencoder, standardise, to_float
    from generator_training.config import read_config

    torch.manual_seed(0)
    device = torch.device("cpu")
    net = make_autoencoder(read_config(BENCHMARKS / "generators" / "digits.toml")).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        before = net.encode(to_float(images, device)).latent_dist
        decoded = net.decode(before.mean).sample
        standardise(net, encode_pool(net, images, device))
        after = net.encode(to_float(images, device)).latent_dist
        again = net.decode(after.mean).sample
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-5, rtol=0)
    scale = before.mean.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(after.std * scale, before.std, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("training")
def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    from generator_training.config import read_config

    (tmp_path / "a.toml").write_text(CONFIG.replace("norm_groups", "norm_group", 1))
    with pytest.raises(TypeError, match="norm_group"):
        read_config(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(CONFIG.replace("share = 0.2", "share = 0.3"))
    with pytest.raises(ValueError, match=r"add up to 1\.1"):
        read_config(tmp_path / "a.toml")
