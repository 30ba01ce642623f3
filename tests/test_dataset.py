"""What `load` returns: classes, labels and images of real files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tiny_pipeline import make_file, make_group, make_pipeline

import d3codec
from d3codec.dataset import open_file
from d3codec.decoder.budget import Budget
from d3codec.errors import FormatError, MissingFileError, MissingGeneratorError, UsageError
from d3codec.format.file import ContentDraft, write_d3m
from d3codec.format.manifest import Classes
from d3codec.format.sections import ClassRecord, pack_classes

CLASSES, IPC, PATCHES = 3, 5, 4
NAMES = [("n01", "tench"), ("n02", "cock"), ("n03", "n01x")]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Cache of decoded units for this module, and the folder of its files."""
    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def pipeline(home):
    import torch

    torch.set_num_threads(1)
    return make_pipeline(home / "pipeline")


@pytest.fixture(scope="module")
def tiny(home, pipeline):
    """A file with quantized labels and a pixel digest."""
    return make_file(home / "tiny.d3m", pipeline, classes=CLASSES, ipc=IPC)


def labels_section(rng, images):
    return rng.integers(-60, 60, (CLASSES * images * PATCHES, CLASSES), np.int8).tobytes()


def write(path, *groups):
    """A file with named classes and these (group, conditioning, labels or None)."""
    sections = {("cls", None): pack_classes([ClassRecord(*name) for name in NAMES])}
    for number, (group, rows, labels) in enumerate(groups):
        sections["emb" if group.conditioning.kind == "delta" else "wrd", number] = rows
        if labels is not None:
            sections["lab", number] = labels
    records = tuple(group for group, _, _ in groups)
    draft = ContentDraft(Classes(authority="wordnet-3.0", count=CLASSES), records)
    path.write_bytes(write_d3m(draft, sections))
    return path


@pytest.fixture
def bare(tmp_path):
    """A file whose generator is nowhere: all that can be read without one."""
    group, rows = make_group(Path(), ipc=IPC, generator=bytes(32))
    return write(tmp_path / "bare.d3m", (group, rows, labels_section(np.random.default_rng(2), IPC)))


# ------------------------------------------------------------------------------------------------- reading


def test_what_a_file_says(bare):
    dataset = d3codec.load(bare)
    assert [(info.index, info.id, info.name) for info in dataset.classes] == [
        (0, "n01", "tench"),
        (1, "n02", "cock"),
        (2, "n03", "n01x"),
    ]
    assert {info.authority for info in dataset.classes} == {"wordnet-3.0"}
    assert len(dataset) == CLASSES * IPC
    assert dataset.images_per_class == IPC
    assert dataset.bytes == bare.stat().st_size
    assert dataset.content_id == open_file(bare).content_id
    assert dataset.profile == "reproducible"
    assert dataset.about is None
    (group,) = dataset.groups
    assert (group.images_per_class, group.grid, group.size, group.patches) == (IPC, (2, 2), (8, 8), PATCHES)
    assert (group.label_kind, group.label_width, group.teacher_columns) == ("int8", CLASSES, CLASSES)
    assert group.generator == "00" * 32
    assert group.recipe == "DDIM, 3 steps, guidance 2, predicts eps"
    assert group.conditioning == "learned, 2 tokens a class, 16 values of 4 bits"


def test_repr_is_worth_reading(bare):
    text, content = repr(d3codec.load(bare)), open_file(bare).content_id
    for piece in (
        "bare.d3m",
        f"{bare.stat().st_size:,} bytes",
        "3 classes x 5 images",
        "8x8",
        "2x2 patches",
        "int8 labels",
        "reproducible",
        "generator 00000000",
        f"content {content[:8]}",
    ):
        assert piece in text
    assert "1 classes x 2 images" in repr(d3codec.load(bare).subset(classes="cock", ipc=2))


def test_logits_are_the_stored_ones(bare):
    stored = np.frombuffer(open_file(bare).section("lab", 0), np.int8)
    stored = stored.reshape(CLASSES * IPC, PATCHES, CLASSES)
    labels = d3codec.load(bare).labels
    assert labels.kind == "int8"
    logits = labels.logits()
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, stored * (16 / 256))
    np.testing.assert_array_equal(labels.hard(), np.repeat(np.arange(CLASSES), IPC))


