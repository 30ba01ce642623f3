"""Logits to a ranked-head stream of the size that the caller names. Nothing here is part of the format."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3codec.labels import corrections, fitting, levels, positions, ranked_head, statistics, stream
from d3codec.labels.corrections import Floats, Relatives, Search
from d3codec.labels.positions import Ints
from d3codec.labels.prediction import GROUPS, Layer, Parameters, Prediction, group_of, neighbours
from d3codec.labels.statistics import UNITS_A_NAT, Statistics
from d3codec.labels.stream import OWN_RANGE, Corrections, LayerModel, Model, Symbols

Source = Literal["auto", "none", "file", "shipped"]

_SAMPLE = 400  # labels on which prices and tables are tried
_BATCH_VALUES = 1 << 19  # logits that are searched at once
_WORKERS = 2
_ROUNDS = 6
_MISSES = 6  # whole encodes that may miss the size
_FARTHEST = 2000  # nat of a logit from the mean of its row, within what a stream can hold
_ONE_LAYER_WIDTH = 64  # below it one layer does, in finer steps
_RATE_EXPONENT = 0.75  # bytes fall about with this power of the price
_EMPHASIS = np.array([1.8, 0.6, 0.6])  # of the divergences at TEMPERATURES, each relative to that of top-k labels


@dataclass(frozen=True)
class _Design:
    """Steps (1/16 nat) and spreads (1/64) of the layers, and the step of the argmax's logit."""

    layers: tuple[tuple[int, int], ...]
    own_step: int


@dataclass
class _State:
    """What one round of trying hands to the next."""

    model: Model
    price: float
    reference: NDArray[np.float64]  # divergences of top-k labels of about this size
    emphasis: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        return self.emphasis / self.reference


def encode(logits: ArrayLike, classes: ArrayLike, bytes_per_label: float, source: Source = "auto") -> bytes:
    """Encode logits, float [N, W] in nat, of labels of columns `classes` [N], in at most `bytes_per_label` bytes each.

    `source`: where the statistics are: none, in the file, shipped with the package (1,000 classes only), or whichever
    of these serves best. Raises ValueError as `encode_logits`.
    """
    if not 0 < bytes_per_label < float("inf"):
        raise ValueError(f"{bytes_per_label} bytes a label are no size")
    if source not in get_args(Source):
        raise ValueError(f"no statistics {source!r}: {', '.join(get_args(Source))}")
    z, columns = _checked(logits, classes)
    count, width = z.shape
    if source == "shipped" and width != statistics.shipped().width:
        raise ValueError(f"the shipped statistics are of {statistics.shipped().width} classes, not {width}")
    if not count:
        return _empty(width)
    argmax = np.asarray(logits).argmax(axis=1).astype(np.int64)  # before rounding can make logits equal
    sample = np.random.default_rng(0).permutation(count)[:_SAMPLE]
    sample.sort()
    tried = z[sample], columns[sample], argmax[sample]
    designs, place = _designs(bytes_per_label, width)
    sources = list(_sources(z, argmax, columns, bytes_per_label, source))

    def attempt(source: tuple[int, Statistics], design: _Design) -> tuple[float, _State]:
        state = _first_state(z, argmax, source, bytes_per_label, design)
        return _settle(state, *tried, bytes_per_label, count), state

    found = [attempt(item, designs[place]) for item in sources]
    chosen = sources[int(np.argmin([loss for loss, _ in found]))]
    best = min(found, key=lambda entry: entry[0])
    for direction in (1, -1):
        start = place
        while 0 <= place + direction < len(designs):
            other = attempt(chosen, designs[place + direction])
            if other[0] >= best[0]:
                break
            best, place = other, place + direction
        if place != start:
            break
    smallest = float("inf")
    while True:
        data = _fit_size(best[1], z, columns, argmax, bytes_per_label)
        if len(data) <= bytes_per_label * count:
            return data
        smallest, place = min(smallest, len(data) / count), place - 1
        if place < 0:
            break
        best = attempt(chosen, designs[place])
    raise ValueError(
        f"{count} labels of {width} columns do not fit {bytes_per_label:g} bytes a label, "
        f"{smallest:.2f} is the least that was found"
    )


