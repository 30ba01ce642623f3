"""The registry of families of `spec/generators.md`: which fields of a configuration change pixels, and their
defaults.

A part's configuration is *resolved* before its digest: every field below, with the value of the configuration
file or the default. Defaults are written here and never read from an installed library: a library that
changes a default must not rename a generator. Does not read files and knows no weights; standard library
only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d3codec.errors import GeneratorError


@dataclass(frozen=True)
class Graph:
    """One network architecture: its configuration fields and the names of its tensors.

    `defaults` holds every field that changes pixels; those in `fixed` must have their default, because any
    other value needs an input that the family does not give. `ignored` fields change no pixel. `renamed` are
    (old, new) pieces of tensor names between dots, `prefix` is dropped from names, `dropped` endings mark
    what is no parameter.
    """

    id: str
    class_name: str
    defaults: Mapping[str, Any]
    fixed: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def tensor_name(self, name: str) -> str | None:
        """The canonical name of a published tensor, or None if it is not a parameter."""
        if any(name == ending or name.endswith("." + ending) for ending in self.dropped):
            return None
        name = name.removeprefix(self.prefix)
        for old, new in self.renamed.items():
            name = f".{name}.".replace(f".{old}.", f".{new}.")[1:-1]
        return name

    def digest(self) -> str:
        """SHA-256 of all that is written here about the graph, to notice that the registry changed."""
        text = json.dumps(
            [
                self.id,
                self.class_name,
                dict(self.defaults),
                sorted(self.fixed),
                sorted(self.ignored),
                self.prefix,
                self.dropped,
                dict(self.renamed),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()


_COMMENTS = frozenset(
    {
        "_class_name",
        "_diffusers_version",
        "_name_or_path",
        "architectures",
        "dtype",
        "model_type",
        "torch_dtype",
        "transformers_version",
    }
)

CLIP_TEXT = Graph(
    id="clip-text",
    class_name="CLIPTextModel",
    defaults={
        "hidden_act": "quick_gelu",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
    },
    # The pooled output is not used, so neither the projection nor the place of the end token matters.
    ignored=_COMMENTS
    | {
        "attention_dropout",
        "bos_token_id",
        "dropout",
        "eos_token_id",
        "initializer_factor",
        "initializer_range",
        "pad_token_id",
        "projection_dim",
    },
    prefix="text_model.",
    dropped=("position_ids",),
)

UNET_2D_CONDITION = Graph(
    id="unet-2d-condition",
    class_name="UNet2DConditionModel",
    defaults={
        "act_fn": "silu",
        "addition_embed_type": None,
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": None,
        "attention_head_dim": 8,
        "attention_type": "default",
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": 1280,
        "cross_attention_norm": None,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_only_cross_attention": None,
        "mid_block_scale_factor": 1.0,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": None,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "reverse_transformer_layers_per_block": None,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": 1,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "upcast_attention": False,
        "use_linear_projection": False,
    },
    fixed=frozenset(
        {
            "addition_embed_type",
            "attention_type",
            "class_embed_type",
            "encoder_hid_dim_type",
            "num_attention_heads",
            "num_class_embeds",
            "time_cond_proj_dim",
        }
    ),
    ignored=_COMMENTS | {"dropout", "sample_size"},
)

AUTOENCODER_KL = Graph(
    id="autoencoder-kl",
    class_name="AutoencoderKL",
    defaults={
        "act_fn": "silu",
        "block_out_channels": [64],
        "down_block_types": ["DownEncoderBlock2D"],
        "in_channels": 3,
        "latent_channels": 4,
        "latents_mean": None,
        "latents_std": None,
        "layers_per_block": 1,
        "mid_block_add_attention": True,
        "norm_num_groups": 32,
        "out_channels": 3,
        "scaling_factor": 0.18215,
        "shift_factor": None,
        "up_block_types": ["UpDecoderBlock2D"],
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    # The Stable Diffusion pipelines scale latents and never shift them.
    fixed=frozenset({"in_channels", "latents_mean", "latents_std", "out_channels", "shift_factor"}),
    ignored=_COMMENTS | {"force_upcast", "sample_size"},
    # Names of the attention layer before diffusers 0.17, as in the publications of Stable Diffusion 1.x.
    renamed={"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"},
)

GRAPHS = {graph.id: graph for graph in (AUTOENCODER_KL, CLIP_TEXT, UNET_2D_CONDITION)}

# family -> part (also the name of its folder) -> graph
FAMILIES: dict[str, dict[str, Graph]] = {
    "stable-diffusion": {"text_encoder": CLIP_TEXT, "unet": UNET_2D_CONDITION, "vae": AUTOENCODER_KL}
}


def resolve(graph: Graph, config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The resolved configuration of one part.

    Arguments:
        config: the parsed configuration file.
        file: its name, for messages.

    Returns: {field: value} for every field of `graph.defaults`; a field whose default is a float is a float.

    Raises:
        GeneratorError: another class of network, an unknown field that is not null, or a value that the
        family
            cannot use.
    """
    _check_class(graph, config, file)
    for name, value in config.items():
        if name not in graph.defaults and name not in graph.ignored and value is not None:
            raise GeneratorError(
                f"the registry of families does not know this field of graph '{graph.id}', "
                "so its effect on pixels is unknown",
                file=file,
                field=name,
                found=repr(value),
            )
    resolved = {
        name: _canonical(config.get(name, default), default, file, name) for name, default in graph.defaults.items()
    }
    for name in sorted(graph.fixed):
        if resolved[name] != graph.defaults[name]:
            raise GeneratorError(
                "the family cannot use this value",
                file=file,
                field=name,
                found=repr(resolved[name]),
                expected=repr(graph.defaults[name]),
            )
    return resolved


def _check_class(graph: Graph, config: Mapping[str, Any], file: str) -> None:
    named = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if named is not None and named != graph.class_name:
        raise GeneratorError("another class of network", file=file, found=named, expected=graph.class_name)


def _canonical(value: Any, default: Any, file: str, name: str) -> Any:
    """JSON writes 1.0 as 1 at times; what is a float by its default is one float in every publication."""
    if isinstance(value, (list, tuple)):
        return [_canonical(item, default, file, name) for item in value]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value + 0.0  # canonical msgpack has no -0.0
    raise GeneratorError("a value that no configuration has", file=file, field=name, found=repr(value))
