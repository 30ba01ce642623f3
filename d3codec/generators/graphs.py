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

    `defaults` holds every field that changes pixels; those in `fixed` must have their default (or what a family
    allows instead), because any other value needs an input that the family does not give. `choices` are the values
    (of lists: the items) that a field may have; others would bring in code that was never checked for what it needs
    and for float32 (tests/generators/test_float64.py). `obsolete` fields of older publications must have the value
    given here and are not resolved. `ignored` fields change no pixel. `aliases` are further names of the class,
    `renamed` are (old, new) pieces of tensor names between dots, `prefix` is dropped from names, `dropped` endings
    mark what is no parameter.
    """

    id: str
    class_name: str
    defaults: Mapping[str, Any]
    fixed: frozenset[str] = frozenset()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    obsolete: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
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
                dict(self.choices),
                dict(self.obsolete),
                self.aliases,
                sorted(self.ignored),
                self.prefix,
                self.dropped,
                dict(self.renamed),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """A part of a family: the graphs that it may have, told apart by their classes, and the values that a family
    allows, instead of the default, in fields which the graph fixes."""

    graphs: tuple[Graph, ...]
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


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

_ACTIVATIONS = ("gelu", "mish", "relu", "silu", "swish")

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
    choices={"hidden_act": ("gelu", "quick_gelu")},
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

CLIP_TEXT_PROJECTION = Graph(
    id="clip-text-projection",
    class_name="CLIPTextModelWithProjection",
    defaults={**CLIP_TEXT.defaults, "projection_dim": 512},
    choices=CLIP_TEXT.choices,
    ignored=CLIP_TEXT.ignored - {"projection_dim"},
    prefix=CLIP_TEXT.prefix,
    dropped=CLIP_TEXT.dropped,
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
            "dual_cross_attention",
            "encoder_hid_dim_type",
            "num_attention_heads",
            "num_class_embeds",
            "time_cond_proj_dim",
            "time_embedding_type",
        }
    ),
    choices={
        "act_fn": _ACTIVATIONS,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "time_embedding_act_fn": (*_ACTIVATIONS, None),
        "timestep_post_act": (*_ACTIVATIONS, None),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
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
    choices={
        "act_fn": _ACTIVATIONS,
        "down_block_types": ("AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    },
    ignored=_COMMENTS | {"force_upcast", "sample_size"},
    # Names of the attention layer before diffusers 0.17, as in the publications of Stable Diffusion 1.x.
    renamed={"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"},
)

AUTOENCODER_TINY = Graph(
    id="autoencoder-tiny",
    class_name="AutoencoderTiny",
    defaults={
        "act_fn": "relu",
        "decoder_block_out_channels": [64, 64, 64, 64],
        "encoder_block_out_channels": [64, 64, 64, 64],
        "in_channels": 3,
        "latent_channels": 4,
        "num_decoder_blocks": [3, 3, 3, 1],
        "num_encoder_blocks": [1, 3, 3, 3],
        "out_channels": 3,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    },
    fixed=frozenset({"in_channels", "out_channels", "shift_factor"}),
    choices={"act_fn": _ACTIVATIONS, "upsample_fn": ("nearest",)},
    # magnitude and shift serve to store latents in a picture; block_out_channels repeats those of the decoder
    ignored=_COMMENTS | {"block_out_channels", "force_upcast", "latent_magnitude", "latent_shift"},
)

DIT_TRANSFORMER_2D = Graph(
    id="dit-transformer-2d",
    class_name="DiTTransformer2DModel",
    aliases=("Transformer2DModel",),  # the publications of DiT name the class that it once was a case of
    defaults={
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": 72,
        "in_channels": 4,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": 16,
        "num_embeds_ada_norm": 1000,
        "num_layers": 28,
        "out_channels": None,
        "patch_size": 2,
        "sample_size": 32,
        "upcast_attention": False,
    },
    fixed=frozenset({"norm_type"}),
    choices={"activation_fn": ("geglu", "gelu", "gelu-approximate")},
    obsolete={
        "attention_type": "default",
        "double_self_attention": False,
        "only_cross_attention": False,
        "use_linear_projection": False,
    },
    ignored=_COMMENTS | {"dropout", "norm_num_groups"},
    dropped=("pos_embed.pos_embed",),
)

GRAPHS = {
    graph.id: graph
    for graph in (
        AUTOENCODER_KL,
        AUTOENCODER_TINY,
        CLIP_TEXT,
        CLIP_TEXT_PROJECTION,
        DIT_TRANSFORMER_2D,
        UNET_2D_CONDITION,
    )
}

_AUTOENCODER = Part((AUTOENCODER_KL, AUTOENCODER_TINY))

# family -> part (also the name of its folder) -> graphs
FAMILIES: dict[str, dict[str, Part]] = {
    "stable-diffusion": {
        "text_encoder": Part((CLIP_TEXT,)),
        "unet": Part((UNET_2D_CONDITION,), {"addition_embed_type": (None, "text")}),
        "vae": _AUTOENCODER,
    },
    "stable-diffusion-xl": {
        "text_encoder": Part((CLIP_TEXT,)),
        "text_encoder_2": Part((CLIP_TEXT_PROJECTION,)),
        "unet": Part((UNET_2D_CONDITION,), {"addition_embed_type": ("text_time",)}),
        "vae": _AUTOENCODER,
    },
    "latent-diffusion": {"unet": Part((UNET_2D_CONDITION,)), "vae": _AUTOENCODER},
    "dit": {"transformer": Part((DIT_TRANSFORMER_2D,)), "vae": _AUTOENCODER},
    "autoencoder": {"vae": _AUTOENCODER},
}


def choose(graphs: tuple[Graph, ...], config: Mapping[str, Any], file: str) -> Graph:
    """The graph whose class a configuration names, or the only one where it names none; else GeneratorError."""
    named, architectures = config.get("_class_name"), config.get("architectures") or []
    if not isinstance(architectures, list):
        raise GeneratorError(
            "not a list of classes", file=file, field="architectures", found=repr(architectures), expected="a list"
        )
    named = named or next(iter(architectures), None)
    fitting = [graph for graph in graphs if named is None or named in (graph.class_name, *graph.aliases)]
    if len(fitting) != 1:
        raise GeneratorError(
            "another class of network",
            file=file,
            found=named,
            expected=" or ".join(graph.class_name for graph in graphs),
        )
    return fitting[0]


def resolve(
    graph: Graph, config: Mapping[str, Any], file: str, allowed: Mapping[str, tuple[Any, ...]] | None = None
) -> dict[str, Any]:
    """The resolved configuration of one part.

    Arguments:
        config: the parsed configuration file.
        file: its name, for messages.
        allowed: values that the family takes in fixed fields instead of their defaults.

    Returns: {field: value} for every field of `graph.defaults`; a field whose default is a float is a float.

    Raises:
        GeneratorError: another class of network, an unknown field that is not null, or a value that the
            family cannot use.
    """
    choose((graph,), config, file)
    for name, value in config.items():
        if name not in graph.defaults and name not in graph.ignored and value is not None:
            if name in graph.obsolete:
                _check(value, (graph.obsolete[name],), file, name)
                continue
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
        _check(resolved[name], (allowed or {}).get(name, (graph.defaults[name],)), file, name)
    for name, choices in graph.choices.items():
        value = resolved[name]
        for item in value if isinstance(value, list) else [value]:
            if item not in choices:
                raise GeneratorError(
                    "the registry of families does not know this value",
                    file=file,
                    field=name,
                    found=repr(item),
                    expected=" or ".join(map(repr, choices)),
                )
    if "freq_shift" in resolved:
        _check_shift(resolved, file)
    return resolved


def _check_shift(resolved: Mapping[str, Any], file: str) -> None:
    """The shift of sinusoids: a number for which every frequency of every width is from 10000^-(half - 1) to 1."""
    channels = resolved["block_out_channels"]
    widths = channels[:1] if isinstance(channels, list) else []
    if resolved["addition_embed_type"] == "text_time":
        widths = [*widths, resolved["addition_time_embed_dim"]]
    # Widths that are no numbers are refused where the network is built of them.
    largest = min((max(width // 2 - 1, 0) for width in widths if isinstance(width, int)), default=0)
    shift = resolved["freq_shift"]
    if isinstance(shift, bool) or not isinstance(shift, (int, float)) or not 0 <= shift <= largest:
        raise GeneratorError(
            "a shift that the sinusoids cannot have",
            file=file,
            field="freq_shift",
            found=repr(shift),
            expected=f"a number from 0 to {largest}",
        )


def _check(value: Any, wanted: tuple[Any, ...], file: str, name: str) -> None:
    if value not in wanted:
        raise GeneratorError(
            "the family cannot use this value",
            file=file,
            field=name,
            found=repr(value),
            expected=" or ".join(map(repr, wanted)),
        )


def _canonical(value: Any, default: Any, file: str, name: str) -> Any:
    """JSON writes 1.0 as 1 at times; what is a float by its default is one float in every publication."""
    if isinstance(value, (list, tuple)):
        return [_canonical(item, default, file, name) for item in value]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value + 0.0  # canonical msgpack has no -0.0
    raise GeneratorError("a value that no configuration has", file=file, field=name, found=repr(value)[:200])
