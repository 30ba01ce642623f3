"""Batches that follow the weights of the groups."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from format.craft import filled, stored_draft, write_d3m
from hypothesis import given
from hypothesis import strategies as st
from tiny_pipeline import make_group

import d3codec
from d3codec.errors import UsageError
from d3codec.format.file import ContentDraft
from d3codec.format.manifest import About, Classes
from d3codec.format.sections import ClassRecord, pack_classes
from d3codec.mixing import GroupBatches


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(1, 13),
    st.integers(0, 2**64 - 1),
)
def test_every_group_has_its_share(groups, size, seed):
    """After any number of batches to less than one index, and within a group all as often as one another."""
    ends = np.cumsum([0, *(count for count, _ in groups)])
    members = [np.arange(first, last) for first, last in itertools.pairwise(ends)]
    weights = [weight for _, weight in groups]
    batches = GroupBatches(members, weights, size, seed)
    assert len(batches) == -(-int(ends[-1]) // size)
    passes = [batch for _ in range(3) for batch in batches]
    assert {len(batch) for batch in passes} == {size}
    drawn = np.concatenate(passes)
    owner = np.searchsorted(ends, drawn, side="right") - 1
    had = np.cumsum(owner[:, None] == np.arange(len(weights)), axis=0)
    share = np.arange(1, len(drawn) + 1)[:, None] * np.array(weights) / sum(weights)
    assert np.abs(had - share).max() < 1
    counts = Counter(drawn.tolist())
    for indices in members:
        times = [counts[index] for index in indices.tolist()]
        assert max(times) - min(times) <= 1


def test_the_order_follows_from_the_seed_alone():
    members = [np.arange(7), np.arange(7, 10)]
    one, other = (GroupBatches(members, [2, 1], 5, seed=3) for _ in range(2))
    assert [*one, *one] == [*other, *other]
    assert [*GroupBatches(members, [2, 1], 5, seed=4)] != [*GroupBatches(members, [2, 1], 5, seed=3)]
    assert [*GroupBatches(members, [2, 1], 5)] != [*one]  # which goes on where it was


@pytest.mark.parametrize(
    ("weights", "size", "seed", "field"),
    [([1], 5, 0, "weights"), ([1, 0], 5, 0, "weights"), ([1, 1], 0, 0, "size"), ([1, 1], 5, -1, "seed")],
)
def test_refusals(weights, size, seed, field):
    with pytest.raises(UsageError) as error:
        GroupBatches([np.arange(2), np.arange(2, 4)], weights, size, seed)
    assert error.value.field == field


def test_weights_of_a_dataset(tmp_path):
    draft, path = stored_draft(), tmp_path / "stored.d3m"
    path.write_bytes(write_d3m(draft, filled(draft), About(weights=(1, 3, 2))))
    dataset = d3codec.load(path)
    assert dataset.weights == (1, 3, 2)
    assert dataset.subset(groups=[0, 2]).weights == (1, 2)
    batches = dataset.batches(12)  # two classes of 3 + 2 + 2 images
    owner = np.tile([0, 0, 0, 1, 1, 2, 2], 2)
    for batch in batches:
        assert np.bincount(owner[batch], minlength=3).tolist() == [2, 6, 4]
    first = dataset.subset(ipc=4).batches(8)  # of the second group one image, of the third none
    assert np.bincount(np.tile([0, 0, 0, 1], 2)[next(iter(first))]).tolist() == [2, 6]
    path.write_bytes(write_d3m(draft, filled(draft)))
    assert d3codec.load(path).weights is None
    assert np.bincount(owner[next(iter(d3codec.load(path).batches(14)))]).tolist() == [6, 4, 4]


def test_in_a_loader_of_torch(tmp_path):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    groups = [make_group(None, classes=2, ipc=ipc, generator=bytes(32), labels="h", noise_key=ipc) for ipc in (3, 1)]
    sections = {("cls", None): pack_classes([ClassRecord("", name) for name in "ab"])}
    sections |= {("emb", number): rows for number, (_, rows) in enumerate(groups)}
    draft = ContentDraft(Classes(authority="none", count=2), tuple(group for group, _ in groups))
    path = tmp_path / "two.d3m"
    path.write_bytes(write_d3m(draft, sections, About(weights=(1, 1))))
    batches = d3codec.load(path).batches(8, seed=1, patches=True)
    items = TensorDataset(torch.arange(32))  # eight images of four patches
    loader = DataLoader(items, batch_sampler=batches, num_workers=0)
    assert len(loader) == 4
    seen = torch.cat([batch for (batch,) in loader])
    second = torch.isin(seen // 4, torch.tensor([3, 7]))
    assert second.sum() == 16
