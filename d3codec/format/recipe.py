"""Records of how a latent is sampled: spec/d3m-1.0.md section 3.4. Real parameters are in millionths."""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from operator import mul
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, Tag, model_validator

from d3codec.format import limits
from d3codec.format.fields import Millionths, Side, check_row, listed, quantized_row_bytes, tagged
from d3codec.format.record import ListRecord, Record

Beta = Annotated[int, Field(ge=1, le=limits.BETA)]
TrainingSteps = Annotated[int, Field(ge=1, le=limits.TRAINING_STEPS)]
Offset = Annotated[int, Field(ge=0, lt=limits.TRAINING_STEPS)]
Channels = Annotated[int, Field(ge=1, le=limits.CHANNELS)]


@lru_cache(maxsize=64)
def _last_alpha_bar(rule: str, first: int, last: int, count: int) -> float:
    """The product of 1 - beta over all training steps, bit for bit as spec section 7.2 says."""
    gaps = max(count - 1, 1)
    if rule == "linear":  # Python divides integers with one correct rounding
        betas = [(first * gaps + (last - first) * i) / (limits.MILLION * gaps) for i in range(count)]
    else:
        a, b = math.sqrt(first / limits.MILLION), math.sqrt(last / limits.MILLION)
        roots = [a + (b - a) * i / gaps for i in range(count)]
        betas = [root * root for root in roots]
    return reduce(mul, (1.0 - beta for beta in betas))


def _leave_something(betas: tuple[str, int, int, int]) -> tuple[str, int, int, int]:
    if (left := _last_alpha_bar(*betas)) < limits.SIGNAL:
        raise ValueError(f"these betas leave nothing of the signal: the last alpha-bar, {left:.3g}, is below 2^-64")
    return betas


Betas = Annotated[
    tuple[Literal["linear", "scaled"], Beta, Beta, TrainingSteps], listed, AfterValidator(_leave_something)
]


BLOCKS: Literal[0] = 0  # how stored latents are coded
VALUES: Literal[1] = 1
TRANSFORM: Literal[2] = 2


class StoredLatents(ListRecord):
    """A latent a source; shape (channels, height, width).

    coding: BLOCKS of `bits` bits a value, VALUES entropy-coded with at most `bits` bits each, or TRANSFORM, coded
    together (bits 0); the last two in a section of free length.
    """

    _open: ClassVar[bool] = True

    bits: Annotated[int, Field(ge=0, le=limits.BITS)]
    coding: Annotated[int, Field(ge=BLOCKS, le=TRANSFORM)] = BLOCKS
    shape: Annotated[tuple[Channels, Side, Side], listed]

    @model_validator(mode="after")
    def _fits_a_part(self) -> Self:
        if (self.bits == 0) != (self.coding == TRANSFORM):
            raise ValueError("the bits of a value are 1 to 8, and 0 where latents are transform-coded")
        if self.coding == TRANSFORM and max(self.shape[1:]) > limits.TRANSFORM_SIDE:
            raise ValueError(f"transform-coded latents have at most {limits.TRANSFORM_SIDE} rows and columns")
        check_row(self.values, self.bits or limits.BITS)
        return self

    @property
    def coded(self) -> bool:
        """Whether they are a section of free length."""
        return self.coding != BLOCKS

    @property
    def values(self) -> int:
        """Numbers of one latent."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the section `lat`."""
        return quantized_row_bytes(self.values, self.bits)


class Start(ListRecord):
    """Start state a * stored + b * noise; a and b in millionths, `stored` None for noise alone."""

    a: Millionths
    b: Millionths
    stored: StoredLatents | None


NOISE = Start(a=0, b=limits.MILLION, stored=None)


