"""Activation functions, whatever their spelling, become one operator.

Exporters write GELU, SiLU, HardSwish and the like as small groups of pointwise operators, in many orders and with
many constants. Instead of matching spellings, this rewrite finds groups with a single input and a single output,
evaluates them on a line of points, and compares the values with the known functions. Cases:

1. erf-GELU and tanh-GELU become ``Gelu``.
2. ``x * sigmoid(x)`` in any form becomes ``Sigmoid`` and ``Mul``.
3. HardSwish and HardSigmoid in any form become ``HardSwish`` and ``HardSigmoid``.
4. Sigmoid written with ``Exp`` becomes ``Sigmoid``; ``Max(x, 0)`` and ``Clip(x, 0)`` become ``Relu``;
   ``Min(Max(x, a), b)`` becomes ``Clip``.
5. Twice a GELU (an optimiser has moved the factor one half into the next layer) becomes ``Gelu`` and ``Mul`` by two,
   which a later rewrite folds back into that layer.

A group is left alone when a value inside it is also read outside, or when it is already in canonical form.

The one operator has to be exact at the edges too: ``Max(x, 1e-6)`` and ``sigmoid(x) + 1e-8`` keep a division or a
logarithm behind them finite, and are neither ``Relu`` nor ``Sigmoid``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from converter.canonicalise.recognition.subgraphs import Subgraph, evaluate, is_pointwise, subgraphs
from converter.graph.builder import GraphBuilder
from converter.graph.queries import constant

__all__ = ["fuse_activations"]

_TOLERANCE = 1e-6
"""Relative room for constants in float32 or with seven digits, and for little more."""

_CANCELLED = 1e-15
"""What is lost of one plus or minus a number close to one in float64."""

_ROUNDED = 2.0**-25
"""What is no further than this from one is one in float32."""

_EDGE = 12.0
_OVERFLOW = 80.0
_SATURATED = 40.0
"""Beyond this, 1 + tanh(x / 2) and its kind are exactly 0 or 2 in float64."""

_FAR = torch.cat([torch.logspace(np.log10(_EDGE), 38, 48, dtype=torch.float64), torch.tensor([np.finfo(np.float32).max])])
_NEAR = torch.logspace(-12, -3, 10, dtype=torch.float64)
_RIGHT = torch.cat([_NEAR, torch.linspace(0.0, _EDGE, 601, dtype=torch.float64)[1:], _FAR])
_POINTS = torch.cat([-_RIGHT.flip(0), torch.zeros(1, dtype=torch.float64), _RIGHT])
"""Dense where activation functions bend; the ends show limits far out, and zero and its surroundings what guards a division."""

_CORE = _POINTS.abs() <= _EDGE
_UNBOUNDED = 1e29
_LINEAR = {"Add", "Sub", "Mul", "Div", "Neg", "Identity"}

Replacement = Callable[[GraphBuilder, Subgraph], ir.Value]


def fuse_activations(model: ir.Model) -> list[str]:
    """Bring every activation function to its canonical operator; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    return [*_fuse(builder, _recognise_exact), *_fuse(builder, _recognise_doubled)]


def _fuse(builder: GraphBuilder, recognise: Callable[[torch.Tensor, Subgraph], Replacement | None]) -> list[str]:
    graph, changed = builder.graph, []
    position = {node: i for i, node in enumerate(graph)}
    for node in list(graph):
        if node.graph is not graph or not _scalar_function(node):
            continue
        candidates = subgraphs(node.outputs[0], position, _scalar_function)
        found = [(subgraph, build) for subgraph in candidates if (build := _recognise(subgraph, recognise))]
        if not found:
            continue
        subgraph, build = found[-1]  # the largest: factors and offsets in front belong to a HardSigmoid
        changed.append(str(subgraph.output.name))
        builder.replace(subgraph.output, build(builder, subgraph), reversed(subgraph.nodes))
        position = {n: i for i, n in enumerate(graph)}
    return changed


def _recognise(subgraph: Subgraph, recognise: Callable[[torch.Tensor, Subgraph], Replacement | None]) -> Replacement | None:
    if all(n.op_type in _LINEAR for n in subgraph.nodes) or _is_canonical(subgraph) or not _keeps_shape(subgraph):
        return None
    y = evaluate(subgraph, _POINTS)
    return recognise(y, subgraph) if y is not None and y.shape == _POINTS.shape else None


def _scalar_function(node: ir.Node) -> bool:
    constants = [a for a in (constant(v) for v in node.inputs) if a is not None]
    return is_pointwise(node) and all(a.size == 1 for a in constants)


def _is_canonical(subgraph: Subgraph) -> bool:
    if len(subgraph.nodes) == 1:
        return subgraph.nodes[0].op_type not in ("Max", "Clip")
    return [n.op_type for n in subgraph.nodes] == ["Sigmoid", "Mul"]


def _keeps_shape(subgraph: Subgraph) -> bool:
    """False if a constant of higher rank could give the output more dimensions than the source has."""
    ranks = [a.ndim for n in subgraph.nodes for a in (constant(v) for v in n.inputs) if a is not None]
    shape = subgraph.source.shape
    return max(ranks, default=0) <= (1 if shape is None else len(shape))


