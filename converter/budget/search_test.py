"""The search against what it would find if everything were evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from converter.budget.records import Candidate, Found
from converter.budget.search import cheapest_within
from converter.budget.testing.candidates import candidate

FLOAT_SCORE = 70.0


def line(length: int) -> list[Candidate]:
    return [candidate(i, 10.0 + i, 1.0 / (1 + i)) for i in range(length)]


def searched(
    front: Sequence[Candidate],
    drops: Callable[[Candidate], float],
    limit: float,
    most: int = 99,
    between: Sequence[Candidate] = (),
    cheaper: Callable[[Candidate], Sequence[Candidate]] = lambda here: (),
) -> Found:
    return cheapest_within(
        front, lambda c: FLOAT_SCORE - drops(c), FLOAT_SCORE, limit, most, between=lambda low, high: between, cheaper=cheaper
    )


drops_that_fall = st.lists(st.floats(0.0, 9.0), min_size=1, max_size=40).map(lambda found: sorted(found, reverse=True))


@settings(deadline=None)
@given(drops_that_fall, st.floats(0.0, 9.0))
def test_where_drops_fall_along_the_front_it_finds_the_cheapest_in_few_evaluations(drops: list[float], limit: float) -> None:
    front = line(len(drops))
    found = searched(front, lambda c: drops[int(c.price)], limit)
    holding = [i for i, drop in enumerate(drops) if FLOAT_SCORE - (FLOAT_SCORE - drop) <= limit + 1e-9]
    assert found.met == bool(holding)
    if holding:
        assert int(found.best.candidate.price) == holding[0]
    assert len(found.trials) <= 2 + math.ceil(math.log2(len(drops) + 1))


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 9.0), min_size=1, max_size=40), st.floats(0.0, 9.0), st.integers(1, 12))
def test_whatever_the_drops_it_takes_the_best_of_what_it_saw_and_sees_no_more_than_allowed(
    drops: list[float], limit: float, most: int
) -> None:
    found = searched(line(len(drops)), lambda c: drops[int(c.price)], limit, most)
    assert 1 <= len(found.trials) <= most
    assert len({trial.candidate.key for trial in found.trials}) == len(found.trials)
    good = [trial for trial in found.trials if trial.drop <= limit + 1e-9]
    assert found.met == bool(good)
    if good:
        assert found.best.candidate.placed.cost == min(trial.candidate.placed.cost for trial in good)
    else:
        assert found.best.drop == min(trial.drop for trial in found.trials)


def test_if_the_cheapest_holds_nothing_else_is_evaluated() -> None:
    found = searched(line(20), lambda c: 0.1, 0.5)
    assert found.met and [trial.candidate.label for trial in found.trials] == ["number 0"]


def test_a_budget_that_nothing_holds_takes_two_evaluations_and_tells_the_least_drop() -> None:
    found = searched(line(20), lambda c: 9.0 - c.price / 10, 0.5)
    assert not found.met and len(found.trials) == 2
    assert found.best.candidate.label == "number 19" and found.best.drop == FLOAT_SCORE - (FLOAT_SCORE - 7.1)


def test_what_lies_between_two_points_of_the_front_is_bisected_too() -> None:
    front, between = [candidate(0, 10, 9), candidate(9, 20, 1)], [candidate(i, 10 + i, 9 - i) for i in range(1, 9)]
    found = searched(front, lambda c: 10.0 - c.price, 3.5, between=between)
    assert found.met and found.best.candidate.label == "number 7"


def test_moves_go_on_from_each_new_best_until_none_holds() -> None:
    front = [candidate(0, 10, 9), candidate(9, 20, 1)]

    def cheaper(here: Candidate) -> list[Candidate]:
        """One that never holds, and one that is a unit cheaper."""
        return [candidate(100, 11, 1), candidate(int(here.price) - 1, here.placed.cost - 1, 1)]

    found = searched(front, lambda c: 9.0 if c.price in (0, 100) else 10.0 - c.price, 4.0, cheaper=cheaper)
    assert found.met and found.best.candidate.label == "number 6"
    assert [trial.candidate.label for trial in found.trials] == [f"number {n}" for n in (0, 9, 100, 8, 7, 6, 5)]


def test_moves_end_with_the_evaluations() -> None:
    front = [candidate(0, 10, 9), candidate(9, 20, 1)]
    found = searched(
        front,
        lambda c: 9.0 if c.price == 0 else 0.0,
        1.0,
        most=4,
        cheaper=lambda here: [candidate(int(here.price) - 1, here.placed.cost - 1, 1)],
    )
    assert found.met and len(found.trials) == 4 and found.best.candidate.label == "number 7"


def test_a_drop_equal_to_the_limit_is_within_it_whatever_rounding_does() -> None:
    assert searched(line(1), lambda c: 0.3, 0.1 + 0.2 - 1e-16).met
    assert searched([candidate(0, 1, 1)], lambda c: 70.0 - (70.0 - 0.1), 0.1).met
