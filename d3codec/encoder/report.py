"""What an encode did: sizes, agreement with the teacher, loss, time, options; for machines and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CURVE_POINTS = 50


@dataclass(frozen=True)
class LossCurve:
    """Mean squared error of the denoiser's prediction during inversion.

    start, end: of the initial and of the learned embeddings, on the same images, noise and timesteps;
    points: (last step, mean loss) of up to CURVE_POINTS equal stretches of steps, each step with its own
        draw.
    """

    start: float
    end: float
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class CandidateFigures:
    """What trying several noises an image changed.

    tried: noises an image; changed_percent: images that take another one than the first; first_agreement_percent: what
    agreement_percent would be with the first of every image, decoded in the profile `reproducible`.
    """

    tried: int
    changed_percent: float
    first_agreement_percent: float


@dataclass(frozen=True)
class EncodeReport:
    """The result of `encode`.

    decode_noise_levels: of the profile `exact`, the largest difference before rounding between decodes with other
        kernels, in levels of 0 to 255; corrections: values so near to a rounding boundary that the file lists them;
    sections: name, group, stored and raw bytes, in file order; head_bytes: the rest of the file;
    generator_bytes: of the shared generator's weights, which the file needs and does not hold;
    label_step: of labels int8, in 1/256 nat; label_bytes: stored, a label; label_kl_nats: of the stored from the
    teacher's labels at temperature 1, mean (None with hard labels);
    agreement_percent: patches of the decoded images whose largest teacher logit is that of their class, by
    class name in agreement_by_class; candidates: None where one noise was tried an image;
    seconds: by stage, over all runs that worked on it.
    """

    output: str
    method: str
    profile: str
    decode_noise_levels: float | None
    corrections: int
    content_id: str
    bytes_total: int
    head_bytes: int
    sections: tuple[dict[str, Any], ...]
    generator_id: str
    generator_bytes: int
    classes: int
    images: int
    patches: int
    labels: str
    label_step: int | None
    label_bytes: float | None
    label_kl_nats: float | None
    agreement_percent: float
    agreement_by_class: dict[str, float]
    candidates: CandidateFigures | None
    loss: LossCurve
    seconds: dict[str, float]
    options: dict[str, Any]
    skipped: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def _promise(self) -> str:
        if self.decode_noise_levels is None:
            return f"profile {self.profile}"
        noise = f"decodes differ by at most {self.decode_noise_levels:.1g} of a level before rounding"
        return f"profile {self.profile}: {noise}, {self.corrections} values near a boundary are listed"

    def _candidates(self) -> list[str]:
        if (found := self.candidates) is None:
            return []
        return [
            f"{found.tried:,} noises tried an image: {found.changed_percent:.1f} % take another than the first, "
            + f"with which {found.first_agreement_percent:.1f} % of the patches would agree"
        ]

    def as_text(self) -> str:
        """A few lines for a person."""
        parts = " + ".join(f"{section['name']} {section['bytes']:,}" for section in self.sections)
        worst = sorted(self.agreement_by_class.items(), key=lambda item: item[1])[:3]
        lines = [
            f"{self.output}: {self.bytes_total:,} bytes (head {self.head_bytes:,} + {parts})",
            f"content id {self.content_id}",
            self._promise(),
            f"needs generator {self.generator_id[:16]}..., {self.generator_bytes:,} bytes of weights, shared",
            f"{self.images:,} images of {self.classes} classes, {self.patches:,} patches, "
            + f"labels {self.labels}"
            + ("" if self.label_step is None else f" in steps of {self.label_step}/256 nat")
            + (
                ""
                if self.label_bytes is None
                else f", {self.label_bytes:.2f} bytes each (KL {self.label_kl_nats:.2g} nat)"
            ),
            f"{self.agreement_percent:.1f} % of the patches agree with the teacher; lowest: "
            + ", ".join(f"{name} {percent:.1f} %" for name, percent in worst),
            *self._candidates(),
            f"loss: initial embedding {self.loss.start:.4f}, learned {self.loss.end:.4f}",
            "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
        ]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} unreadable files, the first: {self.skipped[0]}")
        return "\n".join(lines)


def loss_curve(losses: list[float], start: float, end: float) -> LossCurve:
    """The curve of a run of steps, thinned to CURVE_POINTS means."""
    width = max(1, -(-len(losses) // CURVE_POINTS))
    stretches = [losses[first : first + width] for first in range(0, len(losses), width)]
    ends = [min(first + width, len(losses)) for first in range(0, len(losses), width)]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    return LossCurve(start, end, tuple(zip(ends, means, strict=True)))
