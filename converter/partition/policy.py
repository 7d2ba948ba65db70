"""What a placement shall be best at, as the command line says it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from converter.errors import UsageError

if TYPE_CHECKING:
    from converter.plan.records import Plan

__all__ = [
    "FOR_ACCURACY",
    "FULL",
    "LATENCY",
    "PRICES",
    "Placed",
    "Placement",
    "Placer",
    "added_loss",
    "affordable",
    "parse_placement",
    "penalties",
]


@dataclass(frozen=True)
class Placement:
    """Between speed and accuracy.

    Attributes:
        everything: whatever can run in integer does, whatever it costs.
        full: with everything, what cannot run in integer reads and writes codes all the same, for machines without float.
        price: what one unit of the loss is worth (a nat, of class scores), in times of the float model's cost.
        tolerance: what integer forms may add to the loss before any of them is given up for accuracy.
        spare: what accuracy beyond that may cost, as a share of the cheapest placement's cost.
    """

    everything: bool = False
    full: bool = False
    price: float = 0.0
    tolerance: float = math.inf
    spare: float = 0.0


PRICES = (1e-2, 1e5)
"""Within which a price is looked for."""

_HALVINGS = 10
"""Of their ratio: the last step changes a price by less than two percent."""

FOR_ACCURACY = "for accuracy, which is worth more here than the time"
"""Why an operator is float that would be faster in integer."""

LATENCY = Placement(tolerance=0.001, spare=0.1)
FULL = Placement(everything=True, full=True)
_ALL, _LATENCY, _BALANCED = "all", "latency", "balanced"


def parse_placement(text: str) -> Placement:
    """``latency``, ``all`` or ``balanced:PRICE``.

    Raises:
        UsageError: none of them.
    """
    if text in (_LATENCY, _ALL):
        return Placement(everything=True) if text == _ALL else LATENCY
    word, _, number = text.partition(":")
    try:
        price = float(number) if word == _BALANCED else math.nan
    except ValueError:
        price = math.nan
    if not 0.0 <= price < math.inf:
        hint = "give latency, all or balanced:PRICE, such as balanced:100"
        raise UsageError(f"'{text}' is not a placement", where="--placement", hint=hint)
    return Placement(price=price)


def penalties(price: float, weight_sensitivity: Mapping[str, float]) -> dict[str, float]:
    """What errors cost, in the target's unit.

    Args:
        price: of one unit of the loss.
        weight_sensitivity: what they add to the loss, by the name of an operator or a tensor; those that are not listed have none.
    """
    return {name: price * error for name, error in weight_sensitivity.items() if price * error > 0.0}


@dataclass(frozen=True)
class Placed:
    """A plan, what it costs in the target's unit, and what it adds to the loss."""

    plan: Plan
    cost: float
    loss: float


class Placer(Protocol):
    """Gives the best placement if one unit of the loss is worth so many runs of the float model."""

    def __call__(self, price: float, floats: Collection[str] = (), integers: Collection[str] = ()) -> Placed:
        """Place at a price.

        Args:
            price: of one unit of the loss, in times of the float model's cost.
            floats: names of operators that stay float in any case.
            integers: names of operators that run in integer in any case, where they can.
        """
        ...


def added_loss(plan: Plan, activation_sensitivity: Mapping[str, float], weight_sensitivity: Mapping[str, float]) -> float:
    """What the grids of a plan add to the loss, as independent errors add up.

    Args:
        plan: assigned.
        activation_sensitivity: of tensors' grids, by the tensors' names.
        weight_sensitivity: of integer forms of operators, by their names.
    """
    grids = sum(activation_sensitivity.get(name, 0.0) for name, tensor in plan.tensors.items() if tensor.kind in ("measured", "fixed"))
    return grids + sum(weight_sensitivity.get(name, 0.0) for name, op in plan.ops.items() if op.runs == "integer")


def affordable(placed: Callable[[float], Placed], cheapest: Placed, placement: Placement, most: float) -> Placed:
    """The cheapest placement within the tolerance; if that costs more than can be spared, the one that adds least for what can.

    Args:
        placed: the best placement at a price of the loss.
        cheapest: that at the price of nothing.
        placement: its tolerance, and what it spares for accuracy.
        most: the highest cost allowed in any case.
    """
    if cheapest.loss <= placement.tolerance:
        return cheapest
    limit = min(most, (1.0 + placement.spare) * cheapest.cost)
    low, high = PRICES
    found = [cheapest]
    for _ in range(_HALVINGS):
        price = math.sqrt(low * high)
        tried = placed(price)
        if tried.cost <= limit:
            found.append(tried)
        low, high = (price, high) if tried.cost <= limit and tried.loss > placement.tolerance else (low, price)
    good = [each for each in found if each.loss <= placement.tolerance]
    return min(good, key=lambda each: each.cost) if good else min(found, key=lambda each: each.loss)
