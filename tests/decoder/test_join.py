"""Shards and their join: nothing lost, nothing twice, nothing unlike, and every picture checked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import make_pictures, snapshot, write, write_shard, write_shards
from PIL import Image

from d3codec.decoder.join import join
from d3codec.decoder.plan import Extent, Plan
from d3codec.decoder.shard import Shard, image_keys
from d3codec.decoder.writers import FORMATS
from d3codec.errors import MissingError, MissingFileError, OutputError, PixelsError, UsageError


@pytest.fixture
def made(tmp_path):
    """(decoding of three classes of twenty, pictures by image, folders of its three shards)."""
    decoding, images = make_pictures(tmp_path / "set.d3m")
    return decoding, images, write_shards(tmp_path / "parts", decoding, images, 3)


# ------------------------------------------------------------------------------------------------------ parts


@given(count=st.integers(1, 40), limit=st.none() | st.integers(1, 20), classes=st.sets(st.integers(0, 2), min_size=1))
def test_parts_share_nothing_and_leave_nothing_out(count, limit, classes, tmp_path_factory):
    whole = _extent(tmp_path_factory, sorted(classes), limit)
    extents = [Shard(number, count).of(whole) for number in range(count)]
    plan, parts = whole.plan(), [extent.plan() for extent in extents]
    assert [(extent.units, extent.images) for extent in extents] == [
        (len(part.units), len(part.images)) for part in parts
    ]
    assert [unit for part in parts for unit in part.units] == list(plan.units)
    assert sorted(key for part in parts for key in part.images) == sorted(plan.images)
    for part in parts:
        assert {key for unit in part.units for key in image_keys(unit)} >= set(part.images)
    sizes = [len(part.units) for part in parts]
    assert max(sizes) - min(sizes) <= 1


_CONTENT = []


def _extent(factory, classes, limit):
    if not _CONTENT:
        _CONTENT.append(make_pictures(factory.mktemp("plan") / "set.d3m")[0].file.content)
    return Extent.of(_CONTENT[0], classes, limit)


@pytest.mark.parametrize("text", ["", "1", "4/4", "5/4", "-1/4", "0/0", "a/b", "1/4/2", "0/", "½/1", "1.0/2"])
def test_shards_that_are_none(text):
    with pytest.raises(UsageError, match="counts from 0"):
        Shard.parse(text)


def test_a_shard_is_read_as_it_is_written():
    assert Shard.parse(" 3/4 ") == Shard(3, 4)
    assert str(Shard(3, 4)) == "3/4"


def test_what_a_shard_holds(made):
    decoding, _, (first, *_) = made
    notes = json.loads((first / "decode.json").read_text())
    expected = {"shard": "0/3", "classes": None, "limit": None, "images": 16, "finished": True}
    assert notes == decoding.identity | expected
    lines = (first / "digests.txt").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"00000/{number:06d}" for number in range(16)]
    assert len(list(first.glob("*/*.png"))) == 16


# ------------------------------------------------------------------------------------------------------- joins


@pytest.mark.parametrize("format", FORMATS)
def test_a_join_is_the_file_that_one_decode_makes(made, tmp_path, format):
    decoding, images, parts = made
    write(FORMATS[format](tmp_path / "whole", decoding), decoding, images)
    steps: list[tuple[str, int, int]] = []
    report = join(parts[::-1], tmp_path / "joined", format=format, progress=lambda *step: steps.append(step))
    if format == "npz":
        assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    else:
        assert snapshot(tmp_path / "joined") == snapshot(tmp_path / "whole")
    assert (report.images, report.pixels, report.folders) == (60, "proved", 3)
    assert steps[-1] == ("join", 60, 60)


def test_a_part_of_a_dataset_is_joined_too(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m")
    part = replace(decoding, plan=Plan.of(decoding.file.content, [0, 2], 5), classes=(0, 2), limit=5)
    report = join(write_shards(tmp_path / "parts", part, images, 4), tmp_path / "joined")  # of which two are empty
    assert (report.images, report.pixels) == (10, "unproved")
    write(FORMATS["imagefolder"](tmp_path / "whole", part), part, images)
    assert snapshot(tmp_path / "joined") == snapshot(tmp_path / "whole")


def test_a_join_continues(made, tmp_path):
    _, _, parts = made

    def interrupt(stage, done, total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join(parts, tmp_path / "joined", progress=interrupt)
    assert json.loads((tmp_path / "joined" / "decode.json").read_text())["finished"] is False
    there = {path: path.stat().st_ino for path in (tmp_path / "joined").glob("*/*.png")}
    assert there
    join(parts, tmp_path / "joined")
    assert {path: path.stat().st_ino for path in there} == there
    assert len(list((tmp_path / "joined").glob("*/*.png"))) == 60


def test_gaps_are_named(made, tmp_path):
    _, _, parts = made
    with pytest.raises(MissingError) as caught:
        join([parts[0], parts[2]], tmp_path / "joined")
    assert "24 images" in caught.value.message
    assert caught.value.found == "class 0: images 16 to 19; class 1: images 0 to 19"
    assert "0/3, 2/3" in caught.value.hint
    assert caught.value.exit_code == 4
    assert not (tmp_path / "joined").exists()


def test_an_unfinished_shard_is_named(made, tmp_path):
    _, _, parts = made
    notes = json.loads((parts[1] / "decode.json").read_text())
    (parts[1] / "decode.json").write_text(json.dumps(notes | {"finished": False}))
    with pytest.raises(MissingError, match=r"part1 \(shard 1/3\)"):
        join(parts, tmp_path / "joined")


def test_an_empty_shard_that_is_finished_is_not_blamed(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m")  # eight units
    parts = [write_shard(tmp_path / str(number), decoding, images, Shard(number, 9)) for number in (0, 1)]
    with pytest.raises(MissingError) as caught:
        join(parts, tmp_path / "joined")
    assert caught.value.hint == "There is: shard 0/9, 1/9."


@pytest.mark.parametrize(
    ("field", "value"), [("profile", "fast"), ("fingerprint", "there"), ("limit", 3), ("classes", [0, 1])]
)
def test_unlike_shards_are_refused(made, tmp_path, field, value):
    _, _, parts = made
    notes = json.loads((parts[1] / "decode.json").read_text())
    (parts[1] / "decode.json").write_text(json.dumps(notes | {field: value}))
    with pytest.raises(UsageError) as caught:
        join(parts, tmp_path / "joined")
    assert (caught.value.field, caught.value.found, caught.value.file) == (field, value, str(parts[1]))
    assert not (tmp_path / "joined").exists()


def test_shards_of_two_datasets_are_refused(made, tmp_path):
    _, _, parts = made
    other, images = make_pictures(tmp_path / "other.d3m", seed=1)
    stranger = write_shard(tmp_path / "stranger", other, images, Shard(1, 3))
    with pytest.raises(UsageError, match="content id") as caught:
        join([parts[0], stranger, parts[2]], tmp_path / "joined")
    assert caught.value.found == other.file.content_id


def test_exact_shards_of_unlike_machines_are_joined_and_proved(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m", profile="exact")
    here = write_shard(tmp_path / "here", decoding, images, Shard(0, 2))
    there = write_shard(tmp_path / "there", replace(decoding, fingerprint="there"), images, Shard(1, 2))
    report = join([here, there], tmp_path / "joined")
    assert (report.pixels, report.fingerprint) == ("proved", None)


@pytest.mark.parametrize("profile", ["exact", "reproducible"])
def test_a_set_that_differs_from_the_promise_is_refused(tmp_path, profile):
    decoding, images = make_pictures(tmp_path / "set.d3m", profile=profile)
    images[0, 2, 7] = images[0, 2, 7] ^ 1
    parts = write_shards(tmp_path / "parts", decoding, images, 2)
    with pytest.raises(PixelsError, match="promises"):
        join(parts, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_without_a_promise_the_shards_are_believed(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m", promise=False)
    assert join(write_shards(tmp_path / "parts", decoding, images, 2), tmp_path / "joined").pixels == "unproved"


def test_overlaps_must_agree(tmp_path):
    decoding, images = make_pictures(tmp_path / "set.d3m", promise=False)
    parts = write_shards(tmp_path / "parts", decoding, images, 2)
    all_of_it = write_shard(tmp_path / "all", decoding, images, Shard(0, 1))
    assert join([*parts, all_of_it], tmp_path / "joined").images == 60
    images[0, 1, 3] = images[0, 1, 3] ^ 1
    other = write_shard(tmp_path / "other", decoding, images, Shard(0, 1))
    with pytest.raises(PixelsError, match="disagree") as caught:
        join([*parts, other], tmp_path / "again")
    assert caught.value.field == "00001/000003"


# ------------------------------------------------------------------------------------------------------ damage


def spoil_pixel(part):
    path = part / "00001" / "000000.png"
    image = np.array(Image.open(path))
    image[3, 3, 0] ^= 1
    Image.fromarray(image).save(path)


def spoil_picture(part):
    (part / "00001" / "000000.png").write_bytes(b"not a picture")


def remove_picture(part):
    (part / "00001" / "000000.png").unlink()


def spoil_digests(part):
    with open(part / "digests.txt", "a") as handle:
        handle.write("nonsense\n")


def spoil_digest(part):
    lines = (part / "digests.txt").read_text()
    (part / "digests.txt").write_text(("1" if lines[0] == "0" else "0") + lines[1:])


def spoil_dataset(part):
    data = bytearray((part / "dataset.d3m").read_bytes())
    data[40] ^= 1
    (part / "dataset.d3m").write_bytes(data)


@pytest.mark.parametrize("spoil", [spoil_pixel, spoil_picture, remove_picture, spoil_digests, spoil_digest])
def test_damage_is_found(tmp_path, spoil):
    decoding, images = make_pictures(tmp_path / "set.d3m", promise=False)
    parts = write_shards(tmp_path / "parts", decoding, images, 3)
    spoil(parts[1])
    with pytest.raises(PixelsError) as caught:
        join(parts, tmp_path / "joined")
    assert str(parts[1]) in caught.value.file
    assert "again" in caught.value.hint


def test_another_dataset_in_a_shard_is_found(made, tmp_path):
    _, _, parts = made
    spoil_dataset(parts[0])
    with pytest.raises(PixelsError, match="copy of the dataset"):
        join(parts, tmp_path / "joined")
    make_pictures(parts[0] / "dataset.d3m", seed=3)
    with pytest.raises(PixelsError, match="copy of the dataset"):
        join(parts, tmp_path / "joined")


def test_folders_that_are_no_shards(made, tmp_path):
    decoding, images, parts = made
    write(FORMATS["imagefolder"](tmp_path / "plain", decoding), decoding, images)
    with pytest.raises(UsageError, match="decode --shard"):
        join([*parts, tmp_path / "plain"], tmp_path / "joined")
    for name, message in (("nowhere", "no such folder"), ("set.d3m", "a folder is needed")):
        with pytest.raises(MissingFileError, match=message) as caught:
            join([*parts, tmp_path / name], tmp_path / "joined")
        assert caught.value.file == str(tmp_path / name)
    with pytest.raises(UsageError, match="no shard"):
        join([], tmp_path / "joined")
    with pytest.raises(UsageError, match="unknown output format"):
        join(parts, tmp_path / "joined", format="gif")


def test_an_output_that_holds_something_else(made, tmp_path):
    _, _, parts = made
    before = snapshot(parts[0])
    with pytest.raises(OutputError, match=r"dataset\.d3m"):
        join(parts, parts[0])  # a shard is not the whole
    assert snapshot(parts[0]) == before


def test_a_join_needs_no_torch(made, tmp_path):
    _, _, parts = made
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from d3codec.decoder.join import join; print(join(sys.argv[2:], sys.argv[1]).images)"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "joined"), *map(str, parts)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout == "60\n", done.stderr
