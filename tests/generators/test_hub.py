"""Fetching a generator from a hub that runs on this machine: what is chosen, resumed, checked and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from generators.hub_server import COMMIT, Hub, files_of
from safetensors.numpy import load_file, save
from tiny_families import tiny_autoencoder
from tiny_pipeline import make_pipeline

from d3codec.errors import GeneratorError, MissingError, MissingGeneratorError, OutputError, UsageError
from d3codec.generators.fetch import compare, expected_ids, fetch, identify
from d3codec.generators.files import weight_files
from d3codec.generators.hub import plan
from d3codec.generators.local import locate, look
from d3codec.generators.ready import find
from d3codec.generators.weights import describe

REPOSITORY = "someone/tiny"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return make_pipeline(tmp_path_factory.mktemp("published") / "pipeline")


@pytest.fixture
def hub(pipeline, tmp_path, monkeypatch):
    """The hub, and an empty cache; small pieces, so that a cut of a small file leaves something behind."""
    server = Hub(REPOSITORY, files_of(pipeline))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("D3CODEC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    yield server
    server.close()


def names(found) -> list[str]:
    return sorted(file.path for file in found.files)


# ------------------------------------------------------------------------------------------------------------ what


def test_only_what_is_needed_is_chosen(hub):
    needed = set(hub.files)
    for useless in (
        "README.md",
        "v1-5-pruned.ckpt",
        "model.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "feature_extractor/preprocessor_config.json",
        "../outside.json",
        "tokenizer/../../outside.json",
    ):
        hub.files[useless] = b"useless"
    found = plan(REPOSITORY)
    assert set(names(found)) == needed
    assert (found.family, found.revision, found.licence) == ("stable-diffusion", COMMIT, "mit")
    assert found.bytes == found.missing_bytes == sum(len(hub.files[path]) for path in needed)
    assert not [asked for asked in hub.requests if asked[1].startswith("/storage")]


def test_the_half_variant_is_taken_where_there_is_one(hub):
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.files[half] = b"half"
    assert half not in names(plan(REPOSITORY))
    chosen = names(plan(REPOSITORY, variant="fp16"))
    assert half in chosen
    assert UNET not in chosen
    assert "vae/diffusion_pytorch_model.safetensors" in chosen
    del hub.files[UNET]  # nothing else is published
    assert half in names(plan(REPOSITORY))


def test_shards_come_with_their_index(hub):
    del hub.files[UNET]
    shards = {
        f"unet/diffusion_pytorch_model{end}" for end in ("-00001-of-00002.safetensors", "-00002-of-00002.safetensors")
    }
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    for path in (*shards, index):
        hub.files[path] = b"{}"
    assert {index, *shards} <= set(names(plan(REPOSITORY)))


def test_pickles_are_never_fetched(hub):
    del hub.files[UNET]
    hub.files["unet/diffusion_pytorch_model.bin"] = b"pickled"
    with pytest.raises(MissingGeneratorError, match="no safetensors weights of 'unet'") as caught:
        plan(REPOSITORY)
    assert "can run code" in caught.value.hint
    assert caught.value.found == "unet/diffusion_pytorch_model.bin"


def test_another_kind_of_model_is_refused(hub):
    hub.files = {"config.json": b"{}", "model.safetensors": b""}
    with pytest.raises(GeneratorError, match="no generator of a known family"):
        plan(REPOSITORY)


@pytest.mark.parametrize("config", [None, {"diffusers": {"_class_name": "AutoencoderTiny"}}])
def test_an_autoencoder_alone(hub, tmp_path, config):
    tiny_autoencoder(0).save_pretrained(tmp_path / "alone")
    hub.config, hub.files = config, files_of(tmp_path / "alone") | {"README.md": b"", "taesd3_encoder.pth": b""}
    found = plan(REPOSITORY)
    assert found.family == "autoencoder"
    assert names(found) == ["config.json", "diffusion_pytorch_model.safetensors"]
    digest = found.files[1].sha256
    part = replace(find("taesd3").parts["vae"], files={"diffusion_pytorch_model.safetensors": (digest, 1)})
    assert compare(found, replace(find("taesd3"), parts={"vae": part})) == {found.files[1].path: False}
    folder = fetch(found)
    record, _ = identify(folder, None, "f16")
    assert record.id == describe(tmp_path / "alone", "f16").id
    assert locate(REPOSITORY)[0].complete


def test_what_only_looks_like_an_autoencoder(hub, tmp_path):
    tiny_autoencoder(0).save_pretrained(tmp_path / "alone")
    files = files_of(tmp_path / "alone")
    hub.config, hub.files = {"diffusers": {"_class_name": "UNet2DConditionModel"}}, files
    with pytest.raises(GeneratorError, match="UNet2DConditionModel"):
        plan(REPOSITORY)
    hub.config, hub.files = None, {f"vae/{name}": data for name, data in files.items()}
    assert plan(REPOSITORY).family == "autoencoder"
    hub.files = hub.files | {"model_index.json": b"{}"}  # of a pipeline whose other parts are not there
    with pytest.raises(GeneratorError, match="no generator of a known family"):
        plan(REPOSITORY)


@pytest.mark.parametrize("sha", ["../../../victim", "main", "C0FFEE" + 34 * "0", COMMIT + "\n", None])
def test_a_commit_that_is_none_is_refused(hub, tmp_path, sha):
    """It becomes the name of a folder in which a fetch removes what it takes for damaged."""
    victim = tmp_path / "victim" / "model_index.json"
    victim.parent.mkdir()
    victim.write_text("precious")
    answer = hub.info() | {"sha": sha}
    hub.info = lambda: answer
    with pytest.raises(GeneratorError, match="no such commit") as caught:
        fetch(plan(REPOSITORY))
    assert (caught.value.field, caught.value.found) == ("sha", repr(sha))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        (UNET, {"lfs": {"sha256": "../../../../victim", "size": 9, "pointerSize": 9}}, "lfs.sha256"),
        (UNET, {"lfs": {"sha256": "ab" * 31, "size": 9, "pointerSize": 9}}, "lfs.sha256"),
        ("unet/config.json", {"blobId": "../x"}, "blobId"),
        ("unet/config.json", {"blobId": None}, "blobId"),
    ],
)
def test_a_digest_that_is_none_is_refused(hub, path, change, field):
    answer = hub.info()
    answer["siblings"] = [row | change if row["rfilename"] == path else row for row in answer["siblings"]]
    hub.info = lambda: answer
    with pytest.raises(GeneratorError, match="no such commit or digest") as caught:
        plan(REPOSITORY)
    assert (caught.value.file, caught.value.field) == (f"{REPOSITORY}/{path}", field)


def test_names_outside_of_the_parts_are_never_chosen(hub):
    needed = set(names(plan(REPOSITORY)))
    for path in (
        "/etc/encoding.json",
        "../model_index.json",
        "unet/../encoding.json",
        "unet/../../diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model-1-of-1.safetensors/../../x.safetensors",
        "tokenizer/../tokenizer/merges.txt",
        "tokenizer/merges.txt\n",
        "tokenizer/code.py",
        "..\\encoding.json",
    ):
        hub.files[path] = b"hostile"
    assert set(names(plan(REPOSITORY))) == needed
    hub.files["unet/diffusion_pytorch_model./../../../../../x.safetensors"] = b"hostile"
    with pytest.raises(UsageError, match="variant"):
        plan(REPOSITORY, variant="/../../../../../x")


# ------------------------------------------------------------------------------------------------------- download


def test_what_was_fetched_is_the_generator_that_was_published(hub, pipeline):
    said = []
    folder = fetch(plan(REPOSITORY), said.append)
    assert {path: (folder / path).read_bytes() for path in hub.files} == hub.files
    assert len(said) == len(hub.files)
    record, cast = identify(folder, expected_ids(describe(pipeline, "f16").id.hex(), "f16"), "f16")
    assert (record.id, cast) == (describe(pipeline, "f16").id, "f16")
    [found] = locate(REPOSITORY)
    assert (found.folder, found.repository, found.revision, found.complete) == (folder, REPOSITORY, COMMIT, True)
    before = len(hub.requests)
    again = plan(REPOSITORY)
    assert again.missing == ()
    fetch(again)
    assert len(hub.requests) == before + 1  # the list of files, and no file


def test_a_cut_connection_is_continued_at_once(hub):
    hub.cut[UNET] = 5500
    folder = fetch(plan(REPOSITORY))
    assert (folder / UNET).read_bytes() == hub.files[UNET]
    assert hub.ranges(UNET) == [None, "bytes=5000-"]


def test_a_later_run_continues_where_an_earlier_one_ended(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: setattr(hub, "down", True))  # the hub goes away meanwhile
    hub.cut[UNET] = 5500
    with pytest.raises(MissingError, match="503"):
        fetch(plan(REPOSITORY))
    assert not look(plan(REPOSITORY).folder).complete
    hub.down = False
    rest = plan(REPOSITORY)
    assert rest.missing_bytes == sum(file.bytes for file in rest.missing) - 5000
    folder = fetch(rest)
    assert (folder / UNET).read_bytes() == hub.files[UNET]
    assert hub.ranges(UNET)[-1] == "bytes=5000-"
    assert not list(folder.parents[1].rglob("*.d3codec-part"))


def test_a_killed_process_leaves_what_it_wrote(hub):
    hub.stall[UNET] = 60_000
    code = f"""from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 10_000
