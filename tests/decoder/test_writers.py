"""Outputs for other tools: read back as they read them, the same bytes every time, whole or not there."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import make_pictures, snapshot, write
from PIL import Image

from d3codec.decoder import labels as decoder_labels
from d3codec.decoder.background import WAITING, Background
from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.shard import Shard
from d3codec.decoder.writers import FORMATS, ShardFolder
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.parquet import ParquetFolder, unique_names
from d3codec.decoder.writers.saving import remove_leftover, save, saved_beside
from d3codec.decoder.writers.webdataset import WebDatasetFolder
from d3codec.errors import MissingExtraError, OutputError
from d3codec.format.file import ClassRecord

FOLDERS = [name for name in FORMATS if name != "npz"]


@pytest.fixture
def made(tmp_path):
    return make_pictures(tmp_path / "set.d3m")


def picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("format", FOLDERS)
def test_the_same_bytes_every_time(made, tmp_path, format):
    for name in ("a", "b"):
        write(FORMATS[format](tmp_path / name, made[0]), *made)
    write(FORMATS[format](tmp_path / "a", made[0]), *made)  # once more into the same folder
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "decode.json").read_text())["images"] == 60


# -------------------------------------------------------------------------------------------------- webdataset


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    """Samples by key as WebDataset groups them: by the name up to the first dot, neighbours only."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        last = None
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                assert key == last or key not in found
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                found.setdefault(key, {})[kind] = tar.extractfile(member).read()
                last = key
    return found


def test_tar_shards(made, tmp_path):
    decoding, images = made
    write(WebDatasetFolder(tmp_path / "out", decoding, tar_bytes=30_000), decoding, images)
    paths = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in paths] == [f"{number:06d}.tar" for number in range(len(paths))]
    assert len(paths) > 3
    assert all(path.stat().st_size <= 30_000 + 2 * tarfile.RECORDSIZE for path in paths)
    found, labels = samples(tmp_path / "out"), StoredLabels(decoding.file)
    assert list(found) == [f"{class_:05d}_{index:06d}" for class_ in range(3) for index in range(20)]
    for (group, class_, index), image in images.items():
        sample = found[f"{class_:05d}_{index:06d}"]
        assert set(sample) == {"png", "cls", "npy"}
        assert np.array_equal(picture(sample["png"]), image)
        assert int(sample["cls"]) == class_
        assert np.array_equal(np.load(io.BytesIO(sample["npy"])), labels.of((group, class_, index)))


def test_hard_labels_have_no_array(tmp_path):
    decoding, images = make_pictures(tmp_path / "hard.d3m", labels="h")
    write(WebDatasetFolder(tmp_path / "out", decoding), decoding, images)
    assert all(set(sample) == {"png", "cls"} for sample in samples(tmp_path / "out").values())


def test_labels_are_decoded_once(made, monkeypatch):
    """Eight threads decode the classes around an image once, and those around a far one when it is asked for."""
    file, key = made[0].file, made[0].plan.images[7]
    labels, reads, logits = StoredLabels(file), [], GroupLabels.logits

    def counted(*arguments):
        reads.append(arguments[1:])
        return logits(*arguments)

    monkeypatch.setattr(GroupLabels, "logits", counted)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(labels.of, [key] * 64))
    assert reads == [(0, 60 * 4)]
    assert all(np.array_equal(row, rows[0]) and row.dtype == np.float32 and row.shape == (4, 3) for row in rows)
    monkeypatch.setattr(decoder_labels, "PIECE_BYTES", 1)  # a class at a time
    labels = StoredLabels(file)
    assert np.array_equal(labels.of(key), rows[0])
    labels.of((0, 2, 0))
    labels.of((0, 2, 19))
    assert reads[1:] == [(0, 80), (160, 240)]


def test_a_full_disk_in_the_middle_of_a_tar(made, tmp_path, monkeypatch):
    decoding, images = made
    writer = WebDatasetFolder(tmp_path / "out", decoding)
    writer.begin()
    writer.add(writer.prepare(decoding.plan.images[0], images[decoding.plan.images[0]]))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        writer.add(writer.prepare(decoding.plan.images[1], images[decoding.plan.images[1]]))
    assert caught.value.file == str(tmp_path / "out" / "000000.tar")
    assert "make room" in caught.value.hint
    writer.abandon()
    assert set(snapshot(tmp_path / "out")) == {"classes.json", "decode.json"}


def test_an_abandoned_tar_is_not_there(made, tmp_path):
    decoding, images = made
    for writer in (WebDatasetFolder(tmp_path / "a", decoding), ParquetFolder(tmp_path / "b", decoding)):
        writer.begin()
        for key in decoding.plan.images[:30]:
            writer.add(writer.prepare(key, images[key]))
        writer.abandon()
    assert set(snapshot(tmp_path / "a")) == {"classes.json", "decode.json"}
    assert set(snapshot(tmp_path / "b")) == {"README.md", "decode.json"}


# ----------------------------------------------------------------------------------------------------- parquet


def test_parquet_as_the_hub_has_it(made, tmp_path):
    decoding, images = made
    write(ParquetFolder(tmp_path / "out", decoding), decoding, images)
    assert set(snapshot(tmp_path / "out")) == {"README.md", "data/train-00000-of-00001.parquet", "decode.json"}
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["thing 0", "thing 1", "thing 2"], "_type": "ClassLabel"}
    assert table.column_names == ["image", "label", "patch_logits"] == list(features)
    labels = StoredLabels(decoding.file)
    rows = table.to_pylist()
    assert len(rows) == 60
    for row, key in zip(rows, decoding.plan.images, strict=True):
        assert np.array_equal(picture(row["image"]["bytes"]), images[key])
        assert row["image"]["path"] == f"{key[1]:05d}_{key[2]:06d}.png"
        assert row["label"] == key[1]
        assert np.array_equal(np.array(row["patch_logits"], np.float32), labels.of(key))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "path: data/train-*" in card
    assert decoding.file.content_id in card
    assert "Licence: CC0-1.0" in card


