"""Activation functions, whatever their spelling, become one operator.

Exporters write GELU, SiLU, HardSwish and the like as small groups of pointwise operators, in many orders and with
many constants. Instead of matching spellings, this rewrite finds groups with a single input and a single output,
evaluates them on a line of points, and compares the values with the known functions. Cases:

1. erf-GELU and tanh-GELU become ``Gelu``.
2. ``x * sigmoid(x)`` in any form becomes ``Sigmoid`` and ``Mul``.
3. HardSwish and HardSigmoid in any form become ``HardSwish`` and ``HardSigmoid``.
4. Sigmoid written with ``Exp`` becomes ``Sigmoid``; ``Max(x, 0)`` becomes ``Relu``; ``Min(Max(x, a), b)`` becomes ``Clip``.
5. Twice a GELU (an optimiser has moved the factor one half into the next layer) becomes ``Gelu`` and ``Mul`` by two,
   which a later rewrite folds back into that layer.

A group is left alone when a value inside it is also read outside, or when it is already in canonical form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from converter import torch_ops
from converter.graph import attributes, constant, data_inputs, is_graph_output
from converter.rewriting import add_initializer, insert_before, replace

__all__ = ["Cone", "cones", "evaluate", "fuse_activations"]

_LARGEST = 14
_TOLERANCE = 2e-6
_POINTS = torch.linspace(-12.0, 12.0, 1201, dtype=torch.float64)
_TRIVIAL = {"Add", "Sub", "Mul", "Div", "Neg", "Identity"}


@dataclass(frozen=True)
class Cone:
    """A group of nodes that computes ``output`` from ``source`` and constants alone.

    Attributes:
        source: the only computed tensor that enters.
        output: the only tensor that leaves.
        nodes: in topological order.
    """

    source: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]


def cones(output: ir.Value, order: dict[ir.Node, int], allowed: Callable[[ir.Node], bool]) -> Iterator[Cone]:
    """All cones that end in ``output``, from the smallest to the largest.

    Args:
        output: the tensor that leaves the cone.
        order: topological position of each node.
        allowed: says which nodes may belong to a cone.
    """
    node = output.producer()
    members: set[ir.Node] = set()
    while node is not None and allowed(node) and len(members) < _LARGEST:
        if node is not output.producer() and not _read_inside(node, members):
            return
        members.add(node)
        frontier = {v for m in members for _, v in data_inputs(m) if v.producer() not in members}
        if len(frontier) == 1:
            yield Cone(next(iter(frontier)), output, tuple(sorted(members, key=order.__getitem__)))
        producers = [p for p in (v.producer() for v in frontier) if p is not None]
        if not frontier or len(frontier) > 3 or not producers:
            return
        node = max(producers, key=order.__getitem__)


def _read_inside(node: ir.Node, members: set[ir.Node]) -> bool:
    return all(not is_graph_output(o) and all(user in members for user in o.consumers()) for o in node.outputs)


def evaluate(cone: Cone, x: torch.Tensor) -> torch.Tensor | None:
    """The cone's output for a given source tensor, or None if an operator in it is not known."""
    values: dict[ir.Value, torch.Tensor] = {cone.source: x}
    for node in cone.nodes:
        inputs: list[torch.Tensor | None] = []
        for value in node.inputs:
            array = constant(value)
            if array is not None:
                tensor = torch.from_numpy(np.array(array))
                inputs.append(tensor.to(x.dtype) if tensor.is_floating_point() else tensor)
            else:
                inputs.append(None if value is None else values[value])
        try:
            (values[node.outputs[0]],) = torch_ops.apply(node.op_type, inputs, attributes(node))
        except torch_ops.UnknownOperatorError:
            return None
    return values[cone.output]


def _pointwise(node: ir.Node) -> bool:
    if node.op_type not in torch_ops.POINTWISE or node.domain not in ("", "ai.onnx"):
        return False
    constants = [a for a in (constant(v) for v in node.inputs) if a is not None]
    return all(a.size == 1 and a.ndim <= 1 for a in constants)


def fuse_activations(model: ir.Model) -> list[str]:
    """Bring every activation function to its canonical operator; returns the names of the tensors concerned."""
    changed = _fuse(model.graph, _recognise_exact)
    return changed + _fuse(model.graph, _recognise_doubled)


Replacement = Callable[[Cone], ir.Value]


