"""Labelled images from folders, parquet files, scikit-learn's digits and memory, and what is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3codec.errors import ImagesError, MissingExtraError
from d3codec.sources import DIGIT_NAMES, LabelledImages, read_images


def picture(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images; a hidden file, a text file and a hidden folder that must be ignored."""
    for number, name in enumerate(("cats", "dogs")):
        (tmp_path / name).mkdir()
        for image in range(2):
            (tmp_path / name / f"{image}.png").write_bytes(png(picture(seed=2 * number + image)))
    (tmp_path / "cats" / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder_is_read_in_sorted_order(folder: Path) -> None:
    found = read_images(folder)
    assert len(found) == 4
    assert found.class_names == ("cats", "dogs")
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.source == str(folder)
    assert found.skipped == ()
    for seed, image in enumerate(found.images):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, picture(seed=seed))


@pytest.mark.parametrize("names", [["Katze", "Hund"], [{"name": "Katze"}, {"name": "Hund", "id": "n0"}]])
def test_classes_json_names_the_folders(folder: Path, names: list) -> None:
    (folder / "classes.json").write_text(json.dumps(names))
    assert read_images(str(folder)).class_names == ("Katze", "Hund")


@pytest.mark.parametrize("text", ['["only one"]', '{"cats": 0}', "not json", '[{"id": 1}, {"id": 2}]', "3"])
def test_a_wrong_classes_json_is_refused(folder: Path, text: str) -> None:
    (folder / "classes.json").write_text(text)
    with pytest.raises(ImagesError, match=r"classes\.json"):
        read_images(folder)


def test_a_broken_image_is_refused_or_skipped(folder: Path) -> None:
    whole = (folder / "dogs" / "0.png").read_bytes()
    (folder / "dogs" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cats" / "1.png").write_bytes(b"")
    with pytest.raises(ImagesError, match=r"1\.png") as caught:
        read_images(folder)
    assert caught.value.file == str(folder / "cats" / "1.png")
    assert caught.value.hint
    found = read_images(folder, on_error="skip")
    assert found.labels.tolist() == [0, 1]
    assert [Path(entry.split(": ")[0]).parent.name for entry in found.skipped] == ["cats", "dogs"]


def test_a_class_of_unreadable_images_is_refused(folder: Path) -> None:
    for path in (folder / "dogs").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(ImagesError, match="dogs: a class has no readable image"):
        read_images(folder, on_error="skip")
    for path in (folder / "cats").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(ImagesError, match="no readable image"):
        read_images(folder, on_error="skip")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no folders and no images"):
        read_images(tmp_path)
    (tmp_path / "loose.png").write_bytes(png(picture()))
    with pytest.raises(ImagesError, match="1 images directly in it"):
        read_images(tmp_path)
    (tmp_path / "birds").mkdir()
    with pytest.raises(ImagesError, match="birds: a class folder has no images"):
        read_images(tmp_path)
    (tmp_path / "birds" / "list.txt").write_text("")
    with pytest.raises(ImagesError, match="1 other files"):
        read_images(tmp_path)


def test_paths_that_are_no_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no such file or folder"):
        read_images(tmp_path / "nowhere")
    (tmp_path / "one.png").write_bytes(png(picture()))
    with pytest.raises(ImagesError, match="neither a folder nor"):
        read_images(tmp_path / "one.png")


def test_one_class_is_enough(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.PNG").write_bytes(png(picture()))
    assert read_images(tmp_path).class_names == ("only",)


def as_folder(tmp_path: Path, image: Image.Image, name: str = "a.png", **save: object) -> Path:
    (tmp_path / "x").mkdir()
    image.save(tmp_path / "x" / name, **save)
    return tmp_path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.full((4, 5), 255, np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), 65535, np.uint16))
    else:
        image = grey.convert("RGB").convert(mode) if mode in ("CMYK", "P") else grey.convert(mode)
    save = {"transparency": 0} if mode == "P" else {}
    found = read_images(as_folder(tmp_path, image, "a.tif" if mode == "CMYK" else "a.png", **save)).images[0]
    np.testing.assert_array_equal(found, np.full((4, 5, 3), 255, np.uint8))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    found = read_images(as_folder(tmp_path, Image.fromarray(values))).images[0]
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.ones((2, 2), np.float32))
    with pytest.raises(ImagesError, match="floating point"):
        read_images(as_folder(tmp_path, image, "a.tif"))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    found = read_images(as_folder(tmp_path, Image.fromarray(picture(6, 8)), exif=exif)).images[0]
    np.testing.assert_array_equal(found, np.rot90(picture(6, 8), -1))


