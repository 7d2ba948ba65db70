"""A graph under construction that always runs: every node is run in ONNX Runtime as it is added.

What each tensor holds is known at any time, for a few trial feeds, so that the next node can be made to fit. A node
that the runtime refuses raises :class:`Unfit`, and the caller goes back to where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from converter.errors import ModelError
from converter.runtime.session import open_session, run_session

__all__ = ["MOST_ELEMENTS", "Array", "Draft", "Unfit", "standard_import"]

Array = npt.NDArray[Any]

MOST_ELEMENTS = 6000
"""Of a tensor, so that a hundred graphs convert in a minute or two."""

_MOST_MAGNITUDE = 1e3


class Unfit(Exception):  # noqa: N818 - nothing is wrong, something else is tried
    """The node does not go here: a shape does not fit, the operator set is too old, or a value would be extraordinary."""


@dataclass
class Draft:
    """Nodes so far, and what all tensors hold.

    Attributes:
        random: where all choices come from.
        generator: where all weights come from.
        opset: of the standard domain.
        open_batch: the first dimension of all inputs is symbolic.
        nodes: in an order that runs.
        constants: initializers by name.
        values: one array for each trial feed, by tensor. The trial feeds have batches of 1 and 2 where the batch is open.
        floats: tensors that may be read by what comes next or be an output: floating point, finite, of ordinary size.
    """

    random: Random
    generator: np.random.Generator
    opset: int
    open_batch: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    values: dict[str, list[Array]] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)

    def add(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append a node and run it; its output's name, or a list of ``outputs`` names.

        Raises:
            Unfit: the runtime does not take it.
        """
        names = [f"t{len(self.nodes)}" + (f"_{index}" if index else "") for index in range(outputs)]
        node = helper.make_node(op_type, inputs, names, name=f"n{len(self.nodes)}", domain=domain, **attributes)
        held = self._run(node, [name for name in dict.fromkeys(inputs) if name])
        self.nodes.append(node)
        self.values.update(held)
        return names if outputs > 1 else names[0]

    def _run(self, node: onnx.NodeProto, inputs: Sequence[str]) -> dict[str, list[Array]]:
        fed = [name for name in inputs if name not in self.constants]
        graph = helper.make_graph(
            [node],
            "trial",
            [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(self.values[n][0].dtype), None) for n in fed],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(self.constants[n], n) for n in inputs if n in self.constants],
        )
        try:
            session = open_session(helper.make_model(graph, **standard_import(self.opset)), threads=1, optimise=False)
            runs = [run_session(session, {n: self.values[n][trial] for n in fed}) for trial in range(self.trials)]
        except ModelError as error:
            raise Unfit(error.what) from None
        held = {name: [run[name] for run in runs] for name in node.output}
        if max(array.size for arrays in held.values() for array in arrays) > MOST_ELEMENTS:
            raise Unfit("too large")
        return held

    @property
    def trials(self) -> int:
        """How many trial feeds there are."""
        return len(next(iter(self.values.values())))

    # What is known of a tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the first trial feed."""
        return self.values[name][0].shape

    def rank(self, name: str) -> int:
        """Number of dimensions."""
        return self.values[name][0].ndim

    def fixed(self, name: str, axis: int) -> bool:
        """The dimension is the same for all feeds."""
        return len({array.shape[axis] for array in self.values[name]}) == 1

    def low(self, name: str) -> float:
        """The least value of all trial feeds."""
        return float(min(array.min(initial=math.inf) for array in self.values[name]))

    # Choices

    def one_in(self, chances: int) -> bool:
        """True once in so many times; what is simplest comes first, for shrinking."""
        return self.random.randrange(chances) == chances - 1

    def choice(self, options: Sequence[Any]) -> Any:
        """One of them, each as probable."""
        if not options:
            raise Unfit("nothing to choose from")
        return options[self.random.randrange(len(options))]

    def pick(self, condition: Callable[[str], bool] = lambda name: True, *, newest: bool = True) -> str:
        """A tensor of :attr:`floats` that fits; mostly the newest, so that graphs get deep."""
        fit = [name for name in reversed(self.floats) if condition(name)]
        if newest and fit and not self.one_in(4):
            return fit[0]
        return str(self.choice(fit))

    def pick_rank(self, *ranks: int) -> str:
        """The same for tensors of certain ranks that hold at least one element."""
        return self.pick(lambda name: self.rank(name) in ranks and self.values[name][0].size > 0)

    # Constants

    def constant(self, array: Array) -> str:
        """An initializer, or rarely the output of a Constant node."""
        if self.one_in(12):
            name = f"t{len(self.nodes)}"
            self.nodes.append(helper.make_node("Constant", [], [name], name=f"n{len(self.nodes)}", value=numpy_helper.from_array(array)))
        else:
            name = f"c{len(self.constants)}"
        self.constants[name] = array
        self.values[name] = [array] * self.trials
        return name

    def weight(self, shape: Sequence[int], fan_in: int) -> str:
        """Normal values over the root of ``fan_in``; sometimes what another node has already, if it has the same shape."""
        known = [n for n, a in self.constants.items() if a.shape == tuple(shape) and a.dtype == np.float32 and a.ndim > 1]
        if known and self.one_in(3):
            return str(self.choice(known))
        return self.constant((self.generator.standard_normal(tuple(shape)) / math.sqrt(max(fan_in, 1))).astype(np.float32))

    def uniform(self, low: float, high: float, shape: Sequence[int]) -> str:
        """Values between two bounds."""
        return self.constant(self.generator.uniform(low, high, tuple(shape)).astype(np.float32))

    def number(self, value: float) -> str:
        """A scalar; rarely of rank 1."""
        return self.constant(np.full((1,) if self.one_in(5) else (), value, np.float32))

    def scalar(self, value: float) -> str:
        """One of rank 0, where the operator wants that."""
        return self.constant(np.asarray(value, np.float32))

    def ints(self, *values: int) -> str:
        """int64, rank 1."""
        return self.constant(np.asarray(values, np.int64))

    def needs(self, opset: int) -> None:
        """Raise :class:`Unfit` where the opset is older."""
        if self.opset < opset:
            raise Unfit(f"needs opset {opset}")

    # Attempts

    def attempt(self, step: Callable[[Draft], Any]) -> bool:
        """Let a step add its nodes; go back if it does not fit, or if what it hands on is not ordinary."""
        before = (len(self.nodes), dict(self.constants), dict(self.values))
        try:
            made = step(self)
            names = [made] if isinstance(made, str) else list(made)
            for name in names:
                self._check_ordinary(name)
        except Unfit:
            del self.nodes[before[0] :]
            self.constants, self.values = before[1], before[2]
            return False
        self.floats += [name for name in names if name not in self.floats]
        return True

    def _check_ordinary(self, name: str) -> None:
        for array in self.values[name]:
            if array.dtype != np.float32 or not np.isfinite(array).all() or np.abs(array).max(initial=0) > _MOST_MAGNITUDE:
                raise Unfit("not ordinary")


def standard_import(opset: int) -> Mapping[str, Any]:
    """Arguments of ``onnx.helper.make_model`` for an opset of the standard domain."""
    imports = [helper.make_opsetid("", opset)]
    return {"opset_imports": imports, "ir_version": max(4, helper.find_min_ir_version_for(imports))}