def _fuse(graph: ir.Graph, recognise: Callable[[torch.Tensor, int], Replacement | None]) -> list[str]:
    changed: list[str] = []
    position = {node: i for i, node in enumerate(graph)}
    for node in list(graph):
        if node.graph is not graph or not _pointwise(node):
            continue
        for cone in cones(node.outputs[0], position, _pointwise):
            if len(cone.nodes) < 2 or all(n.op_type in _TRIVIAL for n in cone.nodes):
                continue
            y = evaluate(cone, _POINTS)
            build = None if y is None or y.shape != _POINTS.shape else recognise(y, len(cone.nodes))
            if build is None:
                continue
            changed.append(str(cone.output.name))
            new = build(cone)
            replace(cone.output, new, reversed(cone.nodes))
            position = {n: i for i, n in enumerate(graph)}
            break
    return changed


def _same(y: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(torch.isfinite(y).all()) and bool(((y - expected).abs() <= _TOLERANCE * (1 + expected.abs())).all())


def _recognise_exact(y: torch.Tensor, size: int) -> Replacement | None:
    x = _POINTS
    if _same(y, functional.gelu(x)):
        return _operator("Gelu", {"approximate": "none"})
    if _same(y, functional.gelu(x, approximate="tanh")):
        return _operator("Gelu", {"approximate": "tanh"})
    if _same(y, functional.silu(x)):
        return _silu if size > 2 else None
    if _same(y, functional.hardswish(x)):
        return _operator("HardSwish", {})
    if _same(y, torch.sigmoid(x)):
        return _operator("Sigmoid", {})
    if _same(y, torch.relu(x)):
        return _operator("Relu", {})
    return _recognise_clipped_line(y)


def _recognise_clipped_line(y: torch.Tensor) -> Replacement | None:
    """HardSigmoid (a line clipped to 0..1) or Clip (the identity clipped)."""
    low, high = float(y.min()), float(y.max())
    inner = (y > low + 1e-9) & (y < high - 1e-9)
    if int(inner.sum()) < 8:
        return None
    x0, x1 = _POINTS[inner][0], _POINTS[inner][-1]
    y0, y1 = y[inner][0], y[inner][-1]
    slope = float((y1 - y0) / (x1 - x0))
    offset = float(y0) - slope * float(x0)
    if slope <= 0 or not _same(y, torch.clamp(slope * _POINTS + offset, low, high)):
        return None
    if abs(low) < _TOLERANCE and abs(high - 1) < _TOLERANCE:
        return _operator("HardSigmoid", {"alpha": round(slope, 7), "beta": round(offset, 7)})
    if abs(slope - 1) < _TOLERANCE and abs(offset) < _TOLERANCE and (low > -12 + 1e-6 and high < 12 - 1e-6):
        return _clip(low, high)
    return None


def _recognise_doubled(y: torch.Tensor, size: int) -> Replacement | None:
    for approximate in ("none", "tanh"):
        if _same(y, 2 * functional.gelu(_POINTS, approximate=approximate)):
            return _doubled_gelu(approximate)
    return None


def _operator(op_type: str, attrs: dict[str, object]) -> Replacement:
    def build(cone: Cone) -> ir.Value:
        return insert_before(cone.nodes[-1], op_type, [cone.source], attrs, name=f"{cone.output.name}_{op_type}", like=cone.output)

    return build


def _clip(low: float, high: float) -> Replacement:
    def build(cone: Cone) -> ir.Value:
        graph = cone.nodes[-1].graph
        assert isinstance(graph, ir.Graph)
        limits = [
            add_initializer(graph, f"{cone.output.name}_{end}", np.asarray(value, np.float32))
            for end, value in (("min", low), ("max", high))
        ]
        return insert_before(cone.nodes[-1], "Clip", [cone.source, *limits], name=f"{cone.output.name}_Clip", like=cone.output)

    return build


def _silu(cone: Cone) -> ir.Value:
    anchor, name = cone.nodes[-1], cone.output.name
    gate = insert_before(anchor, "Sigmoid", [cone.source], name=f"{name}_Sigmoid", like=cone.output)
    return insert_before(anchor, "Mul", [cone.source, gate], name=f"{name}_Mul", like=cone.output)


def _doubled_gelu(approximate: str) -> Replacement:
    def build(cone: Cone) -> ir.Value:
        anchor, name = cone.nodes[-1], cone.output.name
        graph = anchor.graph
        assert isinstance(graph, ir.Graph)
        gelu = insert_before(anchor, "Gelu", [cone.source], {"approximate": approximate}, name=f"{name}_Gelu", like=cone.output)
        two = add_initializer(graph, f"{name}_two", np.asarray(2.0, np.float32))
        return insert_before(anchor, "Mul", [gelu, two], name=f"{name}_Mul", like=cone.output)

    return build
