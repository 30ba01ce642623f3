"""The demo from end to end with few steps: rows, budget, pictures, JSON."""

import json

import pytest
from PIL import Image

from d3codec.dataset import load
from d3codec.sources import read_images
from d3codec.training.comparison import compare
from d3codec.training.demo import FILE, TEACHER, run_demo
from d3codec.training.teachers import load_teacher

ROWS = [
    "d3m",
    "d3m-hard",
    "class-words",
    "real-bytes-1bit",
    "real-bytes-2bit",
    "real-bytes-4bit",
    "real-selected",
    "real-patches",
    "full",
    "chance",
]


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path):
    seen = []
    report = run_demo(
        tmp_path / "demo",
        processes=1,
        seeds=1,
        steps=40,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ROWS
    assert rows["d3m"].bytes == FILE.stat().st_size
    for name in ROWS[3:7]:
        assert 0.9 * rows["d3m"].bytes < rows[name].bytes <= rows["d3m"].bytes
    assert rows["d3m"].protocol == "S0"
    assert rows["d3m-hard"].protocol == "H"
    assert rows["d3m-hard"].images == rows["d3m"].images == rows["real-patches"].images == 400
    assert all(row.accuracy_percent > 30 for row in report.rows if row.name != "chance")
    assert 9 < rows["chance"].accuracy_percent < 12
    assert ("students", 9, 9) in seen
    for picture in report.pictures:
        with Image.open(picture) as image:
            assert min(image.size) > 300
        assert picture.stat().st_size < 300_000
    saved = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert {"name", "bytes", "accuracy_percent", "spread", "runs"} <= set(saved["rows"][0])
    assert "d3m-hard" in report.as_table()
    again = compare(
        FILE,
        read_images("digits:train"),
        read_images("digits:test"),
        load_teacher(TEACHER),
        steps=40,
        seeds=1,
        processes=2,
    )
    assert [row.per_run for row in again] == [row.per_run for row in report.rows]


def test_the_bundled_file_keeps_its_promises():
    dataset = load(FILE)
    assert dataset.bytes <= 1536
    assert dataset.file.head_bytes <= 600
    assert (len(dataset.classes), dataset.images_per_class, dataset.labels.kind) == (10, 10, "ranked-head")
    labels = dataset.labels.logits().argmax(-1)
    assert (labels == dataset.labels.hard()[:, None]).mean() > 0.97
