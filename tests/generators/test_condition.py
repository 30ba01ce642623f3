"""Batches of conditions."""

from __future__ import annotations

import pytest
import torch

from d3codec.generators.condition import Condition


def some(rows: int) -> Condition:
    numbers = torch.arange(rows)
    return Condition(
        hidden=numbers.double()[:, None, None].expand(rows, 3, 4),
        pooled=10.0 * numbers[:, None].expand(rows, 5),
        time_ids=numbers[:, None].expand(rows, 6),
    )


def same(one: Condition, other: Condition) -> bool:
    return all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(one._parts(), other._parts(), strict=True)
    )


def test_rows_and_batches():
    whole = some(5)
    assert len(whole) == 5
    assert same(Condition.cat([whole[:2], whole[2:]]), whole)
    chosen = whole[torch.tensor([3, 0, 3])]
    assert chosen.hidden[:, 0, 0].tolist() == [3.0, 0.0, 3.0]
    assert chosen.time_ids[:, 5].tolist() == [3, 0, 3]
    assert same(whole[1:2].expand(3), whole[torch.tensor([1, 1, 1])])
    assert len(Condition(class_ids=torch.tensor([4, 5]))) == 2


def test_zeros_keep_the_sizes():
    zeroed = some(2).zeroed()
    assert not zeroed.hidden.any()
    assert not zeroed.pooled.any()
    assert torch.equal(zeroed.time_ids, some(2).time_ids)
    assert Condition(class_ids=torch.tensor([4])).zeroed().hidden is None


def test_conditions_that_do_not_fit():
    with pytest.raises(TypeError):
        Condition.cat([some(2), Condition(hidden=some(2).hidden)])
    with pytest.raises(ValueError, match="nothing"):
        len(Condition())