def test_large_images_are_reduced(tmp_path: Path) -> None:
    path = as_folder(tmp_path, Image.fromarray(picture(30, 60)))
    assert read_images(path, max_side=20).images[0].shape == (10, 20, 3)
    assert read_images(path, max_side=60).images[0].shape == (30, 60, 3)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_folder(tmp_path, Image.fromarray(picture(20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 400 pixels: what Pillow only warns of
    with pytest.raises(ImagesError, match="too many pixels"):
        read_images(path)


def write_parquet(path: Path, rows: list, metadata: dict | None = None, **columns: object) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = {"image": pyarrow.array([{"bytes": data, "path": None} for data, _ in rows], kind)}
    table["label"] = pyarrow.array([label for _, label in rows], pyarrow.int64())
    made = pyarrow.table({k: v for k, v in (table | columns).items() if v is not None})
    parquet.write_table(made.replace_schema_metadata(metadata), path)
    return path


ROWS = [(png(picture(seed=seed)), seed % 2) for seed in range(3)]
HUGGING_FACE = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (None, ("0", "1")),
        ({"class_names": '["no", "yes"]'}, ("no", "yes")),
        ({"huggingface": json.dumps(HUGGING_FACE)}, ("no", "yes")),
        ({"huggingface": json.dumps({"info": {"features": {}}})}, ("0", "1")),
    ],
)
def test_a_parquet_file_is_read(tmp_path: Path, metadata: dict | None, names: tuple[str, ...]) -> None:
    found = read_images(write_parquet(tmp_path / "a.parquet", ROWS, metadata))
    assert found.class_names == names
    assert found.labels.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(found.images[2], picture(seed=2))


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [*ROWS, (b"nonsense", 1), (None, 0)])
    with pytest.raises(ImagesError, match=r"a\.parquet row 3"):
        read_images(path)
    found = read_images(path, on_error="skip")
    assert len(found) == 3
    assert len(found.skipped) == 2


@pytest.mark.parametrize(
    ("rows", "metadata", "columns", "message"),
    [
        (ROWS, None, {"image": ["a", "b", "c"]}, "image: the columns are not"),
        (ROWS, None, {"image": None}, "image: the columns are not"),
        (ROWS, None, {"label": ["a", "b", "c"]}, "label: the columns are not"),
        (ROWS, None, {"label": None}, "label: the columns are not"),
        (ROWS, {"class_names": '["no"]'}, {}, "a label has no class name"),
        (ROWS, {"class_names": "no"}, {}, "class names in the metadata"),
        (ROWS, {"class_names": '["no", "yes", "never"]'}, {}, "never: a class has no readable image"),
        ([(ROWS[0][0], -1)], None, {}, "unlabelled images"),
        ([(ROWS[0][0], None)], None, {}, "unlabelled images"),
        ([], None, {}, "no rows"),
    ],
)
def test_bad_parquet_files_are_refused(
    tmp_path: Path, rows: list, metadata: dict | None, columns: dict, message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows, metadata, **columns)
    with pytest.raises(ImagesError, match=message):
        read_images(path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ImagesError, match="not a readable parquet file"):
        read_images(tmp_path / "a.parquet")


def test_the_digits_and_their_split() -> None:
    pytest.importorskip("sklearn")
    everything, train, test = (read_images(f"digits:{part}") for part in ("all", "train", "test"))
    assert (len(everything), len(train), len(test)) == (1797, 1437, 360)
    assert train.class_names == DIGIT_NAMES
    assert train.images[0].shape == (8, 8, 3)
    assert np.unique(np.stack(everything.images)).tolist() == [round(v * 255 / 16) for v in range(17)]
    parts = [image.tobytes() for part in (train, test) for image in part.images]
    assert sorted(parts) == sorted(image.tobytes() for image in everything.images)
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_every_digit_is_tested_in_one_fold() -> None:
    pytest.importorskip("sklearn")
    tested = []
    for fold in range(5):
        train, test = read_images(f"digits:train:{fold}/5"), read_images(f"digits:test:{fold}/5")
        assert len(train) + len(test) == 1797
        assert np.bincount(test.labels).min() >= 34
        tested += [image.tobytes() for image in test.images]
    assert sorted(tested) == sorted(image.tobytes() for image in read_images("digits:all").images)


@pytest.mark.parametrize("name", ["digits:", "digits:x", "digits:all:0/5", "digits:test:5/5", "digits:0/5"])
def test_other_parts_of_the_digits_are_refused(name: str) -> None:
    with pytest.raises(ImagesError, match="no such part of the digits"):
        read_images(name)


def test_images_in_memory() -> None:
    colour, grey = picture(), picture()[:, :, 0]
    found = read_images(([colour, grey], [1, 0], ["a", "b"]), max_side=4)
    assert found.class_names == ("a", "b")
    assert found.labels.tolist() == [1, 0]
    assert [image.shape for image in found.images] == [(3, 4, 3)] * 2
    assert read_images(found) is found
    assert isinstance(found, LabelledImages)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (([], [], ["a"]), "no images"),
        (([picture()], [0]), "a tuple of 2"),
        (([picture()], [0, 0], ["a"]), "labels that do not fit"),
        (([picture()], [0.5], ["a"]), "labels that do not fit"),
        (([picture()], [1], ["a"]), "a label has no class name"),
        (([picture() / 255], [0], ["a"]), r"images\[0\]: this array is not an image"),
        (([picture()[:, :, :2]], [0], ["a"]), r"images\[0\]: this array is not an image"),
    ],
)
def test_bad_images_in_memory_are_refused(source: tuple, message: str) -> None:
    with pytest.raises(ImagesError, match=message):
        read_images(source)


@pytest.mark.parametrize(
    ("package", "source", "extra"), [("pyarrow", "a.parquet", "encode"), ("sklearn", "digits:train", "demo")]
)
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, source: str, extra: str
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=extra):
        read_images(source)


def test_the_import_is_light() -> None:
    code = "import sys, d3codec.sources; print(*{'pyarrow', 'sklearn', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
