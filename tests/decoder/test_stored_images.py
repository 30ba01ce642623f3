"""The recipe `stored`: images cut out of the contact sheets that a file holds. No generator, no torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_pipeline import make_file, make_pipeline

import d3codec
from d3codec import images as codec
from d3codec.decoder.budget import Budget, Work
from d3codec.decoder.decode import decode
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.output import augment_gdd, window_resize
from d3codec.decoder.plan import Extent, Plan
from d3codec.decoder.precision import differences, fingerprint
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.encoder.pack import repack_hard
from d3codec.errors import PixelsError, SectionError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    REPRODUCIBLE,
    About,
    Classes,
    Exact,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    QuantizedLabels,
    SheetsRecipe,
    Window,
)
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.generators.fetch import expected_ids

CLASSES, COUNT, SIZE = 3, 5, (8, 12)
TOTAL = CLASSES * COUNT
PICTURES = np.random.default_rng(8).integers(0, 256, (TOTAL, 2, 3, 3), np.uint8).repeat(4, 1).repeat(4, 2)
QUALITY = {"png": None, "avif": 60, "webp": 60}


def section(format: str, per_sheet: int, columns: int, pictures: np.ndarray = PICTURES) -> bytes:
    parts = [pictures[first : first + per_sheet] for first in range(0, len(pictures), per_sheet)]
    return codec.join_sheets([codec.encode_sheet(part, columns, format, QUALITY[format]) for part in parts])


def record(format: str = "png", per_sheet: int = 4, columns: int = 3, labels=None, **images) -> Group:
    return Group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=None,
        images=Images(**({"grid": (1, 1), "count": COUNT, "size": SIZE} | images)),
        noise_key=3,
        labels=labels or HardLabels(),
        recipe=SheetsRecipe(format=format, per_sheet=per_sheet, columns=columns),
    )


def file_of(group: Group, data: bytes, profile=REPRODUCIBLE, about: About | None = None, **others: bytes) -> D3MFile:
    names = pack_classes([ClassRecord("", str(number)) for number in range(CLASSES)])
    sections = {("cls", None): names, ("img", 0): data, **{(name, 0): part for name, part in others.items()}}
    return D3MFile.open(
        write_d3m(ContentDraft(Classes(authority="none", count=CLASSES), (group,), profile), sections, about)
    )


def pixels(file: D3MFile, profile: str = "reproducible", **view) -> np.ndarray:
    plan = Plan.of(file.content, **view)
    units = decoded_units(file, plan, profile=profile, device="cpu", cache=False)
    found = {
        (unit.group, class_, index): image
        for unit, images in units
        for class_, index, image in zip(unit.classes, unit.indices, images, strict=True)
    }
    return np.stack([found[key] for key in plan.images])


@pytest.fixture
def exact() -> D3MFile:
    """PNG sheets of four, exact, with labels."""
    labels = QuantizedLabels(step=16, width=CLASSES)
    profile = Exact(pixels=pixel_digest(image_digest(image) for image in PICTURES), corrections=0)
    rows = np.random.default_rng(1).integers(-60, 60, (TOTAL, CLASSES), np.int8).tobytes()
    return file_of(record(labels=labels), section("png", 4, 3), profile, lab=rows)


# --------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(("per_sheet", "columns"), [(1, 1), (4, 3), (5, 5), (5, 1), (15, 4), (100, 10)])
@pytest.mark.parametrize("profile", ["exact", "exact-fixed", "reproducible", "fast"])
# Shows D3M-103.
def test_png_sheets_give_back_what_was_stored(per_sheet, columns, profile):
    file = file_of(record(per_sheet=per_sheet, columns=columns), section("png", per_sheet, columns))
    verify(file)
    np.testing.assert_array_equal(pixels(file, profile), PICTURES)
    np.testing.assert_array_equal(pixels(file, profile, classes=[2], limit=3), PICTURES[10:13])


@pytest.mark.parametrize("format", ["avif", "webp"])
def test_other_sheets_are_what_pillow_makes_of_them(format):
    data = section(format, 6, 2)
    file = file_of(record(format, 6, 2), data)
    verify(file)
    first = np.asarray(Image.open(io.BytesIO(codec.split_sheets(data, 3)[0])).convert("RGB"))
    found = pixels(file)
    np.testing.assert_array_equal(found[0], first[:8, :12])
    np.testing.assert_array_equal(found[3], first[8:16, 12:24])
    assert np.abs(found.astype(int) - PICTURES).mean() < 25


def test_a_window_and_copies():
    window = Window(generated=SIZE, block=(0, 2, 8, 8))
    group = record(size=(4, 4), window=window, count=2 * COUNT, augmentation=GddAugmentation(copies=1))
    found = pixels(file_of(group, section("png", 4, 3)))
    cut = window_resize(PICTURES, (0, 2, 8, 8), (4, 4))
    np.testing.assert_array_equal(found[::2], cut)
    np.testing.assert_array_equal(found[13], augment_gdd(cut[6], 3, 1, 1, 1))


def test_a_set_that_is_proved(exact, tmp_path):
    report = verify(exact, decode="all")
    assert (report.profile, report.pixels, report.images_checked) == ("exact", "proved", TOTAL)
    made = decode(exact, tmp_path / "out")
    assert (made.images, made.profile) == (TOTAL, "exact")
    assert (np.asarray(Image.open(tmp_path / "out" / "00001" / "000002.png")) == PICTURES[7]).all()
    wrong = file_of(exact.content.groups[0], section("png", 4, 3, PICTURES[::-1]), exact.content.profile,
                    lab=exact.section("lab", 0))  # fmt: skip
    with pytest.raises(PixelsError):
        verify(wrong, decode="all")
    with pytest.raises(PixelsError):
        decode(wrong, tmp_path / "wrong")


def test_as_a_dataset(exact, tmp_path):
    path = tmp_path / "stored.d3m"
    path.write_bytes(exact.data)
    dataset = d3codec.load(path)
    assert dataset.groups[0].generator is None
    assert dataset.groups[0].recipe == "stored images, PNG sheets of 4 in 3 columns"
    assert "stored images" in repr(dataset)
    np.testing.assert_array_equal(dataset.subset(classes=["1"]).images(), PICTURES[5:10])
    samples = list(dataset.subset(classes=["2"], ipc=2))
    np.testing.assert_array_equal(samples[1].image, PICTURES[11])
    np.testing.assert_array_equal(samples[1].patch_logits, dataset.labels.logits()[11])


def test_what_is_made_of_such_a_file(exact, tmp_path):
    """Without labels it keeps its images; a generator to fetch for it there is none."""
    hard = D3MFile.open(repack_hard(exact))
    assert hard.content.groups[0].labels == HardLabels()
    assert verify(hard, decode="all").pixels == "proved"
    path = tmp_path / "stored.d3m"
    path.write_bytes(exact.data)
    with pytest.raises(UsageError, match="needs no generator"):
        expected_ids(str(path), "f16")


# ---------------------------------------------------------------------------------------------------- fingerprint


# Shows D3M-130.
def test_the_fingerprint_names_what_pixels_depend_on(tmp_path):
    plain, lossy = (file_of(record(format), section(format, 4, 3)).content for format in ("png", "webp"))
    assert fingerprint("cpu", plain) == "r 2"
    pieces = fingerprint("cpu", lossy).split("|")
    assert [piece.split()[0] for piece in pieces] == ["machine", "Pillow", "libwebp", "r"]
    pipeline = make_pipeline(tmp_path / "pipeline")
    prompts = D3MFile.open(make_file(tmp_path / "prompts.d3m", pipeline, pixels=False)).content
    assert fingerprint("cpu", prompts) == fingerprint("cpu")
    assert "torch" in fingerprint("cpu", prompts)


def test_a_file_of_another_fingerprint_is_not_proved(tmp_path):
    group, data = record("webp"), section("webp", 4, 3)
    here = fingerprint("cpu", file_of(group, data).content)
    digest = pixel_digest(image_digest(image) for image in pixels(file_of(group, data)))
    assert verify(file_of(group, data, about=About(fingerprint=here, pixels=digest)), decode="all").pixels == "proved"
    with pytest.raises(PixelsError):
        verify(file_of(group, data, about=About(fingerprint=here, pixels=bytes(32))), decode="all")
    other = here.replace("libwebp ", "libwebp 0.")
    report = verify(file_of(group, data, about=About(fingerprint=other, pixels=bytes(32))), decode="all")
    assert report.pixels == "unproved"
    assert "libwebp" in report.warnings[0]
    assert differences(other, here)


def test_a_record_that_promises_more_than_its_format_can():
    profile = Exact(pixels=bytes(32), corrections=0)
    for format in ("avif", "webp"):
        with pytest.raises(d3codec.D3MError, match="reproducible at best"):
            file_of(record(format), section(format, 4, 3), profile)


# --------------------------------------------------------------------------------------------------------- damage


# Shows D3M-088, D3M-090.
def test_sheets_that_are_not_what_the_records_say():
    """Found without decoding a pixel, and named."""
    for wrong in (
        section("png", 4, 3)[:-1],
        section("png", 4, 3) + b"\0",
        section("png", 5, 3),
        section("png", 4, 2),
        section("webp", 4, 3),
        section("png", 4, 3, PICTURES[:12]),
        codec.join_sheets([b""] * 4),
    ):
        file = file_of(record(), wrong)
        file.verify()
        for look in (verify, pixels):
            with pytest.raises(SectionError, match=r"img.*E_SECTION_VALUE") as error:
                look(file)
            assert error.value.file == "<memory>"


def test_a_damaged_sheet_is_met_by_those_who_decode_it():
    files = codec.split_sheets(section("png", 4, 3), 4)
    start = files[1].index(b"IDAT")
    size = int.from_bytes(files[1][start - 4 : start], "big")
    chunk = files[1][start : start + 14] + bytes(20) + files[1][start + 34 : start + 4 + size]  # its CRC is right
    broken = files[1][:start] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + files[1][start + 8 + size :]
    file = file_of(record(), codec.join_sheets([files[0], broken, *files[2:]]))
    verify(file)
    np.testing.assert_array_equal(pixels(file, classes=[2], limit=1), PICTURES[10:11])
    with pytest.raises(SectionError, match="not a png image"):
        pixels(file)


def test_one_class_is_read_without_the_others():
    """Sheets of a class are in other parts of a large file than those of another."""
    noise = np.random.default_rng(2).integers(0, 256, (3, 8, 250, 250, 3), np.uint8)  # 1.5 MB each
    group = record(per_sheet=8, columns=4, count=8, size=(250, 250))
    file = file_of(group, codec.join_sheets([codec.encode_sheet(sheet, 4, "png") for sheet in noise]))
    parts = [part for part in file.parts if part.section == "img"]
    assert len(parts) == 5
    damaged = bytearray(file.data)
    damaged[parts[2].offset + 9] ^= 1
    other = D3MFile.open(bytes(damaged))
    np.testing.assert_array_equal(pixels(other, classes=[0]), noise[0])
    with pytest.raises(SectionError, match="E_SECTION_CRC"):
        pixels(other, classes=[1])


def test_sheets_count_in_the_budget():
    small = Work.of(Extent.of(file_of(record(), section("png", 4, 3)).content))
    assert (small.images, small.evaluations) == (TOTAL, 0)
    large = record(per_sheet=1 << 20, columns=1 << 10, size=(8, 8))
    work = Work.of(Extent.of(file_of(large, b"").content))
    assert work.unit_bytes > 3 << 26
    with pytest.raises(UsageError, match="unit bytes"):
        Budget(unit_bytes=1 << 26).check(work, "x")


# --------------------------------------------------------------------------------------------------- without torch


WITHOUT = """import sys
for name in ("torch", "diffusers", "transformers", "safetensors"): sys.modules[name] = None
from d3codec.cli.main import main
main({arguments!r})
"""


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_base_installation_decodes_them(format, exact, tmp_path):
    """As it finds itself where torch and its friends are not installed."""
    path = tmp_path / "stored.d3m"
    file = exact if format == "png" else file_of(record(format), section(format, 4, 3))
    path.write_bytes(file.data)

    def call(*arguments):
        code = WITHOUT.format(arguments=[*map(str, arguments)])
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)

    for arguments in (
        ["info", path],
        ["verify", path, "--decode", "all"],
        ["decode", path, "--dry-run"],
        ["decode", path, "-o", tmp_path / "out", "--processes", "2", "--device", "auto"],
        ["decode", path, "-o", tmp_path / "out.npz", "--format", "npz", "--contact-sheet", tmp_path / "sheet.png"],
    ):
        result = call(*arguments)
        assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == TOTAL
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], pixels(file))
    report = json.loads(call("decode", path, "-o", tmp_path / "again", "--json").stdout)
    assert report["images"] == TOTAL
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'safetensors'): sys.modules[name] = None\n"
        f"import d3codec\ndataset = d3codec.load({str(path)!r})\n"
        "print(dataset.images().sum(), sum(int(sample.image.sum()) for sample in dataset))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == [str(int(pixels(file).sum()))] * 2, result.stderr
