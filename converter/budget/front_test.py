"""Placements to choose from, of operators that do not depend on each other, where what is best can be told by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.budget.front import cheaper_by_one, dearer_one_by_one, price_front
from converter.budget.records import Candidate
from converter.budget.testing.candidates import FLOAT_COST, independent_placer

OPERATORS = {"a": (20.0, 0.001), "b": (20.0, 0.1), "c": (10.0, 0.02), "d": (5.0, 0.0), "e": (0.1, 0.3)}
"""What each saves in integer, and what it adds to the loss; from the best bargain to the worst: d, a, c, b, e."""

some_operators = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(1, 12).map(float), st.integers(0, 9).map(lambda n: n / 100)), min_size=1
)


def integer(candidate: Candidate) -> str:
    return "".join(name for name, op in candidate.placed.plan.ops.items() if op.runs == "integer")


def test_the_front_gives_up_operators_in_the_order_of_what_they_save_for_what_they_lose() -> None:
    front = price_front(independent_placer(OPERATORS), FLOAT_COST, FLOAT_COST)
    assert [integer(each) for each in front] == ["abcde", "abcd", "acd", "ad", "d"]


@settings(deadline=None)
@given(some_operators)
def test_on_the_front_every_point_is_dearer_and_loses_less_than_the_one_before(operators: dict[str, tuple[float, float]]) -> None:
    front = price_front(independent_placer(operators), FLOAT_COST, FLOAT_COST)
    costs, losses = [each.placed.cost for each in front], [each.placed.loss for each in front]
    assert costs == sorted(set(costs)) and losses == sorted(set(losses), reverse=True)
    assert costs[0] == min(FLOAT_COST - sum(saved for saved, _ in operators.values()), FLOAT_COST)


@settings(deadline=None)
@given(some_operators)
def test_the_front_has_every_placement_that_some_price_makes_the_best(operators: dict[str, tuple[float, float]]) -> None:
    place = independent_placer(operators)
    found = {each.placed.cost for each in price_front(place, FLOAT_COST, FLOAT_COST)}
    wanted = {place(price).cost for price in [0.0, *(1.001 * saved / loss / FLOAT_COST for saved, loss in operators.values() if loss)]}
    assert all(any(abs(cost - other) < 1.0 for other in found) for cost in wanted)


def test_what_costs_more_than_allowed_is_not_on_the_front() -> None:
    place = independent_placer(OPERATORS)
    assert all(each.placed.cost <= 80.0 for each in price_front(place, FLOAT_COST, 80.0))
    assert price_front(place, FLOAT_COST, 40.0) == []


def test_without_any_estimate_of_the_loss_there_is_one_placement() -> None:
    place = independent_placer({name: (saved, 0.0) for name, (saved, _) in OPERATORS.items()})
    assert [integer(each) for each in price_front(place, FLOAT_COST, FLOAT_COST)] == ["abcde"]


@pytest.fixture
def ends() -> tuple[Candidate, Candidate]:
    place = independent_placer(OPERATORS)
    return Candidate(place(0.0), "low", 0.0), Candidate(place(1e5), "high", 1e5)


def test_between_two_points_operators_return_to_float_in_the_order_of_benefit_for_cost(ends: tuple[Candidate, Candidate]) -> None:
    chain = dearer_one_by_one(independent_placer(OPERATORS), *ends)
    assert [integer(each) for each in chain] == ["abcd", "acd", "ad"]
    assert chain[1].floats == {"b", "e"} and chain[1].label == "price 0, 2 more in float"


def test_from_a_point_operators_return_to_integer_in_the_order_of_saving_for_loss(ends: tuple[Candidate, Candidate]) -> None:
    low, high = ends
    moves = cheaper_by_one(independent_placer(OPERATORS), high, low)
    assert [integer(each) for each in moves] == ["ad", "cd", "bd", "de"]
    again = cheaper_by_one(independent_placer(OPERATORS), moves[0], low)
    assert integer(again[0]) == "acd" and again[0].label == "price 1e+05, 2 more in integer"


def test_an_operator_that_was_made_float_returns_by_not_being_made_so(ends: tuple[Candidate, Candidate]) -> None:
    place = independent_placer(OPERATORS)
    here = Candidate(place(0.0, {"b"}), "", 0.0, frozenset("b"))
    assert [(integer(each), each.floats, each.integers) for each in cheaper_by_one(place, here, ends[0])] == [
        ("abcde", frozenset(), frozenset())
    ]
