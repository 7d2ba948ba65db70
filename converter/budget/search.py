"""The cheapest candidate within a budget, with few evaluations: bisection along a front, then single moves.

Predicted costs are exact by the target's prices, so among candidates that hold the budget the cheapest wins. What a candidate loses has to
be measured, and what is measured on some hundred images need not grow along the front. Bisection does not need that: between one that
misses the budget and one that holds it lies a place where it changes, and that is what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from converter.budget.records import Candidate, Found, Key, Trial

__all__ = ["Between", "Cheaper", "cheapest_within"]

Between = Callable[[Candidate, Candidate], Sequence[Candidate]]
"""Candidates between one that is too inaccurate and one that is not, the cheapest first."""

Cheaper = Callable[[Candidate], Sequence[Candidate]]
"""Candidates that are cheaper than one by a single move, the most promising first."""

_ROUNDING = 1e-9
"""By which a drop may exceed the limit: differences of percentages are not exact."""


def cheapest_within(
    front: Sequence[Candidate],
    score_of: Callable[[Candidate], float],
    float_score: float,
    limit: float,
    most: int,
    *,
    between: Between,
    cheaper: Cheaper,
) -> Found:
    """Find the cheapest candidate whose drop is at most the limit.

    Args:
        front: the cheapest first, each one dearer and predicted to be more accurate than the one before; not empty.
        score_of: evaluates a candidate, which takes long; more is better.
        float_score: of the float model.
        limit: the largest drop allowed.
        most: evaluations, at least 1.
        between: for a finer look at the place of the front where the budget begins to hold.
        cheaper: single moves from the best.
    """
    tried: dict[Key, Trial] = {}

    def holds(candidate: Candidate) -> bool | None:
        """Whether it is within the budget; None if nothing more may be evaluated."""
        key = candidate.key
        if key not in tried:
            if len(tried) >= most:
                return None
            score = score_of(candidate)
            tried[key] = Trial(candidate, score, float_score - score)
        return _within(tried[key], limit)

    if not holds(front[0]) and holds(front[-1]):
        low, high = _bisected(front, holds)
        _bisected([low, *between(low, high), high], holds)
        _move(lambda: _best(tried.values(), limit).candidate, cheaper, holds)
    best = _best(tried.values(), limit)
    return Found(tuple(tried.values()), best, _within(best, limit))


def _within(trial: Trial, limit: float) -> bool:
    return trial.drop <= limit + _ROUNDING


def _best(trials: Iterable[Trial], limit: float) -> Trial:
    """The cheapest within the limit; if there is none, the one that drops least."""
    tried = list(trials)
    good = [trial for trial in tried if _within(trial, limit)]
    return (
        min(good, key=lambda t: (t.candidate.placed.cost, t.drop)) if good else min(tried, key=lambda t: (t.drop, t.candidate.placed.cost))
    )


def _bisected(line: Sequence[Candidate], holds: Callable[[Candidate], bool | None]) -> tuple[Candidate, Candidate]:
    """Two neighbours, or what is known when evaluations end: the first does not hold, the second does, as those at the ends."""
    low, high = 0, len(line) - 1
    while high - low > 1:
        middle = (low + high) // 2
        answer = holds(line[middle])
        if answer is None:
            break
        low, high = (low, middle) if answer else (middle, high)
    return line[low], line[high]


def _move(best: Callable[[], Candidate], cheaper: Cheaper, holds: Callable[[Candidate], bool | None]) -> None:
    """Try single moves from the best, again from the new best where one holds, until none is left or evaluations end."""
    failed: set[Key] = set()
    here = best()
    while True:
        for move in cheaper(here):
            if move.key in failed or move.placed.cost >= here.placed.cost:
                continue
            answer = holds(move)
            if answer is None:
                return
            if answer:
                break
            failed.add(move.key)
        else:
            return
        here = best()
