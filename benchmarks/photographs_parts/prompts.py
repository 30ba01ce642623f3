"""Files that differ in nothing but their prompts, guidance and noise, and what students get of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.conditioning import words as word_rows
from d3codec.dataset import load
from d3codec.encoder.pack import changed
from d3codec.encoder.prompt import name_tokens
from d3codec.encoder.relabel import agreement, teacher_logits
from d3codec.format import limits
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import DeltaConditioning, Reproducible, WordsConditioning
from d3codec.format.save import save_atomically
from d3codec.generators.load import load_generator
from d3codec.methods.d3m import encode
from d3codec.methods.generated import BITS, CANDIDATES, LEARNED_FROM
from d3codec.methods.plans import GENERATED_IPC
from d3codec.sources import LabelledImages
from d3codec.training.comparison import labelled_patches
from d3codec.training.photo_images import resize_photos
from d3codec.training.photo_students import PhotoGroup

from .rows import Settings, Stored
from .selection import Selection

LEARNED, NEAREST, NEUTRAL = "learned", "nearest name", "neutral"


@dataclass(frozen=True, eq=False)
class Prompts:
    """Makes the training sets of prompts.

    Arguments:
        selection: the material and its teacher.
        generator: folder of the generator.
        vocabulary: gives the photographs that the generator was trained on, whose classes are its words.
        folder: for files, finished and unfinished.
        options: other arguments of `encode`.
    """

    selection: Selection
    generator: Path
    vocabulary: Callable[[], LabelledImages]
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    def store(self, settings: Settings, draw: int) -> Stored:
        """The images of `settings`: prompt, guidance, candidates, noise_key, learning_seed."""
        found: dict[str, Any] = {}
        name = "-".join(str(value).replace(" ", "-") for value in settings.values())
        path = self.folder / f"{name}.d3m"
        if settings["candidates"] > 1:
            encoded = self._encoded(settings["learning_seed"], settings["guidance"], settings["candidates"])
            data = variant(encoded, settings["guidance"], candidates=True)
        else:
            tokens, found = self._tokens(settings["prompt"])
            learned = self._learned(settings["learning_seed"])
            data = variant(learned, settings["guidance"], noise_key=settings["noise_key"], tokens=tokens)
        save_atomically(path, data)
        dataset = load(path)
        images, labels = labelled_patches(dataset, self.generator, None)
        sections = {part["name"]: part["bytes"] for part in dataset.file.section_sizes()}
        found |= self.agreed(images, labels) | {"head": dataset.file.head_bytes, "sections": sections}
        return Stored((PhotoGroup(images, labels),), len(data), found)

    def real(self, settings: Settings, draw: int) -> Stored:
        """Photographs of the pool, drawn."""
        pool = self.selection.material.pool
        at = self.selection.drawn(settings["images"], draw)
        images, labels = pool.images[at], pool.labels[at]
        found = self.agreed(images, labels) | {"bytes": "of pixels, not coded"}
        return Stored((PhotoGroup(images, labels),), images.size, found)

    def agreed(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
        """How many of the images the teacher takes for their class, in percent."""
        material = self.selection.material
        logits = teacher_logits(self.selection.ensemble, images, material.classes)
        shares = 100 * agreement(logits, labels, material.classes)
        of_class = dict(zip(material.class_names, np.round(shares, 1).tolist(), strict=True))
        return {"agreement_percent": round(float(shares.mean()), 2), "agreement_by_class": of_class}

    @cached_property
    def package_guidance(self) -> float:
        """That of the generator's hints, which `encode` takes if it is told nothing."""
        return float(self._networks.encoding_hints()["guidance_scale"])

    @cached_property
    def _networks(self) -> Any:
        return load_generator(self.generator, cast="f16")

    def _learned(self, seed: int) -> D3MFile:
        """A file with learned prompts: they depend neither on guidance nor on noises, so that seed 0 takes those of a
        file that is made anyway, and others need no more than one image."""
        return self._encoded(seed, self.package_guidance, 1 if seed else CANDIDATES)

    def _encoded(self, seed: int, guidance: float, candidates: int) -> D3MFile:
        """What `encode` makes with the settings of a file of a size (`methods.generated`)."""
        path, material = self.folder / f"encoded-{seed}-{guidance:g}-{candidates}.d3m", self.selection.material
        if not path.is_file():
            pool = material.pool
            self.folder.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {
                "profile": "reproducible",
                "grid": 1,
                "size": material.side,
                "crops": 1,
                "crop_scale": (1.0, 1.0),
                "labels": "hard",
                "bits": BITS,
                "patches_per_class": min(LEARNED_FROM, int(np.bincount(pool.labels).min())),
                "leaf_bytes": 0,
                "device": "cpu",
            }
            encode(
                LabelledImages(material.originals, pool.labels, material.class_names, material.name),
                path,
                generator=self.generator,
                teacher=self.selection.ensemble,
                ipc=GENERATED_IPC if candidates > 1 else 1,
                seed=seed,
                guidance=guidance,
                candidates=candidates,
                **(options | self.options),
            )
        return D3MFile.open(path)

    def _tokens(self, prompt: str) -> tuple[NDArray[np.int64] | None, dict[str, Any]]:
        """The word of each class, int64 [classes, 1], and what it is; None for learned prompts."""
        names = self.selection.material.class_names
        if prompt == LEARNED:
            return None, {}
        if prompt == NEUTRAL:  # nothing in the slot but what fills prompts up
            return np.full((len(names), 1), self._networks.padding()[0]), {}
        nearest = nearest_names(self.selection, self.vocabulary())
        return name_tokens(self._networks, nearest, 1), {"words": dict(zip(names, nearest, strict=True))}


