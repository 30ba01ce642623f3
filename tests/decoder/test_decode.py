"""Decoding to folders and arrays: only what is asked for, nothing twice, nothing overwritten."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipeline import make_file, make_group, make_pipeline

from d3codec.dataset import load
from d3codec.decoder import renderers
from d3codec.decoder.cache import UnitCache, cache_key
from d3codec.decoder.decode import contact_sheet, decode, decoded_units
from d3codec.decoder.plan import Plan
from d3codec.decoder.writers import SHEET_BYTES
from d3codec.errors import MissingGeneratorError, OutputError, PixelsError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Classes
from d3codec.format.sections import ClassRecord, pack_classes

torch.set_num_threads(1)
CLASSES, IPC = 3, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(file, pipeline, pixels of the whole set decoded at once: [class, image])."""
    folder = tmp_path_factory.mktemp("decode")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        pipeline = make_pipeline(folder / "pipeline")
        path = make_file(folder / "set.d3m", pipeline, classes=CLASSES, ipc=IPC)
        file = D3MFile.open(path)
        units = decoded_units(file, Plan.of(file.content), profile="reproducible", device="cpu", generator=pipeline)
        pixels = np.concatenate([pixels for _, pixels in units]).reshape(CLASSES, IPC, 8, 8, 3)
    return path, pipeline, pixels


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "home"


