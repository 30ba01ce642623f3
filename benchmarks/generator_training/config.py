"""The configuration of a training run: one frozen record a table of the TOML file, unknown keys refused."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Images:
    """What is learned from: `source` and `validation` are sources of `d3codec.sources.read_images`."""

    source: str
    patch: int  # pixels a side of one cell of a collage
    grid: int  # cells a side; the generator draws images of patch * grid pixels a side
    validation: str | None = None  # measured on (PSNR), never trained on


@dataclass(frozen=True)
class Pool:
    """The pool of training images, drawn once: `native` of them unchanged, the others resampled a little."""

    images: int
    native: float = 0.5
    rotation: float = 6.0  # degrees, largest
    shift: float = 0.06  # of the side, largest
    scale: float = 0.05  # relative, largest


@dataclass(frozen=True)
class Template:
    """One kind of caption: `{name}` is the class name, `{word}` a pseudo-word, neither makes it generic."""

    text: str
    grid: int
    share: float
    group: str = "class"  # what the cells of a generic image have in common: class | cluster

    @property
    def groups_by(self) -> str:
        return "class" if "{name}" in self.text else "cluster" if "{word}" in self.text else self.group


@dataclass(frozen=True)
class Captions:
    """How images are described. Classes in `held_out` are never named; `words` counts the pseudo-words."""

    templates: tuple[Template, ...]
    empty: float = 0.1  # share of training captions replaced by the empty one (for guidance)
    tokens: int = 16
    held_out: tuple[str, ...] = ()
    words: int = 0


@dataclass(frozen=True)
class Phase:
    """A part of the autoencoder's training, with its own linear decay of the learning rate."""

    steps: int
    native: float  # share of unchanged images in a batch
    kl_weight: float  # times the KL divergence, mean over latent elements


@dataclass(frozen=True)
class Autoencoder:
    widths: tuple[int, ...]
    phases: tuple[Phase, ...]
    latent_channels: int = 4
    layers_per_block: int = 1
    norm_groups: int = 8
    batch: int = 32
    cuda_batch: int | None = None
    learning_rate: float = 2e-3

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)


@dataclass(frozen=True)
class Text:
    width: int
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class UNet:
    widths: tuple[int, ...]
    attention: tuple[bool, ...]  # which levels attend to the text
    layers_per_block: int = 1
    head_dim: int = 4  # what diffusers calls attention_head_dim (and uses as the number of heads)
    norm_groups: int = 16


@dataclass(frozen=True)
class Generator:
    """Joint training of text encoder and UNet."""

    steps: int
    batch: int = 32
    cuda_batch: int | None = None
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-3
    clip: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class Config:
    """A whole configuration; `encoding` is written beside the weights as hints for an encoder."""

    name: str
    images: Images
    pool: Pool
    captions: Captions
    autoencoder: Autoencoder
    text: Text
    unet: UNet
    generator: Generator
    encoding: dict[str, Any] = field(default_factory=dict)
    card: str = ""

    @property
    def resolution(self) -> int:
        return self.images.patch * self.images.grid

    @property
    def collage_template(self) -> Template:
        """A template for whole collages of one class, whose caption is the class name."""
        return Template("{name}", self.images.grid, 1.0)


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def read_config(path: Path) -> Config:
    """Read a TOML file; a misspelt key is a TypeError that names it."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    captions, autoencoder = dict(table.pop("captions")), dict(table.pop("autoencoder"))
    templates = tuple(Template(**entry) for entry in captions.pop("templates"))
    phases = tuple(Phase(**entry) for entry in autoencoder.pop("phases"))
    config = Config(
        images=Images(**table.pop("images")),
        pool=Pool(**table.pop("pool")),
        captions=Captions(templates=templates, **_tuples(captions)),
        autoencoder=Autoencoder(phases=phases, **_tuples(autoencoder)),
        text=Text(**table.pop("text")),
        unet=UNet(**_tuples(table.pop("unet"))),
        generator=Generator(**table.pop("generator")),
        **table,
    )
    shares = sum(template.share for template in templates)
    if abs(shares - 1) > 1e-6:
        raise ValueError(f"{path}: the shares of the caption templates add up to {shares:g}, not to 1")
    if any(template.groups_by == "cluster" for template in templates) and not config.captions.words:
        raise ValueError(f"{path}: captions.words must be positive, a template groups images by cluster")
    return config
