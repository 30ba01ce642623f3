"""What a file of a size is to be made from and how: checked before any long work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d3codec.encoder.labels import LabelChoice, default_kind
from d3codec.errors import MissingGeneratorError, UsageError
from d3codec.format import limits
from d3codec.generators.files import family_of
from d3codec.generators.local import look
from d3codec.generators.weights import cached_snapshots, describe, require_folders
from d3codec.methods.plans import METHODS

PUBLISHED = ("madebyollin/taesd3", "madebyollin/taesd")  # autoencoders that are looked for in the Hugging Face cache
HOW_TO_FETCH = "To fetch one (10 MB): d3codec generators fetch taesd3"


@dataclass(frozen=True)
class Options:
    """The numbers that decide the file."""

    bytes: int
    methods: tuple[str, ...]
    resolution: int
    ipc: int | None
    labels: str | None
    label_step: int | None
    profile: str
    trial_steps: int | None
    template: str | None = None
    initial_token: str | None = None

    def lasting(self) -> dict[str, Any]:
        """Those that unfinished work belongs to: it is good for other sizes and counts."""
        return {name: value for name, value in asdict(self).items() if name not in ("bytes", "ipc")}

    def check(self) -> None:
        """UsageError for values that cannot be."""
        sides = (16, 32, 64, 128, 256)
        for field, good, expected in (
            ("bytes", self.bytes >= 1, "1 or more"),
            ("methods", bool(self.methods) and set(self.methods) <= set(METHODS), f"some of {', '.join(METHODS)}"),
            ("resolution", self.resolution in sides, ", ".join(map(str, sides))),
            ("ipc", self.ipc is None or 1 <= self.ipc <= limits.IMAGES_PER_CLASS, f"1 to {limits.IMAGES_PER_CLASS}"),
            ("trial_steps", self.trial_steps is None or self.trial_steps >= 1, "1 or more"),
            ("profile", self.profile in ("exact", "reproducible"), "exact or reproducible"),
        ):
            if not good:
                raise UsageError("out of range", field=field, found=getattr(self, field), expected=expected)
        if problem := self.label_choice(2).problem():
            found = getattr(self, problem[0], None)
            raise UsageError("out of range", field=problem[0], found=found, expected=problem[1])

    def label_choice(self, classes: int) -> LabelChoice:
        """How labels are stored."""
        return LabelChoice(self.labels or default_kind(classes), self.label_step)


@dataclass(frozen=True)
class Generators:
    """Folders of an autoencoder and of a Stable Diffusion pipeline, where there are such, and what to say about it."""

    autoencoder: Path | None
    denoiser: Path | None
    notes: tuple[str, ...]

    @classmethod
    def find(cls, named: Sequence[str | Path], methods: tuple[str, ...]) -> Generators:
        """Those that are named and, for latents, a published one. MissingGeneratorError if the only method asked for
        needs one and there is none."""
        folders: dict[str, Path] = {}
        for folder in (require_folders(one)[0] for one in named):
            if (family := family_of(folder)) in folders or family not in ("autoencoder", "stable-diffusion"):
                raise UsageError(
                    "generators that are of no use where a size is named",
                    field="generator",
                    found=f"{folder}, of the family {family}",
                    expected="at most one autoencoder and one Stable Diffusion pipeline",
                )
            folders[family] = folder
        autoencoder, denoiser, notes = folders.get("autoencoder"), folders.get("stable-diffusion"), []
        if methods == ("d3m",) and denoiser is None:
            raise MissingGeneratorError(
                "prompts need a Stable Diffusion pipeline",
                field="generator",
                hint="Name the folder or repository of one: --generator.",
            )
        if autoencoder is None and "latents" in methods:
            cached = (folder for name in PUBLISHED for folder in cached_snapshots(name))
            autoencoder = next((folder for folder in cached if look(folder).complete), None)
            if autoencoder is not None:
                notes.append(f"autoencoder of the Hugging Face cache: {autoencoder}")
            elif methods == ("latents",):
                raise MissingGeneratorError(
                    "latents need an autoencoder, and none is in the Hugging Face cache",
                    field="generator",
                    hint=HOW_TO_FETCH,
                )
            else:
                notes.append(f"no autoencoder: with one, files of this size train better students. {HOW_TO_FETCH}")
        return cls(autoencoder, denoiser, tuple(notes))

    def ids(self) -> list[str]:
        """Identities of both, as files name them."""
        return ["none" if one is None else describe(one, "f16").id.hex() for one in (self.autoencoder, self.denoiser)]
