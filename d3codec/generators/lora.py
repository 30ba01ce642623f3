"""Low-rank updates of a generator's weights (LoRA, Hu et al., arXiv 2106.09685): `pytorch_lora_weights.safetensors`.

The file lies beside the parts, in the layout of diffusers' `save_lora_weights`. A weight W becomes
W + alpha / rank * up @ down, in binary64 and before the conversion to the compute dtype.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError
from d3codec.generators.files import metadata, read_config, read_tensors
from d3codec.generators.graphs import FAMILIES, Graph

if TYPE_CHECKING:
    import torch

LORA_FILE = "pytorch_lora_weights.safetensors"

# How peft, diffusers and older diffusers end the name of a module's two factors.
_DOWN = ("lora_A.weight", "lora.down.weight", "lora_linear_layer.down.weight")
_UP = ("lora_B.weight", "lora.up.weight", "lora_linear_layer.up.weight")
_PROCESSOR = re.compile(r"(.*)\.processor\.(to_\w+)_lora\.(down|up)\.weight")
_METADATA = "lora_adapter_metadata"
_UNKNOWN_SCALES = ("alpha_pattern", "use_dora", "use_rslora")  # settings of peft that change the sum above


@dataclass(frozen=True)
class Update:
    """The update of one weight: down [rank, in, ...] and up [out, rank, ...] after the cast, and alpha."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    alpha_bytes: int = 0

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """weight + alpha / rank * up @ down, float64 in the shape of the weight; ValueError if it does not fit."""
        rank = len(self.down)
        down, up = self.down.double().reshape(rank, -1), self.up.double().reshape(len(self.up), -1)
        if up.shape[1] != rank or len(up) * down.shape[1] != weight.numel() or len(up) != len(weight):
            raise ValueError(f"factors {list(self.up.shape)} and {list(self.down.shape)}")
        total = up[:, :1] * down[:1]
        for place in range(1, rank):  # one rank after the other: a matrix product has other bits on other machines
            total = total + up[:, place, None] * down[place]
        return weight.double() + (total * (self.alpha / rank)).reshape(weight.shape)


def read_lora(folder: Path, family: str, cast: str) -> dict[str, dict[str, Update]]:
    """The updates of a folder, {part: {canonical name of the tensor: update}}; {} if it has no such file.

    Raises:
        GeneratorError: a damaged file, parts that the family does not have, a weight with two updates or half of one,
            factors that are none, or a kind of update that is not the sum above.
    """
    path = folder / LORA_FILE
    if not path.is_file():
        return {}
    alphas = _alphas(path)
    graphs: dict[str, Graph] = {}
    found: dict[tuple[str, str], dict[str, _Piece]] = {}
    for published, tensor in read_tensors(path, cast):
        part, _, rest = published.partition(".")
        if part not in FAMILIES[family] or (split := _split(rest)) is None:
            raise GeneratorError("not a low-rank update of this family", file=str(path), field=published)
        if part not in graphs:
            graphs[part] = read_config(folder, part, FAMILIES[family][part])[0]
        module, kind, scheme = split
        pieces = found.setdefault((part, str(graphs[part].tensor_name(f"{module}.weight"))), {})
        if kind in pieces:
            raise GeneratorError("two updates of one weight", file=str(path), field=published)
        pieces[kind] = _Piece(module, scheme, tensor)
    updates: dict[str, dict[str, Update]] = {}
    for (part, name), pieces in found.items():
        updates.setdefault(part, {})[name] = _update(path, part, pieces, alphas)
    return updates


def check_fits(
    folder: Path, updates: Mapping[str, Mapping[str, Update]], shapes: Mapping[str, Mapping[str, Any]]
) -> None:
    """GeneratorError unless every update is of a weight in `shapes` ({part: {canonical name: shape}}) and fits it."""
    for part, own in updates.items():
        for name, update in own.items():
            shape = shapes[part].get(name)
            made = [len(update.up), update.down[0].numel()]
            if shape is None or not len(shape) or made != [shape[0], math.prod(shape[1:])]:
                raise GeneratorError(
                    "an update of a weight that is not there"
                    if shape is None
                    else "an update that does not fit the weight",
                    file=str(folder / LORA_FILE),
                    field=f"{part}.{name}",
                    found=None if shape is None else f"factors {list(update.up.shape)} and {list(update.down.shape)}",
                    expected=None if shape is None else list(shape),
                )


@dataclass(frozen=True)
class _Piece:
    """A tensor of an update, the module as it was published and the place of its ending among those of its kind."""

    module: str
    scheme: int
    tensor: torch.Tensor


def _update(path: Path, part: str, pieces: Mapping[str, _Piece], alphas: Mapping[str, float]) -> Update:
    field = f"{part}.{next(iter(pieces.values())).module}"
    if not {"down", "up"} <= pieces.keys():
        raise GeneratorError("half of a low-rank update", file=str(path), field=field)
    if pieces["down"].scheme != pieces["up"].scheme or len({piece.module for piece in pieces.values()}) != 1:
        raise GeneratorError("an update of one weight under names of two kinds", file=str(path), field=field)
    down, up = pieces["down"].tensor, pieces["up"].tensor
    rank = len(down) if down.ndim else 0
    if down.ndim < 2 or up.ndim < 2 or rank < 1 or up.shape[1] != rank or up.numel() != len(up) * rank:
        raise GeneratorError(
            "factors that are none of a low-rank update",
            file=str(path),
            field=field,
            found=f"up {list(up.shape)}, down {list(down.shape)}",
            expected="up [out, rank, ...], down [rank, in, ...]",
        )
    if (own := pieces.get("alpha")) is not None:
        return Update(down, up, _alpha(own.tensor, path, f"{field}.alpha"), own.tensor.element_size())
    return Update(down, up, alphas.get(part, float(rank)))


def _split(name: str) -> tuple[str, str, int] | None:
    """(module, 'down' | 'up' | 'alpha', scheme of the names) of a tensor's name without its part."""
    if match := _PROCESSOR.fullmatch(name):
        module = f"{match[1]}.{match[2]}"
        return module + ".0" * (match[2] == "to_out"), match[3], len(_DOWN)
    for kind, endings in (("down", _DOWN), ("up", _UP), ("alpha", ("alpha",))):
        for scheme, ending in enumerate(endings):
            if name.endswith("." + ending):
                return name.removesuffix("." + ending), kind, scheme
    return None


def _alpha(value: Any, path: Path, field: str) -> float:
    """alpha as a float; GeneratorError unless it is one finite number and not -0.0, which no id can hold."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number) or (number == 0 and math.copysign(1, number) < 0):
        raise GeneratorError(
            "an alpha that is none", file=str(path), field=field, found=repr(value)[:200], expected="one finite number"
        )
    return number


def _alphas(path: Path) -> dict[str, float]:
    """alpha of every part where the head of the file says it (peft's `lora_alpha`)."""
    text = metadata(path).get(_METADATA)
    if text is None:
        return {}
    try:
        settings: dict[str, Any] = json.loads(text)
        unknown = {name: value for name, value in settings.items() if name.endswith(_UNKNOWN_SCALES) and value}
    except (ValueError, AttributeError, RecursionError) as error:
        raise GeneratorError(f"cannot read the settings of the update: {error}", file=str(path)) from error
    if unknown:
        raise GeneratorError("an update of another kind", file=str(path), found=unknown, expected="W + alpha/r BA")
    return {
        name.partition(".")[0]: _alpha(value, path, name)
        for name, value in settings.items()
        if name.endswith(".lora_alpha")
    }
