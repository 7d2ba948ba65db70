"""LayerNorm and Softmax written with primitive operators become one operator.

As in :mod:`converter.canonicalise.recognition.activations`, groups are recognised by what they compute. Cases:

1. mean, difference, variance, epsilon, root, quotient over the last axis, in any spelling, become
   ``LayerNormalization``; a factor and an offset per channel behind it are taken in.
2. ``exp(x) / sum(exp(x))`` over the last axis, with or without subtraction of the maximum, becomes ``Softmax``.

They have to be exact where a guard shows too: in rows that hardly vary, in rows of zeros, and in probabilities near zero.
"""

from __future__ import annotations

from collections.abc import Iterator

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

_DEFAULT_WIDTH = 24
_FLAT = 2
"""How many rows at the end of a probe do not vary at all."""

_NARROWEST = 3
"""Rows of two have only two shapes once they are normalized, too few to tell one function from another."""


def fuse_normalizations(model: ir.Model) -> list[str]:
    """Fuse decomposed LayerNorm and Softmax; returns the names of the tensors concerned."""
    graph, builder = model.graph, GraphBuilder(model.graph)
    changed: list[str] = []
    order = {n: i for i, n in enumerate(graph)}
    for node in list(graph):
        if node.graph is not graph or not _pointwise_by_rows(node):
            continue
        for subgraph in reversed(list(subgraphs(node.outputs[0], order, _allowed))):  # the largest may begin with the maximum
            if not any(n.op_type in {*_REDUCTIONS, "LayerNormalization"} for n in subgraph.nodes) or not _keeps_shape(subgraph):
                continue
            new = _as_layer_norm(builder, subgraph) or _as_softmax(builder, subgraph)
            if new is not None:
                changed.append(str(subgraph.output.name))
                builder.replace(subgraph.output, new, reversed(subgraph.nodes))
                order = {n: i for i, n in enumerate(graph)}
                break
    return changed


def _allowed(node: ir.Node) -> bool:
    if node.op_type in _REDUCTIONS:
        return _over_last_axis(node)
    if node.op_type == "LayerNormalization":
        return _is_last_axis(node, attributes(node).get("axis", -1)) and all(constant(v) is not None for v in node.inputs[1:])
    return _pointwise_by_rows(node)


def _pointwise_by_rows(node: ir.Node) -> bool:
    constants = [a for a in (constant(v) for v in node.inputs) if a is not None]
    return is_pointwise(node) and all(a.size == 1 or a.size == a.shape[-1] for a in constants)


def _over_last_axis(node: ir.Node) -> bool:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return axes is not None and axes.size == 1 and bool(attributes(node).get("keepdims", 1)) and _is_last_axis(node, int(axes.item()))


def _is_last_axis(node: ir.Node, axis: int) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _vectors(subgraph: Subgraph) -> list[np.ndarray]:
    """The constants of more than one element."""
    arrays = [constant(v) for n in subgraph.nodes for v in n.inputs]
    return [a for a in arrays if a is not None and a.size > 1]


def _keeps_shape(subgraph: Subgraph) -> bool:
    """False if a constant could give the output another shape than the source has."""
    source = subgraph.source.shape
    width = _width(subgraph)
    ranks = [a.ndim for n in subgraph.nodes for a in (constant(v) for v in n.inputs) if a is not None]
    return max(ranks, default=0) <= (1 if source is None else len(source)) and all(a.size == width for a in _vectors(subgraph))


def _width(subgraph: Subgraph) -> int | None:
    """Length of the last axis, from shapes or from the constants; None if nothing tells it."""
    for value in (subgraph.source, subgraph.output):
        if value.shape and isinstance(value.shape[-1], int):
            return value.shape[-1]
    return max((a.size for a in _vectors(subgraph)), default=None)


def _run(subgraph: Subgraph, rows: torch.Tensor) -> torch.Tensor | None:
    """Evaluate the subgraph on [rows, width], where every reduction runs over the last axis."""
    ranks = {len(v.shape) for v in (subgraph.source, *(n.outputs[0] for n in subgraph.nodes)) if v.shape is not None} or {2}
    rank = max(ranks)
    if rank < 2 or len(ranks) > 1:
        return None
    y = evaluate(subgraph, rows.reshape(*[1] * (rank - 2), *rows.shape))
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


def _as_layer_norm(builder: GraphBuilder, subgraph: Subgraph) -> ir.Value | None:
    if not any(n.op_type in ("ReduceMean", "LayerNormalization") for n in subgraph.nodes):
        return None
    width = _width(subgraph)
    if width is None or width < _NARROWEST:
        return None
    x = _norm_probe(width, outliers=any(n.op_type not in _SMOOTH for n in subgraph.nodes))
    y = _run(subgraph, x)
    if y is None or not bool(torch.isfinite(y[:-_FLAT]).all()):
        return None
    for epsilon in _epsilons(subgraph):
        weights = _gamma_and_beta(x, y, epsilon)
        if weights is None:
            continue
        name = str(subgraph.output.name)
        values = [builder.initializer(f"{name}_{what}", w.numpy().astype(np.float32)) for what, w in weights.items()]
        attrs = {"axis": -1, "epsilon": epsilon}
        return builder.add(
            "LayerNormalization",
            [subgraph.source, *values],
            attrs,
            name=f"{name}_LayerNormalization",
            like=subgraph.output,
            before=subgraph.nodes[-1],
        )
    return None


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


def _as_softmax(builder: GraphBuilder, subgraph: Subgraph) -> ir.Value | None:
    if not any(n.op_type == "Exp" for n in subgraph.nodes):
        return None
    rows = _probe(_width(subgraph) or _DEFAULT_WIDTH)
    x = torch.cat([rows, rows - 60.0, rows + 60.0, 5 * rows])  # the shift brings out anything added to the sum
    y, expected = _run(subgraph, x), torch.softmax(x, 1)
    if y is None or not bool(((y - expected).abs() <= 1e-6 * expected).all()):
        return None
    return builder.add(
        "Softmax", [subgraph.source], {"axis": -1}, name=f"{subgraph.output.name}_Softmax", like=subgraph.output, before=subgraph.nodes[-1]
    )
