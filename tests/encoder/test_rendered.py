"""A group that is in no file yet decodes to what a reader of its file gets; `exact` lists what lies near a boundary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photograph_case import NAMES, make_autoencoder

from d3codec import corrections
from d3codec.conditioning import transform
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import compute_dtype
from d3codec.decoder.render import Renderer
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder import exact
from d3codec.encoder.pack import Pixels, changed, class_section
from d3codec.encoder.rendered import Rendered, render_group
from d3codec.errors import PixelsError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    TRANSFORM,
    Classes,
    DecodeRecipe,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    StoredLatents,
)
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

torch.set_num_threads(1)
COUNT, SHAPE = 7, (4, 4, 4)  # 21 images: two whole units and a part of one, which straddle classes
LATENTS = transform.encode_at(np.random.default_rng(5).normal(size=(3 * COUNT, *SHAPE)), 0.3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        folder = make_autoencoder(tmp_path_factory.mktemp("alone") / "autoencoder")
        describe(folder, "f16")
        yield folder


def record(alone, **images) -> Group:
    return Group(
        conditioning=NoConditioning(),
        cast="f16",
        generator=describe(alone, "f16").id,
        images=Images(**({"grid": (1, 1), "count": COUNT, "size": (8, 8)} | images)),
        noise_key=0,
        labels=HardLabels(),
        recipe=DecodeRecipe(latents=StoredLatents(bits=0, coding=TRANSFORM, shape=SHAPE)),
    )


def rendered(alone, profile: str, group: Group, progress=None) -> Rendered:
    networks = load_generator(alone, cast="f16", dtype=compute_dtype(profile))
    return render_group(group, Renderer(group, b"", networks, profile, 3, stored=LATENTS), 3, profile, progress)


def file_of(group: Group, found: Rendered, profile: str) -> D3MFile:
    promise = Pixels(profile, pixel_digest(found.digests), None, (found.places, found.levels)).record()
    sections = {("cls", None): class_section(NAMES, None, "none"), ("lat", 0): LATENTS}
    if len(found.places):
        sections["fix", None] = corrections.encode(found.places, found.levels)
    return D3MFile.open(write_d3m(ContentDraft(Classes(authority="none", count=3), (group,), promise), sections))


@pytest.mark.parametrize("profile", ["reproducible", "exact"])
def test_it_is_what_a_reader_decodes(profile, alone):
    seen: list[tuple[str, int, int]] = []
    group = record(alone)
    found = rendered(alone, profile, group, lambda *event: seen.append(event))
    assert seen == [("decode", number, 3) for number in (1, 2, 3)]
    assert found.images.shape == (3 * COUNT, 8, 8, 3)
    assert found.digests == [image_digest(image) for image in found.images]
    file = file_of(group, found, profile)
    units = decoded_units(file, Plan.of(file.content), profile=profile, device="cpu", generator=alone, cache=False)
    assert (np.concatenate([pixels for _, pixels in units]) == found.images).all()
    report = verify(file, decode="all", generator=alone, device="cpu")
    assert report.pixels == ("proved" if profile == "exact" else "unproved")


def test_values_near_a_boundary_are_listed(alone, monkeypatch):
    """With a wide margin there are some; on another machine they would be read from the list."""
    import d3codec.encoder.rendered as module

    near = module.boundary_values
    monkeypatch.setattr(module, "boundary_values", lambda values: near(values, 1e-3))
    group = record(alone)
    found = rendered(alone, "exact", group)
    assert 5 < len(found.places) < 100
    assert (np.diff(found.places) > 0).all()
    assert (found.images.reshape(-1)[found.places] == found.levels).all()
    file = file_of(group, found, "exact")
    assert verify(file, decode="all", generator=alone, device="cpu").pixels == "proved"
    turned = Rendered(found.images.copy(), found.places, found.levels ^ 1)
    turned.images.reshape(-1)[turned.places] = turned.levels
    assert verify(file_of(group, turned, "exact"), decode="all", generator=alone, device="cpu").pixels == "proved"


def test_places_count_generated_images_and_not_copies(alone, monkeypatch):
    import d3codec.encoder.rendered as module

    monkeypatch.setattr(module, "boundary_values", lambda values: np.array([values.size - 1]))
    group = changed(record(alone), images=Images(grid=(1, 1), count=2 * COUNT, size=(8, 8),
                                                 augmentation=GddAugmentation(copies=1)))  # fmt: skip
    found = rendered(alone, "exact", group)
    assert len(found.images) == 3 * COUNT * 2
    per_image = 8 * 8 * 3
    assert found.places.tolist() == [8 * per_image - 1, 16 * per_image - 1, 21 * per_image - 1]


# Shows D3M-127.
def test_no_promise_where_decodes_differ(alone, monkeypatch):
    monkeypatch.setattr(exact, "MARGIN", 1e12)
    with pytest.raises(PixelsError, match="too noisy"):
        rendered(alone, "exact", record(alone))
    rendered(alone, "reproducible", record(alone))