def read(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    return {(int(path.parent.name), int(path.stem)): np.asarray(Image.open(path)) for path in folder.glob("*/*.png")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def units_of(home: Path) -> dict[Path, int]:
    """Units of the cache; a file that is written again has another number."""
    return {path: path.stat().st_ino for path in home.glob("decoded/*/*/*.unit")}


# ---------------------------------------------------------------------------------------------- outputs


# Shows D3M-145.
def test_a_folder_by_numbers(made, tmp_path):
    path, pipeline, pixels = made
    report = decode(path, tmp_path / "out", generator=pipeline)
    images = read(tmp_path / "out")
    assert images.keys() == {(class_, number) for class_ in range(CLASSES) for number in range(IPC)}
    assert all(np.array_equal(image, pixels[key]) for key, image in images.items())
    assert (tmp_path / "out" / "00002" / "000003.png").is_file()
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == [
        {"index": number, "id": "", "name": f"thing {number}"} for number in range(CLASSES)
    ]
    notes = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert notes == {
        "content_id": D3MFile.open(path).content_id,
        "profile": "reproducible",
        "images": 12,
        "fingerprint": report.fingerprint,
        "finished": True,
    }
    assert report.as_json() | {"output": ""} == {
        "content_id": notes["content_id"],
        "images": 12,
        "profile": "reproducible",
        "output": "",
        "fingerprint": notes["fingerprint"],
        "format": "imagefolder",
        "shard": None,
        "contact_sheet": None,
    }


def test_arrays_with_labels(made, tmp_path):
    path, pipeline, pixels = made
    decode(path, tmp_path / "out.npz", format="npz", generator=pipeline, classes=["thing 2", 0], limit=3)
    with np.load(tmp_path / "out.npz") as arrays:
        assert set(arrays.files) == {"images", "classes", "labels"}
        assert np.array_equal(arrays["images"], pixels[[0, 2], :3].reshape(6, 8, 8, 3))
        assert arrays["classes"].tolist() == [0, 0, 0, 2, 2, 2]
        stored = np.frombuffer(D3MFile.open(path).section("lab", 0), np.int8).reshape(CLASSES, IPC, 4, CLASSES)
        assert np.array_equal(arrays["labels"], stored[[0, 2], :3].reshape(6, 4, 3) * np.float32(16 / 256))
        assert arrays["labels"].dtype == np.float32


def test_arrays_without_labels(made, tmp_path):
    _, pipeline, _ = made
    path = make_file(tmp_path / "hard.d3m", pipeline, labels="h", pixels=False)
    decode(path, tmp_path / "out.npz", format="npz", generator=pipeline)
    assert set(np.load(tmp_path / "out.npz").files) == {"images", "classes"}


def test_a_decode_is_the_same_file_every_time(made, tmp_path):
    path, pipeline, _ = made
    for name in ("a", "b"):
        decode(path, tmp_path / name, generator=pipeline)
        decode(path, tmp_path / f"{name}.npz", format="npz", generator=pipeline)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


# ---------------------------------------------------------------------------------------------- same pixels


@pytest.mark.parametrize(
    "asked",
    [
        {"classes": [1]},
        {"limit": 1},
        {"classes": [2, 0], "limit": 2},
        {"batch_size": 1},
        {"batch_size": 17},
        {"classes": ["thing 1"], "batch_size": 3},
    ],
)
# Shows D3M-129.
def test_subsets_and_batch_sizes_change_no_pixel(made, tmp_path, asked):
    path, pipeline, pixels = made
    decode(path, tmp_path / "out", generator=pipeline, **asked)
    images = read(tmp_path / "out")
    assert len(images) == {1: CLASSES, 2: 4}.get(asked.get("limit"), IPC if "classes" in asked else CLASSES * IPC)
    assert all(np.array_equal(image, pixels[key]) for key, image in images.items())


def test_threads_change_no_pixel(made, tmp_path):
    path, pipeline, pixels = made
    torch.set_num_threads(2)
    try:
        decode(path, tmp_path / "out", generator=pipeline)
    finally:
        torch.set_num_threads(1)
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


def test_fast_takes_any_batch_size(made, tmp_path):
    path, pipeline, pixels = made
    for size in (1, 5, 8, 32):
        os.environ["D3CODEC_HOME"] = str(tmp_path / f"home-{size}")
        report = decode(path, tmp_path / f"{size}", generator=pipeline, profile="fast", batch_size=size)
        images = read(tmp_path / f"{size}")
        assert len(images) == report.images == 12
        assert np.mean([np.abs(image - pixels[key].astype(float)).mean() for key, image in images.items()]) < 3


def test_words_and_groups(made, tmp_path):
    """Two groups of one generator: the images of a class are those of the groups, one after the other."""
    _, pipeline, pixels = made
    one, rows = make_group(pipeline, classes=CLASSES, ipc=IPC)
    two, words = make_group(pipeline, classes=CLASSES, ipc=2, kind="words", labels="h", noise_key=9)
    names = pack_classes([ClassRecord("", name) for name in "abc"])
    lab = bytes(CLASSES * IPC * 4 * CLASSES)
    data = write_d3m(
        ContentDraft(Classes(authority="none", count=CLASSES), (one, two)),
        {("cls", None): names, ("emb", 0): rows, ("lab", 0): lab, ("wrd", 1): words},
    )
    (tmp_path / "two.d3m").write_bytes(data)
    loads: list[tuple[str, int, int]] = []
    decode(
        tmp_path / "two.d3m",
        tmp_path / "out",
        generator=pipeline,
        progress=lambda *step: loads.append(step) if step[0] == "load generator" else None,
    )
    images = read(tmp_path / "out")
    assert len(images) == CLASSES * (IPC + 2)
    assert all(
        np.array_equal(images[class_, number], pixels[class_, number])
        for class_ in range(CLASSES)
        for number in range(IPC)
    )
    assert len({image.tobytes() for image in images.values()}) == len(images)
    assert loads == [("load generator", 0, 1), ("load generator", 1, 1)], "the networks are loaded once"
    with pytest.raises(UsageError, match="imagefolder"):
        decode(tmp_path / "two.d3m", tmp_path / "out.npz", format="npz", generator=pipeline)


# Shows D3M-131.
def test_another_machine_is_told(made, tmp_path):
    """A reproducible file that was made under another fingerprint: a warning that says what differs."""
    path, pipeline, _ = made
    file = D3MFile.open(path)
    about = file.about.model_copy(update={"fingerprint": file.about.fingerprint.replace("torch 2", "torch 1")})
    sections = {("cls", None): file.section("cls"), ("emb", 0): file.section("emb", 0)}
    sections |= {("lab", 0): file.section("lab", 0)}
    other = tmp_path / "other.d3m"
    draft = ContentDraft(file.content.classes, file.content.groups, file.content.profile)
    other.write_bytes(write_d3m(draft, sections, about, {"x-leaf": file.section("x-leaf")}))
    with pytest.warns(UserWarning, match=r"made on another machine.*torch 1\..* against 2\."):
        decode(other, tmp_path / "out", generator=pipeline, device="cpu")
    with pytest.warns(UserWarning, match="made on another machine"):
        load(other).images(generator=pipeline, device="cpu")
    decode(other, tmp_path / "fast", generator=pipeline, device="cpu", profile="fast")  # promises nothing


@pytest.mark.parametrize("profile", ["exact", "exact-fixed"])
def test_an_exact_file_is_proved_by_its_decode(made, tmp_path, profile):
    """And its folder names no machine. A file with another digest is decoded in part, but not as a whole."""
    _, pipeline, _ = made
    path = make_file(tmp_path / "set.d3m", pipeline, profile=profile, leaf_bytes=0)
    report = decode(path, tmp_path / "out", generator=pipeline)
    notes = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert (notes["profile"], notes["fingerprint"], notes["finished"]) == (profile, None, True)
    assert report.fingerprint
    file = D3MFile.open(path)
    promise = file.content.profile.model_copy(update={"pixels": bytes(32)})
    sections = {
        ("cls", None): file.section("cls"),
        ("emb", 0): file.section("emb", 0),
        ("lab", 0): file.section("lab", 0),
    }
    if getattr(promise, "corrections", 0):
        sections["fix", None] = file.section("fix")
    path.write_bytes(write_d3m(ContentDraft(file.content.classes, file.content.groups, promise), sections))
    assert decode(path, tmp_path / "part", generator=pipeline, limit=1).images == 3
    with pytest.raises(PixelsError, match="promises"):
        decode(path, tmp_path / "whole", generator=pipeline)
    assert json.loads((tmp_path / "whole" / "decode.json").read_text())["finished"] is False


# ---------------------------------------------------------------------------------------------- cache,
# resuming


def test_finished_units_are_not_decoded_again(made, tmp_path, home):
    path, pipeline, pixels = made
    decode(path, generator=pipeline)
    before = units_of(home)
    assert len(before) == 2
    decode(path, tmp_path / "out")  # whose generator is nowhere: it is not even looked for
    assert units_of(home) == before
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


def test_a_damaged_unit_is_made_again(made, tmp_path, home):
    path, pipeline, pixels = made
    decode(path, generator=pipeline)
    _, second = sorted(units_of(home))
    good = second.read_bytes()
    second.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    decode(path, tmp_path / "out", generator=pipeline)
    assert second.read_bytes() == good
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


def test_an_interrupted_decode_continues(made, tmp_path, home):
    path, pipeline, pixels = made

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "decode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(path, tmp_path / "out", generator=pipeline, progress=interrupt)
    kept = units_of(home)
    assert len(kept) == 1
    assert torch.get_num_threads() == 1
    decode(path, tmp_path / "out", generator=pipeline)
    assert kept.items() <= units_of(home).items()
    assert len(read(tmp_path / "out")) == 12
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


def test_a_killed_decode_continues(made, tmp_path, home):
    path, pipeline, pixels = made
    script = (
        "import sys, time; from d3codec.decoder.decode import decode\n"
        "def slow(stage, done, total):\n"
        "    if done == 12: time.sleep(60)\n"
        "decode(sys.argv[1], sys.argv[2], generator=sys.argv[3], progress=slow)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path), str(tmp_path / "out"), str(pipeline)])
    deadline = time.monotonic() + 100
    while len(read_names(tmp_path / "out")) < 8 or len(units_of(home)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept, images = units_of(home), read_names(tmp_path / "out")
    (tmp_path / "out" / "00000" / f".d3m-{'0' * 16}").write_bytes(b"half a picture")
    decode(path, tmp_path / "out")  # whose generator is nowhere: all that is left is in the cache
    assert units_of(home) == kept
    assert images.items() <= read_names(tmp_path / "out").items(), "pictures that were there are not written again"
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())
    assert not list((tmp_path / "out").rglob(".d3m-*"))


def read_names(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*.png")}


def test_a_cache_that_cannot_be_written_is_told_and_not_needed(made, tmp_path, monkeypatch):
    path, pipeline, pixels = made
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "file" / "home"))
    with pytest.warns(UserWarning, match="D3CODEC_HOME") as caught:
        decode(path, tmp_path / "out", generator=pipeline)
    assert len(caught) == 1
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


def test_a_wrong_unit_in_the_cache_fails_once(made, tmp_path, home):
    """Its checksum is sound, its pixels are wrong: a whole decode of an exact file tells, and the next one is good."""
    _, pipeline, _ = made
    path = make_file(tmp_path / "set.d3m", pipeline, profile="exact", leaf_bytes=0)
    decode(path, tmp_path / "good", generator=pipeline)
    plan, file = Plan.of(D3MFile.open(path).content), D3MFile.open(path)
    cache = UnitCache(home, cache_key(file.content_id, "exact", None))
    cache.put(plan.units[0], 255 - cache.get(plan.units[0]))
    with pytest.raises(PixelsError, match="promises") as caught:
        decode(path, tmp_path / "out", generator=pipeline)
    assert "removed" in caught.value.hint
    assert units_of(home) == {}
    decode(path, tmp_path / "out", generator=pipeline)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "good")


def test_exact_arithmetic_of_a_file_that_does_not_promise_it_belongs_to_its_machine(made, tmp_path, home):
    path, pipeline, _ = made
    report = decode(path, tmp_path / "out", generator=pipeline, profile="exact")
    notes = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert notes["fingerprint"] == report.fingerprint
    key = cache_key(report.content_id, "exact", report.fingerprint)
    assert {unit.parent for unit in units_of(home)} == {home / key}


def test_a_cache_that_is_smaller_than_the_decode_is_told_first(made, tmp_path):
    _, pipeline, _ = made
    path = make_file(tmp_path / "many.d3m", pipeline, ipc=100, labels="h", pixels=False)  # 38 units
    with pytest.warns(UserWarning, match=r"--cache-gb 1 "):
        decode(path, generator=pipeline, cache_gigabytes=1e-5, processes=1)
    decode(path, generator=pipeline, processes=1)  # warnings are errors


def test_a_cache_that_cannot_be_written_is_read_on(made, tmp_path, home, monkeypatch):
    """The first of two units is missing and cannot be kept; the second is there and not made again."""
    path, pipeline, pixels = made
    decode(path, generator=pipeline)
    min(units_of(home)).unlink()
    made_here, render = [], renderers.render_units

    def watched(of, units, at_once):
        made_here.extend(unit.number for unit in units)
        return render(of, units, at_once)

    def refuse(*_):
        raise OutputError("no room")

    monkeypatch.setattr("d3codec.decoder.units.render_units", watched)
    monkeypatch.setattr(UnitCache, "put", refuse)
    with pytest.warns(UserWarning, match="no room"):
        decode(path, tmp_path / "out", generator=pipeline)
    assert made_here == [0]
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())


