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

    templates: tuple[Template, ...] = ()  # none if the configuration has [words]
    empty: float = 0.1  # share of training captions replaced by the empty one (for guidance)
    tokens: int = 16
    held_out: tuple[str, ...] = ()
    words: int = 0


@dataclass(frozen=True)
class Kind:
    """Pseudo-words of one kind: `count` clusters; `share` of the training captions hold theirs."""

    count: int
    share: float


@dataclass(frozen=True)
class Words:
    """Captions of words in random order, instead of templates: the class name and visual pseudo-words.

    Pseudo-words are clusters of all images: `semantic` ones of a feature network, `layout` ones of coarse latents,
    `fine` ones of both. The feature network learns the classes from images of `side` pixels in `steps` steps.
    """

    start: str  # the first word of every caption but the empty one
    name: float  # share of the training captions that hold the class name
    semantic: Kind
    layout: Kind
    fine: Kind
    side: int = 32
    steps: int = 3000
    components: int = 48  # principal components of the features

    @property
    def kinds(self) -> dict[str, Kind]:
        return {"semantic": self.semantic, "layout": self.layout, "fine": self.fine}


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
    pooled_text: bool = False  # pooled text is added to the time embedding (addition_embed_type "text")
    dropout: float = 0.0


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
    bfloat16: bool = False  # autocast on a CPU too; on CUDA it is always on
    validate_every: int = 1000  # steps between measurements on the validation images (of [words])


@dataclass(frozen=True)
class Config:
    """A whole configuration; `encoding` is written beside the weights as hints for an encoder.

    Two kinds: a pool of captioned collages and an autoencoder trained on it, or, with `words`, every image as it is
    and mirrored, in the latent space of an autoencoder named on the command line.
    """

    name: str
    images: Images
    captions: Captions
    text: Text
    unet: UNet
    generator: Generator
    pool: Pool | None = None
    autoencoder: Autoencoder | None = None
    words: Words | None = None
    encoding: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    license: str = "apache-2.0"  # as the front matter of a model card names it

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
    captions = dict(table.pop("captions"))
    templates = tuple(Template(**entry) for entry in captions.pop("templates", ()))
    autoencoder, pool, words = (table.pop(key, None) for key in ("autoencoder", "pool", "words"))
    if autoencoder is not None:
        phases = tuple(Phase(**entry) for entry in autoencoder["phases"])
        autoencoder = Autoencoder(**_tuples(autoencoder) | {"phases": phases})
    if words is not None:
        words = Words(**words | {kind: Kind(**words[kind]) for kind in ("semantic", "layout", "fine")})
    config = Config(
        images=Images(**table.pop("images")),
        pool=None if pool is None else Pool(**pool),
        captions=Captions(templates=templates, **_tuples(captions)),
        autoencoder=autoencoder,
        words=words,
        text=Text(**table.pop("text")),
        unet=UNet(**_tuples(table.pop("unet"))),
        generator=Generator(**table.pop("generator")),
        **table,
    )
    if words is not None:
        if templates or captions.get("held_out") or pool is not None or config.images.grid != 1:
            raise ValueError(f"{path}: [words] goes without pool, templates, held-out classes and grids above 1")
        return config
    if pool is None:
        raise ValueError(f"{path}: neither [pool] nor [words]")
    shares = sum(template.share for template in templates)
    if abs(shares - 1) > 1e-6:
        raise ValueError(f"{path}: the shares of the caption templates add up to {shares:g}, not to 1")
    if any(template.groups_by == "cluster" for template in templates) and not config.captions.words:
        raise ValueError(f"{path}: captions.words must be positive, a template groups images by cluster")
    return config