def variant(
    file: D3MFile,
    guidance: float,
    *,
    candidates: bool = False,
    noise_key: int = 0,
    tokens: NDArray[np.int64] | None = None,
) -> bytes:
    """A file of learned prompts with another guidance, noise and, if there are `tokens` [classes, slots], words.

    `candidates`: it keeps the noises that were chosen; otherwise each image has the first one, whatever the file has.
    It says nothing of its origin and pixels, so that all variants carry the same in their bytes.
    """
    group = file.content.groups[0]
    learned, images = group.conditioning, group.images
    sections: dict[tuple[str, int | None], bytes] = {("cls", None): file.section("cls")}
    assert isinstance(learned, DeltaConditioning)  # by `encode`
    recipe = changed(group.recipe, guidance=round(guidance * limits.MILLION))
    # Without guidance the empty prompt has no part in an image, and the format does not let a file state one.
    negative = None if recipe.guidance == limits.MILLION else (learned.template[0], learned.template[-1])
    conditioning: DeltaConditioning | WordsConditioning
    if tokens is None:
        conditioning = changed(learned, negative=negative)
        sections["emb", 0] = file.section("emb", 0)
    else:
        conditioning = WordsConditioning(
            template=learned.template, negative=negative, padding=learned.padding, slots=learned.slots
        )
        sections["wrd", 0] = word_rows.encode(tokens)
    if candidates:
        sections["cnd", 0] = file.section("cnd", 0)
    else:
        images = changed(images, candidates=None, count=GENERATED_IPC)
    group = changed(group, recipe=recipe, conditioning=conditioning, images=images, noise_key=noise_key)
    return write_d3m(ContentDraft(file.content.classes, (group,), Reproducible()), sections, None, {})


def nearest_names(selection: Selection, vocabulary: LabelledImages) -> Sequence[str]:
    """For each class the name whose photographs lie nearest: least distance of mean features of the teacher."""
    material, known = selection.material, resize_photos(vocabulary.images, selection.material.side)
    own = _means(selection.features, material.pool.labels, material.classes)
    others = _means(selection.ensemble.features(known), vocabulary.labels, len(vocabulary.class_names))
    distances = np.square(own[:, None] - others).sum(2)
    return [vocabulary.class_names[at] for at in distances.argmin(1)]


def _means(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    return np.stack([features[labels == label].mean(0) for label in range(classes)])
