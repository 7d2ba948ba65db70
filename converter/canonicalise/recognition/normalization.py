"""LayerNorm and Softmax written with primitive operators become one operator.

As in :mod:`converter.canonicalise.recognition.activations`, groups are recognised by what they compute. Cases:

1. mean, difference, variance, epsilon, root, quotient over the last axis, in any spelling, become
   ``LayerNormalization``; a factor and an offset per channel behind it are taken in. Over the channels of a map, it stands
   between two ``Transpose``, which cost far less than what they replace.
2. ``exp(x) / sum(exp(x))`` over one of these axes, with or without subtraction of the maximum, becomes ``Softmax``.

They have to be exact where a guard shows too: in rows that hardly vary, in rows of zeros, and in probabilities near zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from converter.canonicalise.recognition.subgraphs import Subgraph, evaluate, is_pointwise, subgraphs
from converter.graph.builder import GraphBuilder
from converter.graph.queries import attributes, constant

__all__ = ["fuse_normalizations"]

_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax"}
_SMOOTH = {*_REDUCTIONS, "Add", "Div", "Identity", "LayerNormalization", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub", "Sum"}
"""With these alone, rows of ordinary numbers show all; others may bend at values that only an outlier has."""

_CHANNELS = 1
"""Axis of a map's channels."""

_DEFAULT_WIDTH = 24
_FLAT = 2
"""How many rows at the end of a probe do not vary at all."""

_NARROWEST = 3
"""Rows of two have only two shapes once they are normalized, too few to tell one function from another."""


def fuse_normalizations(model: ir.Model) -> list[str]:
    """Fuse decomposed LayerNorm and Softmax; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    return [name for axis in (-1, _CHANNELS) for name in _fuse_along(builder, axis)]


def _fuse_along(builder: GraphBuilder, axis: int) -> list[str]:
    graph = builder.graph
    changed: list[str] = []
    order = {n: i for i, n in enumerate(graph)}
    # from the end, so that a factor and an offset are in the first group that is tried
    for node in list(reversed(graph)):
        if node.graph is not graph or not _pointwise_by_rows(node, axis):
            continue
        # the largest may begin with the maximum
        for subgraph in reversed(list(subgraphs(node.outputs[0], order, partial(_allowed, axis=axis)))):
            reduces = any(n.op_type in {*_REDUCTIONS, "LayerNormalization"} for n in subgraph.nodes)
            if not reduces or not _keeps_shape(subgraph, axis):
                continue
            new = _as_layer_norm(builder, subgraph, axis) or _as_softmax(builder, subgraph, axis)
            if new is not None:
                changed.append(str(subgraph.output.name))
                builder.replace(subgraph.output, new, reversed(subgraph.nodes))
                order = {n: i for i, n in enumerate(graph)}
                break
    return changed


def _allowed(node: ir.Node, *, axis: int) -> bool:
    if node.op_type in _REDUCTIONS:
        return _reduces(node, axis)
    if node.op_type == "LayerNormalization":
        last = _is_axis(node, attributes(node).get("axis", -1), -1)
        return axis == -1 and last and all(constant(v) is not None for v in node.inputs[1:])
    return _pointwise_by_rows(node, axis)


def _pointwise_by_rows(node: ir.Node, axis: int) -> bool:
    """True if constants have one number, or one for each place along the axis."""
    arrays = [a for a in (constant(v) for v in node.inputs) if a is not None]
    place = _from_the_end(node.outputs[0], axis)
    return is_pointwise(node) and place is not None and all(a.size == 1 or (a.ndim >= -place and a.size == a.shape[place]) for a in arrays)


def _from_the_end(value: ir.Value, axis: int) -> int | None:
    """The axis counted from the end; None if that is not known, or is the last one by another name."""
    if axis < 0:
        return axis
    return axis - len(value.shape) if value.shape is not None and len(value.shape) > axis + 1 else None


def _reduces(node: ir.Node, axis: int) -> bool:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return axes is not None and axes.size == 1 and bool(attributes(node).get("keepdims", 1)) and _is_axis(node, int(axes.item()), axis)


def _is_axis(node: ir.Node, axis: int, wanted: int) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis == wanted or (shape is not None and axis % len(shape) == wanted % len(shape))


def _vectors(subgraph: Subgraph) -> list[np.ndarray]:
    """The constants of more than one element."""
    arrays = [constant(v) for n in subgraph.nodes for v in n.inputs]
    return [a for a in arrays if a is not None and a.size > 1]


def _keeps_shape(subgraph: Subgraph, axis: int) -> bool:
    """False if a constant could give the output another shape than the source has."""
    source = subgraph.source.shape
    width = _width(subgraph, axis)
    ranks = [a.ndim for n in subgraph.nodes for a in (constant(v) for v in n.inputs) if a is not None]
    return max(ranks, default=0) <= (1 if source is None else len(source)) and all(a.size == width for a in _vectors(subgraph))


def _width(subgraph: Subgraph, axis: int) -> int | None:
    """Length of the axis, from shapes or from the constants; None if nothing tells it."""
    for value in (subgraph.source, subgraph.output):
        size = value.shape[axis] if value.shape is not None and len(value.shape) > max(axis, 0) else None
        if isinstance(size, int):
            return size
    return max((a.size for a in _vectors(subgraph)), default=None)


def _run(subgraph: Subgraph, rows: torch.Tensor, axis: int) -> torch.Tensor | None:
    """Evaluate the subgraph on [rows, width], where every reduction runs along the axis."""
    ranks = {len(v.shape) for v in (subgraph.source, *(n.outputs[0] for n in subgraph.nodes)) if v.shape is not None} or {2}
    rank = max(ranks)
    if rank < 2 or len(ranks) > 1:
        return None
    ones = [1] * (rank - 2)
    y = evaluate(subgraph, rows.reshape(*ones, *rows.shape) if axis < 0 else rows.reshape(*rows.shape, *ones))
    return None if y is None or y.numel() != rows.numel() else y.reshape(rows.shape)


def _probe(width: int) -> torch.Tensor:
    """Rows of several magnitudes; [6, width], float64."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, width, generator=generator, dtype=torch.float64)
    return rows * torch.tensor([1.0, 3.0, 0.1, 0.01, 1e-4, 10.0], dtype=torch.float64)[:, None] + 0.3


