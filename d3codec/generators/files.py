"""The files of a generator's folder: which family it is, configurations and safetensors of its parts.

Reads safetensors files and JSON only, never a pickle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError, MissingExtraError, MissingGeneratorError
from d3codec.generators.graphs import FAMILIES, Graph, Part, choose, resolve

if TYPE_CHECKING:
    import torch

# transformers' name of a weights file; diffusers' is the default below
_STEMS = {"text_encoder": "model", "text_encoder_2": "model"}
PIPELINE = "model_index.json"  # diffusers writes it beside the parts of a pipeline
# the part by which a family is known, the most telling first
_SIGNS = {
    "transformer": "dit",
    "text_encoder_2": "stable-diffusion-xl",
    "text_encoder": "stable-diffusion",
    "unet": "latent-diffusion",
}


@cache
def require_torch() -> Any:
    """torch, if all packages of the extra `decode` are installed; else MissingExtraError with the command."""
    from importlib.util import find_spec

    if any(find_spec(package) is None for package in ("torch", "diffusers", "transformers", "safetensors")):
        raise MissingExtraError("decode")
    import torch

    return torch


def family_of(folder: Path) -> str:
    """The family of the generator in a folder, known by its parts; MissingGeneratorError if it has none of them."""
    for part, family in _SIGNS.items():
        if (folder / part).is_dir():
            return family
    if not (folder / PIPELINE).exists() and ((folder / "vae").is_dir() or _is_autoencoder(folder)):
        return "autoencoder"
    raise MissingGeneratorError(
        "no safetensors weights of a generator",
        file=str(folder),
        expected=" or ".join(" + ".join(parts) for parts in FAMILIES.values()),
        hint="Name the folder that holds these folders, as diffusers' save_pretrained writes them; that of an "
        "autoencoder alone may be the folder itself.",
    )


def part_folder(folder: Path, part: str) -> Path:
    """Where the files of a part lie: a folder of its name, or for an autoencoder alone the generator's own folder."""
    inside = folder / part
    alone = part == "vae" and not inside.is_dir() and family_of(folder) == "autoencoder"
    return folder if alone else inside


def _is_autoencoder(folder: Path) -> bool:
    """Whether the configuration in a folder names the class of an autoencoder."""
    try:
        named = read_object(folder / "config.json", "a configuration").get("_class_name")
    except GeneratorError:
        return False
    return named in [graph.class_name for graph in FAMILIES["autoencoder"]["vae"].graphs]


def read_config(folder: Path, name: str, part: Part) -> tuple[Graph, dict[str, Any]]:
    """Graph and resolved configuration of a part; GeneratorError if it cannot be read or used."""
    path = part_folder(folder, name) / "config.json"
    config = read_object(path, f"the configuration of '{name}'")
    try:
        graph = choose(part.graphs, config, str(path))
        return graph, resolve(graph, config, str(path), part.allowed)
    except RecursionError as error:
        raise GeneratorError(f"the configuration of '{name}' is nested too deeply", file=str(path)) from error


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file; GeneratorError, which says what it was to be, if there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GeneratorError(f"cannot read {what}: {error}", file=str(path)) from error
    if not isinstance(value, dict):
        raise GeneratorError(f"{what} is not a JSON object", file=str(path))
    return value


def weight_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of a part: one file, else the shards of an index, else the float16 variant.

    Shards that are not all there, as an interrupted download leaves them, come after the float16 variant.
    """
    stem = _STEMS.get(part, "diffusion_pytorch_model")
    place = part_folder(folder, part)
    plain, index = place / f"{stem}.safetensors", place / f"{stem}.safetensors.index.json"
    half = place / f"{stem}.fp16.safetensors"
    if plain.is_file():
        return [plain]
    if index.is_file():
        shards = _shards(index, part)
        if all(path.is_file() for path in shards) or not half.is_file():
            return shards
    if half.is_file():
        return [half]
    raise MissingGeneratorError(
        f"no safetensors weights of '{part}'",
        file=str(plain),
        hint="d3codec never reads pickled weights (.bin, .pt, .ckpt): they can run code.",
    )


def _shards(index: Path, part: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GeneratorError(f"cannot read the index of '{part}': {error}", file=str(index)) from error
    if not names or not all(isinstance(name, str) and name.endswith(".safetensors") for name in names):
        raise GeneratorError(f"the index of '{part}' names no shards", file=str(index), found=repr(names)[:200])
    if any(Path(name).name != name or "\0" in name for name in names):
        raise GeneratorError("a shard outside its folder", file=str(index))
    return [index.with_name(name) for name in names]


def tensors(folder: Path, part: str, graph: Graph, cast: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters of a part after the cast, as (canonical name, tensor), one file after the other."""
    seen: set[str] = set()
    for path in weight_files(folder, part):
        for published, tensor in read_tensors(path, cast):
            if (name := graph.tensor_name(published)) is None:
                continue
            if name in seen:
                raise GeneratorError("two tensors of one name", file=str(path), field=name)
            seen.add(name)
            yield name, tensor


def read_tensors(path: Path, cast: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a safetensors file after the cast, by their published names; GeneratorError if damaged."""
    torch = require_torch()
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safe_open is no mapping)
                yield name, _cast(file.get_tensor(name), cast, torch, path, name)
    except GeneratorError:
        raise
    except Exception as error:  # safetensors raises its own, undocumented classes for damaged files
        raise GeneratorError(f"cannot read the weights of '{path.parent.name}': {error}", file=str(path)) from error


def metadata(path: Path) -> Mapping[str, str]:
    """The texts in the head of a safetensors file; GeneratorError if damaged."""
    require_torch()
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise GeneratorError(f"cannot read the weights: {error}", file=str(path)) from error


def _cast(tensor: torch.Tensor, cast: str, torch: Any, path: Path, name: str) -> torch.Tensor:
    if cast == "f16" and tensor.is_floating_point() and tensor.dtype != torch.float16:
        tensor = tensor.to(torch.float16)
        if not torch.isfinite(tensor).all():
            raise GeneratorError(
                "a weight is beyond the range of float16, so the cast f16 cannot be used", file=str(path), field=name
            )
    return tensor


def little_endian(tensor: torch.Tensor) -> bytes:
    """The values of a tensor, row-major, little-endian."""
    import torch

    # A view as bytes: numpy has no bfloat16. Sized dimension first, since a scalar cannot be viewed as bytes.
    array = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == "big":
        array = array.reshape(-1, tensor.element_size())[:, ::-1]
    return array.tobytes()