def _checked(logits: ArrayLike, classes: ArrayLike) -> tuple[Floats, Ints]:
    """Logits with rows of mean 0, and columns."""
    with np.errstate(over="ignore"):
        z = np.array(logits, np.float32)
    if z.ndim != 2 or not z.shape[1]:
        raise ValueError(f"logits are [N, width] with a width of at least 1, not {list(z.shape)}")
    columns = np.asarray(classes)
    if columns.shape != (len(z),) or (columns.size and columns.dtype.kind not in "iu"):
        raise ValueError(f"classes are {len(z)} integers, not {columns.dtype} {list(columns.shape)}")
    columns = columns.astype(np.int64)
    outside = (columns < 0) | (columns >= z.shape[1])
    for what, wrong in (
        ("logits that are not finite", ~np.isfinite(z).all(axis=1)),
        ("one logit for all classes, a constant row", np.asarray(z.min(axis=1) == z.max(axis=1)) & (z.shape[1] > 1)),
        (f"a class outside the {z.shape[1]} columns", outside),
    ):
        _refuse(np.asarray(wrong), what)
    z -= z.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    far = np.maximum(z.max(axis=1, initial=0), -z.min(axis=1, initial=0)) > _FARTHEST
    _refuse(far, f"a logit more than {_FARTHEST} nat from the mean of its row")
    return z, columns