# ---------------------------------------------------------------------------------------------- conflicts


def test_a_decode_into_its_own_folder_repairs_and_adds(made, tmp_path):
    path, pipeline, pixels = made
    decode(path, tmp_path / "out", generator=pipeline, classes=[0])
    assert json.loads((tmp_path / "out" / "decode.json").read_text())["images"] == 4
    wrong = tmp_path / "out" / "00000" / "000001.png"
    wrong.write_bytes(b"not a picture")
    kept = read_names(tmp_path / "out")
    decode(path, tmp_path / "out", generator=pipeline)
    after = read_names(tmp_path / "out")
    assert {name for name in kept if kept[name] != after[name]} == {wrong}
    assert all(np.array_equal(image, pixels[key]) for key, image in read(tmp_path / "out").items())
    assert json.loads((tmp_path / "out" / "decode.json").read_text())["images"] == 12


def spoil_stranger(out: Path) -> str:
    (out / "holiday.jpg").write_bytes(b"mine")
    return "holiday.jpg"


def spoil_class(out: Path) -> str:
    (out / "00003").mkdir()
    return "00003"


def spoil_image(out: Path) -> str:
    (out / "00001" / "000004.png").write_bytes(b"")
    return "00001/000004.png"


def spoil_notes(out: Path) -> str:
    notes = json.loads((out / "decode.json").read_text())
    (out / "decode.json").write_text(json.dumps(notes | {"content_id": "0" * 64}))
    return "0" * 64


