"""What a placement shall be best at, as the command line says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from converter.errors import UsageError

__all__ = ["FULL", "LATENCY", "Placement", "parse_placement", "penalties"]


@dataclass(frozen=True)
class Placement:
    """Between speed and accuracy.

    Attributes:
        everything: whatever can run in integer does, whatever it costs.
        full: with everything, what cannot run in integer reads and writes codes all the same, for machines without float.
        price: what all the error of the integer forms together is worth, in times of the float model's cost.
    """

    everything: bool = False
    full: bool = False
    price: float = 0.0


LATENCY = Placement()
FULL = Placement(everything=True, full=True)
_ALL, _LATENCY, _BALANCED = "all", "latency", "balanced"


def parse_placement(text: str) -> Placement:
    """``latency``, ``all`` or ``balanced:PRICE``.

    Raises:
        UsageError: none of them.
    """
    if text in (_LATENCY, _ALL):
        return Placement(everything=text == _ALL)
    word, _, number = text.partition(":")
    try:
        price = float(number) if word == _BALANCED else math.nan
    except ValueError:
        price = math.nan
    if not 0.0 <= price < math.inf:
        hint = "give latency, all or balanced:PRICE, such as balanced:0.5"
        raise UsageError(f"'{text}' is not a placement", where="--placement", hint=hint)
    return Placement(price=price)


def penalties(placement: Placement, errors: Mapping[str, float], float_cost: float) -> dict[str, float]:
    """What each operator's integer form costs more for its error, in the target's unit.

    Args:
        placement: its price.
        errors: of integer forms, in any unit, by operator name; operators that are not listed have none.
        float_cost: of the whole float model on the target.
    """
    total = sum(errors.values())
    if not placement.price or total <= 0.0:
        return {}
    return {name: placement.price * float_cost * error / total for name, error in errors.items()}
