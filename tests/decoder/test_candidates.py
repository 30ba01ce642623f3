"""Chosen candidates: the section `cnd`, and the noise that each image takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_pipeline import make_group, make_pipeline

from d3codec.conditioning import candidates
from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import round_levels
from d3codec.decoder.render import Renderer
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.pack import changed
from d3codec.errors import SectionError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Classes
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.generators.load import load_generator

torch.set_num_threads(1)
CLASSES, SOURCES, BITS = 3, 5, 3
CHOICES = np.random.default_rng(4).integers(0, 1 << BITS, (CLASSES, SOURCES))


# --------------------------------------------------------------------------------------------------------- codec


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits = draw(st.integers(1, 16))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    numbers = draw(
        st.lists(st.integers(0, (1 << bits) - 1), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    )
    return np.array(numbers, np.int64).reshape(shape), bits


@given(tables())
def test_what_is_packed_is_unpacked(table):
    choices, bits = table
    data = candidates.pack(choices, bits)
    assert len(data) == len(choices) * -(-choices.shape[1] * bits // 8)
    np.testing.assert_array_equal(candidates.unpack(data, *choices.shape, bits), choices)
    for row, number in zip(choices.tolist(), range(len(choices)), strict=True):  # the rule of the specification
        size = len(data) // len(choices)
        packed = int.from_bytes(data[number * size : (number + 1) * size], "little")
        assert packed == sum(choice << place * bits for place, choice in enumerate(row))


def test_known_bytes():
    assert candidates.pack([[1, 2, 3, 0, 3]], 2) == bytes([0b00111001, 0b11])
    assert candidates.pack([[65_535], [1]], 16) == b"\xff\xff\x01\x00"


def test_refusals():
    for wrong, bits in (([[2]], 1), ([[-1]], 3), ([1], 3), ([[0.5]], 3), ([[0]], 0), ([[0]], 17)):
        with pytest.raises(ValueError, match="choice"):
            candidates.pack(wrong, bits)
    with pytest.raises(ValueError, match="class 1"):
        candidates.pack([[1], [4]], 2)
    with pytest.raises(SectionError, match="E_SECTION_SIZE"):
        candidates.unpack(b"\1\1\1", 2, 3, 1)
    with pytest.raises(SectionError, match="cnd row 1: E_SECTION_VALUE"):
        candidates.unpack(b"\7\x08", 2, 3, 1)


# --------------------------------------------------------------------------------------------------------- noise


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield make_pipeline(tmp_path_factory.mktemp("candidates") / "pipeline")


@pytest.fixture(scope="module")
def chosen(pipeline):
    """A file whose images are chosen among eight noises each."""
    group, rows = make_group(pipeline, classes=CLASSES, ipc=SOURCES, labels="h")
    group = changed(group, images=changed(group.images, candidates=BITS))
    names = pack_classes([ClassRecord("", str(number)) for number in range(CLASSES)])
    sections = {("cls", None): names, ("emb", 0): rows, ("cnd", 0): candidates.pack(CHOICES, BITS)}
    return D3MFile.open(write_d3m(ContentDraft(Classes(authority="none", count=CLASSES), (group,)), sections))


def test_an_image_takes_the_noise_of_its_choice(pipeline, chosen):
    """It is that of the image with the candidate's number in a group that has them all and chooses none."""
    group = chosen.content.groups[0]
    networks = load_generator(pipeline, cast=group.cast, dtype=torch.float64)
    rows, choices = chosen.section("emb", 0), chosen.section("cnd", 0)
    all_images = changed(group.images, candidates=None, count=SOURCES << BITS)
    everything = Renderer(changed(group, images=all_images), rows, networks, "exact", CLASSES)
    renderer = Renderer(group, rows, networks, "exact", CLASSES, choices=choices)
    sources = [(0, 0), (2, 3), (1, 4), (2, 0)]
    numbers = [(class_, (source << BITS) + int(CHOICES[class_, source])) for class_, source in sources]
    mine, theirs = renderer.levels(sources), everything.levels(numbers)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    other = Renderer(group, rows, networks, "exact", CLASSES, choices=candidates.pack(1 - CHOICES % 2, BITS))
    assert (round_levels(other.levels(sources)) != round_levels(mine)).any(axis=(1, 2, 3)).all()


def test_the_file_says_which(pipeline, chosen):
    verify(chosen)
    units = decoded_units(
        chosen, Plan.of(chosen.content), profile="exact", device="cpu", generator=pipeline, cache=False
    )
    pixels = np.concatenate([images for _, images in units])
    group = chosen.content.groups[0]
    networks = load_generator(pipeline, cast=group.cast, dtype=torch.float64)
    renderer = Renderer(group, chosen.section("emb", 0), networks, "exact", CLASSES, choices=chosen.section("cnd", 0))
    np.testing.assert_array_equal(pixels[6], round_levels(renderer.levels([(1, 1)]))[0])


def test_choices_that_are_not_there_are_refused(pipeline, chosen):
    group = chosen.content.groups[0]
    networks = load_generator(pipeline, cast=group.cast)
    with pytest.raises(SectionError, match="cnd: E_SECTION_SIZE"):
        Renderer(group, chosen.section("emb", 0), networks, "reproducible", CLASSES)