def spoil_fingerprint(out: Path) -> str:
    notes = json.loads((out / "decode.json").read_text())
    (out / "decode.json").write_text(json.dumps(notes | {"fingerprint": "another machine"}))
    return "another machine"


def spoil_without_notes(out: Path) -> str:
    (out / "decode.json").unlink()
    return "nothing"


@pytest.mark.parametrize(
    "spoil", [spoil_stranger, spoil_class, spoil_image, spoil_notes, spoil_fingerprint, spoil_without_notes]
)
def test_a_folder_with_something_else_is_left_alone(made, tmp_path, spoil):
    path, pipeline, _ = made
    out = tmp_path / "out"
    decode(path, out, generator=pipeline, classes=[0, 1])
    found = spoil(out)
    before = snapshot(out)
    with pytest.raises(OutputError) as caught:
        decode(path, out, generator=pipeline)
    assert found in str(caught.value)
    assert str(out) in str(caught.value)
    assert snapshot(out) == before


def test_a_file_in_place_of_the_folder(made, tmp_path):
    path, pipeline, _ = made
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="folder is needed"):
        decode(path, tmp_path / "out", generator=pipeline)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_array_file_with_something_else_is_left_alone(made, tmp_path):
    path, pipeline, _ = made
    out = tmp_path / "out.npz"
    decode(path, out, format="npz", generator=pipeline, classes=[0])
    decode(path, out, format="npz", generator=pipeline, classes=[0])
    whole, one = out.read_bytes(), io.BytesIO()
    np.save(one, np.zeros(3))
    half = whole[:200] + bytes(100) + whole[300:]
    for content in (whole, b"mine", b"", one.getvalue(), whole[:-9], half, b"PK\x05\x06" + bytes(18)):
        out.write_bytes(content)
        with pytest.raises(OutputError, match="something else"):
            decode(path, out, format="npz", generator=pipeline, classes=[1])
        assert out.read_bytes() == content
    with pytest.raises(OutputError, match="a file is needed"):
        decode(path, tmp_path, format="npz", generator=pipeline)


