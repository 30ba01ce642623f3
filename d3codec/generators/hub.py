"""What the Hugging Face hub has of a generator: which files are needed, how many bytes they are, what they must be.

Asks the hub (HF_ENDPOINT) and downloads nothing; `fetch.py` does. Chooses safetensors only, never a pickle.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from d3codec.errors import (
    D3MError,
    GeneratorError,
    MissingError,
    MissingExtraError,
    MissingGeneratorError,
    OutputError,
    UsageError,
)
from d3codec.generators.files import PIPELINE
from d3codec.generators.graphs import FAMILIES
from d3codec.generators.lora import LORA_FILE
from d3codec.generators.weights import hub_cache

NO_PICKLES = "d3codec never reads pickled weights (.bin, .pt, .ckpt): they can run code."
_ELSEWHERE = (
    "Check the network (and HF_HUB_OFFLINE, HF_ENDPOINT); the same command continues where this one ended. "
    "Or fetch on another machine and copy the folder here: --generator PATH reads it."
)
_STEM = "diffusion_pytorch_model"  # diffusers' name of a weights file
_PARTS = frozenset(part for parts in FAMILIES.values() for part in parts)
_AUTOENCODERS = tuple(graph.class_name for graph in FAMILIES["autoencoder"]["vae"].graphs)
_SHA1, _SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")
_SMALL = re.compile(
    r"model_index\.json|encoding\.json|scheduler/scheduler_config\.json|tokenizer(_\d)?/[\w.-]+\.(json|txt)"
)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: `sha256` (hexadecimal) if it is stored as LFS, else its git object id `blob`."""

    path: str
    bytes: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class Plan:
    """What a fetch would do.

    `revision` is a commit, `folder` where the weights will lie, `missing` the files that are not there yet,
    `missing_bytes` what is left to download of them and `free_bytes` the room on that disk.
    """

    repository: str
    revision: str
    family: str
    licence: str | None
    files: tuple[HubFile, ...]
    folder: Path
    missing: tuple[HubFile, ...]
    missing_bytes: int
    free_bytes: int

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def fits(self) -> bool:
        return self.missing_bytes <= self.free_bytes

    def as_json(self) -> dict[str, Any]:
        names = ("repository", "revision", "family", "licence", "bytes", "missing_bytes", "free_bytes", "fits")
        files = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in self.files]
        return {name: getattr(self, name) for name in names} | {"folder": str(self.folder), "files": files}


