"""Which methods and numbers of images are worth trying for a size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3codec.methods.plans import GENERATED_IPC, METHODS, Plan, plans


def asked(size: int, classes: int = 10, most: int = 900, **options) -> list[Plan]:
    return list(
        plans(
            size, classes, most, **({"methods": METHODS, "autoencoder": True, "prompts": True, "ipc": None} | options)
        )
    )


def methods(found: list[Plan]) -> list[str]:
    return list(dict.fromkeys(plan.name for plan in found))


def test_methods_follow_what_is_there():
    assert methods(asked(5_000)) == ["d3m+latents", "latents", "d3m"]
    assert methods(asked(5_000, prompts=False)) == ["latents"]
    assert methods(asked(5_000, autoencoder=False)) == ["d3m", "images"]
    assert methods(asked(5_000, autoencoder=False, prompts=False)) == ["images"]


def test_methods_follow_what_is_wanted():
    for method in METHODS:
        assert methods(asked(5_000, methods=(method,))) == [method]
    assert methods(asked(5_000, methods=("latents", "images"))) == ["latents"]
    assert asked(5_000, methods=("d3m",), prompts=False) == []


def test_both_in_one_file_are_tried_between_the_sizes_where_one_alone_wins():
    for size, mixed in ((1_000, False), (1_200, True), (15_000, True), (20_000, False)):
        assert ("d3m+latents" in methods(asked(size))) == mixed


@pytest.mark.parametrize(("size", "usual"), [(2_000, 4), (5_000, 12), (20_000, 49), (50_000, 124)])
def test_the_usual_number_comes_first(size, usual):
    """About 40 bytes an image with its label, as in the measurements that the plans rest on."""
    assert asked(size, prompts=False)[0] == Plan(("latents",), usual)


def test_a_given_number_is_the_only_one():
    found = asked(5_000, ipc=7)
    assert [plan.per_class for plan in found if "latents" in plan.methods] == [7, 7]
    assert [plan.per_class for plan in found if plan.methods == ("d3m",)] == [GENERATED_IPC]


@given(
    size=st.integers(1, 10**6),
    classes=st.integers(2, 1000),
    most=st.integers(1, 2000),
    autoencoder=st.booleans(),
    prompts=st.booleans(),
)
def test_plans_can_be_made(size, classes, most, autoencoder, prompts):
    found = asked(size, classes, most, autoencoder=autoencoder, prompts=prompts)
    assert 1 <= len(found) <= 9
    assert len(set(found)) == len(found)
    assert found == asked(size, classes, most, autoencoder=autoencoder, prompts=prompts)
    for plan in found:
        assert 1 <= plan.per_class <= (GENERATED_IPC if plan.methods == ("d3m",) else most)
    groups = [plan.methods for plan in found]
    assert sum(one != other for one, other in pairwise(groups)) == len(set(groups)) - 1  # each kind in one run
