"""How much work a decode is, known before it starts, and what is refused unless somebody says yes.

A file of 2 KB may ask for years: counts of images, sides and steps are bounded in the specification, their
product is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from d3codec.decoder.plan import Plan
from d3codec.errors import UsageError
from d3codec.format.manifest import Content, Group

MILLION = 1_000_000
HINT = "Decode a part with --limit, --classes or --shard, or say --yes (budget=None in Python)."


@dataclass(frozen=True)
class Budget:
    """What a decode may cost. `evaluations` are those of the denoiser times generated pixels, 10^12 of which keep a
    data-centre GPU busy for about a day; `unit_evaluations` bounds the first unit, which is made before any time
    can be measured."""

    images: int = 100_000
    pixel_bytes: int = 10_000_000_000
    hours: float = 24.0
    evaluations: int = 10**12
    unit_evaluations: int = 10**10

    def check(self, work: Work, file: str) -> None:
        """Raises UsageError for work beyond the budget, as far as it can be known without decoding anything."""
        for field in ("images", "pixel_bytes", "evaluations", "unit_evaluations"):
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
    """What a plan asks for: wanted images and their bytes as uint8 RGB; evaluations of the denoiser times generated
    pixels over all its units, and the most for a single unit."""

    images: int
    pixel_bytes: int
    evaluations: int
    unit_evaluations: int

    @classmethod
    def of(cls, content: Content, plan: Plan) -> Work:
        sizes = [group.images.size for group in content.groups]
        pixel_bytes = sum(3 * sizes[group][0] * sizes[group][1] for group, _, _ in plan.images)
        costs = [image_evaluations(group) for group in content.groups]
        units = [
            len(unit.classes) * costs[unit.group] // (content.groups[unit.group].images.copies + 1)
            for unit in plan.units
        ]
        return cls(len(plan.images), pixel_bytes, sum(units), max(units, default=0))


def image_evaluations(group: Group) -> int:
    """Evaluations of the denoiser times pixels for one generated image; the autoencoder counts as one more."""
    height, width = group.images.generated
    return ((group.recipe.steps * (2 if group.recipe.guidance != MILLION else 1)) + 1) * height * width
