"""Which photographs of the pool are stored: those that the teacher finds typical and diverse, or drawn ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d3codec.encoder.diverse import medoids
from d3codec.sources import LabelledImages
from d3codec.training.ensemble import Ensemble, train_ensemble
from d3codec.training.students import Progress

from .material import Material


@dataclass(frozen=True, eq=False)
class Selection:
    """Material and its teacher, an ensemble trained on the pool with hard labels."""

    material: Material
    ensemble: Ensemble

    @cached_property
    def features(self) -> NDArray[np.float32]:
        return self.ensemble.features(self.material.pool.images)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        return self.ensemble.losses(self.material.pool.images, self.material.pool.labels)

    def selected(self, count: int) -> NDArray[np.int64]:
        """Positions in the pool of `count` images in all, as many of each class, in the order of classes."""
        classes = self.material.classes
        return medoids(self.features, self.losses, self.material.pool.labels, count // classes, classes)

    def drawn(self, count: int, draw: int) -> NDArray[np.int64]:
        """As `selected`, at random: another `draw`, other images."""
        source, classes = np.random.default_rng([100, draw]), self.material.classes
        members = [np.flatnonzero(self.material.pool.labels == label) for label in range(classes)]
        return np.concatenate([source.permutation(own)[: count // classes] for own in members])


def prepared(material: Material, folder: Path, *, processes: int = 1, progress: Progress | None = None) -> Selection:
    """Train the teacher, or load it from the folder."""
    pool = LabelledImages(material.pool.images, material.pool.labels, material.class_names, material.name)
    ensemble = train_ensemble(pool, folder, side=material.side, processes=processes, progress=progress)
    return Selection(material, ensemble)
