"""What a verification proves, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny_pipeline import make_file, make_group, make_pipeline, witness

from d3codec.decoder.budget import Budget
from d3codec.decoder.decode import decode
from d3codec.decoder.verify import verify
from d3codec.errors import GeneratorError, MissingGeneratorError, PixelsError, SectionError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import About, Classes
from d3codec.format.sections import ClassRecord, pack_classes

torch.set_num_threads(1)
CLASSES, IPC = 3, 4


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    return [make_pipeline(folder / str(seed), seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def pipeline(pipelines):
    return pipelines[0]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def parts(pipeline, tmp_path_factory):
    """Group, conditioning, true `about` and true leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        group, rows = make_group(pipeline, classes=CLASSES, ipc=IPC, labels="h")
        about, ancillary = witness(pipeline, group, rows, CLASSES, 8)
    return group, rows, about, ancillary["x-leaf"]


def write(path, parts, *, leaf=None, **about):
    """A file with sound checksums whatever is said about its pixels."""
    group, rows, true, _ = parts
    names = pack_classes([ClassRecord("", name) for name in "abc"])
    fields = {"fingerprint": true.fingerprint, "pixels": true.pixels} | about
    draft = ContentDraft(Classes(authority="none", count=CLASSES), (group,))
    path.write_bytes(
        write_d3m(
            draft, {("cls", None): names, ("emb", 0): rows}, About(**fields), {} if leaf is None else {"x-leaf": leaf}
        )
    )
    return path


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_the_structure_alone_needs_no_torch(parts, tmp_path):
    path = write(tmp_path / "a.d3m", parts)
    script = (
        "import sys; sys.modules['torch'] = None\nfrom d3codec.decoder.verify import verify\n"
        f"print(verify({str(path)!r}).pixels)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "not checked\n", done.stderr


# Shows D3M-137.
def test_the_report(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts)
    report = verify(path, decode="all", generator=pipeline, device="cpu").as_json()
    assert report == {
        "file": str(path),
        "bytes": path.stat().st_size,
        "content_id": D3MFile.open(path).content_id,
        "level": 3,
        "profile": "reproducible",
        "images": 12,
        "images_checked": 12,
        "pixels": "proved",
        "fingerprint": parts[2].fingerprint,
        "file_fingerprint": parts[2].fingerprint,
        "warnings": [],
    }


@pytest.mark.parametrize("size", [2, 4, 8])
# Shows D3M-096.
def test_some_images_by_their_leaves(parts, pipeline, tmp_path, size):
    leaf = b"".join(parts[3][place : place + size] for place in range(0, len(parts[3]), 8))
    report = verify(write(tmp_path / "a.d3m", parts, leaf=leaf), decode=5, generator=pipeline, device="cpu")
    assert (report.pixels, report.images_checked, report.warnings) == ("sampled", 5, ())


def test_the_images_checked_are_spread_over_the_classes(parts, pipeline, tmp_path):
    """Of three images the first of each class is one: a wrong leaf there is seen, one elsewhere is not."""
    for place in (0, 1, 8, 11):
        path = write(tmp_path / "a.d3m", parts, leaf=flip(parts[3], place * 8))
        if place % IPC == 0:
            with pytest.raises(PixelsError, match=f"class {place // IPC}, image 0"):
                verify(path, decode=3, generator=pipeline, device="cpu")
        else:
            assert verify(path, decode=3, generator=pipeline, device="cpu").pixels == "sampled"


def test_more_than_the_budget_is_refused(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts, leaf=parts[3])
    assert verify(path, budget=Budget(images=0)).pixels == "not checked"
    for decode_, images in (("all", 11), (5, 5)):  # two of each class hold five
        with pytest.raises(UsageError, match="images") as caught:
            verify(path, decode=decode_, budget=Budget(images=images), device="cpu")
        assert "--yes" in caught.value.hint
    assert verify(path, decode=3, budget=Budget(images=3), generator=pipeline, device="cpu").images_checked == 3
    with pytest.raises(UsageError, match="hours"):
        verify(path, decode="all", budget=Budget(hours=0), generator=pipeline, device="cpu")
    assert verify(path, decode="all", budget=None, generator=pipeline, device="cpu").pixels == "proved"


def test_without_leaves_a_number_means_the_whole_set(parts, pipeline, tmp_path):
    report = verify(write(tmp_path / "a.d3m", parts), decode=2, generator=pipeline, device="cpu")
    assert (report.pixels, report.images_checked) == ("proved", 12)
    assert "all 12 were decoded" in report.warnings[0]


def test_more_images_than_there_are(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts, leaf=parts[3])
    assert verify(path, decode=500, generator=pipeline, device="cpu").images_checked == 12


def test_an_edited_digest(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts, pixels=bytes(32))
    assert verify(path).pixels == "not checked"
    with pytest.raises(PixelsError) as caught:
        verify(path, decode="all", generator=pipeline, device="cpu")
    assert caught.value.exit_code == 3
    path = write(tmp_path / "b.d3m", parts, pixels=bytes(32), leaf=parts[3])
    with pytest.raises(PixelsError, match="set as a whole"):
        verify(path, decode="all", generator=pipeline, device="cpu")


def test_an_edited_leaf(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts, leaf=flip(flip(parts[3], 6 * 8 + 7), 9 * 8))
    with pytest.raises(PixelsError, match="class 1, image 2") as caught:
        verify(path, decode="all", generator=pipeline, device="cpu")
    assert "2 of 12" in str(caught.value)
    assert caught.value.expected == flip(parts[3], 6 * 8 + 7)[48:56].hex()
    assert caught.value.found == parts[3][48:56].hex()


# Shows D3M-131.
def test_other_pixels_elsewhere_are_not_damage(parts, pipeline, tmp_path):
    elsewhere = parts[2].fingerprint.replace("torch 2", "torch 1")
    for leaf, checked in ((None, 12), (bytes(len(parts[3])), 4)):
        path = write(tmp_path / "a.d3m", parts, pixels=bytes(32), fingerprint=elsewhere, leaf=leaf)
        report = verify(path, decode="all" if leaf is None else 4, generator=pipeline, device="cpu")
        assert (report.pixels, report.images_checked) == ("unproved", checked)
        assert f"torch {torch.__version__.replace('2', '1', 1)} against {torch.__version__}" in report.warnings[-1]
        assert report.file_fingerprint == elsewhere


def test_the_same_pixels_elsewhere_are_proved(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts, fingerprint="another machine", leaf=parts[3])
    for decode_, found in (("all", "proved"), (3, "sampled")):
        report = verify(path, decode=decode_, generator=pipeline, device="cpu")
        assert (report.pixels, report.warnings) == (found, ())


def test_no_digest_proves_nothing(pipeline, tmp_path):
    path = make_file(tmp_path / "a.d3m", pipeline, pixels=False)
    report = verify(path, decode="all", generator=pipeline, device="cpu")
    assert (report.pixels, report.images_checked) == ("unproved", 0)
    assert "no pixel digest" in report.warnings[0]


def test_the_cache_is_not_believed(parts, pipeline, tmp_path, home):
    """A wrong image in the cache, with a sound checksum, is given by decode and not seen by verify."""
    from d3codec.decoder.cache import UnitCache, cache_key
    from d3codec.decoder.plan import unit_at

    path = write(tmp_path / "a.d3m", parts, leaf=parts[3])
    decode(path, generator=pipeline, device="cpu")
    cache = UnitCache(home, cache_key(D3MFile.open(path).content_id, "reproducible", parts[2].fingerprint))
    unit = unit_at(0, 0, IPC, CLASSES)
    cache.put(unit, 255 - cache.get(unit))
    before = {file: file.stat().st_mtime_ns for file in home.rglob("*.unit")}
    assert verify(path, decode="all", generator=pipeline, device="cpu").pixels == "proved"
    assert {file: file.stat().st_mtime_ns for file in home.rglob("*.unit")} == before


def test_a_damaged_section_is_found_before_anything_is_decoded(parts, pipeline, tmp_path):
    path = write(tmp_path / "a.d3m", parts)
    path.write_bytes(flip(path.read_bytes(), path.stat().st_size - 5))
    with pytest.raises(SectionError):
        verify(path, decode="all", generator="/no/such/folder")


# Shows D3M-100.
def test_the_generator_must_be_the_one(parts, pipelines, tmp_path):
    path = write(tmp_path / "a.d3m", parts)
    with pytest.raises(MissingGeneratorError):
        verify(path, decode="all", device="cpu")
    with pytest.raises(GeneratorError, match="not the generator"):
        verify(path, decode="all", generator=pipelines[1], device="cpu")


@pytest.mark.parametrize("decode_", [0, -1, "some", True, 1.5])
def test_what_can_be_asked_for(parts, tmp_path, decode_):
    with pytest.raises(UsageError):
        verify(write(tmp_path / "a.d3m", parts), decode=decode_)
