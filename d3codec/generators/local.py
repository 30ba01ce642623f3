"""Generators on this machine: what lies in the Hugging Face cache, and what one is.

Touches no network. Ids need the extra `decode`; everything else the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d3codec.errors import GeneratorError, MissingExtraError, MissingGeneratorError
from d3codec.generators.files import family_of, part_folder, weight_files
from d3codec.generators.graphs import FAMILIES
from d3codec.generators.weights import (
    CASTS,
    GeneratorRecord,
    bundled_generator,
    cached_snapshots,
    describe,
    folders_of,
    repository_of,
)


@dataclass(frozen=True)
class LocalGenerator:
    """A folder with the parts of a family.

    repository and revision are None outside the Hugging Face cache; bytes are those of all its files; complete says
    whether every part has its configuration and all its weights.
    """

    folder: Path
    repository: str | None
    revision: str | None
    family: str
    bytes: int
    complete: bool


def local_generators() -> list[LocalGenerator]:
    """The bundled generator, if it is installed, and those of the Hugging Face cache."""
    folders = [folder for folder in (bundled_generator(),) if folder.is_dir()]
    return [look(folder) for folder in [*folders, *cached_snapshots()]]


def locate(name: str) -> list[LocalGenerator]:
    """What lies here under the name of a folder, a repository or a ready configuration; several if a repository has
    several snapshots, none if nothing does."""
    return [look(folder) for folder in folders_of(name)]


def look(folder: Path) -> LocalGenerator:
    """A folder without reading its weights; MissingGeneratorError if it has none of the parts of a generator."""
    family = family_of(folder)
    repository = repository_of(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    complete = all(_part_complete(folder, part) for part in FAMILIES[family])
    return LocalGenerator(folder, repository, None if repository is None else folder.name, family, size, complete)


def _part_complete(folder: Path, part: str) -> bool:
    try:
        files = weight_files(folder, part)
    except (GeneratorError, MissingGeneratorError):
        return False
    return (part_folder(folder, part) / "config.json").is_file() and all(path.is_file() for path in files)


def identities(folder: Path, casts: tuple[str, ...] = CASTS) -> dict[str, GeneratorRecord | str]:
    """The record of a generator under each cast, or in words why it has none.

    Hashes the weights once (seconds a gigabyte and cast) and records the result.
    """
    found: dict[str, GeneratorRecord | str] = {}
    for cast in casts:
        try:
            found[cast] = describe(folder, cast)
        except (GeneratorError, MissingGeneratorError, MissingExtraError) as error:
            found[cast] = error.message
    return found