def test_probabilities_are_a_softmax(bare):
    labels = d3codec.load(bare).labels
    logits = labels.logits()
    for temperature in (0.01, 1.0, 20.0):
        probabilities = labels.probabilities(temperature)
        powers = np.exp(logits[4, 2].astype(np.longdouble) / temperature)
        expected = (powers / powers.sum()).astype(np.float64)
        np.testing.assert_allclose(probabilities[4, 2], expected, rtol=1e-6)
        np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-12)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="temperature"):
            labels.probabilities(temperature)


def test_hard_labels_have_no_logits(tmp_path):
    group, rows = make_group(Path(), labels="h", kind="words", generator=bytes(32))
    labels = d3codec.load(write(tmp_path / "hard.d3m", (group, rows, None))).labels
    assert labels.kind == "hard"
    assert labels.hard().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    with pytest.raises(UsageError, match="hard"):
        labels.logits()


# ------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(
    ("classes", "positions"),
    [
        (["cock"], [1]),
        ("cock", [1]),
        (["n03", "tench"], [0, 2]),
        ([2, 0, 2], [0, 2]),
        (1, [1]),
        (["n01", 0], [0]),
        (["n01x"], [2]),
    ],
)
def test_classes_are_chosen_by_name_id_or_position(bare, classes, positions):
    whole, view = d3codec.load(bare), d3codec.load(bare).subset(classes=classes)
    assert [info.index for info in view.classes] == positions
    assert view.labels.hard().tolist() == np.repeat(positions, IPC).tolist()
    rows = np.isin(whole.labels.hard(), positions)
    np.testing.assert_array_equal(view.labels.logits(), whole.labels.logits()[rows])
    assert view.content_id == whole.content_id


