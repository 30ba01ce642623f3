"""The files of plans: each made for students to try, and the best once more in the profile that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from d3codec.decoder.precision import settings
from d3codec.encoder.merge import Statement, merge
from d3codec.encoder.sheets import smallest_format
from d3codec.encoder.state import WorkFolder
from d3codec.errors import UsageError
from d3codec.format.file import D3MFile
from d3codec.format.manifest import About
from d3codec.methods import generated, latents, stored
from d3codec.methods.latents import Autoencoder
from d3codec.methods.made import Frame, Labelling, Made, close_to
from d3codec.methods.plans import Plan
from d3codec.methods.pool import Judge, Pool
from d3codec.sources import LabelledImages
from d3codec.training.photo_students import PhotoGroup

GENERATED_SHARE, STORED_SHARE = 1, 3  # of a batch
MERGES = 5  # rounds in which the size of a file of two groups is met
TRIAL_SHARE = 50  # of the size, one part may stay empty while plans are tried

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """A file and its groups."""

    data: bytes
    parts: tuple[Made, ...]

    @property
    def groups(self) -> list[PhotoGroup]:
        """What students get, with the recommended shares of a batch."""
        shares = (1,) if len(self.parts) == 1 else (GENERATED_SHARE, STORED_SHARE)
        return [part.group(share) for part, share in zip(self.parts, shares, strict=True)]


@dataclass
class Builder:
    """Makes the files of plans from one pool.

    originals, pool: the images in their own sizes and in that of the file. autoencoder, denoiser: folders of
    generators, None where a method is not used; prompt: `template` and `initial_token` of learned ones. state: where
    what takes long is kept. licence, source, class_section, class_ids, authority, profile: what the file says.
    """

    originals: LabelledImages
    pool: Pool
    judge: Judge
    labelling: Labelling
    autoencoder: Path | None
    denoiser: Path | None
    prompt: dict[str, str | None]
    class_section: bytes
    class_ids: tuple[str, ...] | None
    authority: str
    profile: str
    licence: str | None
    source: str | None
    state: WorkFolder
    device: str
    progress: Progress

    def build(self, plan: Plan, limit: int, *, final: bool) -> Built:
        """A file of at most `limit` bytes; UsageError with the field `bytes` if there is none, for plans of one method
        with the least size as `expected`.

        Trials (not final) are in profile `reproducible`, a third of the work: students do not tell the difference.
        """
        first = self._generated if "d3m" in plan.methods else None  # learned, so not in the settings of a decode
        if first is not None and plan.methods == ("d3m",):
            return _fitting(Built(first.data, (first,)), limit)
        with settings("reproducible", self.device):
            if first is not None:
                return self._mixed(first, plan, limit, final)
            alone = (self._images if plan.methods == ("images",) else self._latents)(plan, limit, final)
            return Built(alone.data, (alone,))

    def settled(self, plan: Plan) -> bool:
        """Whether a trial's file is the final one already."""
        return plan.methods in (("d3m",), ("images",)) or (plan.methods == ("latents",) and not self._exact)

    @property
    def _exact(self) -> bool:
        return self.profile != "reproducible"

    def _images(self, plan: Plan, limit: int, final: bool) -> Made:
        chosen = self.pool.taken(self.selected(plan.per_class))
        return stored.make_within(chosen, smallest_format(), self.labelling, self._frame(plan, final), limit)

    def _latents(self, plan: Plan, limit: int, final: bool) -> Made:
        frame = self._frame(plan, final)
        autoencoder = self._autoencoder(frame.profile)
        return latents.make(self.pool, self.selected(plan.per_class), autoencoder, self.labelling, frame, limit=limit)

    def _mixed(self, first: Made, plan: Plan, limit: int, final: bool) -> Built:
        """Two files made one; the second grows by what the first and the common parts leave."""
        best, room = None, limit - len(first.data)
        for _ in range(MERGES):
            second = self._latents(plan, room, final)
            built = Built(self._merged((first, second), plan, final), (first, second))
            spare = limit - len(built.data)
            if spare >= 0 and (best is None or len(built.data) > len(best.data)):
                best = built
            if 0 <= spare <= (close_to(limit) if final else limit // TRIAL_SHARE):
                break
            room = len(second.data) + spare
        return _fitting(best or built, limit)

    def _merged(self, parts: tuple[Made, ...], plan: Plan, final: bool) -> bytes:
        statement = Statement(self.licence, self.source, None, plan.name, (GENERATED_SHARE, STORED_SHARE))
        return merge(
            [D3MFile.open(part.data) for part in parts],
            statement,
            profile=None if final else "reproducible",
            digest=final,
            decoded=[part.images for part in parts],
            device=self.device,
            budget=None,
        )

    def _frame(self, plan: Plan, final: bool) -> Frame:
        about = About(method=plan.name, licence=self.licence, source=self.source)
        if final and plan.methods != ("images",):
            return Frame(self.class_section, self.authority, self.profile, about, self.device)
        # A trial that is the final file has to have its size.
        device = self.device if self.settled(plan) else None
        return Frame(self.class_section, self.authority, "reproducible", about, device)

    def _autoencoder(self, profile: str) -> Autoencoder:
        if profile not in self._autoencoders:
            self._autoencoders[profile] = Autoencoder.load(cast(Path, self.autoencoder), profile, self.device)
        return self._autoencoders[profile]

    @cached_property
    def _autoencoders(self) -> dict[str, Autoencoder]:
        return {}

    def selected(self, per_class: int) -> np.ndarray:
        """Positions of the images that are stored, in order of class."""
        name = f"select-{per_class}"
        if (saved := self.state.load(name)) is None:
            saved = {"rows": self.judge.select(self.pool, per_class, self._assessed)}
            self.state.save(name, **saved)
        return saved["rows"]

    @cached_property
    def _assessed(self) -> tuple[np.ndarray, np.ndarray]:
        if (saved := self.state.load("assessed")) is None:
            features, losses = self.judge.assess(self.pool)
            saved = {"features": features, "losses": losses}
            self.state.save("assessed", **saved)
        return saved["features"], saved["losses"]

    @cached_property
    def _generated(self) -> Made:
        return generated.make(
            self.originals,
            cast(Path, self.denoiser),
            self.judge,
            self.labelling,
            self.state.path,
            side=self.pool.side,
            profile=self.profile,
            prompt=self.prompt,
            licence=self.licence,
            source=self.source,
            class_ids=self.class_ids,
            authority=self.authority,
            device=self.device,
            progress=self.progress,
        )


def _fitting(built: Built, limit: int) -> Built:
    if len(built.data) > limit:
        raise UsageError("this size is too small", field="bytes", found=limit, expected=len(built.data))
    return built
