"""`d3codec generators`: what it lists, shows and fetches, from a hub that runs on this machine."""

from __future__ import annotations

import json
import shutil

import pytest
from cli.commands import answer, bare_file, call
from generators.hub_server import COMMIT, Hub, files_of

from d3codec.generators.weights import describe

REPOSITORY = "someone/tiny"
FETCH = ("generators", "fetch", REPOSITORY)


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    server = Hub(REPOSITORY, files_of(tiny.pipeline))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()


def test_fetch_from_start_to_end(hub, tiny, tmp_path):
    wanted = describe(tiny.pipeline, "f16").id.hex()
    result = call(*FETCH)
    assert result.exit_code == 0, result.output
    size = sum(map(len, hub.files.values()))
    first, second, *rest = result.stderr.splitlines()
    assert first == f"{REPOSITORY} at {COMMIT[:12]}: stable-diffusion, licence mit"
    assert second.startswith(f"{len(hub.files)} of {len(hub.files)} files to fetch, {size:,} of {size:,} bytes")
    assert " free in " in second
    assert len(rest) == len(hub.files)
    folder = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / COMMIT
    assert result.stdout.splitlines() == [str(folder), f"id (cast f16): {wanted}, compared with nothing"]

    again = answer(*FETCH, "--expect", wanted)
    assert (again["id"], again["matches"], again["missing_bytes"]) == (wanted, True, 0)
    assert again["folder"] == str(folder)
    listed = answer("generators", "ls")
    row = next(row for row in listed["local"] if row["repository"] == REPOSITORY)
    assert (row["id"], row["complete"], row["family"]) == (wanted, True, "stable-diffusion")
    assert row["bytes"] == size
    shown = answer("generators", "info", REPOSITORY)["local"][0]["casts"]
    assert shown["f16"]["id"] == wanted
    assert shown["stored"]["id"] == describe(tiny.pipeline, "stored").id.hex()


def test_expect_what_a_file_names(hub, tiny, tmp_path):
    result = answer(*FETCH, "--expect", tiny.file)
    assert result["matches"] is True
    assert result["cast"] == "f16"
    refused = answer(*FETCH, "--expect", bare_file(tmp_path / "other.d3m"), code=3)
    assert refused["error"] == "E_GENERATOR"
    assert refused["expected"] == f"{'00' * 32} (cast f16)"
    assert answer(*FETCH, "--expect", "nonsense", code=2)["error"] == "E_USAGE"


def test_a_dry_run_says_the_size_and_fetches_nothing(hub, tmp_path):
    result = call(*FETCH, "--dry-run", "-q")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    size = sum(map(len, hub.files.values()))
    assert result.stdout.splitlines()[-1] == f"{size:,} bytes to fetch"
    assert answer(*FETCH, "--dry-run")["missing_bytes"] == size
    assert not (tmp_path / "cache").exists()


def test_wrong_digests_missing_repositories_and_no_network(hub):
    unet = "unet/diffusion_pytorch_model.safetensors"
    hub.wrong[unet] = bytes(len(hub.files[unet]))
    assert answer(*FETCH, code=3)["file"] == f"{REPOSITORY}/{unet}"
    incomplete = answer("generators", "ls")["local"][-1]
    assert (incomplete["repository"], incomplete["complete"], incomplete["id"]) == (REPOSITORY, False, None)
    assert answer("generators", "fetch", "someone/else", code=4)["error"] == "E_MISSING_GENERATOR"
    hub.close()
    assert "cannot be reached" in answer(*FETCH, code=4)["message"]


def test_a_ready_name_is_its_repository_and_its_revision(hub):
    hub.repository = "facebook/DiT-XL-2-256"
    refused = answer("generators", "fetch", "dit-xl-2-256", code=3)
    assert (refused["found"], refused["expected"]) == ("stable-diffusion", "dit")
    assert hub.requests[-1][1] == "/api/models/facebook/DiT-XL-2-256/revision/refs/pr/1"
    hub.repository = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    result = call("generators", "fetch", "SD-1.5", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "warning: unet/diffusion_pytorch_model.safetensors is not the file that is recorded" in result.stderr


def test_ls_shows_what_is_known_and_what_is_here(hub):
    result = call("generators", "ls", "--no-ids")
    assert result.exit_code == 0, result.output
    for text in ("sd-1.5", "stabilityai/sdxl-turbo", "creativeml-openrail-m", "not run here"):
        assert text in result.stdout
    listed = answer("generators", "ls", "--no-ids")
    names = ["dit-xl-2-256", "sd-1.5", "sd-2.1-base", "sdxl-turbo", "taesd", "taesd3"]
    assert [ready["name"] for ready in listed["ready"]] == names
    assert all(row["id"] is None for row in listed["local"])


def test_info_of_a_ready_configuration():
    result = call("generators", "info", "sd-1.5")
    assert result.exit_code == 0, result.output
    for text in ("859,520,964", "3.44 GB", "not known", "a photo of *", "creativeml-openrail-m"):
        assert text in result.stdout
    shown = call("generators", "info", "dit-xl-2-256").stdout
    assert "norm_eps not known" in shown
    assert "convert_dit_to_diffusers.py" in shown
    assert answer("generators", "info", "sd-1.5")["ready"]["parts"]["unet"]["parameters"] == 859_520_964


def test_info_of_a_folder(tiny, tmp_path):
    result = call("generators", "info", tiny.pipeline)
    assert result.exit_code == 0, result.output
    record = describe(tiny.pipeline, "f16")
    for text in (record.id.hex(), record.parts["unet"].hex(), f"{record.bytes_by_part['vae']:,}"):
        assert text in result.stdout
    copy = shutil.copytree(tiny.pipeline, tmp_path / "copy")
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    [shown] = answer("generators", "info", copy)["local"]
    assert not shown["complete"]
    assert "no safetensors weights of 'vae'" in shown["casts"]["f16"]["reason"]


def test_info_of_nothing():
    result = answer("generators", "info", "nobody/nothing", code=4)
    assert "generators fetch nobody/nothing" in result["hint"]


@pytest.mark.parametrize("name", ["ls", "info", "fetch"])
def test_every_command_takes_json(name):
    assert "--json" in call("generators", name, "--help").stdout
    assert json.loads(call("generators", name, "--no-such-option", "--json").stdout)["error"] == "E_USAGE"
