"""From measured nodes to measured operators: which nodes of a branch are the operator itself, and which only surround it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converter.graph.operator_sets import CLAMPS
from converter.graph.queries import attributes
from converter.targets.costs import PIECEWISE_LINEAR_KIND, TRANSPOSE_STEP_KIND, Shapes, features, kind_of, step_features

__all__ = ["CONVERSIONS", "Sample", "Timed", "conversion_samples", "is_layout", "operator_samples"]

_FLOAT, _CODE = 4, 1
"""Bytes of a number."""

_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Timed:
    """A node of the graph that the runtime made.

    Attributes:
        branch: to which probe it belongs.
        op_type: of the node.
        name: of the node.
        result: type and shape of its first output, as ``float32[1, 64, 8, 8]``.
        cost: measured; None if it could not be.
    """

    branch: str
    op_type: str
    name: str
    result: str
    cost: float | None


@dataclass(frozen=True)
class Sample:
    """What one operator was found to cost: its kind, how much there is of each feature, and the cost."""

    kind: str
    features: Mapping[str, float]
    cost: float


def operator_samples(nodes: Sequence[Timed], model: ir.Model, shapes: Shapes, offered: Collection[str] | None = None) -> list[Sample]:
    """One sample for each probe all of whose nodes were measured.

    Q and DQ are left out, and so are the changes of layout at the ends of a branch, which chains of layers do not have. Of a clamp
    behind a layer, what counts is what it adds to the cost of the same layer without it; any other is in integer a Clip of codes, which is
    what a piecewise-linear sigmoid is, too.

    Args:
        nodes: of the float or of the integer graph.
        offered: names of the operators that count; by default all.
    """
    costs: dict[str, float | None] = {}
    for node in nodes:
        if node.op_type in CONVERSIONS or is_layout(node.op_type, node.name):
            continue
        before = costs.get(node.branch, 0.0)
        costs[node.branch] = None if before is None or node.cost is None else before + node.cost
    found: list[Sample] = []
    for operator in model.graph:
        name = str(operator.name)
        cost = costs.get(name, 0.0)
        if name.endswith("_before") or cost is None or (offered is not None and name not in offered):
            continue
        sample = Sample(kind_of(operator), features(operator, shapes), cost)
        if operator.op_type in CLAMPS:
            layer = operator.inputs[0].producer() if operator.inputs[0] is not None else None
            alone = _same(found, Sample(kind_of(layer), features(layer, shapes), 0.0)) if layer is not None else None
            if layer is not None and alone is None:
                continue
            kind, before = (PIECEWISE_LINEAR_KIND, 0.0) if alone is None else (sample.kind, alone.cost)
            sample = Sample(kind, sample.features, max(cost - before, 0.0))
        found.append(sample)
        if operator.op_type == "Transpose" and operator.inputs[0] is not None:
            steps = step_features(shapes[str(operator.inputs[0].name)], _perm(operator), _FLOAT if offered is None else _CODE)
            found.append(Sample(TRANSPOSE_STEP_KIND, steps, cost))
    return found


def _perm(transpose: ir.Node) -> list[int]:
    return [int(axis) for axis in attributes(transpose)["perm"]]


def is_layout(op_type: str, name: str) -> bool:
    """A change of layout that the runtime put in; Transposes of the probes have their names."""
    return op_type in _LAYOUT or (op_type == "Transpose" and name.startswith(op_type))


def _same(found: Sequence[Sample], wanted: Sample) -> Sample | None:
    return next((s for s in found if (s.kind, s.features) == (wanted.kind, wanted.features)), None)


def conversion_samples(nodes: Sequence[Timed]) -> list[Sample]:
    """Every Q and DQ that was measured, by elements."""
    return [
        Sample(node.op_type, {"node": 1.0, "element": float(_elements(node.result))}, node.cost)
        for node in nodes
        if node.op_type in CONVERSIONS and node.cost is not None
    ]


def _elements(result: str) -> int:
    """Of a type and shape such as ``int8[1, 64, 8, 8]``."""
    inside = result[result.index("[") + 1 : -1]
    return math.prod(int(each) for each in inside.split(",")) if inside else 1
