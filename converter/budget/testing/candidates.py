"""Placements made by hand, for tests of the accuracy budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from converter.budget.records import Candidate
from converter.partition.policy import Placed, Placer
from converter.plan.records import OpPlan, Plan
from converter.quantization.bit_widths import BitWidths

__all__ = ["FLOAT_COST", "candidate", "independent_placer", "placed"]

FLOAT_COST = 100.0


def placed(integer: Collection[str], every: Collection[str], cost: float, loss: float) -> Placed:
    """A plan in which the named operators run in integer, and the others of `every` in float."""
    ops = {name: OpPlan("Conv", "integer" if name in integer else "float", form="weighted") for name in every}
    return Placed(Plan("", BitWidths(), "", {}, ops), cost, loss)


def candidate(number: int, cost: float, loss: float) -> Candidate:
    """One of a line of candidates, of which no two are the same model."""
    return Candidate(placed([f"op{number}"], [f"op{number}"], cost, loss), f"number {number}", float(number))


def independent_placer(operators: Mapping[str, tuple[float, float]]) -> Placer:
    """Placements of operators that do not depend on each other.

    Args:
        operators: what each saves in integer, and what it adds to the loss there, by name.
    """

    def place(price: float, floats: Collection[str] = (), integers: Collection[str] = ()) -> Placed:
        worth = {name for name, (saved, loss) in operators.items() if saved > price * FLOAT_COST * loss}
        integer = (worth | set(integers)) - set(floats)
        saved = sum(operators[name][0] for name in sorted(integer))
        return placed(integer, operators, FLOAT_COST - saved, sum(operators[name][1] for name in sorted(integer)))

    return place