class _Recipe(Record):
    """What all samplers share. Guidance 2000000 = 2.0; timesteps (spacing, offset)."""

    _reinjects: ClassVar[bool] = False

    betas: Annotated[Betas, Field(alias="b")]
    guidance: Annotated[int, Field(alias="g", ge=0, le=limits.GUIDANCE)]
    steps: Annotated[int, Field(alias="n", ge=1, le=limits.STEPS)]
    prediction: Annotated[Literal["eps", "v", "sample"], Field(alias="p")]
    timesteps: Annotated[tuple[Literal["leading", "trailing", "linspace"], Offset], Field(alias="t"), listed]
    start: Annotated[Start, Field(alias="z")] = NOISE

    @model_validator(mode="after")
    def _possible(self) -> Self:
        count, (spacing, offset) = self.betas[3], self.timesteps
        if self.steps > count:
            raise ValueError("more steps than training steps")
        if spacing != "leading" and offset:
            raise ValueError("only leading timesteps have an offset")
        if spacing == "leading" and (self.steps - 1) * (count // self.steps) + offset >= count:
            raise ValueError("the offset moves the first timestep beyond the training steps")
        if self._reinjects and self.start.stored is None:
            raise ValueError("re-injection needs stored latents")
        if self._reinjects and self.steps < 2:
            raise ValueError("re-injection is defined for two steps or more")
        if not self._reinjects and (self.start.a == 0) != (self.start.stored is None):
            raise ValueError("the start needs stored latents exactly if their factor is not 0")
        return self


class DdimRecipe(_Recipe):
    """DDIM; eta in millionths, 0 for the deterministic sampler."""

    sampler: Annotated[Literal["ddim"], Field(alias="s")] = "ddim"
    eta: Annotated[Millionths, Field(alias="e")] = 0
    final_alpha: Annotated[Literal["first", "one"], Field(alias="f")]


class ReinjectRecipe(_Recipe):
    """DDIM whose predicted latent is mixed with the stored one at every step (LD3M)."""

    _reinjects: ClassVar[bool] = True

    sampler: Annotated[Literal["ddim-reinject"], Field(alias="s")] = "ddim-reinject"
    final_alpha: Annotated[Literal["first", "one"], Field(alias="f")]


class EulerRecipe(_Recipe):
    """Euler, or Euler ancestral. initial: scale of the first noise, "sigma" or the "root" of its square and 1."""

    sampler: Annotated[Literal["euler", "euler-ancestral"], Field(alias="s")]
    initial: Annotated[Literal["sigma", "root"], Field(alias="i")]
    sigmas: Annotated[Literal["table", "karras"], Field(alias="q")]


class _Stored(Record):
    """What recipes without a denoiser answer where others have fields."""

    @property
    def guidance(self) -> int:
        """Of one branch alone."""
        return limits.MILLION

    @property
    def steps(self) -> int:
        """No denoiser runs."""
        return 0


class DecodeRecipe(_Stored):
    """The stored latents are decoded by the autoencoder as they are."""

    sampler: Annotated[Literal["decode"], Field(alias="s")] = "decode"
    latents: Annotated[StoredLatents, Field(alias="z")]

    @property
    def start(self) -> Start:
        """The state of which the autoencoder makes images."""
        return Start(a=limits.MILLION, b=0, stored=self.latents)


class SheetsRecipe(_Stored):
    """The images themselves are stored, on contact sheets of `per_sheet` tiles in `columns` columns."""

    sampler: Annotated[Literal["stored"], Field(alias="s")] = "stored"
    format: Annotated[Literal["png", "avif", "webp"], Field(alias="f")]
    per_sheet: Annotated[int, Field(alias="n", ge=1, le=limits.IMAGES_PER_CLASS)]
    columns: Annotated[int, Field(alias="c", ge=1, le=limits.SHEET_SIDE)]

    @model_validator(mode="after")
    def _filled(self) -> Self:
        if self.columns > self.per_sheet:
            raise ValueError("a sheet has no more columns than images")
        return self

    @property
    def start(self) -> Start:
        """There is no state."""
        return NOISE


Recipe = Annotated[
    Annotated[DdimRecipe, Tag("=ddim")]
    | Annotated[ReinjectRecipe, Tag("=ddim-reinject")]
    | Annotated[EulerRecipe, Tag("=euler")]
    | Annotated[EulerRecipe, Tag("=euler-ancestral")]
    | Annotated[DecodeRecipe, Tag("=decode")]
    | Annotated[SheetsRecipe, Tag("=stored")],
    tagged("s", "sampler"),
]