@pytest.mark.skipif(find_spec("datasets") is None, reason="datasets is not installed")
def test_datasets_reads_it(made, tmp_path):
    from datasets import load_dataset

    decoding, images = made
    write(ParquetFolder(tmp_path / "out", decoding), decoding, images)
    dataset = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.features["label"].names == ["thing 0", "thing 1", "thing 2"]
    assert np.array_equal(np.asarray(dataset[25]["image"]), images[0, 1, 5])


def test_large_sets_have_several_files(made, tmp_path, monkeypatch):
    from d3codec.decoder.writers import parquet

    monkeypatch.setattr(parquet, "FILE_BYTES", 60 * 192 // 4)
    monkeypatch.setattr(parquet, "ROWS", 7)
    write(ParquetFolder(tmp_path / "out", made[0]), *made)
    paths = sorted((tmp_path / "out" / "data").iterdir())
    assert [path.name for path in paths] == [f"train-{number:05d}-of-00004.parquet" for number in range(4)]
    tables = [pq.read_table(path) for path in paths]
    assert [len(table) for table in tables] == [15] * 4
    assert [label for table in tables for label in table["label"].to_pylist()] == [0] * 20 + [1] * 20 + [2] * 20


def test_without_pyarrow_the_extra_is_named(made, tmp_path, monkeypatch):
    from d3codec.decoder.writers import parquet

    monkeypatch.setattr(parquet, "find_spec", lambda name: None)  # what a base installation finds
    with pytest.raises(MissingExtraError, match="encode"):
        ParquetFolder(tmp_path / "out", made[0])


def test_class_labels_are_unique():
    def names(*texts):
        return unique_names([ClassRecord(*text) for text in texts])

    assert names(("", "a"), ("", "b")) == ["a", "b"]
    assert names(("n1", "crane"), ("n2", "crane"), ("", "b")) == ["crane (n1)", "crane (n2)", "b"]
    assert names(("", "a"), ("", "a")) == ["a (0)", "a (1)"]
    assert len(set(names(("", "a"), ("", "a"), ("", "a (0)")))) == 3


# ------------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize("format", FOLDERS)
@pytest.mark.parametrize("stranger", ["notes.txt", "data/mine", "00000/000000.jpg", "00009/000000.png", "a.tar"])
def test_strangers_are_refused(made, tmp_path, format, stranger):
    write(FORMATS[format](tmp_path / "out", made[0]), *made)
    (tmp_path / "out" / stranger).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / stranger).write_bytes(b"mine")
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError, match="something else"):
        FORMATS[format](tmp_path / "out", made[0])
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("one", [*FOLDERS, "shard"])
@pytest.mark.parametrize("other", [*FOLDERS, "shard"])
def test_one_output_is_not_taken_for_another(made, tmp_path, one, other):
    def writer(name):
        return (
            ShardFolder(tmp_path / "out", made[0], Shard(0, 1))
            if name == "shard"
            else FORMATS[name](tmp_path / "out", made[0])
        )

    write(writer(one), *made)
    if one == other:
        writer(other)
    else:
        with pytest.raises(OutputError):
            writer(other)


def test_files_of_processes_that_live_are_not_left_behind(tmp_path):
    """The temporary file of a tar is locked while it is written; that of a killed process is not."""
    with saved_beside(tmp_path / "a.tar") as handle:
        handle.write(b"all of it")
        (temporary,) = tmp_path.iterdir()
        remove_leftover(temporary)
        assert temporary.exists()
    assert snapshot(tmp_path) == {"a.tar": b"all of it"}
    (tmp_path / f".d3m-{'0' * 16}").write_bytes(b"half")
    remove_leftover(tmp_path / f".d3m-{'0' * 16}")
    assert snapshot(tmp_path) == {"a.tar": b"all of it"}


def test_saving_bears_a_process_that_cleans_up(tmp_path):
    """Another process cleans up all the time, as one that begins in the same folder does once."""
    script = (
        "import pathlib, sys; from d3codec.decoder.writers.saving import remove_leftover\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[1], 'stop').exists():\n"
        "    for path in pathlib.Path(sys.argv[1]).glob('.d3m-*'): remove_leftover(path)"
    )
    cleaner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert cleaner.stdout.readline() == b"ready\n"
        for number in range(100):
            save(tmp_path / f"{number}.bin", bytes([number]))
    finally:
        (tmp_path / "stop").write_bytes(b"")
        assert cleaner.wait(30) == 0
        cleaner.stdout.close()
    assert all((tmp_path / f"{number}.bin").read_bytes() == bytes([number]) for number in range(100))


# --------------------------------------------------------------------------------------------------- background


def test_background_keeps_the_order_and_bounds_what_waits():
    taken, running = [], []

    def work(number):
        running.append(number)
        return number

    with Background(threads=4) as background:
        for number in range(500):
            background.do(lambda number=number: work(number), taken.append)
            assert len(running) - len(taken) <= WAITING
        background.finish()
    assert taken == list(range(500))


def test_background_raises_what_happened_there():
    with Background(threads=2) as background:
        background.do(lambda: 1 / 0, lambda _: None)
        with pytest.raises(ZeroDivisionError):
            background.finish()
