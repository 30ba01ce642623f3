"""Medoids: who is chosen, how many, and that clusters are good ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3codec.encoder.diverse import kmeans, medoids
from d3codec.errors import ImagesError, UsageError


def heaps(count: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points about `count` corners far apart, in random order: features float (N, 4) and the heap of each."""
    draw = np.random.default_rng(seed)
    heap = draw.permutation(np.repeat(np.arange(count), each))
    corners = np.array(list(itertools.product((0.0, 10.0, 20.0), repeat=4)))[:count]
    return corners[heap] + draw.normal(0, 0.5, (len(heap), 4)), heap


@pytest.mark.parametrize("seed", range(5))
def test_each_heap_gives_the_image_next_to_its_centre(seed):
    features, heap = heaps(20, 15, seed)
    chosen = medoids(features, np.zeros(300), np.zeros(300, int), 20, 1, seed=seed)
    assert sorted(heap[chosen]) == list(range(20))
    for position in chosen:
        members = np.flatnonzero(heap == heap[position])
        centre = features[members].mean(0)
        distances = ((features[members] - centre) ** 2).sum(1)
        assert members[distances.argmin()] == position


def test_unsure_and_wrong_images_are_not_chosen_while_there_are_others():
    features, heap = heaps(4, 50)
    losses = np.where(heap == 2, 0.7, np.random.default_rng(1).uniform(0, 0.69, 200))
    chosen = medoids(features, losses, np.zeros(200, int), 30, 1)
    assert len(set(chosen.tolist())) == 30
    assert 2 not in heap[chosen]
    assert 2 in heap[medoids(features, losses, np.zeros(200, int), 30, 1, confident=0.71)]


def test_too_few_sure_images_are_filled_up_by_loss():
    losses = np.array([3.0, 0.1, 0.9, 5.0, 0.2, 0.8])
    assert medoids(np.zeros((6, 2)), losses, np.zeros(6, int), 4, 1).tolist() == [1, 2, 4, 5]
    assert medoids(np.zeros((6, 2)), losses, np.zeros(6, int), 6, 1).tolist() == [0, 1, 2, 3, 4, 5]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), min_size=3, max_size=3), st.integers(1, 4))
def test_as_many_as_asked_all_different_by_class_and_always_the_same(seed, wanted, values):
    """Also with features of few different values, where clusters stay empty."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(3), 12))
    features, losses = draw.integers(0, values, (36, 2)).astype(np.float32), draw.exponential(0.5, 36)
    chosen = medoids(features, losses, labels, wanted, 3)
    assert chosen.dtype == np.int64
    assert labels[chosen].tolist() == np.repeat(np.arange(3), wanted).tolist()
    assert len(set(chosen.tolist())) == sum(wanted)
    for label in range(3):
        here = chosen[labels[chosen] == label]
        assert (np.diff(here) > 0).all()
        sure = (labels == label) & (losses < 0.7)
        assert np.isin(here, np.flatnonzero(sure)).sum() == min(sure.sum(), wanted[label])
    assert (medoids(features, losses, labels, wanted, 3) == chosen).all()
    alone = np.flatnonzero(labels == 1)
    expected = alone[medoids(features[alone], losses[alone], labels[alone], [0, wanted[1], 0], 3)]
    assert (chosen[labels[chosen] == 1] == expected).all()


def test_the_seed_decides_where_clusters_are_not_obvious():
    features = np.random.default_rng(0).normal(size=(300, 8))
    chosen = [medoids(features, np.zeros(300), np.zeros(300, int), 20, 1, seed=seed) for seed in (0, 0, 1)]
    assert (chosen[0] == chosen[1]).all()
    assert (chosen[0] != chosen[2]).any()


def test_clusters_are_as_tight_as_those_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    draw = np.random.default_rng(0)
    points = np.maximum(draw.normal(size=(600, 10)) @ draw.normal(size=(10, 64)), 0)  # like features after a ReLU
    for count in (5, 30, 120):
        ours = [kmeans(points, count, np.random.default_rng(seed))[1].sum() for seed in range(4)]
        theirs = [
            cluster.KMeans(count, n_init=1, max_iter=20, random_state=seed).fit(points).inertia_ for seed in range(4)
        ]
        assert np.mean(ours) < 1.03 * np.mean(theirs)


def test_distances_are_those_of_the_clusters():
    points, _ = heaps(6, 20)
    nearest, distances = kmeans(points, 6, np.random.default_rng(0))
    centres = np.stack([points[nearest == number].mean(0) for number in range(6)])
    np.testing.assert_allclose(distances, ((points - centres[nearest]) ** 2).sum(1), atol=1e-9)


def test_a_class_with_too_few_images_is_named():
    labels = np.array([0] * 5 + [1] * 4)
    with pytest.raises(ImagesError) as caught:
        medoids(np.zeros((9, 2)), np.zeros(9), labels, 5, 2)
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("class 1", 4, 5)
    assert len(medoids(np.zeros((9, 2)), np.zeros(9), labels, [5, 4], 2)) == 9
    with pytest.raises(ImagesError, match="class 2"):
        medoids(np.zeros((9, 2)), np.zeros(9), labels, 1, 3)


@pytest.mark.parametrize("per_class", [-1, [1], [1, -1], [1, 1, 1]])
def test_numbers_that_make_no_sense_are_refused(per_class):
    with pytest.raises(UsageError, match="per_class"):
        medoids(np.zeros((9, 2)), np.zeros(9), np.arange(9) % 2, per_class, 2)


def test_arrays_that_do_not_fit_together_are_refused():
    labels = np.arange(9) % 2
    for features, losses in (((8, 2), (9,)), ((9,), (9,)), ((9, 2), (8,)), ((9, 2), (9, 1))):
        with pytest.raises(ImagesError, match="features"):
            medoids(np.zeros(features), np.zeros(losses), labels, 1, 2)
