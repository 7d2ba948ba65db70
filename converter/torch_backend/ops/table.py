"""How a rule is written down: operator types, the attributes it honours, and a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["Attributes", "Inputs", "Rule", "Table", "Tensor", "UnknownOperatorError", "integers", "optional"]

Tensor = torch.Tensor
Inputs = Sequence[Tensor]
"""Of one operator. Those that may be absent, and are None then, are read with :func:`optional`."""

Attributes = Mapping[str, Any]
Function = Callable[[Inputs, Attributes], Tensor | list[Tensor]]


class UnknownOperatorError(LookupError):
    """The table has no rule for this operator or for one of its attributes."""


class Rule:
    """One operator.

    Attributes:
        function: takes inputs and attributes, gives the output or a list of outputs.
        honours: names of the attributes that the function looks at.
        ignores: values of attributes that change nothing here, by name; None if no value does.
    """

    def __init__(self, function: Function, honours: str = "", ignores: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.honours = frozenset(honours.split())
        self.ignores = ignores or {}

    def __call__(self, op_type: str, inputs: Sequence[Any], attributes: Attributes) -> list[Tensor]:
        """Run the operator.

        Raises:
            UnknownOperatorError: an attribute, or the value of one, that the rule does not cover.
        """
        for name, value in attributes.items():
            if name not in self.honours and (name not in self.ignores or self.ignores[name] not in (None, value)):
                raise UnknownOperatorError(f"operator '{op_type}' with {name}={value!r}")
        result = self.function(inputs, attributes)
        return result if isinstance(result, list) else [result]


Table = dict[str, Rule]


def integers(value: Any) -> list[int]:
    """A tensor or sequence as a list of ints."""
    return [int(v) for v in (value.tolist() if isinstance(value, Tensor) else value)]


def optional(inputs: Inputs, index: int) -> Any:
    """The input at that index, or None if there is none."""
    return inputs[index] if len(inputs) > index else None
