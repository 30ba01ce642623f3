"""Ready configurations of well-known generators: what is published where, how large it is, and a recipe for it.

They are facts about publications and advice for encoders, kept as JSON files in `ready/`. Nothing here is needed to
decode and nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import GeneratorError
from d3codec.generators.graphs import FAMILIES

if TYPE_CHECKING:
    from d3codec.format.manifest import Recipe

ITEM_BYTES = {"f16": 2, "f32": 4}
_HINTS = ("template", "guidance_scale", "steps", "grid", "resolution")


@dataclass(frozen=True)
class ReadyPart:
    """One network.

    `config` holds the fields of its configuration that change pixels, as published; what it leaves out has the default
    of the registry of families. `source` says where the fields were read, `unknown` maps a field to why it could not
    be read. `files` maps a published file of weights to (SHA-256 in hexadecimal, bytes).
    """

    class_name: str
    config: Mapping[str, Any]
    parameters: int
    source: str
    unknown: Mapping[str, str]
    files: Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class ReadyConfiguration:
    """One generator.

    `revision` is what `fetch` takes if it is told none (None: the repository's main branch); `also` are other
    repositories that published the same weights. `ids` maps a cast to the generator id in hexadecimal, None where the
    weights were never at hand. `run` says what was tried with them, `recipe` holds the fields of a file's recipe and
    those of `encoding.json` (none for an autoencoder alone).
    """

    name: str
    title: str
    repository: str
    revision: str | None
    also: tuple[str, ...]
    licence: str
    family: str
    run: str
    notes: tuple[str, ...]
    ids: Mapping[str, str | None]
    parts: Mapping[str, ReadyPart]
    recipe: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts.values())

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights as 'f16' or 'f32'."""
        return self.parameters * ITEM_BYTES[dtype]

    @property
    def hints(self) -> dict[str, Any]:
        """The recipe in the form of `encoding.json`: what an encoder does unless it is told otherwise."""
        return {name: self.recipe[name] for name in _HINTS if self.recipe.get(name) is not None}

    def sampling(self, *, guidance: float | None = None, steps: int | None = None) -> Recipe:
        """The recipe as the record that a file holds, with another guidance or number of steps if given.

        So many steps that the offset of its timesteps would leave the schedule get a smaller one. ManifestError if a
        file cannot state it, GeneratorError if the generator has nothing to sample: an autoencoder alone.
        """
        if not self.recipe:
            raise GeneratorError("an autoencoder alone has no denoiser, so there is no recipe to sample by it")
        from d3codec.format.manifest import DdimRecipe, EulerRecipe

        stated = {name: self.recipe[name] for name in ("prediction", "sampler")}
        stated |= {name: tuple(self.recipe[name]) for name in ("betas", "timesteps")}
        stated["steps"] = self.recipe["steps"] if steps is None else steps
        spacing, offset = stated["timesteps"]
        if spacing == "leading":
            stated["timesteps"] = spacing, fitting_offset(offset, stated["steps"], stated["betas"][3])
        stated["guidance"] = round((self.recipe["guidance_scale"] if guidance is None else guidance) * 1_000_000)
        if self.recipe["sampler"] == "ddim":
            return DdimRecipe(**stated, eta=self.recipe["eta"], final_alpha=self.recipe["final_alpha"])
        return EulerRecipe(**stated, initial=self.recipe["initial"], sigmas=self.recipe["sigmas"])

    def as_json(self) -> dict[str, Any]:
        """All of it, with its sizes."""
        sizes = {dtype: self.weight_bytes(dtype) for dtype in ITEM_BYTES}
        return asdict(self) | {"parameters": self.parameters, "bytes": sizes}

    def recorded(self, path: str) -> tuple[str, int] | None:
        """(SHA-256, bytes) of a published file such as 'unet/diffusion_pytorch_model.safetensors', if recorded; an
        autoencoder alone may have its files in no folder."""
        part, _, file = path.rpartition("/")
        part = part or ("vae" if self.family == "autoencoder" else "")
        return self.parts[part].files.get(file) if part in self.parts else None


@cache
def configurations() -> tuple[ReadyConfiguration, ...]:
    """All ready configurations, in order of name. GeneratorError if an installed file is not what it should be."""
    return tuple(_read(path) for path in sorted(Path(__file__).with_name("ready").glob("*.json")))


def find(name_or_repository: str) -> ReadyConfiguration | None:
    """The ready configuration of a name ('sd-1.5') or of a repository that publishes it; case does not matter."""
    wanted = name_or_repository.lower()
    for ready in configurations():
        if wanted in {name.lower() for name in (ready.name, ready.repository, *ready.also)}:
            return ready
    return None


def fitting_offset(offset: int, steps: int, count: int) -> int:
    """The offset of timesteps with spacing `leading`, or the largest below it that stays in a schedule of `count`."""
    return min(offset, count - 1 - (steps - 1) * (count // steps))


def _read(path: Path) -> ReadyConfiguration:
    try:
        value = json.loads(path.read_text("utf-8"))
        ready = ReadyConfiguration(
            **{key: value[key] for key in ("name", "title", "repository", "revision", "licence", "family", "run")},
            also=tuple(value["also"]),
            notes=tuple(value["notes"]),
            ids=value["ids"],
            parts={name: _part(part) for name, part in value["parts"].items()},
            recipe=value["recipe"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GeneratorError(f"cannot read a ready configuration: {error!r}", file=str(path)) from error
    if set(ready.parts) != set(FAMILIES.get(ready.family, ready.parts)):
        raise GeneratorError("a ready configuration without the parts of its family", file=str(path))
    return ready


def _part(value: Mapping[str, Any]) -> ReadyPart:
    return ReadyPart(
        class_name=value["class"],
        config=value["config"],
        parameters=int(value["parameters"]),
        source=value["source"],
        unknown=value["unknown"],
        files={name: (file["sha256"], int(file["bytes"])) for name, file in value["files"].items()},
    )
