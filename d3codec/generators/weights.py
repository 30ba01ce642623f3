"""The identity of a generator (spec/d3m-1.0.md, section 6) and where its weights lie on this machine.

Hashing gigabytes takes seconds, so what was found is recorded under `home()` by path, sizes and times of the files.
Touches no network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError, MissingGeneratorError, OutputError, PackError, UsageError
from d3codec.format import canonical
from d3codec.format.file import save_atomically
from d3codec.generators import ready
from d3codec.generators.files import PIPELINE, family_of, little_endian, part_folder, read_config, tensors, weight_files
from d3codec.generators.files import require_torch as require_torch  # from here it is taken elsewhere
from d3codec.generators.graphs import FAMILIES, Graph
from d3codec.generators.lora import LORA_FILE, Update, check_fits, read_lora

if TYPE_CHECKING:
    import torch

Names = str | Path | Sequence[str | Path] | None
"""Generators that a caller names: folders, repositories or ready configurations, one or several; None: none."""

CASTS = ("f16", "stored")
_RECORD_VERSION = 3
_ELSEWHERE = (
    "Name their folder or their repository with --generator (generator= in Python). What is on the Hugging Face hub "
    "comes by d3codec generators fetch NAME|REPO; d3codec generators ls shows what is known."
)


@dataclass(frozen=True)
class GeneratorRecord:
    """What a folder of weights is: `id` (32 bytes), family, the digest of each part, its resolved configuration and
    the bytes of its weights after the cast; the digest of a low-rank update and its bytes after the cast."""

    id: bytes
    family: str
    parts: dict[str, bytes]
    configs: dict[str, dict[str, Any]]
    bytes_by_part: dict[str, int]
    lora: bytes | None = None
    outside_bytes: int = 0


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


# --------------------------------------------------------------------------------------------------- identity


def describe(folder: str | Path, cast: str, *, trust_records: bool = True) -> GeneratorRecord:
    """The identity of the generator in a folder, in the layout of diffusers' `save_pretrained`.

    Arguments:
        cast: 'f16' (floating-point weights are rounded to float16 first) or 'stored'.
        trust_records: False hashes the weights again although nothing looks changed.

    Raises:
        GeneratorError: a part, a file or a field that the family does not have, weights that do not survive the
            cast, or a low-rank update that does not fit them.
        MissingGeneratorError: a folder without the parts of a family.
        MissingExtraError: safetensors or torch is not installed.
    """
    if cast not in CASTS:
        raise UsageError("an unknown cast", field="cast", found=cast, expected=" or ".join(CASTS))
    folder = Path(folder).resolve()
    family = family_of(folder)
    files = {part: weight_files(folder, part) for part in FAMILIES[family]}
    # All configurations before the first weight: what is no generator of ours must not cost the hashing of one.
    parts = {name: read_config(folder, name, part) for name, part in FAMILIES[family].items()}
    stamp = _stamp(folder, cast, family, files, {name: graph for name, (graph, _) in parts.items()})
    name = hashlib.sha256(f"{folder}\n{cast}\n{family}".encode()).hexdigest()
    record_path = home() / "generators" / f"{name}.json"
    if trust_records and (record := _read_record(record_path, stamp)):
        return record
    record = _hash(folder, cast, family, parts)
    _write_record(record_path, stamp, record)
    return record


def _hash(folder: Path, cast: str, family: str, parts: dict[str, tuple[Graph, dict[str, Any]]]) -> GeneratorRecord:
    updates = read_lora(folder, family, cast)  # first, since it is small
    digests, sizes = {}, {}
    shapes: dict[str, dict[str, list[int]]] = {}
    for part, (graph, config) in parts.items():
        rows: list[list[Any]] = []
        sizes[part] = 0
        for name, tensor in tensors(folder, part, graph, cast):
            data = little_endian(tensor)
            rows.append([name, *_kind(tensor), hashlib.sha256(data).digest()])
            sizes[part] += len(data)
        shapes[part] = {row[0]: row[2] for row in rows}
        weights = _digest(sorted(rows, key=lambda row: row[0].encode()), folder / part)
        digests[part] = _digest({"config": config, "graph": graph.id, "weights": weights}, folder / part)
    check_fits(folder, updates, shapes)
    whole: dict[str, Any] = {"family": family, "parts": digests}
    lora, outside = _hash_lora(folder, updates)
    if lora is not None:
        whole["lora"] = lora
    id_ = _digest(whole, folder)
    return GeneratorRecord(
        id_, family, digests, {part: config for part, (_, config) in parts.items()}, sizes, lora, outside
    )


def _hash_lora(folder: Path, updates: dict[str, dict[str, Update]]) -> tuple[bytes | None, int]:
    """Digest of the low-rank update of a folder (None without one) and the bytes of its tensors after the cast."""
    rows, size = [], 0
    for part, own in updates.items():
        for name, update in own.items():
            row: list[Any] = [part, name, update.alpha]
            for tensor in (update.down, update.up):
                data = little_endian(tensor)
                row += [*_kind(tensor), hashlib.sha256(data).digest()]
                size += len(data)
            rows.append(row)
            size += update.alpha_bytes
    if not rows:
        return None, 0
    rows.sort(key=lambda row: (row[0].encode(), row[1].encode()))
    return _digest(rows, folder / LORA_FILE), size


def _digest(value: Any, file: Path) -> bytes:
    """SHA-256 of the canonical bytes; GeneratorError for what has none (an integer of 65 bits, half a surrogate)."""
    try:
        return hashlib.sha256(canonical.pack(value)).digest()
    except PackError as error:
        raise GeneratorError(f"has no id: {error.message}", file=str(file), found=error.found) from error


def _kind(tensor: torch.Tensor) -> tuple[str, list[int]]:
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape)


# ---------------------------------------------------------------------------------------------------- records


def _stamp(
    folder: Path, cast: str, family: str, files: dict[str, list[Path]], graphs: dict[str, Graph]
) -> dict[str, Any]:
    """What must be unchanged for a record to hold: the files, and what the registry says about them."""
    paths = [
        path
        for part, weights in sorted(files.items())
        for path in [part_folder(folder, part) / "config.json", *weights]
    ]
    if (lora := folder / LORA_FILE).is_file():
        paths.append(lora)
    rows = []
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise GeneratorError(f"cannot read a file of '{path.parent.name}': {error}", file=str(path)) from error
        rows.append([path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns])
    return {
        "version": _RECORD_VERSION,
        "folder": str(folder),
        "cast": cast,
        "family": family,
        "files": rows,
        "graphs": {part: graph.digest() for part, graph in graphs.items()},
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
            None if value["lora"] is None else bytes.fromhex(value["lora"]),
            value["outside_bytes"],
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
        "lora": None if record.lora is None else record.lora.hex(),
        "outside_bytes": record.outside_bytes,
    }
    with suppress(OSError, OutputError):  # a read-only home costs time, not correctness
        path.parent.mkdir(parents=True, exist_ok=True)
        save_atomically(path, json.dumps(value).encode())


# ---------------------------------------------------------------------------------------------------- search


def find_generator(
    generator_id: bytes,
    cast: str,
    *,
    given: Names = None,
    others: Collection[tuple[bytes, str]] = (),
    trust_records: bool = True,
) -> Path:
    """The folder whose generator id is `generator_id`.

    Arguments:
        given: a folder, or a Hugging Face repository ("owner/name") or a ready configuration ("sd-1.5") whose weights
            lie in the local cache, or several of them; None searches the package and the local Hugging Face cache.
        others: (id, cast) of further generators that may be among those given: where all of them are, the one wanted is
            searched for.
        trust_records: as in `describe`.

    Raises:
        GeneratorError: one of `given` is another generator, or none that the registry of families describes.
        MissingGeneratorError: nothing found, or a folder without weights.
    """
    names = [given] if isinstance(given, (str, Path)) else given or ()
    if (folder := _given(generator_id, cast, names, others, trust_records)) is not None:
        return folder
    for folder in [bundled_generator(), *cached_snapshots()]:
        with suppress(
            GeneratorError, MissingGeneratorError
        ):  # a folder that is no generator of ours is not the one that is sought
            if describe(folder, cast, trust_records=trust_records).id == generator_id:
                return folder
    known = [one for one in ready.configurations() if one.ids.get(cast) == generator_id.hex()]
    raise MissingGeneratorError(
        "the weights of the generator are neither in the package nor in the local Hugging Face cache",
        expected=generator_id.hex(),
        hint=f"They are those of {known[0].title}. {how_to_fetch(known[0])}" if known else _ELSEWHERE,
    )


def _given(
    generator_id: bytes,
    cast: str,
    names: Sequence[str | Path],
    others: Collection[tuple[bytes, str]],
    trust_records: bool,
) -> Path | None:
    """The folder of the first of these names that is the generator, None if all of them are among `others`."""
    wrong: GeneratorError | None = None
    for name in names:
        folders, found = require_folders(name), ""
        for folder in folders:
            record = describe(folder, cast, trust_records=trust_records)
            if record.id == generator_id:
                return folder
            found = record.id.hex()
        if not any(_is_one_of(folder, others, trust_records) for folder in folders):
            message = "this is not the generator that the file names"
            wrong = GeneratorError(message, file=str(folders[-1]), found=found, expected=generator_id.hex())
    if wrong is not None:
        raise wrong
    return None


def _is_one_of(folder: Path, others: Collection[tuple[bytes, str]], trust_records: bool) -> bool:
    return any(describe(folder, cast, trust_records=trust_records).id == id_ for id_, cast in others)


def folders_of(name: str | Path) -> list[Path]:
    """What a name means on this machine: the folder itself, else the cached snapshots of a ready configuration's
    repositories or of a repository."""
    path = Path(name).expanduser()
    if path.is_dir():
        return [path]
    known = ready.find(str(name))
    repositories = (known.repository, *known.also) if known else (str(name),)
    return [folder for repository in repositories for folder in cached_snapshots(repository)]


def require_folders(name: str | Path) -> list[Path]:
    """`folders_of` a name, at least one; MissingGeneratorError that says how to get one."""
    if folders := folders_of(name):
        return folders
    hint = f"To fetch it first: d3codec generators fetch {name}" if _is_repository(name) else "Check the path."
    if known := ready.find(str(name)):
        hint = how_to_fetch(known)
    raise MissingGeneratorError(
        "neither a folder nor a repository in the local Hugging Face cache",
        field="generator",
        found=str(name),
        hint=hint,
    )


def how_to_fetch(known: ready.ReadyConfiguration) -> str:
    """The command that fetches a ready configuration, and how much it fetches."""
    return f"To fetch them ({known.weight_bytes('f32') / 1e6:,.0f} MB): d3codec generators fetch {known.name}"


def repository_of(folder: Path) -> str | None:
    """The repository ("owner/name") that a folder is a cached snapshot of, None elsewhere."""
    model = folder.absolute().parents[1:2]
    if not model or folder.absolute().parent.name != "snapshots" or not model[0].name.startswith("models--"):
        return None
    return model[0].name.removeprefix("models--").replace("--", "/", 1)


def _is_repository(name: str | Path) -> bool:
    pieces = str(name).split("/")
    return len(pieces) == 2 and all(piece and not piece.startswith(".") for piece in pieces)


def cached_snapshots(repository: str | None = None) -> Iterator[Path]:
    """Snapshots in the local Hugging Face cache, in order of name: all pipelines and networks of one repository if it
    is named, else those that look like a generator."""
    if repository is not None and not _is_repository(repository):
        return
    pattern = "models--*" if repository is None else "models--" + repository.replace("/", "--")
    for model in sorted(hub_cache().glob(pattern)):
        for folder in sorted(model.glob("snapshots/*")):
            if not any((folder / name).is_file() for name in (PIPELINE, "config.json")):
                continue
            if repository is not None or _looks_like_one(folder):
                yield folder


def _looks_like_one(folder: Path) -> bool:
    """Whether it has all parts of its family."""
    try:
        return all(part_folder(folder, part).is_dir() for part in FAMILIES[family_of(folder)])
    except MissingGeneratorError:
        return False


def hub_cache() -> Path:
    """Where Hugging Face keeps downloads: HF_HUB_CACHE, HF_HOME/hub or the user's cache (huggingface_hub's
    rule)."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"
