"""The identity of a generator (spec/d3m-0.1.md, section 6) and where its weights lie on this machine.

Reads safetensors files and JSON only, never a pickle. Hashing gigabytes takes seconds, so what was found is
recorded under `home()` by path, sizes and times of the files. Touches no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError, MissingExtraError, MissingGeneratorError, OutputError, UsageError
from d3codec.format import canonical
from d3codec.format.file import save_atomically
from d3codec.generators.graphs import FAMILIES, Graph, resolve

if TYPE_CHECKING:
    import torch

CASTS = ("f16", "stored")
_RECORD_VERSION = 1
_STEMS = {"text_encoder": "model"}  # transformers' name of a weights file; diffusers' is the default below


@dataclass(frozen=True)
class GeneratorRecord:
    """What a folder of weights is: `id` (32 bytes), family, the digest of each part, its resolved
    configuration and the bytes of its weights after the cast."""

    id: bytes
    family: str
    parts: dict[str, bytes]
    configs: dict[str, dict[str, Any]]
    bytes_by_part: dict[str, int]


def home() -> Path:
    """The folder of d3codec's own caches: D3CODEC_HOME, or the platform's user cache."""
    if given := os.environ.get("D3CODEC_HOME"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("d3codec", appauthor=False))


def bundled_generator() -> Path:
    """The folder of the generator that ships with the package (it may be absent in a checkout without
    assets)."""
    return Path(__file__).resolve().parent.parent / "assets" / "digits-generator"


@cache
def require_torch() -> Any:
    """torch, if all packages of the extra `decode` are installed; else MissingExtraError with the command."""
    from importlib.util import find_spec

    if any(find_spec(package) is None for package in ("torch", "diffusers", "transformers", "safetensors")):
        raise MissingExtraError("decode")
    import torch

    return torch


# --------------------------------------------------------------------------------------------------- identity


def describe(
    folder: str | Path, cast: str, *, family: str = "stable-diffusion", trust_records: bool = True
) -> GeneratorRecord:
    """The identity of the generator in a folder, in the layout of diffusers' `save_pretrained`.

    Arguments:
        cast: 'f16' (floating-point weights are rounded to float16 first) or 'stored'.
        trust_records: False hashes the weights again although nothing looks changed.

    Raises:
        GeneratorError: a part, a file or a field that the family does not have, or weights that do not survive
            the cast.
        MissingExtraError: safetensors or torch is not installed.
    """
    if cast not in CASTS:
        raise UsageError("an unknown cast", field="cast", found=cast, expected=" or ".join(CASTS))
    folder = Path(folder).resolve()
    files = {part: weight_files(folder, part) for part in FAMILIES[family]}
    stamp = _stamp(folder, cast, family, files)
    name = hashlib.sha256(f"{folder}\n{cast}\n{family}".encode()).hexdigest()
    record_path = home() / "generators" / f"{name}.json"
    if trust_records and (record := _read_record(record_path, stamp)):
        return record
    record = _hash(folder, cast, family)
    _write_record(record_path, stamp, record)
    return record


def _hash(folder: Path, cast: str, family: str) -> GeneratorRecord:
    parts, configs, sizes = {}, {}, {}
    for part, graph in FAMILIES[family].items():
        configs[part] = read_config(folder, part, graph)
        rows, sizes[part] = [], 0
        for name, tensor in tensors(folder, part, graph, cast):
            data = _little_endian(tensor)
            rows.append(
                [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), hashlib.sha256(data).digest()]
            )
            sizes[part] += len(data)
        weights = hashlib.sha256(canonical.pack(sorted(rows, key=lambda row: row[0].encode()))).digest()
        parts[part] = hashlib.sha256(
            canonical.pack({"config": configs[part], "graph": graph.id, "weights": weights})
        ).digest()
    whole = hashlib.sha256(canonical.pack({"family": family, "parts": parts})).digest()
    return GeneratorRecord(whole, family, parts, configs, sizes)


def read_config(folder: Path, part: str, graph: Graph) -> dict[str, Any]:
    """The resolved configuration of a part; GeneratorError if it cannot be read or used."""
    path = folder / part / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise GeneratorError(f"cannot read the configuration of '{part}': {error}", file=str(path)) from error
    if not isinstance(config, dict):
        raise GeneratorError(f"the configuration of '{part}' is not a JSON object", file=str(path))
    return resolve(graph, config, str(path))


def weight_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of a part: one file, else the shards of an index, else the float16 variant."""
    stem = _STEMS.get(part, "diffusion_pytorch_model")
    plain, index = folder / part / f"{stem}.safetensors", folder / part / f"{stem}.safetensors.index.json"
    half = folder / part / f"{stem}.fp16.safetensors"
    if plain.is_file():
        return [plain]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GeneratorError(f"cannot read the index of '{part}': {error}", file=str(index)) from error
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise GeneratorError("a shard outside its folder", file=str(index))
        return [folder / part / name for name in names]
    if half.is_file():
        return [half]
    raise MissingGeneratorError(
        f"no safetensors weights of '{part}'",
        file=str(plain),
        hint="d3codec never reads pickled weights (.bin, .pt, .ckpt): they can run code.",
    )


