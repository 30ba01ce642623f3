"""Prediction: against big integers at the limits, order of equal logits, what a correction does, batches, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels import spec_decoder
from labels.label_cases import random_archive, random_statistics

from d3codec.labels import prediction, ranked_head, statistics
from d3codec.labels.prediction import GROUPS, Layer, Parameters, Prediction, group_of, neighbours
from d3codec.labels.statistics import Statistics
from d3codec.labels.stream import IN_FILE, groups

PLAIN = Parameters(mean_scale=64, pull=256, class_pull=38, centre=0, own_step=16)
NO_BIAS = (0,) * GROUPS


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def flat(width: int) -> Statistics:
    return statistics.none(width)


def by_the_text(known: Statistics, parameters: Parameters) -> spec_decoder.Decoder:
    """The slow decoder of these statistics, without a stream."""
    slow = object.__new__(spec_decoder.Decoder)
    slow.width = known.width
    slow.statistics = spec_decoder.Statistics(known.mean.tolist(), known.rows.tolist(), known.noise)
    slow.mean_scale, slow.pull, slow.class_pull = parameters.mean_scale, parameters.pull, parameters.class_pull
    slow.centre, slow.own_step, slow.layers = parameters.centre, parameters.own_step, []
    return slow


def test_groups() -> None:
    ranks = np.arange(3000)
    assert group_of(ranks).tolist() == [spec_decoder.group(rank) for rank in range(3000)]
    assert np.flatnonzero(np.diff(group_of(ranks))).tolist() == [0, 1, 3, 7, 31, 127]
    assert [groups(width) for width in (1, 2, 3, 4, 5, 9, 10, 129, 130, 2**20)] == [
        1, 1, 2, 3, 3, 4, 5, 6, 7, 7,
    ]  # fmt: skip


def test_nothing_known_and_nothing_said() -> None:
    made = Prediction(flat(3), PLAIN, ints(0, 2), ints(0, 1))
    assert made.finish(ints(3, -5)).tolist() == [[3 * 4096, 0, 0], [0, 64, 0]]


def test_equal_logits_are_ordered_by_column() -> None:
    made = Prediction(flat(5), PLAIN, ints(2, 0), ints(2, 4))
    assert made.orders()[made.of_label()].tolist() == [[0, 1, 3, 4, 2], [0, 1, 2, 3, 4]]
    made.apply(Layer(16, 0, NO_BIAS), ints(0, 0, 1), ints(1, 3, 2), ints(2, 2, -1))
    assert made.orders()[made.of_label()].tolist() == [[1, 4, 0, 3, 2], [0, 1, 3, 2, 4]]


def test_biases_are_those_of_the_order_before_the_layer() -> None:
    known = Statistics(ints(0, 512, 1024, 1536, 2048), np.zeros((5, 0), np.int64), 1)
    made = Prediction(known, PLAIN, ints(4), ints(4))
    made.apply(Layer(1, 0, (-32, 8, 4, 2, 1, 1, 1)), ints(0), ints(0), ints(-1))
    # by rank: columns 3, 2, 1, 0 get -1, 1/4, 1/8 and 1/8 nat; column 3, rank 0 of the old order, also -1/16
    assert made.values()[0, :4].tolist() == [512, 512 + 512, 1024 + 1024, 1536 - 4096 - 256]


def test_the_argmax_is_lifted_above_all_others() -> None:
    made = Prediction(flat(4), PLAIN, ints(1, 1), ints(1, 1))
    made.apply(Layer(16, 0, NO_BIAS), ints(0, 1), ints(2, 0), ints(7, 7))
    assert made.finish(ints(8, 6)).tolist() == [[0, 8 * 4096, 0, 7 * 4096], [7 * 4096, 7 * 4096 + 64, 0, 0]]
    assert Prediction(flat(1), PLAIN, ints(0), ints(0)).finish(ints(-16)).tolist() == [[-16 * 4096]]


def test_a_correction_moves_its_column_in_full_and_relatives_by_a_share() -> None:
    rows = np.array([[4, 0], [4, 0], [-4, 0], [0, 4], [0, 0]])
    known = Statistics(np.zeros(5, np.int64), rows, 16)
    made = Prediction(known, Parameters(0, 0, 0, 0, 1), ints(4), ints(4))
    made.apply(Layer(16, 32, NO_BIAS), ints(0), ints(0), ints(2))
    # d is one nat, of which 16 / 32 goes to column 1 and away from column 2
    assert made.values()[0].tolist() == [8192, 2048, -2048, 0, 0]


def test_rounding_is_downwards() -> None:
    known = Statistics(np.zeros(2, np.int64), np.array([[1], [1]]), 2)  # shares 2^24 div 3 = 5592405
    made = Prediction(known, Parameters(0, 0, 0, 0, 1), ints(0), ints(0))
    made.apply(Layer(1, 1, NO_BIAS), ints(0), ints(0), ints(-1))
    # y = -256, d = -256 >> 6 = -4, a grows by -256 - (-4 * 5592405 >> 24) = -254, g = (-22369620 + 2^23) >> 24 = -1
    assert made.values().tolist() == [[-1, -255]]


def test_the_class_pulls_if_it_is_not_the_argmax() -> None:
    rows = np.array([[8, 0], [0, 8], [4, 0], [0, 4]])
    known = Statistics(np.zeros(4, np.int64), rows, 64)
    made = Prediction(known, Parameters(0, 256, 32, 0, 1), ints(0, 1), ints(0, 0))
    # shares: 2^24 / 128 and 2^24 / 80. The factor of argmax 0 is 8 * 4096 / 128 = 256, of class 1 half of that
    assert made.values().tolist() == [[2048, 0, 1024, 0], [2048, 1024, 1024, 512]]


def test_neighbours_begin_with_the_class() -> None:
    rng = np.random.default_rng(0)
    known, parameters = random_statistics(rng, 30, 4), Parameters(20, 400, 38, 0, 1)
    near, slow = neighbours(known, parameters, np.arange(30)), by_the_text(known, parameters)
    for class_, row in enumerate(near.tolist()):
        order = slow.order(slow.prediction(slow.start(class_, class_), [0] * 30), class_)
        assert row == [class_, *order]


def extreme(rng: np.random.Generator, width: int, axes: int) -> Statistics:
    rows = rng.choice([-31, -1, 0, 1, 31], (width, axes), p=[0.3, 0.1, 0.2, 0.1, 0.3])
    return Statistics(rng.choice([-31, 31], width) * 512, rows, int(rng.choice([1, 65_535])))


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_the_largest_numbers_are_exact(seed: int) -> None:
    """Everything at its limit: sums are held below 2^24, nothing overflows."""
    rng = np.random.default_rng(seed)
    width, axes = int(rng.integers(2, 40)), int(rng.integers(1, 256))
    known = extreme(rng, width, axes)
    parameters = Parameters(255, 65_535, 255, int(rng.choice([-32_768, 32_767])), 255)
    classes, argmax, own = rng.integers(0, width, 5), rng.integers(0, width, 5), rng.choice([-16, 16], 5)
    made, slow = Prediction(known, parameters, classes, argmax), by_the_text(known, parameters)
    labels = [spec_decoder.Label(0, int(n), []) for n in own]
    for sign in (1, -1, 1):
        biases = tuple(int(rng.choice([-128, 127])) for _ in range(GROUPS))
        layer = Layer(255, 255, biases)
        slow.layers.append(spec_decoder.Layer(255, 255, list(biases), None, [], [], 31))  # type: ignore[arg-type]
        made.apply(
            layer,
            np.repeat(np.arange(5), width - 1),
            np.tile(np.arange(width - 1), 5),
            np.full(5 * (width - 1), 31 * sign),
        )
        for label in labels:
            label.corrections.append(dict.fromkeys(range(width - 1), 31 * sign))
    found = made.finish(own)
    for row, label, class_, best in zip(found.tolist(), labels, classes.tolist(), argmax.tolist(), strict=True):
        # the place that leads from the class to this argmax
        near = slow.order(slow.prediction(slow.start(class_, class_), [0] * width), class_)
        label.place = 0 if best == class_ else 1 + near.index(best)
        assert row == slow.logits(label, class_)
        assert max(map(abs, row)) < 2**26


@pytest.mark.parametrize("seed", range(4))
def test_batches_do_not_matter(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels alone, in twos, or all together; with the moves of corrections in many parts or at once."""
    rng = np.random.default_rng(seed)
    model, symbols, classes = random_archive(rng, 60, 50, 3, IN_FILE, 9)
    whole = ranked_head.rebuild(model, symbols, classes, 0, 60)
    for size in (50, 100, 50 * 7):
        monkeypatch.setattr(ranked_head, "_BATCH_VALUES", size)
        assert (ranked_head.rebuild(model, symbols, classes, 0, 60) == whole).all()
        assert (ranked_head.rebuild(model, symbols, classes, 17, 18) == whole[17:18]).all()
    monkeypatch.undo()
    monkeypatch.setattr(prediction, "_MOVES", 27)
    assert (ranked_head.rebuild(model, symbols, classes, 0, 60) == whole).all()


def test_many_corrections_of_many_axes_are_bounded_memory() -> None:
    """All 127 ranks corrected in labels of 128 columns and 255 axes: what moves factors would be 1 GB at once."""
    rng = np.random.default_rng(0)
    count, width = 4096, 128
    known = random_statistics(rng, width, 255)
    made = Prediction(known, PLAIN, np.zeros(count, np.int64), np.zeros(count, np.int64))
    labels = np.repeat(np.arange(count), 127)
    ranks, values = np.tile(np.arange(127), count), np.ones(127 * count, np.int64)
    tracemalloc.start()
    try:
        made.apply(Layer(16, 32, NO_BIAS), labels, ranks, values)
        made.values()
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()
