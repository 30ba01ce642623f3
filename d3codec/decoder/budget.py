"""How much work a decode is, known before it starts, and what is refused unless somebody says yes.

A file of 2 KB may ask for years, or for more memory than there is: counts of images, sides and steps are bounded in the
specification, their product is not. So work is computed from counts, before anything is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from d3codec.errors import UsageError

if TYPE_CHECKING:
    from d3codec.decoder.plan import Extent, Part
    from d3codec.format.manifest import Group

MILLION = 1_000_000
HINT = (
    "Do a part of it (decode with --limit, --classes or --shard, verify --decode N), or say --yes (budget=None in "
    "Python)."
)
_FLOAT_BYTES = 8
_SHEETS = 4  # decoded ones that are held at once: those kept, and one as it comes and as it is cut


@dataclass(frozen=True)
class Budget:
    """What a decode may cost. `evaluations` are those of the denoiser times generated pixels, 10^12 of which keep a
    data-centre GPU busy for about a day; `unit_evaluations` bounds the first unit, which is made before any time
    can be measured; `unit_bytes` what a unit holds in memory at once, without the networks."""

    images: int = 100_000
    pixel_bytes: int = 10_000_000_000
    hours: float = 24.0
    evaluations: int = 10**12
    unit_evaluations: int = 10**10
    unit_bytes: int = 4_000_000_000

    def check(self, work: Work, file: str) -> None:
        """Raises UsageError for work beyond the budget, as far as it can be known without decoding anything."""
        for field in ("images", "pixel_bytes", "evaluations", "unit_evaluations", "unit_bytes"):
            found, allowed = getattr(work, field), getattr(self, field)
            if found > allowed:
                raise _over(file, field.replace("_", " "), f"{found:,}", f"at most {allowed:,}")

    def check_time(self, seconds: float, file: str) -> None:
        """Raises UsageError if the rest of a decode will take longer than the budget allows."""
        if seconds > self.hours * 3600:
            raise _over(file, "hours", f"about {seconds / 3600:,.0f}", f"at most {self.hours:g}")


def _over(file: str, field: str, found: str, expected: str) -> UsageError:
    message = f"this decode is more work than the budget allows ({field})"
    return UsageError(message, file=file, field="budget", found=found, expected=expected, hint=HINT)


@dataclass(frozen=True)
class Work:
    """What a decode asks for: wanted images and their bytes as uint8 RGB; evaluations of the denoiser times generated
    pixels over all its units, and the most for a single unit; the most bytes of the images of a unit, all that it has
    as uint8 and up to eight generated ones as binary64, or the sheets that stored ones lie on."""

    images: int
    pixel_bytes: int
    evaluations: int
    unit_evaluations: int
    unit_bytes: int

    @classmethod
    def of(cls, extent: Extent) -> Work:
        parts = [(part, extent.content.groups[part.group]) for part in extent.parts()]
        return cls(
            images=sum(part.images for part, _ in parts),
            pixel_bytes=sum(part.images * _image_bytes(group) for part, group in parts),
            evaluations=sum(part.sources * image_evaluations(group) for part, group in parts),
            unit_evaluations=max((part.unit_sources * image_evaluations(group) for part, group in parts), default=0),
            unit_bytes=max((_unit_bytes(part, group) for part, group in parts), default=0),
        )


def image_evaluations(group: Group) -> int:
    """Evaluations of the denoiser times pixels for one generated image; the autoencoder counts as one more. None where
    images are stored."""
    height, width = group.images.generated
    if group.generator is None:
        return 0
    return ((group.recipe.steps * (2 if group.recipe.guidance != MILLION else 1)) + 1) * height * width


def _image_bytes(group: Group) -> int:
    height, width = group.images.size
    return 3 * height * width


def _unit_bytes(part: Part, group: Group) -> int:
    height, width = group.images.generated
    one = 3 * height * width
    own = part.unit_sources * (group.images.copies + 1) * _image_bytes(group)
    if group.recipe.sampler == "stored":
        recipe = group.recipe
        return own + part.unit_sources * one + _SHEETS * -(-recipe.per_sheet // recipe.columns) * recipe.columns * one
    return own + part.unit_sources * one * _FLOAT_BYTES