def _refuse(wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise ValueError(f"row {int(wrong.argmax())}: {what}")


def _sources(z: Floats, argmax: Ints, classes: Ints, budget: float, source: Source) -> Iterable[tuple[int, Statistics]]:
    """The statistics that come into question."""
    count, width = z.shape
    if source in ("auto", "shipped") and width == statistics.shipped().width:
        yield stream.SHIPPED, statistics.shipped()
    if source in ("auto", "none"):
        yield stream.NONE, statistics.none(width)
    if source in ("auto", "file") and width > 1:
        # Statistics may take a sixteenth of the file: half a byte a mean logit, about 3 bits a number of the rows.
        axes = int((budget * count / 16 - width / 2) / (0.35 * width))
        axes = min(max(axes, 0), 64, width - 1, count)
        if source == "file" or axes:
            few = np.random.default_rng(1).permutation(count)[:10_000]
            yield stream.IN_FILE, statistics.fit(z[few], axes, 0.1)


def _designs(budget: float, width: int) -> tuple[list[_Design], int]:
    """Designs from coarse to fine, and which to try first."""
    single = [_Design(((step, 32),), step) for step in (64, 32, 16, 8, 4, 2)]
    if width < _ONE_LAYER_WIDTH:
        bits = 8 * budget / width
        return single, 2 if bits < 1.2 else 3 if bits < 2.5 else 4 if bits < 4 else 5
    layered = [
        _Design(((32, 29), (19, 26)), 8),
        _Design(((32, 29), (14, 26)), 8),
        _Design(((32, 29), (8, 26)), 4),
        _Design(((32, 29), (14, 19), (6, 6)), 4),
    ]
    return single[:4] + layered, 2 if budget < 9 else 4 if budget < 20 else 5 if budget < 60 else 7


def _first_state(z: Floats, argmax: Ints, source: tuple[int, Statistics], budget: float, design: _Design) -> _State:
    """A model before anything was tried: pulls and centre from the labels, tables from a guess."""
    (place, known), (count, width) = source, z.shape
    few = np.random.default_rng(2).permutation(count)[:4000]
    some, best = z[few], argmax[few]
    rows = np.arange(len(some))
    own = some[rows, best]
    mean = known.mean / UNITS_A_NAT
    square = float((mean * mean).sum())
    mean_scale = int(np.clip(round(64 * float(z.mean(axis=0) @ mean) / square), 0, 255)) if square else 0
    pull = 0.0
    if known.rows.shape[1]:
        rest = some - (mean * (mean_scale / 64)).astype(np.float32)
        rest[rows, best] = 0
        follow = (known.weighted_rows[best] / (1 << 24)).astype(np.float32) @ known.rows.T.astype(np.float32)
        follow[rows, best] = 0
        pull = max(0.0, float((rest * follow).sum() / max(float((follow * follow).sum()), 1e-9)))
    spread_of_own = max(1.0, float(np.abs(own - np.median(own)).max()))
    own_step = max(design.own_step, int(np.ceil(16 * spread_of_own / OWN_RANGE)))
    parameters = Parameters(
        mean_scale, min(round(256 * pull), 65_535), 38, int(np.clip(round(16 * np.median(own)), -32_768, 32_767)),
        min(own_step, 255),
    )  # fmt: skip
    most = int(np.clip(8 + 4 * budget, 1, min(stream.MAX_COUNT, max(width - 1, 1))))
    layers = []
    for step, spread in design.layers if width > 1 else ():
        largest = stream.MAX_VALUE
        counts = levels.choose(0.8 ** np.arange(most + 1)[None])
        densities = np.full(stream.zones(width - 1), 2, np.uint8)
        sizes = np.abs(np.delete(np.arange(-largest, largest + 1), largest))
        values = levels.choose(np.tile(0.5**sizes, (stream.groups(width), 1)))
        spread = spread if known.rows.shape[1] else 0
        layers.append(LayerModel(Layer(step, spread, (0,) * GROUPS), counts, densities, values))
    places = levels.choose(0.4 ** np.arange(stream.zones(width))[None])
    own_levels = levels.choose(0.7 ** np.abs(np.arange(-OWN_RANGE, OWN_RANGE + 1))[None])
    model = Model(place, known, parameters, places, own_levels, tuple(layers))
    size = int(np.clip(round(1.5 * budget), 1, max(1, width // 2)))
    reference = corrections.divergences(some[:1000], _top(some[:1000], size))
    return _State(model, 0.1 / max(budget, 0.5), np.maximum(reference, 1e-9), _EMPHASIS)


def _top(z: Floats, size: int) -> Floats:
    """Top-k labels: probabilities of the largest kept, the rest shared evenly, as logits."""
    probabilities = corrections.softmax(z, 1.0)
    width = z.shape[1]
    kept = np.argpartition(-probabilities, size - 1, axis=1)[:, :size]
    held = np.take_along_axis(probabilities, kept, 1)
    rest = np.maximum(1 - held.sum(axis=1, keepdims=True), 1e-7) / max(width - size, 1)
    result = np.repeat(rest, width, axis=1)
    np.put_along_axis(result, kept, np.maximum(held, 1e-8), 1)
    return np.asarray(np.log(result), np.float32)


def _settle(state: _State, z: Floats, classes: Ints, argmax: Ints, budget: float, count: int) -> float:
    """Rounds of encoding a sample that fit tables, biases, weights and price; the loss of the last:
    the worst ratio to top-k labels, as it would be at the size asked."""
    loss, tried = np.inf, list[tuple[float, float]]()
    for _ in range(_ROUNDS):
        symbols, decoded, passed = _search(state, z, classes, argmax)
        suited = fitting.suited(state.model, symbols)
        size = fitting.expected_bytes(suited, symbols) / len(z) + len(stream.pack_head(suited, count)) / count + 1 / 32
        found = corrections.divergences(z, decoded)
        loss = float((found / state.reference).max()) * (size / budget) ** _RATE_EXPONENT
        state.model = _refine(state, symbols, z, argmax, passed)
        tried.append((state.price, size))
        state.price = _next_price(tried, budget)
        ratios = found / state.reference
        state.emphasis = (
            state.emphasis * np.clip((ratios / ratios.mean()) ** 2, 0.6, 1.6) if ratios.all() else state.emphasis
        )
        state.emphasis *= _EMPHASIS.sum() / state.emphasis.sum()
    return loss


def _refine(state: _State, symbols: Symbols, z: Floats, argmax: Ints, passed: list[_Passed]) -> Model:
    """The model with tables and biases that suit what was found in a sample, and leave room for what was not."""
    model = state.model
    layers = []
    for item, found, after in zip(model.layers, symbols.layers, passed, strict=True):
        most, largest = item.counts.shape[1] - 1, item.values.shape[1] // 2
        values = fitting.value_counts(found, largest, model.statistics.width)
        values += 2 * (values.sum(axis=0) + 0.3) / (values.sum() + 1)
        counts = np.bincount(found.counts, minlength=most + 1) + 0.3
        bias = fitting.better_bias(item.layer.bias, after.groups, after.after, z, argmax, state.weights)
        densities = fitting.zone_levels(found.ranks, model.statistics.width - 1)
        layer = replace(item.layer, bias=bias)
        layers.append(LayerModel(layer, levels.choose(counts[None]), densities, levels.choose(values)))
    own = np.bincount(symbols.own + OWN_RANGE, minlength=2 * OWN_RANGE + 1) + 0.1
    return replace(model, own=levels.choose(own[None]), layers=tuple(layers))


def _fit_size(state: _State, z: Floats, classes: Ints, argmax: Ints, budget: float) -> bytes:
    """Encode all labels at a price at which they just fit; the smallest stream found if they never do."""
    limit, tried = budget * len(z), list[tuple[float, float]]()
    best = b""
    for _ in range(_MISSES):
        symbols, _, _ = _search(state, z, classes, argmax, trace=False)
        data = ranked_head.write(fitting.suited(state.model, symbols), symbols)
        if not best or len(best) > limit > len(data) or len(best) < len(data) <= limit or len(data) < len(best) > limit:
            best = data
        bare = not any(len(layer.ranks) for layer in symbols.layers)
        if bare or (len(data) > limit >= len(best)) or 0.985 * limit < len(data) <= limit:
            break
        tried.append((state.price, len(data)))
        state.price = _next_price(tried, 0.993 * limit)
    return best


def _next_price(tried: list[tuple[float, float]], wanted: float) -> float:
    """The price at which the size should be `wanted`, from the (price, size) that were tried: sizes fall with a power
    of the price, which the last two tell once there are two."""
    (price, size), power = tried[-1], -_RATE_EXPONENT
    if len(tried) > 1:
        before, size_before = tried[-2]
        change = np.log(price / before)
        if abs(change) > 1e-3:
            power = float(np.clip(np.log(size / size_before) / change, -1.5, -0.2))
    return price * float(np.clip((size / wanted) ** (-1 / power), 0.1, 10))


def _search(
    state: _State, z: Floats, classes: Ints, argmax: Ints, trace: bool = True
) -> tuple[Symbols, Floats, list[_Passed]]:
    """Choose the symbols of all labels; with `trace` also the logits that they decode to, float32 [N, W], and the
    predictions after each layer."""
    model, width = state.model, z.shape[1]
    relatives = Relatives(model.statistics)
    costs = [fitting.costs(item) for item in model.layers]
    own_bits = levels.bits(model.own)[0].astype(np.float32).clip(max=14)
    numbers = model.parameters
    offered = ((numbers.centre + np.arange(-OWN_RANGE, OWN_RANGE + 1) * numbers.own_step) / 16).astype(np.float32)

    def one(first: int) -> _Batch:
        batch = slice(first, first + size)
        target, best = z[batch], argmax[batch]
        rows = np.arange(len(target))
        prediction = Prediction(model.statistics, numbers, classes[batch], best)
        own = np.abs(target[rows, best][:, None] - offered[None]).argmin(axis=1)
        found, passed = [], []
        for number, (item, cost) in enumerate(zip(model.layers, costs, strict=True)):
            search = _search_of(state, item, number, width)
            orders = prediction.orders()[prediction.of_label()]
            ranks = np.empty(orders.shape, np.int64)
            np.put_along_axis(ranks, orders, np.broadcast_to(np.arange(width), orders.shape), 1)
            zones, groups = positions.zone_of(ranks), group_of(ranks)
            zones[rows, best] = groups[rows, best] = 0  # in no table
            biased = prediction.values().astype(np.float32) * np.float32(1 / UNITS_A_NAT)
            biased += (np.array(item.layer.bias, np.float32) / 32)[groups]
            biased[rows, best] = offered[own]
            chosen, after = corrections.choose(target, biased, best, zones, groups, cost, search, relatives)
            in_order = np.take_along_axis(chosen, orders, 1)
            labels, ordered = np.nonzero(in_order)
            values = in_order[labels, ordered].astype(np.int64)
            prediction.apply(item.layer, labels, ordered, values)
            found.append(Corrections(np.bincount(labels, minlength=len(target)), ordered, values))
            own = corrections.choose_own(target, after, best, offered, own_bits, search)
            after[rows, best] = offered[own]
            passed.append(_Passed(groups, after))
        own -= OWN_RANGE
        if not trace:
            return _Batch(own, found, None, [])
        decoded = prediction.finish(own).astype(np.float32) * np.float32(1 / UNITS_A_NAT)
        return _Batch(own, found, decoded, passed)

    size = max(1, _BATCH_VALUES // width)
    with ThreadPoolExecutor(_WORKERS) as pool:
        batches = list(pool.map(one, range(0, len(z), size)))
    layers = [Corrections(*_concatenated(layer)) for layer in zip(*(batch.found for batch in batches), strict=True)]
    symbols = Symbols(_places(model, classes, argmax), np.concatenate([batch.own for batch in batches]), layers)
    if not trace:
        return symbols, z, []
    decoded = np.concatenate([batch.decoded for batch in batches if batch.decoded is not None])
    return (
        symbols,
        decoded,
        [_Passed(*_concatenated(layer)) for layer in zip(*(b.passed for b in batches), strict=True)],
    )


class _Passed(NamedTuple):
    """Groups of the ranks in a layer's order, [n, W], and the prediction after the layer, float32 [n, W]."""

    groups: Ints
    after: Floats


class _Batch(NamedTuple):
    own: Ints
    found: list[Corrections]
    decoded: Floats | None
    passed: list[_Passed]


def _concatenated(parts: Iterable[tuple[NDArray[Any], ...]]) -> list[NDArray[Any]]:
    """The arrays of tuples, end to end."""
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _search_of(state: _State, item: LayerModel, number: int, width: int) -> Search:
    """What a layer searches for: all but the last take only what is worth much."""
    last = number == len(state.model.layers) - 1
    price = state.price if last else max(state.price * 12, 0.05)
    likely = np.count_nonzero(item.counts < 12)
    candidates = int(np.clip(48 + 6 * likely, 1, 320)) if last else 96
    moves = 4 if number and last else 1
    return Search(price, state.weights, item.layer.step / 16, item.layer.spread / 64, min(candidates, width - 1), moves)


def _places(model: Model, classes: Ints, argmax: Ints) -> Ints:
    places = np.zeros(len(classes), np.int64)
    moved = np.flatnonzero(classes != argmax)
    size = max(1, (1 << 22) // model.statistics.width)
    kinds, which = np.unique(classes[moved], return_inverse=True)
    for first in range(0, len(kinds), size):
        order = neighbours(model.statistics, model.parameters, kinds[first : first + size])
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), 1)
        inside = (which >= first) & (which < first + size)
        places[moved[inside]] = rank[which[inside] - first, argmax[moved[inside]]]
    return places


def _empty(width: int) -> bytes:
    """The stream of no labels."""
    nothing = np.zeros(0, np.int64)
    places, own = (levels.choose(np.zeros((1, size))) for size in (stream.zones(width), 2 * OWN_RANGE + 1))
    model = Model(stream.NONE, statistics.none(width), Parameters(0, 0, 0, 0, 1), places, own, ())
    return ranked_head.write(model, Symbols(nothing, nothing, []))
