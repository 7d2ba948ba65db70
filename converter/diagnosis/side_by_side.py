"""Run a network twice, in float and as a plan has it, operator by operator, and let go of tensors as soon as they are of no more use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.graph.queries import constant, consumers, is_float
from converter.plan.records import Plan
from converter.torch_backend.runtime_kernels import Sessions
from converter.verify.simulation import Run

__all__ = ["side_by_side"]

Array = npt.NDArray[Any]


def side_by_side(
    model: ir.Model, plan: Plan, feed: Mapping[str, Array], sessions: Sessions | None = None
) -> Iterator[tuple[str, Array, Array | None]]:
    """Every computed float tensor of one sample, inputs first, then in graph order.

    Args:
        model: canonical model with the plan's transforms.
        plan: for it.
        feed: inputs by name.
        sessions: see :func:`converter.verify.simulation.simulate`.

    Yields:
        name, float numbers, and what readers get of it in the planned network: on the tensor's grid if it has one. None for a tensor
        that exists within a fused group only.

    Raises:
        converter.torch_backend.ops.UnknownOperatorError: an operator has no rule.
    """
    exact, planned = Run(None, sessions), Run(plan, sessions)
    for run in (exact, planned):
        run.feed(model, feed)
    nodes = [node for node in model.graph if node.op_type != "Constant"]
    dying = _last_uses(model, nodes)
    for value in model.graph.inputs:
        if is_float(value):
            yield str(value.name), _array(exact.made[value]), _array(planned.read_codes(value))
    for place, node in enumerate(nodes):
        with torch.no_grad():  # not around a yield, which would leave it on for whoever reads
            exact.one_by_one([node])
            planned.one_by_one([node])
        op = plan.ops.get(str(node.name))
        fused = op is not None and op.writes == "fused"
        for value in node.outputs:
            if is_float(value) and constant(value) is None and isinstance(exact.made.get(value), torch.Tensor):
                yield str(value.name), _array(exact.made[value]), None if fused else _array(planned.read_codes(value))
        for value in dying.get(place, ()):
            for run in (exact, planned):
                run.made.pop(value, None)


def _last_uses(model: ir.Model, nodes: list[ir.Node]) -> dict[int, list[ir.Value]]:
    """Tensors by the place of the last operator that may look at them: a reader, or one that reads what a reader makes."""
    places = {node: place for place, node in enumerate(nodes)}
    reached: dict[ir.Node, int] = {}
    for node in nodes:
        readers = [reader for value in node.outputs for reader, _ in consumers(value)]
        reached[node] = max([places[node], *(places.get(reader, len(nodes)) for reader in readers)])
    found: dict[int, list[ir.Value]] = {}
    for value in [*model.graph.inputs, *(o for node in nodes for o in node.outputs)]:
        last = max((reached.get(reader, len(nodes)) for reader, _ in consumers(value)), default=len(nodes))
        found.setdefault(last, []).append(value)
    return found


def _array(x: Any) -> Array:
    return np.asarray(x.numpy())