def tensors(folder: Path, part: str, graph: Graph, cast: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters of a part after the cast, as (canonical name, tensor), one file after the other."""
    torch = require_torch()
    from safetensors import safe_open

    seen: set[str] = set()
    for path in weight_files(folder, part):
        try:
            with safe_open(path, framework="pt") as file:
                for published in file.keys():  # noqa: SIM118 (a safe_open is no mapping)
                    if (name := graph.tensor_name(published)) is None:
                        continue
                    if name in seen:
                        raise GeneratorError("two tensors of one name", file=str(path), field=name)
                    seen.add(name)
                    yield name, _cast(file.get_tensor(published), cast, torch, path, name)
        except GeneratorError:
            raise
        except Exception as error:  # safetensors raises its own, undocumented classes for damaged files
            raise GeneratorError(f"cannot read the weights of '{part}': {error}", file=str(path)) from error


def _cast(tensor: torch.Tensor, cast: str, torch: Any, path: Path, name: str) -> torch.Tensor:
    if cast == "f16" and tensor.is_floating_point() and tensor.dtype != torch.float16:
        tensor = tensor.to(torch.float16)
        if not torch.isfinite(tensor).all():
            raise GeneratorError(
                "a weight is beyond the range of float16, so the cast f16 cannot be used", file=str(path), field=name
            )
    return tensor


def _little_endian(tensor: torch.Tensor) -> bytes:
    import torch

    # A view as bytes: numpy has no bfloat16. Sized dimension first, since a scalar cannot be viewed as bytes.
    array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == "big":
        array = array.reshape(-1, tensor.element_size())[:, ::-1]
    return array.tobytes()


# ---------------------------------------------------------------------------------------------------- records


def _stamp(folder: Path, cast: str, family: str, files: dict[str, list[Path]]) -> dict[str, Any]:
    """What must be unchanged for a record to hold: the files, and what the registry says about them."""
    rows = []
    for part, weights in sorted(files.items()):
        for path in [folder / part / "config.json", *weights]:
            try:
                status = path.stat()
            except OSError as error:
                raise GeneratorError(f"cannot read a file of '{part}': {error}", file=str(path)) from error
            rows.append([path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns])
    return {
        "version": _RECORD_VERSION,
        "folder": str(folder),
        "cast": cast,
        "family": family,
        "files": rows,
        "graphs": {part: graph.digest() for part, graph in FAMILIES[family].items()},
    }


def _read_record(path: Path, stamp: dict[str, Any]) -> GeneratorRecord | None:
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["stamp"] != stamp:
            return None
        return GeneratorRecord(
            bytes.fromhex(value["id"]),
            value["family"],
            {part: bytes.fromhex(digest) for part, digest in value["parts"].items()},
            value["configs"],
            value["bytes_by_part"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a record only saves time: whatever is wrong with it, the weights are hashed again


def _write_record(path: Path, stamp: dict[str, Any], record: GeneratorRecord) -> None:
    value = {
        "stamp": stamp,
        "id": record.id.hex(),
        "family": record.family,
        "parts": {part: digest.hex() for part, digest in record.parts.items()},
        "configs": record.configs,
        "bytes_by_part": record.bytes_by_part,
    }
    with suppress(OSError, OutputError):  # a read-only home costs time, not correctness
        path.parent.mkdir(parents=True, exist_ok=True)
        save_atomically(path, json.dumps(value).encode())


# ---------------------------------------------------------------------------------------------------- search


def find_generator(
    generator_id: bytes, cast: str, *, given: str | Path | None = None, trust_records: bool = True
) -> Path:
    """The folder whose generator id is `generator_id`.

    Arguments:
        given: a folder, or a Hugging Face repository ("owner/name") of the local cache; None searches the package
            and the local Hugging Face cache.
        trust_records: as in `describe`.

    Raises:
        GeneratorError: `given` is another generator, or none that the registry of families describes.
        MissingGeneratorError: nothing found, or a folder without weights.
    """
    if given is not None:
        return _given(generator_id, cast, given, trust_records)
    for folder in [bundled_generator(), *cached_snapshots()]:
        with suppress(
            GeneratorError, MissingGeneratorError
        ):  # a folder that is no generator of ours is not the one that is sought
            if describe(folder, cast, trust_records=trust_records).id == generator_id:
                return folder
    raise MissingGeneratorError(
        "the weights of the generator are neither in the package nor in the local Hugging Face cache",
        expected=generator_id.hex(),
        hint="Name their folder or their cached repository with --generator (generator= in Python).",
    )


def _given(generator_id: bytes, cast: str, given: str | Path, trust_records: bool) -> Path:
    path = Path(given).expanduser()
    folders = [path] if path.is_dir() else list(cached_snapshots(str(given)))
    if not folders:
        hint = f"To fetch it first: hf download {given}" if _is_repository(given) else "Check the path."
        raise MissingGeneratorError(
            "neither a folder nor a repository in the local Hugging Face cache",
            field="generator",
            found=str(given),
            hint=hint,
        )
    found = ""
    for folder in folders:
        record = describe(folder, cast, trust_records=trust_records)
        if record.id == generator_id:
            return folder
        found = record.id.hex()
    raise GeneratorError(
        "this is not the generator that the file names", file=str(folders[-1]), found=found, expected=generator_id.hex()
    )


def _is_repository(name: str | Path) -> bool:
    pieces = str(name).split("/")
    return len(pieces) == 2 and all(piece and not piece.startswith(".") for piece in pieces)


def cached_snapshots(repository: str | None = None) -> Iterator[Path]:
    """Snapshots of the family in the local Hugging Face cache, in order of name; of one repository if
    named."""
    if repository is not None and not _is_repository(repository):
        return
    pattern = "models--*" if repository is None else "models--" + repository.replace("/", "--")
    for model in sorted(_hub_cache().glob(pattern)):
        for index in sorted(model.glob("snapshots/*/model_index.json")):
            try:
                name = json.loads(index.read_text("utf-8")).get("_class_name", "")
            except (OSError, ValueError, AttributeError):
                continue
            if isinstance(name, str) and name.startswith("StableDiffusion"):
                yield index.parent


def _hub_cache() -> Path:
    """Where Hugging Face keeps downloads: HF_HUB_CACHE, HF_HOME/hub or the user's cache (huggingface_hub's
    rule)."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"