def _same(y: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal to a smooth function wherever the group is defined, relatively, so also where the function is tiny.

    On the left, where functions fade like exp(-x^2 / 2), the relative error of a constant grows with the square of x. Far
    out, some spellings overflow where the function itself does not, and others cancel to zero; a number that stays there
    in place of zero is another function.
    """
    size, far = _POINTS.abs(), _POINTS.abs() > _SATURATED
    fading = torch.clamp(_POINTS, -_SATURATED, 0.0).square()
    gap, close = (y - expected).abs(), _TOLERANCE * (1 + fading) * expected.abs()
    cancelled = _CANCELLED * (1 + size)
    near = torch.where(far, (gap <= close) | ((y == 0) & (expected.abs() <= cancelled)), gap <= close + cancelled)
    return bool((near | (~torch.isfinite(y) & (size > _OVERFLOW))).all())


def _same_hard_swish(y: torch.Tensor) -> bool:
    """Exactly zero left of the bend, and close to it elsewhere; relatively around zero."""
    expected, left = functional.hardswish(_POINTS), _POINTS < -3.01
    near = (y - expected).abs() <= _TOLERANCE * (_POINTS.abs() + expected.abs())
    return bool(torch.where(left, y == 0, near).all())


def _recognise_exact(y: torch.Tensor, subgraph: Subgraph) -> Replacement | None:
    x = _POINTS
    if _same(y, functional.gelu(x)):
        return _operator("Gelu", {"approximate": "none"})
    if _same(y, functional.gelu(x, approximate="tanh")):
        return _operator("Gelu", {"approximate": "tanh"})
    if _same(y, functional.silu(x)):
        return _silu
    if _same_hard_swish(y):
        return _operator("HardSwish")
    if _same(y, torch.sigmoid(x)):
        return _operator("Sigmoid")
    if torch.equal(y, torch.relu(x)):
        return _operator("Relu")
    return _recognise_clipped_line(y) if len(subgraph.nodes) > 1 else None


def _recognise_clipped_line(y: torch.Tensor) -> Replacement | None:
    """Clip (the identity clipped) or HardSigmoid (a line clipped to 0..1), either with exactly those limits."""
    low, high = float(y.min()), float(y.max())
    if -_UNBOUNDED <= low < high <= _UNBOUNDED and torch.equal(y, torch.clamp(_POINTS, low, high)):
        return _operator("Clip", min=low, max=high)
    inner = _CORE & (y > low + 1e-9) & (y < high - 1e-9)
    if int(inner.sum()) < 8 or low != 0.0 or abs(high - 1) > _ROUNDED:
        return None
    (x0, x1), (y0, y1) = _POINTS[inner][[0, -1]].tolist(), y[inner][[0, -1]].tolist()
    slope = (y1 - y0) / (x1 - x0)
    offset = y0 - slope * x0
    line = slope * _POINTS + offset
    outside = (line < -_TOLERANCE) | (line > 1 + _TOLERANCE)
    near = (y - torch.clamp(line, 0.0, 1.0)).abs() <= torch.where(outside, _ROUNDED, _TOLERANCE)
    clipped = torch.where(line < -_TOLERANCE, y == 0, near)
    return _operator("HardSigmoid", {"alpha": slope, "beta": offset}) if slope > 0 and bool(clipped.all()) else None


def _recognise_doubled(y: torch.Tensor, subgraph: Subgraph) -> Replacement | None:
    if any(n.op_type == "Gelu" for n in subgraph.nodes):  # already found
        return None
    for approximate in ("none", "tanh"):
        if _same(y, 2 * functional.gelu(_POINTS, approximate=approximate)):
            return _doubled_gelu(approximate)
    return None


def _operator(op_type: str, attrs: Mapping[str, object] | None = None, **numbers: float) -> Replacement:
    """One operator that reads the source and these constants."""

    def build(builder: GraphBuilder, subgraph: Subgraph) -> ir.Value:
        name = subgraph.output.name
        constants = [builder.initializer(f"{name}_{what}", np.asarray(number, np.float32)) for what, number in numbers.items()]
        inputs = [subgraph.source, *constants]
        return builder.add(op_type, inputs, attrs, name=f"{name}_{op_type}", like=subgraph.output, before=subgraph.nodes[-1])

    return build


def _silu(builder: GraphBuilder, subgraph: Subgraph) -> ir.Value:
    anchor, name = subgraph.nodes[-1], subgraph.output.name
    gate = _operator("Sigmoid")(builder, subgraph)
    return builder.add("Mul", [subgraph.source, gate], name=f"{name}_Mul", like=subgraph.output, before=anchor)


def _doubled_gelu(approximate: str) -> Replacement:
    def build(builder: GraphBuilder, subgraph: Subgraph) -> ir.Value:
        anchor, name = subgraph.nodes[-1], subgraph.output.name
        gelu = _operator("Gelu", {"approximate": approximate})(builder, subgraph)
        two = builder.initializer(f"{name}_two", np.asarray(2.0, np.float32))
        return builder.add("Mul", [gelu, two], name=f"{name}_Mul", like=subgraph.output, before=anchor)

    return build