def _norm_probe(width: int, *, outliers: bool) -> torch.Tensor:
    """Rows of ordinary and of ever smaller variance, so that epsilon shows, the last two flat; [N, width], float64.

    Args:
        outliers: with rows in which one place is far off, as far as it can be after normalization.
    """
    spread = torch.randn(2, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    faint = torch.cat([spread * 10.0**-exponent for exponent in range(2, 20)])
    peaks = torch.eye(width, dtype=torch.float64) if outliers else torch.empty(0, width, dtype=torch.float64)
    return torch.cat([_probe(width), faint, peaks, -peaks, torch.tensor([[0.5], [0.0]]).expand(_FLAT, width)])


def _epsilons(subgraph: Subgraph) -> Iterator[float]:
    """What the subgraph may add to the variance: its small constants, or nothing."""
    for node in subgraph.nodes:
        if node.op_type == "LayerNormalization":
            yield float(attributes(node).get("epsilon", 1e-5))
        for array in (constant(v) for v in node.inputs):
            if array is not None and array.size == 1 and array.dtype == np.float32 and 0 < array.item() <= 1e-2:
                yield float(array.item())
    yield 0.0


def _as_layer_norm(builder: GraphBuilder, subgraph: Subgraph, axis: int) -> ir.Value | None:
    if not any(n.op_type in ("ReduceMean", "LayerNormalization") for n in subgraph.nodes):
        return None
    width = _width(subgraph, axis)
    if width is None or width < _NARROWEST:
        return None
    x = _norm_probe(width, outliers=any(n.op_type not in _SMOOTH for n in subgraph.nodes))
    y = _run(subgraph, x, axis)
    if y is None or not bool(torch.isfinite(y[:-_FLAT]).all()):
        return None
    for epsilon in _epsilons(subgraph):
        weights = _gamma_and_beta(x, y, epsilon)
        if weights is None:
            continue
        name = str(subgraph.output.name)
        values = [builder.initializer(f"{name}_{what}", w.numpy().astype(np.float32)) for what, w in weights.items()]
        return _write_layer_norm(builder, subgraph, values, epsilon, axis)
    return None


def _write_layer_norm(builder: GraphBuilder, subgraph: Subgraph, weights: Sequence[ir.Value], epsilon: float, axis: int) -> ir.Value:
    name, x = str(subgraph.output.name), subgraph.source

    def add(op_type: str, inputs: Sequence[ir.Value], attrs: Mapping[str, Any], what: str, like: ir.Value) -> ir.Value:
        shape = like.shape
        if op_type == "Transpose" and shape is not None:
            shape = ir.Shape([shape[place] for place in attrs["perm"]])
        return builder.add(op_type, inputs, attrs, name=f"{name}_{what}", like=like, shape=shape, before=subgraph.nodes[-1])

    if axis < 0:
        return add("LayerNormalization", [x, *weights], {"axis": -1, "epsilon": epsilon}, "LayerNormalization", subgraph.output)
    rank = len(x.shape or ())
    last = [place for place in range(rank) if place != axis] + [axis]
    x = add("Transpose", [x], {"perm": last}, "last", x)
    x = add("LayerNormalization", [x, *weights], {"axis": -1, "epsilon": epsilon}, "LayerNormalization", x)
    return add("Transpose", [x], {"perm": [last.index(place) for place in range(rank)]}, "first", x)


def _gamma_and_beta(x: torch.Tensor, y: torch.Tensor, epsilon: float) -> dict[str, torch.Tensor] | None:
    """Factor and offset with which LayerNorm turns x into y, by least squares; None if it does not."""
    centred = x - x.mean(1, keepdim=True)
    z = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + epsilon)
    rows, wanted = z[:-_FLAT], y[:-_FLAT]
    dz, dy = rows - rows.mean(0), wanted - wanted.mean(0)
    gamma = (dz * dy).sum(0) / dz.square().sum(0).clamp_min(1e-30)
    beta = wanted.mean(0) - gamma * rows.mean(0)
    near = ((gamma * z + beta - y).abs() <= 1e-6 * (1 + wanted.abs().max())) | (torch.isnan(z) & ~torch.isfinite(y))
    return {"gamma": gamma, "beta": beta} if bool(near.all()) and bool((gamma != 0).any()) else None


def _as_softmax(builder: GraphBuilder, subgraph: Subgraph, axis: int) -> ir.Value | None:
    if not any(n.op_type == "Exp" for n in subgraph.nodes):
        return None
    rows = _probe(_width(subgraph, axis) or _DEFAULT_WIDTH)
    x = torch.cat([rows, rows - 60.0, rows + 60.0, 5 * rows])  # the shift brings out anything added to the sum
    y, expected = _run(subgraph, x, axis), torch.softmax(x, 1)
    if y is None or not bool(((y - expected).abs() <= 1e-6 * expected).all()):
        return None
    return builder.add(
        "Softmax",
        [subgraph.source],
        {"axis": axis},
        name=f"{subgraph.output.name}_Softmax",
        like=subgraph.output,
        before=subgraph.nodes[-1],
    )