from d3codec.cli.main import main
main(['generators', 'fetch', {REPOSITORY!r}])"""
    blobs = plan(REPOSITORY).folder.parents[1] / "blobs"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size >= 40_000 for part in blobs.glob("*.d3codec-part")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    [part] = blobs.glob("*.d3codec-part")
    left = part.stat().st_size
    assert 40_000 <= left <= 60_000
    assert (fetch(plan(REPOSITORY)) / UNET).read_bytes() == hub.files[UNET]
    assert hub.ranges(UNET) == [None, f"bytes={left}-"]


@pytest.mark.parametrize("left", [b"x" * 100, b"x" * 10**6], ids=["other bytes", "too long"])
def test_a_part_that_is_wrong_does_not_stay(hub, left):
    found = plan(REPOSITORY)
    sha256 = next(file.sha256 for file in found.files if file.path == UNET)
    part = found.folder.parents[1] / "blobs" / f"{sha256}.d3codec-part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    if len(left) < len(hub.files[UNET]):
        with pytest.raises(GeneratorError, match="not the file that the hub describes"):
            fetch(found)
    assert (fetch(plan(REPOSITORY)) / UNET).read_bytes() == hub.files[UNET]


@pytest.mark.parametrize("path", [UNET, "unet/config.json"])
def test_a_wrong_file_is_found_and_does_not_stay(hub, path):
    sent = bytearray(hub.files[path])
    sent[len(sent) // 2] ^= 1
    hub.wrong[path] = bytes(sent)
    with pytest.raises(GeneratorError) as caught:
        fetch(plan(REPOSITORY))
    assert caught.value.exit_code == 3
    assert caught.value.file == f"{REPOSITORY}/{path}"
    assert len(caught.value.found) == len(caught.value.expected) == (64 if path == UNET else 40)
    assert path in [file.path for file in plan(REPOSITORY).missing]
    hub.wrong.clear()
    assert (fetch(plan(REPOSITORY)) / path).read_bytes() == hub.files[path]


def test_a_file_outside_of_the_cache_is_not_removed(hub, tmp_path):
    """The library links to the blob that the ETag names, wherever that is, if there is a file."""
    path = "unet/config.json"
    victim = tmp_path / "victim.json"
    victim.write_text("precious")
    hub.etags[path] = "../../../victim.json"
    with pytest.raises(GeneratorError, match="not the file that the hub describes"):
        fetch(plan(REPOSITORY))
    assert victim.read_text() == "precious"
    assert path in [file.path for file in plan(REPOSITORY).missing]


def test_large_files_too_are_what_the_hub_describes_and_not_what_the_etag_says(hub):
    other = "vae/diffusion_pytorch_model.safetensors"
    blob = plan(REPOSITORY).folder.parents[1] / "blobs" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(hub.files[other])
    hub.etags[UNET] = "ab" * 32
    with pytest.raises(GeneratorError, match="not the file that the hub describes"):
        fetch(plan(REPOSITORY))
    assert UNET in [file.path for file in plan(REPOSITORY).missing]


def test_the_half_variant_after_an_interrupted_fetch_of_shards(hub, pipeline):
    arrays, stem = load_file(pipeline / UNET), UNET.removesuffix(".safetensors")
    ends = ("-00001-of-00002.safetensors", "-00002-of-00002.safetensors")
    where = {name: ends[place % 2] for place, name in enumerate(arrays)}
    for end in ends:
        hub.files[stem + end] = save({name: array for name, array in arrays.items() if where[name] == end})
    index = {"weight_map": {name: f"{Path(stem).name}{end}" for name, end in where.items()}}
    hub.files[f"{UNET}.index.json"] = json.dumps(index).encode()
    hub.files[f"{stem}.fp16.safetensors"] = save({name: array.astype(np.float16) for name, array in arrays.items()})
    del hub.files[UNET]
    hub.wrong[stem + ends[1]] = b"x" * len(hub.files[stem + ends[1]])
    with pytest.raises(GeneratorError):
        fetch(plan(REPOSITORY))
    assert not look(plan(REPOSITORY).folder).complete
    folder = fetch(plan(REPOSITORY, variant="fp16"))
    assert look(folder).complete
    record, _ = identify(folder, None, "f16")
    assert record.id == describe(pipeline, "f16").id
    hub.wrong.clear()  # what was asked for first comes first once it is whole
    fetch(plan(REPOSITORY))
    assert [path.name for path in weight_files(folder, "unet")] == [Path(stem).name + end for end in ends]


def test_a_file_that_was_damaged_here_is_fetched_again(hub):
    folder, said = fetch(plan(REPOSITORY)), []
    blob = (folder / UNET).resolve()
    blob.write_bytes(b"damaged" + blob.read_bytes()[7:])
    fetch(plan(REPOSITORY), said.append)
    assert (folder / UNET).read_bytes() == hub.files[UNET]
    assert said[0] == f"{UNET}: damaged, fetched again"


def test_no_room_is_said_before_anything_is_fetched(hub):
    found = replace(plan(REPOSITORY), free_bytes=1000)
    assert not found.fits
    with pytest.raises(OutputError, match="not enough room") as caught:
        fetch(found)
    assert caught.value.found == "1,000 bytes free"
    assert "HF_HUB_CACHE" in caught.value.hint
    assert not found.folder.exists()


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "cache").write_text("a file where the cache would be")
    with pytest.raises(OutputError) as caught:
        fetch(plan(REPOSITORY))
    assert str(tmp_path / "cache") in caught.value.file


# --------------------------------------------------------------------------------------------------------- ids


def test_other_weights_than_expected_are_an_error(hub):
    folder = fetch(plan(REPOSITORY))
    with pytest.raises(GeneratorError, match="another generator") as caught:
        identify(folder, expected_ids("ab" * 32, "stored"), "f16")
    assert caught.value.found == f"{describe(folder, 'stored').id.hex()} (cast stored)"
    with pytest.raises(UsageError, match="neither a generator id nor a file"):
        expected_ids("abc", "f16")


def test_digests_of_a_ready_configuration_are_compared(hub):
    ready = find("sd-1.5")
    assert compare(plan(REPOSITORY), ready) == {
        "text_encoder/model.safetensors": False,
        UNET: False,
        "vae/diffusion_pytorch_model.safetensors": False,
    }
    found = plan(REPOSITORY)
    same = tuple(
        replace(file, sha256=ready.recorded(file.path)[0], bytes=ready.recorded(file.path)[1])
        if file.path == UNET
        else file
        for file in found.files
    )
    assert compare(replace(found, files=same), ready)[UNET]


# ------------------------------------------------------------------------------------------------------ refusals


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(MissingGeneratorError, match="no such repository"):
        plan("someone/else")
    with pytest.raises(MissingGeneratorError, match="no such revision") as caught:
        plan(REPOSITORY, "v9")
    assert caught.value.found == "v9"
    assert plan(REPOSITORY, "refs/pr/1").revision == COMMIT
    with pytest.raises(UsageError) as misnamed:
        plan("a/b/c")
    assert misnamed.value.exit_code == 2


def test_a_licence_to_accept_first(hub):
    hub.gated = True
    with pytest.raises(MissingError, match="licence must be accepted") as caught:
        fetch(plan(REPOSITORY))
    assert REPOSITORY in caught.value.hint


def test_a_hub_that_is_not_there(hub, monkeypatch):
    hub.close()
    with pytest.raises(MissingError, match="cannot be reached") as caught:
        plan(REPOSITORY)
    assert caught.value.exit_code == 4
    assert "another machine" in caught.value.hint


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("os.environ['HF_HUB_OFFLINE'] = '1'", "offline mode"),
        ("sys.modules['huggingface_hub'] = None", "pip install 'd3codec[hub]'"),
    ],
)
def test_offline_and_not_installed(first, said, tmp_path):
    code = f"import os, sys; {first}; from d3codec.cli.main import main; main(['generators', 'fetch', 'a/b'])"
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 4, result.stderr
    assert said in result.stderr
    assert not list(Path(tmp_path).iterdir())
