"""Carry an answer over to the network into which grids that are not uniform have been written since."""

from __future__ import annotations

from converter.methods.problem import Problem
from converter.methods.ranges import minmax
from converter.plan.choice import Choice

__all__ = ["completed"]


def completed(problem: Problem, first_choice: Choice) -> Choice:
    """The first choice's grids, and for what is new in the network, such as the outputs of halved layers, those of min-max."""
    new = minmax.choose(problem)
    tensors = {name: first_choice.tensors.get(name, grid) for name, grid in new.tensors.items()}
    return Choice(tensors, {key: first_choice.constants.get(key, grid) for key, grid in new.constants.items()})
