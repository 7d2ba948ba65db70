"""Placements to choose from: the front by the price of accuracy, what lies between two of its points, and single moves.

All are minimum cuts by predicted costs, and what rounding is predicted to add to the loss; none is emitted or evaluated here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence

from converter.budget.records import Candidate
from converter.partition.policy import PRICES, Placed, Placer

__all__ = ["cheaper_by_one", "dearer_one_by_one", "price_front"]

_LEAST_GAP = 0.01
"""Points of the front that are closer in cost, as a share of float's, have none between them."""

_MOST_RANKED = 48
"""Operators that are weighed against each other: each takes a minimum cut."""


def price_front(placed: Placer, float_cost: float, most: float) -> list[Candidate]:
    """Placements at prices from nothing to one at which hardly anything runs in integer, the cheapest first.

    Between two of them the next price is that at which both are worth the same (Eisner and Severance, JACM 23, 1976): the best placement
    there is another one, or there is none between them.

    Args:
        placed: gives placements.
        float_cost: of the float model, in the target's unit.
        most: what a placement may cost.

    Returns:
        none where even the cheapest costs more; none of them is both dearer than another and predicted to lose more.
    """
    ends = [_at(placed, price) for price in (0.0, PRICES[1])]
    found = {each.key: each for each in ends}
    gaps: list[tuple[float, int, Candidate, Candidate]] = []
    numbers = itertools.count()

    def split(low: Candidate, high: Candidate) -> None:
        gap = high.placed.cost - low.placed.cost
        if gap >= _LEAST_GAP * float_cost and high.placed.loss < low.placed.loss and low.placed.cost <= most:
            heapq.heappush(gaps, (-gap, next(numbers), low, high))

    split(*ends)
    while gaps:
        _, _, low, high = heapq.heappop(gaps)
        price = (high.placed.cost - low.placed.cost) / (low.placed.loss - high.placed.loss) / float_cost
        middle = _at(placed, price)
        if middle.key not in found and low.placed.cost < middle.placed.cost < high.placed.cost:
            found[middle.key] = middle
            split(low, middle)
            split(middle, high)
    return _undominated(each for each in found.values() if each.placed.cost <= most)


def _at(placed: Placer, price: float) -> Candidate:
    return Candidate(placed(price), f"price {price:.3g}", price)


def _undominated(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those than which none is both cheaper and predicted to lose less, the cheapest first."""
    found: list[Candidate] = []
    for each in sorted(candidates, key=lambda c: (c.placed.cost, c.placed.loss)):
        if not found or each.placed.loss < found[-1].placed.loss:
            found.append(each)
    return found


def dearer_one_by_one(placed: Placer, low: Candidate, high: Candidate) -> list[Candidate]:
    """From one placement towards a dearer one: operators return to float in the order of benefit for cost.

    Args:
        placed: gives placements.
        low: where to begin.
        high: what it must stay cheaper than; operators that are float there and not in `low` are those that return.

    Returns:
        each with one operator more in float than the one before, and those around it for which that pays; the cheapest first.
    """
    names = [name for name in _differing(low.placed, high.placed) if name not in low.integers]
    alone = {name: placed(low.price, low.floats | {name}, low.integers) for name in names[:_MOST_RANKED]}
    useful = {name: each for name, each in alone.items() if low.placed.cost < each.cost < high.placed.cost and each.loss < low.placed.loss}
    order = sorted(useful, key=lambda name: (useful[name].cost - low.placed.cost) / (low.placed.loss - useful[name].loss))
    found, floats = list[Candidate](), low.floats
    for name in order:
        floats = floats | {name}
        each = placed(low.price, floats, low.integers)
        if each.cost >= high.placed.cost:
            break
        if each.cost > (found[-1] if found else low).placed.cost:
            found.append(Candidate(each, _label(low.price, floats, low.integers), low.price, floats, low.integers))
    return found


def cheaper_by_one(placed: Placer, here: Candidate, fastest: Candidate) -> list[Candidate]:
    """From one placement to cheaper ones: one operator returns to integer, and those around it for which that pays.

    Args:
        placed: gives placements.
        here: where to begin.
        fastest: whose integer operators those are that may return.

    Returns:
        the most promising first: what saves most for what it is predicted to add to the loss.
    """
    found = []
    for name in _differing(fastest.placed, here.placed)[:_MOST_RANKED]:
        floats = here.floats - {name}
        integers = here.integers if name in here.floats else here.integers | {name}
        each = placed(here.price, floats, integers)
        if each.cost < here.placed.cost:
            found.append(Candidate(each, _label(here.price, floats, integers), here.price, floats, integers))
    least = 1e-12 + abs(here.placed.loss) * 1e-6
    return sorted(found, key=lambda c: (c.placed.cost - here.placed.cost) / max(least, c.placed.loss - here.placed.loss))


def _differing(one: Placed, other: Placed) -> Sequence[str]:
    """Operators that are integer in one placement and float in the other; copies follow from the rest."""
    return [
        name
        for name, op in one.plan.ops.items()
        if op.runs == "integer" and op.form != "requantize" and other.plan.ops[name].runs == "float"
    ]


def _label(price: float, floats: frozenset[str], integers: frozenset[str]) -> str:
    parts = [f"price {price:.3g}"]
    if floats:
        parts.append(f"{len(floats)} more in float")
    if integers:
        parts.append(f"{len(integers)} more in integer")
    return ", ".join(parts)