def test_a_place_that_cannot_be_written(made, tmp_path):
    path, pipeline, _ = made
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="continues") as caught:
        decode(path, tmp_path / "file" / "out", generator=pipeline)
    assert caught.value.file.startswith(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("format", "room"), [("imagefolder", 100), ("npz", 600), ("webdataset", 4_000), ("parquet", 1_000)]
)
def test_a_full_disk(made, tmp_path, format, room):
    """As far as a test can fill one: files may not grow beyond some bytes."""
    path, pipeline, _ = made
    decode(path, generator=pipeline)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            decode(path, tmp_path / "out", format=format, generator=pipeline)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "same command continues" in str(caught.value)
    assert caught.value.file.startswith(str(tmp_path / "out"))
    assert not list(tmp_path.rglob(".d3m-*"))
    assert decode(path, tmp_path / "out", format=format, generator=pipeline).images == 12


def test_nothing_is_written_without_the_generator(made, tmp_path):
    path, _, _ = made
    with pytest.raises(MissingGeneratorError):
        decode(path, tmp_path / "out", contact_sheet=tmp_path / "sheet.png")
    assert {item.name for item in tmp_path.iterdir()} <= {"home"}


@pytest.mark.parametrize(
    "asked",
    [
        {"format": "tar"},
        {"profile": "exactish"},
        {"device": "tpu"},
        {"batch_size": 0},
        {"classes": ["thing 9"]},
        {"limit": 0},
    ],
)
def test_arguments_that_make_no_sense(made, tmp_path, asked):
    path, pipeline, _ = made
    with pytest.raises(UsageError):
        decode(path, tmp_path / "out", generator=pipeline, **asked)
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------- contact sheets


