from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.partition.max_flow import minimum_cut

Edges = Mapping[tuple[str, str], float]


def capacity_of(side: frozenset[str], edges: Edges) -> float:
    return sum(capacity for (start, end), capacity in edges.items() if start in side and end not in side)


def test_a_cut_by_hand() -> None:
    """The three edges in the middle are cheaper than what leaves the source or enters the sink."""
    edges = {("s", "a"): 10.0, ("s", "b"): 10.0, ("a", "t"): 4.0, ("a", "b"): 3.0, ("b", "c"): 9.0, ("c", "t"): 2.5}
    assert minimum_cut(edges, "s", "t") == (6.5, frozenset({"s", "a", "b", "c"}))


def test_of_several_minimum_cuts_it_is_the_one_whose_source_side_is_largest() -> None:
    """A chain of equal capacities; and what no flow reaches does not go with the sink either."""
    chain = {("s", "a"): 2.0, ("a", "b"): 2.0, ("b", "t"): 2.0, ("alone", "b"): 0.0, ("a", "alone"): 0.0}
    assert minimum_cut(chain, "s", "t") == (2.0, frozenset({"s", "a", "b", "alone"}))
    assert minimum_cut({**chain, ("b", "t"): 2.5}, "s", "t") == (2.0, frozenset({"s", "a", "alone"}))


def test_what_is_infinite_is_not_cut_however_much_else_is() -> None:
    edges = {("s", "a"): 1e30, ("s", "b"): 1.0, ("a", "b"): math.inf, ("b", "t"): 1e40}
    value, side = minimum_cut(edges, "s", "t")
    assert value == pytest.approx(1e30)
    assert side == {"s"}


def test_nothing_costs_nothing() -> None:
    assert minimum_cut({}, "s", "t") == (0.0, frozenset({"s"}))
    free = {("s", "a"): 0.0, ("s", "b"): 0.0, ("a", "b"): math.inf, ("b", "t"): 5.0}
    assert minimum_cut(free, "s", "t") == (0.0, frozenset({"s"}))


@pytest.mark.parametrize("unit", [2.0**-1070, 1.0, 2.0**1000])
def test_capacities_may_be_of_any_size(unit: float) -> None:
    edges = {("s", "a"): 3.0, ("s", "b"): 5.0, ("a", "b"): 1.0, ("a", "t"): 1.5, ("b", "t"): 5.5}
    assert minimum_cut({edge: capacity * unit for edge, capacity in edges.items()}, "s", "t") == (7.0 * unit, frozenset({"s", "a", "b"}))


VERTICES = ["s", "t", *"abcde"]
PAIRS = [pair for pair in itertools.permutations(VERTICES, 2) if pair[1] != "s" and pair[0] != "t"]


@st.composite
def graphs(draw: st.DrawFn) -> Edges:
    """Up to five vertices between source and sink, with whole numbers or none or infinity on the edges between them."""
    pairs = draw(st.lists(st.sampled_from(PAIRS), unique=True, max_size=16))
    amounts = st.one_of(st.integers(0, 9).map(float), st.floats(0.0, 1e6))
    return {pair: draw(amounts if pair[0] == "s" else st.one_of(amounts, st.just(math.inf))) for pair in pairs}


@given(edges=graphs(), order=st.permutations(PAIRS))
@settings(max_examples=300, deadline=None)
def test_no_cut_is_cheaper_nor_as_cheap_with_a_larger_source_side(edges: Edges, order: list[tuple[str, str]]) -> None:
    between = sorted({end for edge in edges for end in edge} - {"s", "t"})
    sides = [frozenset(["s", *chosen]) for size in range(len(between) + 1) for chosen in itertools.combinations(between, size)]
    value, side = minimum_cut(edges, "s", "t")
    cheapest = min(capacity_of(each, edges) for each in sides)
    rounded = 2.0**-49 * len(edges) * capacity_of(frozenset("s"), edges)
    assert abs(value - cheapest) <= rounded
    assert abs(capacity_of(side, edges) - cheapest) <= rounded
    if all(capacity == round(capacity) for capacity in edges.values() if capacity < math.inf):
        assert side == max((each for each in sides if capacity_of(each, edges) == cheapest), key=len)
    assert minimum_cut({edge: edges[edge] for edge in order if edge in edges}, "s", "t") == (value, side)