def test_views_of_views(bare):
    whole = d3codec.load(bare)
    view = whole.subset(ipc=3).subset(classes=[0, 2]).subset(ipc=2)
    assert len(view) == 4
    by_class = whole.labels.logits().reshape(CLASSES, IPC, PATCHES, CLASSES)
    np.testing.assert_array_equal(view.labels.logits(), by_class[[0, 2], :2].reshape(4, PATCHES, CLASSES))
    assert len(whole) == CLASSES * IPC
    with pytest.raises(UsageError, match="no such class"):
        view.subset(classes=[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["tensh"]}, "no such class.*tensh.*\nThere is: tench"),
        ({"classes": [3]}, "no such class"),
        ({"classes": [-1]}, "no such class"),
        ({"classes": []}, "no class is asked"),
        ({"ipc": 0}, "1 to 5"),
        ({"ipc": 6}, "1 to 5"),
        ({"groups": [1]}, "no such group"),
        ({"groups": []}, "no such group"),
    ],
)
def test_what_is_not_there_cannot_be_chosen(bare, arguments, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        d3codec.load(bare).subset(**arguments)


def test_a_name_that_is_another_class_s_id_is_refused(tmp_path):
    group, rows = make_group(Path(), classes=2, labels="h", generator=bytes(32))
    sections = {("cls", None): pack_classes([ClassRecord("a", "b"), ClassRecord("b", "c")]), ("emb", 0): rows}
    path = tmp_path / "twins.d3m"
    path.write_bytes(write_d3m(ContentDraft(Classes(authority="mine", count=2), (group,)), sections))
    with pytest.raises(UsageError, match="id of another"):
        d3codec.load(path).subset(classes=["b"])


def test_bad_arguments_of_load(bare, tmp_path):
    with pytest.raises(UsageError, match="profile"):
        d3codec.load(bare, profile="quick")
    with pytest.raises(MissingFileError, match="nowhere"):
        d3codec.load(tmp_path / "nowhere.d3m")
    with pytest.raises(UsageError, match="folder"):
        d3codec.load(tmp_path)
    damaged = tmp_path / "damaged.d3m"
    damaged.write_bytes(b"\x89D3M" + bytes(100))
    with pytest.raises(FormatError, match="damaged"):
        d3codec.load(damaged)


# ------------------------------------------------------------------------------------------------- groups


@pytest.fixture
def two_groups(tmp_path, pipeline):
    rng = np.random.default_rng(3)
    learned, first = make_group(pipeline, ipc=3, noise_key=1)
    named, second = make_group(pipeline, ipc=2, noise_key=2, kind="words")
    return write(
        tmp_path / "groups.d3m", (learned, first, labels_section(rng, 3)), (named, second, labels_section(rng, 2))
    )


def test_groups_stand_one_after_the_other_in_each_class(two_groups, pipeline):
    whole = d3codec.load(two_groups)
    assert [group.images_per_class for group in whole.groups] == [3, 2]
    assert len(whole) == CLASSES * 5
    parts = [whole.subset(groups=[number]) for number in (0, 1)]
    assert [len(part) for part in parts] == [9, 6]
    shape = (CLASSES, -1, PATCHES, CLASSES)
    expected = np.concatenate([part.labels.logits().reshape(shape) for part in parts], axis=1)
    np.testing.assert_array_equal(whole.labels.logits(), expected.reshape(-1, PATCHES, CLASSES))

    images = whole.images(generator=pipeline, device="cpu")
    apart = [part.images(generator=pipeline, device="cpu").reshape(CLASSES, -1, 8, 8, 3) for part in parts]
    np.testing.assert_array_equal(images, np.concatenate(apart, axis=1).reshape(-1, 8, 8, 3))
    samples = list(whole)  # from the cache now; the order is not the decoder's
    np.testing.assert_array_equal(np.stack([sample.image for sample in samples]), images)
    logits = np.stack([sample.patch_logits for sample in samples])
    np.testing.assert_array_equal(logits, whole.labels.logits())
    assert [sample.class_index for sample in samples] == whole.labels.hard().tolist()
    assert len(whole.subset(ipc=4).labels.logits()) == 12
    np.testing.assert_array_equal(
        whole.subset(ipc=4).images().reshape(CLASSES, 4, 8, 8, 3), images.reshape(CLASSES, 5, 8, 8, 3)[:, :4]
    )


def test_groups_that_do_not_fit_together(tmp_path):
    rng = np.random.default_rng(4)
    soft, first = make_group(Path(), ipc=2, generator=bytes(32))
    coarse, second = make_group(Path(), ipc=2, grid=1, generator=bytes(32))
    hard, third = make_group(Path(), ipc=2, labels="h", generator=bytes(32))
    few = rng.integers(-9, 9, (CLASSES * 2, CLASSES), np.int8).tobytes()
    many = labels_section(rng, 2)
    grids = d3codec.load(write(tmp_path / "grids.d3m", (soft, first, many), (coarse, second, few)))
    with pytest.raises(UsageError, match="different shapes"):
        grids.labels.logits()
    assert grids.subset(groups=[1]).labels.logits().shape == (6, 1, CLASSES)
    mixed = d3codec.load(write(tmp_path / "mixed.d3m", (soft, first, many), (hard, third, None)))
    assert mixed.labels.kind == "mixed"
    with pytest.raises(UsageError, match="mixed labels"):
        mixed.labels.logits()
    assert mixed.subset(groups=[1]).labels.kind == "hard"


# ------------------------------------------------------------------------------------------------- pixels


def test_images_are_those_of_the_digest(tiny, pipeline):
    dataset = d3codec.load(tiny)
    calls = []
    images = dataset.images(device="cpu", generator=pipeline, progress=lambda *event: calls.append(event))
    assert images.shape == (CLASSES * IPC, 8, 8, 3)
    assert images.dtype == np.uint8
    digests = b"".join(hashlib.sha256(image.tobytes()).digest() for image in images)
    assert hashlib.sha256(digests).digest() == dataset.about.pixels
    assert calls[-1] == ("decode", 15, 15)
    view = dataset.subset(classes=[2], ipc=3).images(device="cpu", generator=pipeline)
    np.testing.assert_array_equal(view, images[10:13])


def test_images_come_from_the_cache_without_a_generator(tiny, pipeline, home, tmp_path, monkeypatch):
    images = d3codec.load(tiny).images(device="cpu", generator=pipeline)
    elsewhere = tmp_path / "renamed.d3m"  # the cache knows content, not names
    elsewhere.write_bytes(tiny.read_bytes())
    np.testing.assert_array_equal(d3codec.load(elsewhere).images(device="cpu"), images)
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "empty"))
    with pytest.raises(MissingGeneratorError):
        d3codec.load(tiny).images(device="cpu")


def test_reading_labels_writes_nothing(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "untouched"))
    dataset = d3codec.load(bare)
    dataset.labels.probabilities()
    repr(dataset.subset(ipc=1).classes)
    assert not (tmp_path / "untouched").exists()


