"""`d3codec merge`: groups of several files in one, copied as they are, with the promise that they all keep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli.commands import answer, bare_file, call
from tiny_families import tiny_autoencoder
from tiny_pipeline import make_file, make_pipeline

import d3codec
from d3codec import corrections, images
from d3codec.conditioning import latents
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import compute_dtype, round_levels
from d3codec.decoder.render import Renderer
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.exact import boundary_values
from d3codec.encoder.merge import Statement, merge
from d3codec.encoder.subset import subset
from d3codec.errors import PixelsError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    REPRODUCIBLE,
    About,
    Classes,
    DecodeRecipe,
    Exact,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    SheetsRecipe,
    StoredLatents,
)
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.generators.load import load_generator
from d3codec.generators.weights import describe

CLASSES, SIZE = 3, (8, 8)
NAMES = pack_classes([ClassRecord("", f"thing {number}") for number in range(CLASSES)])


def group(count: int, recipe, generator: bytes | None) -> Group:
    return Group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=generator,
        images=Images(grid=(1, 1), count=count, size=SIZE),
        noise_key=0,
        labels=HardLabels(),
        recipe=recipe,
    )


def saved(path: Path, record: Group, sections: dict, profile=REPRODUCIBLE, about: About | None = None) -> Path:
    whole = {("cls", None): NAMES} | sections
    draft = ContentDraft(Classes(authority="none", count=CLASSES), (record,), profile)
    path.write_bytes(write_d3m(draft, whole, about))
    return path


def stored_file(path: Path, exact: bool, format: str = "png") -> Path:
    """Two stored images a class."""
    pictures = np.random.default_rng(5).integers(0, 256, (2 * CLASSES, *SIZE, 3), np.uint8)
    sheet = images.encode_sheet(pictures, 3, format, None if format == "png" else 50)
    digest = pixel_digest(image_digest(picture) for picture in pictures)
    profile = Exact(pixels=digest, corrections=0) if exact else REPRODUCIBLE
    recipe = SheetsRecipe(format=format, per_sheet=6, columns=3)
    about = About(method="images", licence="CC0-1.0", claims={"S0": "1 %"})
    return saved(path, group(2, recipe, None), {("img", 0): images.join_sheets([sheet])}, profile, about)


def latents_file(path: Path, folder: Path, exact: bool) -> Path:
    """Three stored latents a class, with many corrections of an exact file."""
    numbers = np.random.default_rng(6).normal(size=(3 * CLASSES, 4, 4, 4))
    data = latents.encode(numbers, 5)
    record = group(3, DecodeRecipe(latents=StoredLatents(bits=5, shape=(4, 4, 4))), describe(folder, "stored").id)
    sections, profile = {("lat", 0): data}, REPRODUCIBLE
    if exact:
        networks = load_generator(folder, cast="stored", dtype=compute_dtype("exact"))
        renderer = Renderer(record, b"", networks, "exact", CLASSES, stored=data)
        levels = renderer.levels([divmod(place, 3) for place in range(3 * CLASSES)])
        near = boundary_values(levels, 0.01)
        values = round_levels(levels).reshape(-1)[near] ^ 1  # visible where they are applied
        pixels = round_levels(levels)
        pixels.reshape(-1)[near] = values
        profile = Exact(pixels=pixel_digest(map(image_digest, pixels)), corrections=len(near))
        assert len(near) > 10
        sections["fix", None] = corrections.encode(near, values)
    about = About(method="latents", licence="CC0-1.0", citation="B")
    return saved(path, record, sections, profile, about)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of two generators, and exact files of prompts, latents and stored images."""
    folder = tmp_path_factory.mktemp("merge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        pipeline, alone = make_pipeline(folder / "pipeline"), folder / "alone"
        tiny_autoencoder(0).save_pretrained(alone)
        prompts = make_file(folder / "prompts.d3m", pipeline, ipc=4, grid=1, labels="h", profile="exact", cast="stored")
        yield SimpleNamespace(
            pipeline=pipeline,
            alone=alone,
            prompts=prompts,
            latents=latents_file(folder / "latents.d3m", alone, exact=True),
            stored=stored_file(folder / "stored.d3m", exact=True),
        )


def options(made) -> list:
    return ["--generator", made.pipeline, "--generator", made.alone, "--device", "cpu"]


def pixels(file: D3MFile, profile: str, generator) -> dict:
    plan = Plan.of(file.content)
    units = decoded_units(file, plan, profile=profile, device="cpu", generator=generator, cache=False)
    return {
        (unit.group, class_, index): image
        for unit, found in units
        for class_, index, image in zip(unit.classes, unit.indices, found, strict=True)
    }


def test_exact_files_make_an_exact_file(made, tmp_path):
    """Its corrections lie elsewhere, its pixels are theirs, and all of it is proved."""
    output = tmp_path / "all.d3m"
    facts = answer(
        "merge", made.prompts, made.latents, made.stored, "-o", output, "--weights", "1,3,2", "--licence", "CC0-1.0",
        *options(made),
    )  # fmt: skip
    assert (facts["groups"], facts["images_per_class"], facts["profile"]) == (3, 9, "exact")
    file, parts = D3MFile.open(output), [D3MFile.open(path) for path in (made.prompts, made.latents, made.stored)]
    assert facts["content_id"] == file.content_id
    assert file.content.groups == tuple(part.content.groups[0] for part in parts)
    assert file.content.profile.corrections == sum(part.content.profile.corrections for part in parts)
    for number, part in enumerate(parts):
        for name in ("emb", "lat", "img"):
            if any(own.section == name for own in part.parts):
                assert file.section(name, number) == part.section(name, 0)
    names = [made.pipeline, made.alone]
    whole = pixels(file, "exact", names)
    for number, part in enumerate(parts):
        alone = pixels(part, "exact", None if number == 2 else names[number])
        assert all(np.array_equal(whole[number, *key[1:]], image) for key, image in alone.items())
    assert verify(file, decode="all", generator=names, device="cpu").pixels == "proved"
    assert (file.about.weights, file.about.method, file.about.claims) == ((1, 3, 2), "latents+images", None)
    assert file.about.citation == "B"
    dataset = d3codec.load(output)
    assert dataset.weights == (1, 3, 2)
    assert len(dataset) == CLASSES * 9
    assert "groups, 9 images a class, profile exact" in call(
        "merge", made.latents, made.stored, made.prompts, "-o", output, "--licence", "x", *options(made)
    ).stdout  # fmt: skip


def test_a_merged_file_comes_apart_again(made, tmp_path):
    """Its groups have the content ids of the files that they came from, corrections at their old places."""
    parts, output = [made.prompts, made.latents, made.stored], tmp_path / "all.d3m"
    answer("merge", *parts, "-o", output, "--licence", "CC0-1.0", *options(made))
    for number, part in enumerate(parts):
        alone = tmp_path / f"{number}.d3m"
        facts = answer("subset", output, "-o", alone, "--groups", number, *options(made), "-q")
        assert facts["content_id"] == D3MFile.open(part).content_id


def test_subsets_of_exact_files(made, tmp_path):
    """Pixels are those of the file: any classes of latents, with their corrections, the first ones of prompts."""
    for path, generator, classes, kept in (
        (made.latents, made.alone, "thing 2,0", [0, 2]),
        (made.prompts, made.pipeline, "0-1", [0, 1]),
    ):
        before, output = pixels(D3MFile.open(path), "exact", generator), tmp_path / "x.d3m"
        facts = answer("subset", path, "-o", output, "--classes", classes, "--ipc", 2, *options(made), "-q")
        after = pixels(D3MFile.open(output), "exact", generator)
        assert facts["pixel_digest"] == D3MFile.open(output).content.profile.pixels.hex()
        assert sorted(after) == [(0, class_, index) for class_ in (0, 1) for index in (0, 1)]
        assert all(np.array_equal(image, before[0, kept[class_], index]) for (_, class_, index), image in after.items())
    assert D3MFile.open(made.latents).content.profile.corrections > 10
    refused = answer("subset", made.prompts, "-o", output, "--classes", "1-2", *options(made), code=2)
    assert "counted by class position" in refused["hint"]


def test_a_subset_of_a_reproducible_file_is_compared(made, tmp_path):
    path = make_file(tmp_path / "low.d3m", made.pipeline, ipc=3, grid=1)
    output = tmp_path / "x.d3m"
    with pytest.warns(UserWarning, match="in other batches"):
        subset(D3MFile.open(path), ipc=2)
    facts = answer("subset", path, "-o", output, "--ipc", 2, "--decode", *options(made), "-q")
    file = D3MFile.open(output)
    assert facts["pixel_digest"] == file.about.pixels.hex()
    assert len(file.section("x-leaf")) == 8 * 6
    assert verify(file, decode="all", generator=made.pipeline, device="cpu").pixels == "proved"


def test_reproducible_without_and_with_a_digest(made, tmp_path):
    output = tmp_path / "two.d3m"
    result = call("merge", made.latents, made.stored, "-o", output, "--profile", "reproducible")
    assert result.exit_code == 0, result.output
    assert "states no pixel digest" in result.stderr
    file = D3MFile.open(output)
    assert (file.content.profile.name, file.about.pixels) == ("reproducible", None)
    assert verify(file, decode="all", generator=made.alone, device="cpu").pixels == "unproved"
    facts = answer(
        "merge", made.latents, made.stored, "-o", output, "--profile", "reproducible", "--decode", *options(made)[2:]
    )
    file = D3MFile.open(output)
    assert facts["pixel_digest"] == file.about.pixels.hex()
    assert verify(file, decode="all", generator=made.alone, device="cpu").pixels == "proved"


def test_unlike_profiles_are_reproducible(made, tmp_path):
    lossy = stored_file(tmp_path / "lossy.d3m", exact=False, format="webp")
    file = D3MFile.open(merge([D3MFile.open(made.latents), D3MFile.open(lossy)]))
    assert file.content.profile.name == "reproducible"
    with pytest.raises(UsageError, match="takes files of that profile") as error:
        merge([D3MFile.open(made.latents), D3MFile.open(lossy)], profile="exact")
    assert error.value.file == str(lossy)


def test_a_file_that_does_not_keep_its_promise(made, tmp_path):
    liar = D3MFile.open(made.stored)
    profile = Exact(pixels=bytes(32), corrections=0)
    path = saved(
        tmp_path / "liar.d3m", liar.content.groups[0], {("img", 0): liar.section("img", 0)}, profile, liar.about
    )
    with pytest.raises(PixelsError) as error:
        merge([D3MFile.open(made.latents), D3MFile.open(path)], generator=made.alone, device="cpu")
    assert error.value.file == str(path)


def test_other_classes(tmp_path):
    one = bare_file(tmp_path / "one.d3m", names=("a", "b", "c"))
    for names, field, found, expected in (
        (("a", "c", "b"), "class 1", "c", "b"),
        (("a", "b"), "classes.count", "2", "3"),
    ):
        other = bare_file(tmp_path / "other.d3m", names=names, noise_key=8)
        facts = answer("merge", one, other, "-o", tmp_path / "x.d3m", code=2)
        assert (facts["file"], facts["field"], facts["found"], facts["expected"]) == (
            str(other),
            field,
            found,
            expected,
        )
        assert str(one) in facts["message"]
    ids = bare_file(tmp_path / "ids.d3m", names=("a", "b", "c"), ids=("1", "2", "3"), noise_key=8)
    assert answer("merge", one, ids, "-o", tmp_path / "x.d3m", code=2)["field"] == "classes.authority"
    assert not (tmp_path / "x.d3m").exists()


def test_equal_noise_keys(made, tmp_path):
    one, other = (bare_file(tmp_path / f"{name}.d3m") for name in "ab")
    facts = answer("merge", one, other, "-o", tmp_path / "x.d3m", code=2)
    assert (facts["field"], facts["found"]) == ("noise key", 7)
    assert "--noise-key" in facts["hint"]
    third = bare_file(tmp_path / "c.d3m", noise_key=8)
    assert answer("merge", one, third, "-o", tmp_path / "x.d3m")["groups"] == 2
    again = [D3MFile.open(made.stored)] * 2  # nothing is drawn for stored images
    assert len(D3MFile.open(merge(again, profile="reproducible")).content.groups) == 2


def test_statements_that_differ(tmp_path):
    one = bare_file(tmp_path / "one.d3m", about=About(licence="CC0-1.0", source="here"))
    other = bare_file(tmp_path / "other.d3m", noise_key=8, about=About(licence="MIT", source="here"))
    files = [D3MFile.open(path) for path in (one, other)]
    with pytest.raises(UsageError, match="do not state the same licence") as error:
        merge(files)
    assert (error.value.found, error.value.expected) == ("MIT", "CC0-1.0")
    assert "--licence" in error.value.hint
    about = D3MFile.open(merge(files, Statement(licence="both", method="mine"))).about
    assert (about.licence, about.source, about.method, about.teacher) == ("both", "here", "mine", None)
    with pytest.raises(UsageError, match="as many weights as groups"):
        merge(files, Statement(licence="both", weights=(1, 2, 3)))
    with pytest.raises(UsageError, match="at least two"):
        merge(files[:1])


@pytest.mark.parametrize("weights", ["0,1", "1,256", "1;2", "", "1,"])
def test_weights_that_are_none(bare, tmp_path, weights):
    assert call("merge", bare, bare, "-o", tmp_path / "x.d3m", "--weights", weights).exit_code == 2


def test_an_output_that_is_something_else(bare, tmp_path):
    other = bare_file(tmp_path / "other.d3m", noise_key=8)
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    assert call("merge", bare, other, "-o", taken).exit_code == 1
    assert taken.read_text() == "mine"
