"""Entropy-coded rows: the same numbers as in blocks make the same pixels, in one file or another."""

from __future__ import annotations

from typing import Any

import method_files
import numpy as np
import pytest
import tiny_families
import torch
from tiny_pipeline import make_group, make_pipeline

from d3codec import entropy
from d3codec.conditioning import coded, delta, latents, vectors
from d3codec.decoder import values
from d3codec.decoder.plan import Plan
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.pack import changed
from d3codec.errors import SectionError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Classes, Group, HardLabels, Images
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.generators.weights import describe

torch.set_num_threads(1)
CLASSES = 2


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def on_a_grid(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Odd multiples of one step, which blocks and coded rows both hold exactly."""
    numbers = (2 * rng.integers(-8, 8, shape) + 1) / 64
    numbers[..., 0] = 15 / 64  # so that every row has the whole range
    return np.asarray(numbers)


def file_of(group: Group, sections: dict[str, bytes]) -> D3MFile:
    names = pack_classes([ClassRecord("", f"thing {number}") for number in range(CLASSES)])
    draft = ContentDraft(Classes(authority="none", count=CLASSES), (group,))
    keyed = {("cls", None): names, **{(name, 0): data for name, data in sections.items()}}
    return D3MFile.open(write_d3m(draft, keyed))


def pixels(file: D3MFile, pipeline: Any) -> np.ndarray:
    verify(file)
    plan = Plan.of(file.content)
    units = decoded_units(file, plan, profile="reproducible", device="cpu", generator=pipeline, cache=False)
    return np.concatenate([images for _, images in units])


def exactly(numbers: np.ndarray) -> bytes:
    """Coded rows that hold these numbers as they are, by spec/entropy.md 5: 16 levels, one scale, a flat table."""
    flat = numbers.reshape(len(numbers), -1)
    levels = np.rint(flat * 32 + 7.5).astype(np.int64).reshape(-1)
    assert levels.size < 8_192  # one block of one lane
    writer = entropy.Writer(1, 1)
    writer.put(levels, entropy.Tables(np.full((1, 16), 256)), 0, np.array([levels.size]))
    data = bytes([16, 0, 0]) + np.array(-1 / 32, "<f2").tobytes() + writer.finish()[0]
    np.testing.assert_array_equal(coded.decode(data, *flat.shape, "emb"), flat)
    return data


def test_differences(tmp_path_factory):
    pipeline = make_pipeline(tmp_path_factory.mktemp("coded") / "pipeline")
    group, _ = make_group(pipeline, classes=CLASSES, ipc=5, labels="h", bits=4)
    numbers = on_a_grid(np.random.default_rng(1), (CLASSES, 2, 16))
    blocks = delta.encode(numbers, 4)
    np.testing.assert_array_equal(delta.decode(blocks, CLASSES, 2, (16,), 4)[0], numbers)
    in_blocks = pixels(file_of(group, {"emb": blocks}), pipeline)
    coded_group = changed(group, conditioning=changed(group.conditioning, coded=True))
    as_stream = pixels(file_of(coded_group, {"emb": exactly(numbers)}), pipeline)
    np.testing.assert_array_equal(as_stream, in_blocks)
    assert len(np.unique(in_blocks)) > 10


def test_differences_of_two_text_encoders(tmp_path_factory):
    """A coded row has those of the first encoder, then those of the second."""
    from d3codec.decoder.rows import ConditioningRows
    from d3codec.format.manifest import SecondEncoder
    from d3codec.generators.load import load_generator

    pipeline = tiny_families.make_xl(tmp_path_factory.mktemp("coded") / "xl")
    generator = load_generator(pipeline, cast="f16", dtype=torch.float32, device="cpu")
    widths = tuple(generator.text_widths)
    rng = np.random.default_rng(2)
    numbers = [on_a_grid(rng, (CLASSES, 1, width)) for width in widths]
    base, _ = make_group(pipeline, classes=CLASSES, ipc=1, labels="h", bits=4, generator=bytes(32))
    conditioning = changed(
        base.conditioning,
        slots=(2,),
        width=widths[0],
        second=SecondEncoder(pad_id=25, time_ids=tiny_families.TIME_IDS, width=widths[1]),
    )
    rows = {}
    for name in (False, True):
        group = changed(base, conditioning=changed(conditioning, coded=name))
        data = exactly(np.concatenate(numbers, axis=2)) if name else delta.encode(numbers[0], 4, numbers[1])
        rows[name] = ConditioningRows(group, data, generator, "reproducible", CLASSES)(np.arange(CLASSES))
    for plain, stream in zip(vars(rows[False]).values(), vars(rows[True]).values(), strict=True):
        if isinstance(plain, torch.Tensor):
            assert torch.equal(plain, stream)


def test_vectors_and_stored_latents(tmp_path_factory):
    """With a row an image, the unconditional one, and a latent for each image."""
    pipeline = tiny_families.make_latent_diffusion(tmp_path_factory.mktemp("coded") / "ld3m")
    group, _, _ = method_files.ld3m(describe(pipeline, "f16").id)
    start = group.recipe.start
    rng = np.random.default_rng(3)
    conditions, clean = on_a_grid(rng, (7, 1, 16)), on_a_grid(rng, (6, *start.stored.shape))
    group = changed(
        group,
        conditioning=changed(group.conditioning, bits=4),
        recipe=changed(group.recipe, start=changed(start, stored=changed(start.stored, bits=4))),
    )
    sections = {"emb": vectors.encode(conditions, 4), "lat": latents.encode(clean, 4)}
    in_blocks = pixels(file_of(group, sections), pipeline)
    start = group.recipe.start
    stream = changed(
        group,
        conditioning=changed(group.conditioning, coded=True),
        recipe=changed(group.recipe, start=changed(start, stored=changed(start.stored, coding=1))),
    )
    sections = {"emb": exactly(conditions), "lat": exactly(clean)}
    np.testing.assert_array_equal(pixels(file_of(stream, sections), pipeline), in_blocks)


def test_streams_that_are_none_are_refused():
    group, _ = make_group(None, classes=CLASSES, ipc=5, labels="h", generator=bytes(32))
    group = changed(group, conditioning=changed(group.conditioning, coded=True))
    good = exactly(on_a_grid(np.random.default_rng(1), (CLASSES, 2, 16)))
    verify(file_of(group, {"emb": good}))
    for wrong in (b"", good[:-1], good[:-2], good + b"\0\0", good[:3] + bytes(2) + good[5:]):
        file = file_of(group, {"emb": wrong})
        file.verify()
        with pytest.raises(SectionError, match=r"emb.*E_SECTION") as error:
            verify(file)
        assert error.value.file == "<memory>"


def test_promises_of_too_much_work_are_refused(monkeypatch):
    """A few bytes that say they are billions of numbers."""
    group, _ = make_group(None, classes=CLASSES, ipc=5, labels="h", generator=bytes(32))
    many = Images(grid=(1, 1), count=2**20, size=(8, 8))
    conditioning = changed(group.conditioning, coded=True, rows="image", width=1_024)
    group = changed(group, conditioning=conditioning, images=many, labels=HardLabels())
    file = file_of(group, {"emb": b"1"})
    with pytest.raises(UsageError, match=r"more work than the budget allows.*34,359,738,368 bytes of numbers"):
        verify(file)
    with pytest.raises(SectionError):
        verify(file, budget=None)
    monkeypatch.setattr(values, "LARGEST_BYTES", 1 << 40)
    with pytest.raises(SectionError):
        verify(file)