def test_numpy_views(tiny, pipeline):
    dataset = d3codec.load(tiny)
    images = dataset.images(device="cpu", generator=pipeline)
    arrays = dataset.subset(classes=[1]).to_numpy()
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "images": (np.uint8, (IPC, 8, 8, 3)),
        "classes": (np.int64, (IPC,)),
        "patch_logits": (np.float32, (IPC, PATCHES, CLASSES)),
    }
    np.testing.assert_array_equal(arrays["images"], images[5:10])
    np.testing.assert_array_equal(arrays["patch_logits"].astype(np.float64), dataset.labels.logits()[5:10])


def collected(dataset, workers, context=None):
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    return [np.concatenate([np.asarray(batch[field]) for batch in batches]) for field in range(len(batches[0]))]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_torch_view_in_workers_however_they_start(tiny, pipeline):
    import torch

    whole = d3codec.load(tiny)
    images = whole.images(device="cpu", generator=pipeline)
    dataset = whole.to_torch()
    assert isinstance(dataset, torch.utils.data.Dataset)
    assert len(dataset) == len(whole)
    plain = collected(dataset, 0)
    np.testing.assert_array_equal(plain[0], images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(plain[1], whole.labels.logits())
    np.testing.assert_array_equal(plain[2], whole.labels.hard())
    assert [array.dtype for array in plain] == [np.uint8, np.float32, np.int64]
    for context in ("fork", "spawn"):
        for one, other in zip(collected(dataset, 2, context), plain, strict=True):
            np.testing.assert_array_equal(one, other)


def test_torch_view_in_floats_and_patches(tiny, pipeline):
    whole = d3codec.load(tiny)
    images = whole.images(device="cpu", generator=pipeline)
    item = whole.to_torch(dtype="float32")[7]
    np.testing.assert_allclose(item.image.numpy(), images[7].transpose(2, 0, 1) / 255, rtol=1e-6)
    patches = whole.to_torch(patches=True)
    assert len(patches) == len(whole) * PATCHES
    patch = patches[7 * PATCHES + 1]  # the upper right one
    np.testing.assert_array_equal(patch.image.numpy(), images[7, :4, 4:].transpose(2, 0, 1))
    np.testing.assert_array_equal(patch.patch_logits.numpy(), whole.labels.logits()[7, 1])
    assert patch.class_index == 1
    with pytest.raises(UsageError, match="float16"):
        whole.to_torch(dtype="float16")


def test_hard_labels_through_every_view(home, pipeline):
    path = make_file(home / "hard.d3m", pipeline, classes=CLASSES, ipc=2, labels="h", pixels=False)
    dataset = d3codec.load(path)
    images = dataset.images(device="cpu", generator=pipeline)
    assert set(dataset.to_numpy()) == {"images", "classes"}
    image, class_index = dataset.to_torch(dtype="uint8")[3]
    np.testing.assert_array_equal(image.numpy(), images[3].transpose(2, 0, 1))
    assert class_index == 1
    assert next(iter(dataset)).patch_logits is None
    assert len(dataset.to_torch(patches=True)) == len(dataset) * PATCHES


def test_more_than_the_budget_is_refused(tiny, pipeline):
    dataset = d3codec.load(tiny)
    for make in (dataset.images, dataset.to_numpy, dataset.to_torch):
        with pytest.raises(UsageError, match="images") as caught:
            make(budget=Budget(images=14))
        assert "budget=None" in caught.value.hint
    assert dataset.images(generator=pipeline, budget=None).shape == (15, 8, 8, 3)


def test_augmented_views_have_the_labels_of_the_file(tiny, pipeline):
    whole = d3codec.load(tiny)
    images = whole.images(device="cpu", generator=pipeline)  # fills the cache
    plain = whole.augmented(8, scale=(1, 1), ratio=(1, 1), temperature=20, dtype="uint8")
    image, label = plain[7]
    np.testing.assert_array_equal(image.numpy(), images[7].transpose(2, 0, 1))
    np.testing.assert_allclose(label.numpy(), whole.labels.probabilities(20)[7].mean(0), rtol=1e-5)
    one = whole.augmented(4, scale=(1, 1), ratio=(1, 1), temperature=20, patches=True)[7 * PATCHES + 1]
    np.testing.assert_allclose(one.image.numpy(), images[7, :4, 4:].transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_allclose(one.label.numpy(), whole.labels.probabilities(20)[7, 1], rtol=1e-5)
    view = whole.subset(classes=[1]).augmented(8, cutmix=1.0)
    assert view[0].label.shape == (CLASSES,)
    with pytest.raises(UsageError, match="float16"):
        whole.augmented(8, dtype="float16")
