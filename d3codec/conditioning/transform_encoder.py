"""Latents to bytes: which statistics, and the finest step that fits (spec/latents.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.conditioning import transform_statistics as statistics
from d3codec.conditioning import transform_stream as stream
from d3codec.conditioning import transform_tables as tables
from d3codec.conditioning.transform_analysis import analyse, fit_own, log_volume
from d3codec.conditioning.transform_basis import Basis
from d3codec.conditioning.transform_search import STRENGTH, Quantized, quantize
from d3codec.conditioning.transform_statistics import Shape
from d3codec.conditioning.transform_tables import ESCAPE

_LARGEST = 65504.0  # amount of a latent
_SAMPLE = 512  # images that the step of larger sets is estimated by
_LEVEL = 0.2  # variance, in squared steps, up to which coefficients take no bits, roughly
_MOST_STEPS = 4096  # of a coefficient: there are magnitudes for them in every bucket
_WEAKEST = 0.7  # part of the usual strength that is tried to fill a budget,
_FILLINGS = 7  # how often
_FULL = 0.998  # part of a budget that is enough

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def encode(latents: ArrayLike, budget: int, *, number: int | None = None) -> bytes:
    """Latents, float [N, C, h, w], in at most `budget` bytes, all counted: the finest step that fits, with which no
    coefficient takes more than 4,096 steps.

    `number` of the statistics: 0 puts some into the stream, others are shipped (spec/latents.md, section 6); None
    takes those under which the latents are the most likely. With shipped statistics the error of the autoencoder's
    image is small, with statistics in the stream that of the latents.
    Raises ValueError for another number of axes, shapes beyond 64 channels or a side of 64, latents that are not
    finite or beyond 65,504, naming the image, statistics that there are not for the shape, and, naming the least
    possible size, a budget below it.
    """
    images = _checked(latents)
    if not len(images):
        return b""
    sources = _sources(images, number)
    least = {source: len(source.written(stream.LARGEST_EXPONENT)) for source in sources}
    if min(least.values()) > budget:
        raise ValueError(f"{budget} bytes for {len(images)} latents, the least possible is {min(least.values())}")
    return _filled(_best([source for source in sources if least[source] <= budget], budget), budget)


def encode_at(latents: ArrayLike, step: float, *, number: int | None = None) -> bytes:
    """Latents, float [N, C, h, w], at a step, taken to the nearest power of 2^(1/128). Else as `encode`.

    Raises ValueError also for a step outside 2^-32 to 2^32, or with which a coefficient takes more than 4,096 steps.
    """
    images = _checked(latents)
    exponent = tables.MIDDLE_STEP + round(tables.STEPS_AN_OCTAVE * float(np.log2(step)))
    if not 0 <= exponent <= stream.LARGEST_EXPONENT:
        raise ValueError(f"a step of {step} is outside 2^-32 to 2^32")
    if not len(images):
        return b""
    source = min(_sources(images, number), key=Source.cost)
    if exponent < source.finest:
        raise ValueError(f"a step of {step} is too fine, at least {stream.step(source.finest):g} is possible")
    return source.written(exponent)


@dataclass(frozen=True, eq=False)
class Source:
    """Images to code with some statistics: number and bytes of these, and coefficients, float64 [N, C h w]."""

    number: int
    own: bytes
    basis: Basis
    coefficients: _Floats

    @cached_property
    def finest(self) -> int:
        """The exponent of the finest step that is possible."""
        largest = np.abs(self.coefficients).max(initial=0)
        return _smallest(lambda exponent: largest / stream.step(exponent), _MOST_STEPS, 0)

    def quantized(
        self, exponent: int, images: slice = slice(None), strength: float = STRENGTH
    ) -> tuple[_Ints, Quantized]:
        """Components that are coded, in order, and their values, at a step."""
        components, buckets = stream.order(self.basis, exponent)
        values = np.abs(self.coefficients[images][:, components]) / stream.step(exponent)
        return components, quantize(values, buckets, statistics.symbols(), strength)

    def written(self, exponent: int, strength: float = STRENGTH) -> bytes:
        """The section at a step."""
        symbols = statistics.symbols()
        components, quantized = self.quantized(exponent, strength=strength)
        writer = stream.PlaneWriter(len(self.coefficients))
        for place, component in enumerate(components.tolist()):
            magnitudes, rows = quantized.magnitudes[:, place], quantized.rows[:, place]
            negative = self.coefficients[:, component] < 0
            above = magnitudes - symbols.largest[rows] - 1
            signed = 2 * magnitudes + ((magnitudes > 0) & negative)
            writer.put(rows, np.where(above >= 0, ESCAPE, signed), 2 * above + negative)
        return stream.HEAD.pack(self.number, exponent) + self.own + writer.finish()

    def estimated(self, exponent: int) -> float:
        """About the bytes of the section at a step, by at most 512 images."""
        count = len(self.coefficients)
        stride = -(-count // _SAMPLE)
        sample = len(range(0, count, stride))
        bits = self.quantized(exponent, slice(None, None, stride))[1].bits
        blocks = -(-count // stream.BLOCK)
        ends = (4 + 3 * stream.lanes(count)) * blocks  # a length, and what the states of the lanes take
        return stream.HEAD.size + len(self.own) + ends + bits / 8 * count / sample

    def rough(self, exponent: int) -> float:
        """Bytes that normal coefficients of the same variances would take at about a step, without ends of streams."""
        ratios = np.mean(self.coefficients**2, axis=0) / (_LEVEL * stream.step(exponent) ** 2)
        return float(len(self.own) + len(self.coefficients) * np.log2(np.maximum(1, ratios)).sum() / 16)

    def cost(self) -> float:
        """Bits, up to a constant, at some fine step if the coefficients were normal with the scales as deviations."""
        deviations = tables.deviations(self.basis.scales)
        bits = np.mean((self.coefficients / deviations) ** 2, axis=0) / (2 * np.log(2)) + np.log2(deviations)
        return float(len(self.coefficients) * (bits.sum() - log_volume(self.basis)) + 8 * len(self.own))


def _checked(latents: ArrayLike) -> _Floats:
    """Latents, float64 [N, C, h, w]; raises ValueError as `encode` does."""
    images = np.asarray(latents, np.float64)
    if images.ndim != 4:
        raise ValueError(f"latents are [N, C, h, w], not {list(images.shape)}")
    stream.check_shape(_shape(images))
    good = (np.abs(images) <= _LARGEST).all(axis=(1, 2, 3))  # False for NaN too
    if not good.all():
        raise ValueError(f"latents of image {int(good.argmin())} are not finite or beyond {_LARGEST:.0f}")
    return images


def _shape(images: _Floats) -> Shape:
    return images.shape[1], images.shape[2], images.shape[3]


def _filled(source: Source, budget: int) -> bytes:
    """The section of about the finest step that fits, if the one of the largest step does."""
    exponent = _smallest(source.estimated, budget, source.finest)
    while len(data := source.written(exponent)) > budget:
        further = max(1, int(tables.STEPS_AN_OCTAVE * (len(data) / budget - 1)))
        exponent = min(exponent + further, stream.LARGEST_EXPONENT)
    while exponent > source.finest and len(finer := source.written(exponent - 1)) <= budget:
        data, exponent = finer, exponent - 1
    weak, strong = _WEAKEST * STRENGTH, STRENGTH
    for _ in range(_FILLINGS):  # less weight on bits fills what the steps leave
        if len(data) >= _FULL * budget:
            break
        middle = (weak + strong) / 2
        if len(fuller := source.written(exponent, middle)) <= budget:
            data, strong = fuller, middle
        else:
            weak = middle
    return data


def _smallest(size: Callable[[int], float], budget: float, low: int) -> int:
    """The least exponent from `low` on at which a size, falling, is within a budget; the largest if there is none."""
    high = stream.LARGEST_EXPONENT
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) <= budget else (middle + 1, high)
    return low


def _sources(images: _Floats, number: int | None) -> list[Source]:
    """Ways to code the images, with the statistics of a number or with any."""
    shape = _shape(images)
    shipped = [n for n, known in statistics.bodies() if known == shape and number in (None, n)]
    own = number is None or number == statistics.OWN
    if not own and not shipped:
        raise ValueError(f"there are no statistics {number} for latents of {list(shape)}")
    choices = [_with(images, n, b"", statistics.shipped(n, shape)) for n in shipped]
    fitted = [fit_own(images, matrix) for matrix in (False, True)] if own else []
    return choices + [_with(images, statistics.OWN, each.pack(), each.basis(shape)) for each in fitted]


def _with(images: _Floats, number: int, own: bytes, basis: Basis) -> Source:
    return Source(number, own, basis, analyse(images, basis))


def _best(sources: list[Source], budget: int) -> Source:
    """Of shipped and own statistics the likeliest; of own ones those that leave the finer step."""
    own = [source for source in sources if source.number == statistics.OWN]
    finest = min(own, key=lambda source: _smallest(source.rough, budget, 0), default=None)
    return min((s for s in sources if s.number != statistics.OWN or s is finest), key=Source.cost)
