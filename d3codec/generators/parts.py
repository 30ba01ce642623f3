"""A part of a generator, configuration and weights -> network: frozen, in evaluation mode, nothing left to defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3codec.errors import GeneratorError
from d3codec.generators.files import part_folder, read_config, tensors
from d3codec.generators.graphs import FAMILIES, Graph
from d3codec.generators.lora import LORA_FILE, Update, read_lora

UNFOLDED_BYTES = 1 << 21  # of the unfolded images that a thread multiplies at once; more leave its cache


class SlicedConv2d(torch.nn.Conv2d):
    """A convolution in binary64 on a CPU, a few images at a time: the same bits, sooner.

    torch unfolds all images of a batch (nine times their size) before it multiplies them one by one. That memory is
    fresh in every call, and to map it takes about as long as to multiply.
    """

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = super()._conv_forward
        rows = images.shape[-2] * images.shape[-1] // math.prod(self.stride)  # about those of the output
        unfolded = math.prod(weight.shape[1:]) * rows * 8
        # So many for every thread, since torch divides the images of a call among them.
        at_once = max(1, UNFOLDED_BYTES // max(unfolded, 1)) * torch.get_num_threads()
        if math.prod(self.kernel_size) == 1 or len(images) <= at_once:
            whole: Tensor = convolve(images, weight, bias)
            return whole
        parts = [images[first : first + at_once] for first in range(0, len(images), at_once)]
        return torch.cat([convolve(part, weight, bias) for part in parts])


@dataclass(frozen=True)
class LoadedPart:
    """A network with its resolved configuration and the id of its graph."""

    network: Any
    config: dict[str, Any]
    graph: str


def load_parts(
    folder: Path, family: str, cast: str, dtype: torch.dtype, device: str | torch.device
) -> dict[str, LoadedPart]:
    """All parts of a generator of a known family; GeneratorError for files that are missing, damaged or unfit."""
    forms = {name: read_config(folder, name, part) for name, part in FAMILIES[family].items()}
    updates = read_lora(folder, family, cast)
    return {
        name: LoadedPart(
            _load(folder, name, graph, config, cast, dtype, torch.device(device), updates.get(name, {})),
            config,
            graph.id,
        )
        for name, (graph, config) in forms.items()
    }


def _load(
    folder: Path,
    part: str,
    graph: Graph,
    config: dict[str, Any],
    cast: str,
    dtype: torch.dtype,
    device: torch.device,
    updates: Mapping[str, Update],
) -> torch.nn.Module:
    try:
        with torch.device("meta"):  # no random weights are drawn only to be replaced
            network = _build(graph, config)
    except (TypeError, ValueError, KeyError, NotImplementedError, ArithmeticError) as error:
        raise GeneratorError(
            f"no network of class {graph.class_name} can be built: {error}",
            file=str(part_folder(folder, part) / "config.json"),
        ) from error
    # Releases of the libraries put some networks below a prefix, others not.
    own = {graph.tensor_name(name): name for name in network.state_dict()}
    state = {}
    for name, tensor in tensors(folder, part, graph, cast):
        if name in updates:
            tensor = _updated(folder, part, name, tensor, updates[name])
        # Copies, also where no cast is needed: a tensor that lies in a mapped file may be aligned otherwise, and
        # kernels may then sum in another order.
        state[own.get(name, name)] = tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
    for name in updates:
        if own.get(name) not in state:
            raise GeneratorError("an update of a weight that is not there", file=str(folder / LORA_FILE), field=name)
    _check_names(part_folder(folder, part), {name: tuple(tensor.shape) for name, tensor in state.items()}, network)
    network.load_state_dict(state, assign=True)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:
            _fill_buffer(network, name, buffer, device)
    if dtype == torch.float64 and device.type == "cpu":
        for module in network.modules():
            if type(module) is torch.nn.Conv2d:
                module.__class__ = SlicedConv2d
    return network.requires_grad_(False).eval()


def _updated(folder: Path, part: str, name: str, tensor: torch.Tensor, update: Update) -> torch.Tensor:
    try:
        return update.added_to(tensor)
    except ValueError as error:
        raise GeneratorError(
            f"an update that does not fit the weight: {error}",
            file=str(folder / LORA_FILE),
            field=f"{part}.{name}",
            expected=list(tensor.shape),
        ) from None


def _build(graph: Graph, config: dict[str, Any]) -> torch.nn.Module:
    """The bare network; classes from their own modules, since the packages' front doors import every pipeline."""
    network: torch.nn.Module
    if graph.id == "unet-2d-condition":
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        network = UNet2DConditionModel(**config)
    elif graph.id == "dit-transformer-2d":
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        network = DiTTransformer2DModel(**config)
    elif graph.id == "autoencoder-kl":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        network = AutoencoderKL(**config)
    elif graph.id == "autoencoder-tiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        network = AutoencoderTiny(**config)
    else:
        from transformers.models.clip import modeling_clip
        from transformers.models.clip.configuration_clip import CLIPTextConfig

        # Special tokens only steer the library's pooled output, which is not used; those of the default lie outside
        # small vocabularies and would be complained about.
        settings = CLIPTextConfig(**config, bos_token_id=0, eos_token_id=0, pad_token_id=0)
        settings._attn_implementation = "sdpa"  # the eager softmax is computed in float32, whatever the dtype
        network = getattr(modeling_clip, graph.class_name)(settings)
    return network


def _check_names(folder: Path, found: dict[str, tuple[int, ...]], network: torch.nn.Module) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise GeneratorError(
                "the weights do not fit the configuration",
                file=str(folder),
                field=name,
                found=found.get(name, "nothing"),
                expected=expected.get(name, "nothing"),
            )


def _fill_buffer(network: torch.nn.Module, name: str, buffer: torch.Tensor, device: torch.device) -> None:
    """Buffers that no file holds: position_ids (0, 1, 2, ...); the table of positions is left to its family."""
    owner, _, leaf = name.rpartition(".")
    if leaf == "pos_embed":
        return
    if leaf != "position_ids":
        raise GeneratorError("the installed library needs a buffer that d3codec does not know", field=name)
    places = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
    network.get_submodule(owner).register_buffer(leaf, places, persistent=False)
