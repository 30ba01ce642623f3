"""The recipe `decode`: stored latents, however they are coded, through an autoencoder and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_families import tiny_autoencoder
from tiny_pipeline import make_pipeline

import d3codec
from d3codec import corrections
from d3codec.conditioning import coded, latents, transform
from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.latents import LatentRows
from d3codec.decoder.plan import Extent, Plan, unit_at
from d3codec.decoder.precision import compute_dtype, round_levels
from d3codec.decoder.render import Renderer
from d3codec.decoder.section_reader import SectionReader, reader_of
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.exact import boundary_values
from d3codec.encoder.pack import changed
from d3codec.errors import GeneratorError, SectionError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.limits import CUT_BYTES
from d3codec.format.manifest import (
    BLOCKS,
    REPRODUCIBLE,
    TRANSFORM,
    VALUES,
    Classes,
    DecodeRecipe,
    Exact,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    StoredLatents,
    Window,
)
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

torch.set_num_threads(1)
CLASSES, COUNT, SHAPE = 3, 5, (4, 4, 4)
TOTAL = CLASSES * COUNT
CODINGS = {"blocks": (4, BLOCKS), "values": (4, VALUES), "transform": (0, TRANSFORM)}
NUMBERS = np.random.default_rng(2).normal(size=(TOTAL, *SHAPE))
DATA = Path(os.environ.get("D3CODEC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a tiny autoencoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        folder = tmp_path_factory.mktemp("alone") / "autoencoder"
        tiny_autoencoder(0).save_pretrained(folder)
        yield folder


def encoded(coding: str) -> bytes:
    if coding == "blocks":
        return latents.encode(NUMBERS, 4)
    if coding == "values":
        return coded.encode(NUMBERS.reshape(TOTAL, -1), 4.0)
    return transform.encode_at(NUMBERS, 0.25)


def record(folder: Path, coding: str, **images) -> Group:
    bits, number = CODINGS[coding]
    stored = StoredLatents(bits=bits, coding=number, shape=SHAPE)
    return Group(
        conditioning=NoConditioning(),
        cast="f16",
        generator=describe(folder, "f16").id,
        images=Images(**({"grid": (1, 1), "count": COUNT, "size": (8, 8)} | images)),
        noise_key=0,
        labels=HardLabels(),
        recipe=DecodeRecipe(latents=stored),
    )


def file_of(group: Group, section: bytes, profile=REPRODUCIBLE, fix: bytes = b"", classes: int = CLASSES) -> D3MFile:
    names = pack_classes([ClassRecord("", str(number)) for number in range(classes)])
    sections = {("cls", None): names, ("lat", 0): section} | ({("fix", None): fix} if fix else {})
    return D3MFile.open(write_d3m(ContentDraft(Classes(authority="none", count=classes), (group,), profile), sections))


def pixels(file: D3MFile, folder: Path, profile: str, **view) -> np.ndarray:
    plan = Plan.of(file.content, **view)
    units = list(decoded_units(file, plan, profile=profile, device="cpu", generator=folder, cache=False))
    found = {
        (unit.group, class_, index): image
        for unit, images in units
        for class_, index, image in zip(unit.classes, unit.indices, images, strict=True)
    }
    return np.stack([found[key] for key in plan.images])


def by_the_library(folder: Path, numbers: np.ndarray) -> np.ndarray:
    """Pixels by the stock class in float64, uint8 [N, height, width, 3]."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    network = AutoencoderTiny.from_pretrained(folder)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    network.load_state_dict({name: tensor.half() for name, tensor in weights.items()})
    with torch.no_grad():
        images = network.double().decode(torch.from_numpy(numbers)).sample
    return np.rint(((images / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()).astype(np.uint8)


@pytest.mark.parametrize("coding", CODINGS)
# Shows D3M-102.
def test_the_pixels_are_those_of_the_stock_autoencoder(coding, alone):
    section = encoded(coding)
    file = file_of(record(alone, coding), section)
    verify(file)
    stored = file.content.groups[0].recipe.latents
    numbers = LatentRows(stored, TOTAL, reader_of(section))(np.arange(TOTAL))
    assert np.abs(numbers - NUMBERS).mean() < 0.2
    expected = by_the_library(alone, numbers)
    np.testing.assert_array_equal(pixels(file, alone, "exact"), expected)
    for profile, most in (("reproducible", 1), ("exact-fixed", 1), ("fast", 12)):
        found = pixels(file, alone, profile).astype(int)
        assert np.abs(found - expected).max() <= most, profile
    assert len(np.unique(expected)) > 50


@pytest.mark.parametrize("coding", CODINGS)
def test_any_rows_in_any_order(coding):
    section, (bits, number) = encoded(coding), CODINGS[coding]
    rows = LatentRows(StoredLatents(bits=bits, coding=number, shape=SHAPE), TOTAL, reader_of(section))
    whole = rows(np.arange(TOTAL))
    for wanted in ([0], [14], [3, 4, 5], [9, 2, 3, 14, 3, 3]):
        np.testing.assert_array_equal(rows(np.array(wanted)), whole[wanted])
    np.testing.assert_array_equal(rows.run(4, 6), whole[4:10])


@pytest.mark.parametrize("coding", ["values", "transform"])
def test_rows_that_are_coded_together_are_decoded_once(coding, monkeypatch):
    """Through more of them than one block has."""
    module, shape, count = {"values": coded, "transform": transform}[coding], (4, 8, 8), 600
    numbers = np.random.default_rng(1).normal(size=(count, *shape)).round(1)
    section = coded.encode(numbers.reshape(count, -1), 3.0) if coding == "values" else transform.encode_at(numbers, 0.5)
    decode, calls = module.decode, []
    monkeypatch.setattr(module, "decode", lambda *given, **named: calls.append(named) or decode(*given, **named))
    rows = LatentRows(
        StoredLatents(bits=CODINGS[coding][0], coding=CODINGS[coding][1], shape=shape), count, reader_of(section)
    )
    whole = np.concatenate([rows(np.arange(first, first + 8)) for first in range(0, count, 8)])
    assert len(calls) == 3
    assert np.abs(whole - numbers).max() < 2
    np.testing.assert_array_equal(rows(np.array([599, 255, 256, 0])), whole[[599, 255, 256, 0]])


def test_reproducible_pixels_do_not_depend_on_what_is_asked_for(alone):
    file = file_of(record(alone, "values"), encoded("values"))
    whole = pixels(file, alone, "reproducible")
    np.testing.assert_array_equal(pixels(file, alone, "reproducible", classes=[1]), whole[COUNT : 2 * COUNT])
    np.testing.assert_array_equal(pixels(file, alone, "reproducible", limit=2), whole[[0, 1, 5, 6, 10, 11]])


def test_an_exact_file_is_proved(alone):
    """With what it lists near a boundary, by the rules of every exact file."""
    group, section = record(alone, "transform"), encoded("transform")
    networks = load_generator(alone, cast="f16", dtype=compute_dtype("exact"))
    renderer = Renderer(group, b"", networks, "exact", CLASSES, stored=section)
    levels = renderer.levels([divmod(place, COUNT) for place in range(TOTAL)])
    digest = pixel_digest(image_digest(image) for image in round_levels(levels))
    near = boundary_values(levels, 0.003)
    assert len(near)
    listed = corrections.encode(near, round_levels(levels).reshape(-1)[near])
    file = file_of(group, section, Exact(pixels=digest, corrections=len(near)), listed)
    report = verify(file, decode="all", generator=alone, device="cpu")
    assert (report.pixels, report.images_checked) == ("proved", TOTAL)
    moved = renderer.levels([(0, 0)], perturbation=1e-3)
    assert np.abs(moved - levels[0]).max() > 1e-6  # the start state can be varied as that of a sampler


def test_a_generator_with_a_denoiser_serves_too(alone, tmp_path):
    """Its autoencoder decodes; the rest is idle."""
    pipeline = make_pipeline(tmp_path / "pipeline")
    group = changed(record(alone, "blocks"), generator=describe(pipeline, "f16").id)
    file = file_of(group, encoded("blocks"))
    assert pixels(file, pipeline, "reproducible").shape == (TOTAL, 8, 8, 3)
    with pytest.raises(GeneratorError, match="not the generator"):
        pixels(file, alone, "reproducible")


def test_latents_of_another_shape_are_refused(alone):
    wide = record(alone, "blocks", size=(16, 8))
    with pytest.raises(GeneratorError, match="do not fit the generator and the image size"):
        pixels(file_of(wide, encoded("blocks")), alone, "reproducible")


def test_one_class_is_read_without_the_others(alone):
    """Of fixed rows only the parts that they lie in; damage elsewhere is not met."""
    classes, row = 4, 2 + 4 * 4 * 4 // 2
    count = CUT_BYTES // row  # a part a class
    group = record(alone, "blocks", count=count)
    rows = np.random.default_rng(3).integers(0, 256, (classes * count, row), np.uint8)
    rows[:, :2] = np.frombuffer(np.float16(0.25).tobytes(), np.uint8)
    section = rows.tobytes()
    file = file_of(group, section, classes=classes)
    parts = [part for part in file.parts if part.section == "lat"]
    assert len(parts) == classes
    damaged = bytearray(file.data)
    damaged[parts[1].offset + 50] ^= 1
    other = D3MFile.open(bytes(damaged))
    for part in (0, 2, 3):
        first = part * count
        found = LatentRows(group.recipe.latents, classes * count, SectionReader(other, "lat", 0)).run(first, 8)
        np.testing.assert_array_equal(found, latents.decode(section[first * row : (first + 8) * row], 8, SHAPE, 4))
    np.testing.assert_array_equal(
        pixels(other, alone, "reproducible", classes=[3], limit=3),
        pixels(file, alone, "reproducible", classes=[3], limit=3),
    )
    with pytest.raises(SectionError, match="E_SECTION_CRC"):
        pixels(other, alone, "reproducible", classes=[1], limit=1)


@pytest.mark.parametrize("coding", ["values", "transform"])
def test_damage_is_told_with_the_file(coding, alone, tmp_path):
    section = encoded(coding)
    file = file_of(record(alone, coding), section[: len(section) // 2])
    file.verify()
    for check in (verify, lambda file: pixels(file, alone, "reproducible")):
        with pytest.raises(SectionError, match=r"lat.*E_SECTION") as error:
            check(file)
        assert error.value.file == "<memory>"


def test_work_and_dataset(alone, tmp_path):
    file = file_of(record(alone, "transform"), encoded("transform"))
    work = Work.of(Extent.of(file.content))
    assert (work.images, work.evaluations) == (TOTAL, TOTAL * 64)
    Budget().check(work, "x")
    path = tmp_path / "x.d3m"
    path.write_bytes(file.data)
    dataset = d3codec.load(path)
    assert dataset.groups[0].recipe == "stored latents of 4x4x4 values, transform-coded, decoded as they are"
    assert dataset.groups[0].conditioning == "none"
    images = dataset.subset(classes=[2], ipc=2).images(generator=alone, device="cpu")
    np.testing.assert_array_equal(images, pixels(file, alone, "reproducible", classes=[2], limit=2))


def test_a_window_and_copies(alone):
    images = {
        "size": (4, 4),
        "window": Window(generated=(8, 8), block=(0, 2, 4, 4)),
        "count": 2 * COUNT,
        "augmentation": GddAugmentation(copies=1),
    }
    group = record(alone, "blocks", **images)
    networks = load_generator(alone, cast="f16")
    renderer = Renderer(group, b"", networks, "reproducible", CLASSES, stored=encoded("blocks"))
    found = renderer.render(unit_at(0, 0, 2 * COUNT, CLASSES, 2))
    plain = Renderer(record(alone, "blocks"), b"", networks, "reproducible", CLASSES, stored=encoded("blocks"))
    whole = plain.render(unit_at(0, 0, COUNT, CLASSES))
    np.testing.assert_array_equal(found[::2], whole[:, 0:4, 2:6])
    assert (found[1::2] != found[::2]).any()


def test_the_published_autoencoder(tmp_path):
    """Photographic pixels through transform-coded latents of the tiny autoencoder of Stable Diffusion 3."""
    folder = DATA / "taesd3"
    if not (folder / "config.json").is_file():
        pytest.skip(f"no published autoencoder under {DATA} (folder taesd3; D3CODEC_TEST_DATA names another place)")
    rows, columns = np.meshgrid(np.linspace(0, 3, 64), np.linspace(0, 3, 64), indexing="ij")
    images = np.stack([np.sin(rows), np.cos(columns), np.sin(rows * columns)])[None]
    generator = load_generator(folder, cast="f16")
    with torch.no_grad():
        numbers = generator.encode_images(torch.from_numpy(images).float()).double().numpy()
    stored = StoredLatents(bits=0, coding=TRANSFORM, shape=numbers.shape[1:])
    group = changed(record(folder, "transform", count=1, size=(64, 64)), recipe=DecodeRecipe(latents=stored))
    file = file_of(group, transform.encode(numbers, 1200), classes=1)
    found = pixels(file, folder, "reproducible")[0] / 127.5 - 1
    assert np.sqrt(np.square(found - images[0].transpose(1, 2, 0)).mean()) < 0.15
