"""The networks of the Stable Diffusion layout: text encoder, denoiser, autoencoder.

Builds the bare models of transformers and diffusers from the resolved configuration and fills in the weights;
no pipeline, no scheduler, nothing that could supply a default which the file does not state. Gradients may
flow through every method (the encoder learns embeddings); the decoder calls them in inference mode.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

# From their own modules: the packages' front doors would import every pipeline.
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from d3codec.errors import GeneratorError, UsageError
from d3codec.generators.graphs import FAMILIES
from d3codec.generators.weights import read_config, tensors


class StableDiffusion:
    """A loaded generator. Make one with `StableDiffusion.load`.

    Attributes: `folder`, `dtype` and `device` of the networks; `width` of a token embedding; `vocabulary`
    (number of tokens); `max_length` (tokens of the longest prompt); the networks `text_encoder`, `unet`,
    `vae`, frozen and in evaluation mode.
    """

    def __init__(self, folder: Path, configs: dict[str, dict[str, Any]], networks: dict[str, Any]) -> None:
        self.folder, self._configs = folder, configs
        self.text_encoder, self.unet, self.vae = (networks[part] for part in ("text_encoder", "unet", "vae"))
        text, unet = configs["text_encoder"], configs["unet"]
        self.width, self.vocabulary = text["hidden_size"], text["vocab_size"]
        self.max_length = text["max_position_embeddings"]
        self._embedding: torch.nn.Module = self.text_encoder.get_input_embeddings()
        weight = self._embedding.get_parameter("weight")
        self.dtype, self.device = weight.dtype, weight.device
        self._tokenizer: Any = None
        if (
            unet["cross_attention_dim"] != self.width
            or unet["in_channels"] != unet["out_channels"]
            or unet["in_channels"] != configs["vae"]["latent_channels"]
        ):
            raise GeneratorError("text encoder, denoiser and autoencoder do not fit together", file=str(folder))

    @classmethod
    def load(
        cls, folder: str | Path, *, cast: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> StableDiffusion:
        """Load the generator of a folder in the layout of diffusers' `save_pretrained`.

        Arguments:
            cast: 'f16' (weights are rounded to float16 before anything else) or 'stored'.
            dtype: of the computation; the cast weights are converted to it.

        Raises:
            GeneratorError: files that are missing, damaged or of another architecture.
        """
        folder, family = Path(folder), FAMILIES["stable-diffusion"]
        configs = {part: read_config(folder, part, graph) for part, graph in family.items()}
        networks = {part: _load_part(folder, part, configs[part], cast, dtype, torch.device(device)) for part in family}
        return cls(folder, configs, networks)

    # ------------------------------------------------------------------------------------------------ shapes

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image; GeneratorError if no latents give that
        size."""
        factor = 2 ** (len(self._configs["vae"]["block_out_channels"]) - 1)
        if height % factor or width % factor:
            raise GeneratorError(
                f"the generator makes images of multiples of {factor} pixels",
                file=str(self.folder),
                found=f"{height}x{width}",
            )
        return self._configs["vae"]["latent_channels"], height // factor, width // factor

    # ------------------------------------------------------------------------------------------------ text

    def token_embedding(self, token: int) -> np.ndarray:
        """The embedding of one token, float64 [width]; UsageError for a token that the vocabulary lacks."""
        if not 0 <= token < self.vocabulary:
            raise UsageError(
                "a token that the generator's vocabulary does not have",
                found=token,
                expected=f"0 to {self.vocabulary - 1}",
            )
        row: np.ndarray = self._embedding.get_parameter("weight")[token].to("cpu", torch.float64).numpy()
        return row

    def encode_text(
        self,
        ids: np.ndarray | torch.Tensor,
        slots: tuple[int, ...] = (),
        vectors: np.ndarray | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Last hidden states of the text encoder.

        Arguments:
            ids: int64 [batch, length], padded.
            slots: positions whose token embeddings are replaced by `vectors` (before positions are added).
            vectors: [batch, slots, width], any float dtype; a tensor keeps its gradient.

        Returns: [batch, length, width] in the compute dtype.
        """
        tokens = torch.as_tensor(ids, dtype=torch.int64, device=self.device)
        length, largest = tokens.shape[-1], int(tokens.max())
        if length > self.max_length or largest >= self.vocabulary or int(tokens.min()) < 0:
            raise GeneratorError(
                "the text encoder does not take these tokens",
                file=str(self.folder),
                found=f"{length} of up to {largest}",
                expected=f"{self.max_length} of 0 to {self.vocabulary - 1}",
            )
        if vectors is None:
            return self._hidden(tokens)
        rows = torch.as_tensor(vectors).to(self.device, self.dtype)

        def place(_module: torch.nn.Module, _inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
            embedded = embedded.clone()
            embedded[:, list(slots)] = rows
            return embedded

        handle = self._embedding.register_forward_hook(place)
        try:
            return self._hidden(tokens)
        finally:
            handle.remove()

    def _hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.text_encoder(input_ids=tokens).last_hidden_state
        return hidden

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text with begin and end tokens, not padded.

        Raises:
            UsageError: a character that the tokenizer does not know (it would silently become another token).
            GeneratorError: the folder has no tokenizer, or the text is too long.
        """
        tokenizer = self._load_tokenizer()
        ids = [int(token) for token in tokenizer(text)["input_ids"]]
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids[1:-1]:
            raise UsageError("the generator's tokenizer does not know all characters of this text", found=repr(text))
        if len(ids) > self.max_length:
            raise GeneratorError(
                "the text is longer than the text encoder takes",
                file=str(self.folder),
                found=f"{len(ids)} tokens",
                expected=f"at most {self.max_length}",
            )
        return ids

    def padding(self) -> tuple[int, int]:
        """(token id, length) to which the generator's prompts are padded."""
        return int(self._load_tokenizer().pad_token_id), self.max_length

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers.models.clip.tokenization_clip import CLIPTokenizer

            try:
                self._tokenizer = CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
            except (OSError, ValueError, TypeError) as error:
                raise GeneratorError(
                    f"cannot read the tokenizer: {error}", file=str(self.folder / "tokenizer")
                ) from error
        return self._tokenizer

    # ------------------------------------------------------------------------------------------------ images

    def denoise(self, latents: torch.Tensor, timestep: int | torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The denoiser's prediction for latents [batch, C, h, w] at a timestep under hidden [batch, length,
        width].

        Computes in the generator's dtype and returns the latents' dtype.
        """
        output: torch.Tensor = self.unet(
            latents.to(self.dtype), timestep, encoder_hidden_states=hidden, return_dict=False
        )[0]
        return output.to(latents.dtype)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Images [batch, 3, height, width], about -1 to 1, of latents in the scale of the denoiser."""
        # A product: CUDA computes tensor / number as one, a CPU does not.
        scaled = latents.to(self.dtype) * (1.0 / self._configs["vae"]["scaling_factor"])
        images: torch.Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return images

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (the mean, in the scale of the denoiser) of images [batch, 3, height, width] in -1 to 1."""
        mean: torch.Tensor = self.vae.encode(images.to(self.device, self.dtype)).latent_dist.mean
        scale: float = self._configs["vae"]["scaling_factor"]
        return mean * scale

    def encoding_hints(self) -> dict[str, Any]:
        """What the makers of the generator advise an encoder to do (`encoding.json`), or {}."""
        path = self.folder / "encoding.json"
        if not path.is_file():
            return {}
        try:
            hints = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise GeneratorError(f"cannot read the encoding hints: {error}", file=str(path)) from error
        if not isinstance(hints, dict):
            raise GeneratorError("the encoding hints are not a JSON object", file=str(path))
        return hints


def _load_part(
    folder: Path, part: str, config: dict[str, Any], cast: str, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    graph = FAMILIES["stable-diffusion"][part]
    # Copies, also where no cast is needed: a tensor that lies in a mapped file may be aligned otherwise, and
    # kernels may then sum in another order.
    state = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
        for name, tensor in tensors(folder, part, graph, cast)
    }
    try:
        with torch.device("meta"):  # no random weights are drawn only to be replaced
            network = _build(part, config)
    except (TypeError, ValueError, KeyError) as error:
        raise GeneratorError(
            f"no network of class {graph.class_name} can be built: {error}", file=str(folder / part / "config.json")
        ) from error
    if graph.prefix and all(name.startswith(graph.prefix) for name in network.state_dict()):
        state = {graph.prefix + name: tensor for name, tensor in state.items()}  # transformers before 5
    _check_names(folder / part, {name: tuple(tensor.shape) for name, tensor in state.items()}, network)
    network.load_state_dict(state, assign=True)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:
            _fill_buffer(network, name, buffer, device)
    return network.requires_grad_(False).eval()


def _build(part: str, config: dict[str, Any]) -> torch.nn.Module:
    network: torch.nn.Module
    if part == "unet":
        network = UNet2DConditionModel(**config)
        return network
    if part == "vae":
        network = AutoencoderKL(**config)
        return network
    # Special tokens only steer the pooled output, which is not used; those of the default lie outside small
    # vocabularies and would be complained about.
    settings = CLIPTextConfig(**config, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    settings._attn_implementation = "sdpa"
    return CLIPTextModel(settings)


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
    """Buffers that no file holds; position_ids (0, 1, 2, ...) is the only one."""
    owner, _, leaf = name.rpartition(".")
    if leaf != "position_ids":
        raise GeneratorError("the installed library needs a buffer that d3codec does not know", field=name)
    places = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
    network.get_submodule(owner).register_buffer(leaf, places, persistent=False)
