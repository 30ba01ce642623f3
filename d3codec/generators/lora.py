"""Low-rank updates of a generator's weights (LoRA, Hu et al., arXiv 2106.09685): `pytorch_lora_weights.safetensors`.

The file lies beside the parts, in the layout of diffusers' `save_lora_weights`. A weight W becomes
W + alpha / rank * up @ down, in binary64 and before the conversion to the compute dtype.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError
from d3codec.generators.files import metadata, read_config, read_tensors
from d3codec.generators.graphs import FAMILIES

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
        GeneratorError: a damaged file, parts that the family does not have, or a kind of update that is not the sum
            above.
    """
    path = folder / LORA_FILE
    if not path.is_file():
        return {}
    alphas = _alphas(path)
    found: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
    for published, tensor in read_tensors(path, cast):
        part, _, rest = published.partition(".")
        if part not in FAMILIES[family] or (split := _split(rest)) is None:
            raise GeneratorError("not a low-rank update of this family", file=str(path), field=published)
        module, kind = split
        found.setdefault(part, {}).setdefault(module, {})[kind] = tensor
    updates: dict[str, dict[str, Update]] = {}
    for part, modules in found.items():
        graph, _ = read_config(folder, part, FAMILIES[family][part])
        for module, factors in modules.items():
            if not {"down", "up"} <= factors.keys() or len(factors["down"]) == 0:
                raise GeneratorError("half of a low-rank update", file=str(path), field=f"{part}.{module}")
            alpha, size = alphas.get(part, float(len(factors["down"]))), 0
            if (own := factors.get("alpha")) is not None:
                alpha, size = float(own), own.element_size()
            name = str(graph.tensor_name(f"{module}.weight"))
            updates.setdefault(part, {})[name] = Update(factors["down"], factors["up"], alpha, size)
    return updates


def _split(name: str) -> tuple[str, str] | None:
    """(module, 'down' | 'up' | 'alpha') of a tensor's name without its part."""
    if match := _PROCESSOR.fullmatch(name):
        module = f"{match[1]}.{match[2]}"
        return module + ".0" * (match[2] == "to_out"), match[3]
    for kind, endings in (("down", _DOWN), ("up", _UP), ("alpha", ("alpha",))):
        for ending in endings:
            if name.endswith("." + ending):
                return name.removesuffix("." + ending), kind
    return None


def _alphas(path: Path) -> dict[str, float]:
    """alpha of every part where the head of the file says it (peft's `lora_alpha`)."""
    text = metadata(path).get(_METADATA)
    if text is None:
        return {}
    try:
        settings: dict[str, Any] = json.loads(text)
        unknown = {name: value for name, value in settings.items() if name.endswith(_UNKNOWN_SCALES) and value}
        alphas = {
            name.partition(".")[0]: float(value) for name, value in settings.items() if name.endswith(".lora_alpha")
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise GeneratorError(f"cannot read the settings of the update: {error}", file=str(path)) from error
    if unknown:
        raise GeneratorError("an update of another kind", file=str(path), found=unknown, expected="W + alpha/r BA")
    return alphas