def test_a_sheet_is_not_put_among_the_images_by_any_name(made, tmp_path, monkeypatch):
    path, pipeline, _ = made
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(tmp_path)
    for name in ("out/sheet.png", "link/sheet.png", "home/../out/sheet.png", "out"):
        with pytest.raises(UsageError, match="beside the output"):
            decode(path, "out", contact_sheet=name, generator=pipeline)
    assert not list((tmp_path / "out").iterdir())


def test_a_sheet_decodes_no_more_than_it_shows(made, tmp_path):
    _, pipeline, _ = made
    path = make_file(tmp_path / "many.d3m", pipeline, classes=2, ipc=40, pixels=False)
    done: list[int] = []
    report = decode(
        path,
        contact_sheet=tmp_path / "sheet.png",
        generator=pipeline,
        progress=lambda stage, now, total: done.append(total),
    )
    assert max(done) == 32  # ten images a class lie in two units each
    assert report.images == 20
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[1] < 250
        assert len(sheet.getcolors(10**6)) > 100


def test_sheets_stay_small_whatever_they_show(tmp_path):
    rng = np.random.default_rng(0)
    for side in (8, 40, 150):
        noise = rng.integers(0, 256, (10, side, side, 3), np.uint8)
        contact_sheet({f"class {number} with a long name": noise for number in range(45)}, tmp_path / "s.png")
        assert (tmp_path / "s.png").stat().st_size < SHEET_BYTES


def test_small_images_are_magnified_without_smoothing(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1], image[1, 0] = (255, 0, 0), (0, 255, 0)
    contact_sheet([("ä", [image]), ("漢字", [image])], tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        colours = {colour: count for count, colour in sheet.convert("RGB").getcolors(10**6)}
    assert colours[255, 0, 0] == colours[0, 255, 0] == 2 * 48 * 48


def test_an_empty_sheet_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no image"):
        contact_sheet({}, tmp_path / "s.png")


# ---------------------------------------------------------------------------------------------- imports


def test_decoder_modules_are_importable_without_torch():
    """And say which extra is missing when they are used."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import d3codec.decoder.decode, d3codec.decoder.verify, d3codec.decoder.render, d3codec.decoder.cache_filler\n"
        "from d3codec.decoder.precision import choose_device\n"
        "from d3codec.errors import MissingExtraError\n"
        "try: choose_device('auto')\n"
        "except MissingExtraError as error: print(error.extra, error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "decode 4\n", done.stderr


def test_progress_counts_images(made, tmp_path):
    path, pipeline, _ = made
    steps: list[tuple[str, int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(path, generator=pipeline, progress=lambda *step: steps.append(step))
    assert steps == [("load generator", 0, 1), ("load generator", 1, 1), ("decode", 8, 12), ("decode", 12, 12)]