def require_hub() -> Any:
    """The package huggingface_hub; MissingExtraError('hub') with the one command if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("hub") from error
    return huggingface_hub


# ----------------------------------------------------------------------------------------------------- what


def plan(repository: str, revision: str | None = None, variant: str | None = None) -> Plan:
    """Ask the hub which files of a repository a generator needs. Downloads nothing.

    Arguments:
        repository: 'owner/name'.
        revision: branch, tag, commit or 'refs/pr/N'; None: the main branch.
        variant: 'fp16' takes the float16 weights of every part that has them; None the full ones.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        MissingGeneratorError: no such repository or revision, or a part without safetensors weights.
        MissingError: no network, no access, or a licence that must be accepted first.
        GeneratorError: the parts are those of no family of ours, or the hub states a commit or a digest that is none.
        UsageError: not the name of a repository, or not that of a variant.
    """
    hub = require_hub()
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", variant):
        raise UsageError("not the name of a variant", field="variant", found=variant, expected="fp16")
    with told(repository, revision):
        info = hub.HfApi(endpoint=endpoint()).model_info(repository, revision=revision, files_metadata=True)
    # What the hub or a mirror says becomes names of files, so it must be what it is to be.
    commit = _stated(info.sha, _SHA1, repository, "sha")
    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    family, paths = _choose(repository, set(there), variant, _stated_class(info))
    files = tuple(_hub_file(repository, there[path]) for path in paths)
    folder = storage(repository) / "snapshots" / commit
    missing = tuple(file for file in files if not (folder / file.path).is_file())
    card = getattr(info, "card_data", None)
    return Plan(
        repository,
        commit,
        family,
        card.get("license_name") or card.get("license") if card else None,
        files,
        folder,
        missing,
        sum(file.bytes - started(repository, file) for file in missing),
        shutil.disk_usage(_existing(folder)).free,
    )


def _choose(repository: str, names: set[str], variant: str | None, stated: str | None) -> tuple[str, list[str]]:
    """(family, the paths it needs, small files first); `stated` is the class that the hub names, if it names one."""
    places = {part: f"{part}/" for part in _PARTS if f"{part}/config.json" in names}
    alone = "config.json" in names and any(name.startswith(_STEM) for name in names)
    if not places and alone and stated in (None, *_AUTOENCODERS):  # None: its configuration is read when it lies here
        places = {"vae": ""}
    family = next((name for name, own in FAMILIES.items() if set(own) == set(places)), None)
    if family is None or (family == "autoencoder" and PIPELINE in names):
        raise GeneratorError(
            "this repository is no generator of a known family",
            file=repository,
            found=stated or ", ".join(sorted(places)) or "no part with a config.json",
            expected="; or ".join(f"{name}: {', '.join(own)}" for name, own in FAMILIES.items()),
            hint="Weights must be published in the layout of diffusers' save_pretrained.",
        )
    small = sorted(name for name in names if _SMALL.fullmatch(name))
    weights = [LORA_FILE] if LORA_FILE in names else []  # belongs to the identity of a generator that has one
    for part, place in sorted(places.items()):
        small.append(f"{place}config.json")
        weights += _weights(repository, part, place, names, variant)
    return family, small + weights


def _stated_class(info: Any) -> str | None:
    """The class of the network that the hub read in the configuration of a repository, None if it says nothing."""
    library = (getattr(info, "config", None) or {}).get("diffusers")
    named = library.get("_class_name") if isinstance(library, dict) else None
    return named if isinstance(named, str) else None


def _weights(repository: str, part: str, place: str, names: set[str], variant: str | None) -> list[str]:
    """The files of a part's weights, in the folder `place`, in the forms that `files.weight_files` reads."""
    stem = place + ("model" if part.startswith("text_encoder") else _STEM)
    shards = sorted(name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.safetensors", name))
    plain = [f"{stem}.safetensors"] if f"{stem}.safetensors" in names else []
    index = f"{stem}.safetensors.index.json"
    if not plain and shards and index in names:
        plain = [index, *shards]
    asked = f"{stem}.{variant}.safetensors" if variant else None
    half = f"{stem}.fp16.safetensors"
    if asked in names and asked is not None:
        return [asked]
    if plain or half in names:
        return plain or [half]
    pickles = sorted(name for name in names if name.startswith(place) and name.endswith((".bin", ".pt", ".ckpt")))
    raise MissingGeneratorError(
        f"the repository has no safetensors weights of '{part}'",
        file=repository,
        found=", ".join(pickles) or None,
        expected=f"{stem}.safetensors",
        hint=f"{NO_PICKLES} A pull request with a conversion may exist: --revision refs/pr/1",
    )


def _hub_file(repository: str, sibling: Any) -> HubFile:
    lfs, path, size = sibling.lfs, sibling.rfilename, int(sibling.size or 0)
    if lfs is None:
        return HubFile(path, size, None, _stated(sibling.blob_id, _SHA1, f"{repository}/{path}", "blobId"))
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else lfs.sha256
    return HubFile(path, size, _stated(sha256, _SHA256, f"{repository}/{path}", "lfs.sha256"), None)


def _stated(value: Any, form: re.Pattern[str], file: str, field: str) -> str:
    """A commit or a digest as the hub states it; GeneratorError for any other text."""
    if isinstance(value, str) and form.fullmatch(value):
        return value
    raise GeneratorError(
        "the hub states no such commit or digest",
        file=file,
        field=field,
        found=repr(value),
        expected=form.pattern,
        hint="If it stays so, a proxy or a mirror (HF_ENDPOINT) changes answers.",
    )


# ------------------------------------------------------------------------------------------------ places, errors


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def storage(repository: str) -> Path:
    return hub_cache() / ("models--" + repository.replace("/", "--"))


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def part_path(repository: str, sha256: str) -> Path:
    return storage(repository) / "blobs" / f"{sha256}.d3codec-part"


def started(repository: str, file: HubFile) -> int:
    """Bytes of a file that lie here from an interrupted fetch."""
    part = part_path(repository, file.sha256 or "none")
    return min(part.stat().st_size, file.bytes) if part.is_file() else 0


@contextmanager
def told(repository: str, revision: str | None) -> Iterator[None]:
    """The library's many errors in our words."""
    try:
        yield
    except D3MError:
        raise
    except Exception as error:
        raise _explained(error, repository, revision) from error


def _explained(error: Exception, repository: str, revision: str | None) -> D3MError:
    utils: Any = import_module("huggingface_hub.utils")  # where every release since 0.24 has the error classes
    if isinstance(error, utils.HFValidationError):
        return UsageError(str(error), field="repository", found=repository, expected="owner/name")
    if isinstance(error, utils.GatedRepoError):
        return MissingError(
            "its licence must be accepted first",
            file=repository,
            hint=f"Accept it at https://huggingface.co/{repository} and log in once: hf auth login",
        )
    if isinstance(error, utils.RepositoryNotFoundError):
        return MissingGeneratorError(
            "the hub has no such repository, or it is private",
            file=repository,
            hint="Check the name; for a private one log in first: hf auth login",
        )
    if isinstance(error, utils.RevisionNotFoundError):
        return MissingGeneratorError("the repository has no such revision", file=repository, found=revision)
    if isinstance(error, utils.OfflineModeIsEnabled):
        return MissingError("the offline mode of huggingface_hub is on", file=repository, hint=_ELSEWHERE)
    if isinstance(error, OSError) and (error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None):
        return OutputError(error.strerror or str(error), file=str(error.filename or hub_cache()))
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    said = "the hub cannot be reached" if status is None else f"the hub answers {status}"
    return MissingError(f"{said} ({reason})", file=repository, hint=_ELSEWHERE)
