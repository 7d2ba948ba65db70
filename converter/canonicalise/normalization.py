"""LayerNorm and Softmax written with primitive operators become one operator.

As in :mod:`converter.canonicalise.clusters`, groups are recognised by what they compute. Cases:

1. mean, difference, variance, epsilon, root, quotient over the last axis, in any spelling, become
   ``LayerNormalization``; a factor and an offset per channel behind it are taken in.
2. ``exp(x) / sum(exp(x))`` over the last axis, with or without subtraction of the maximum, becomes ``Softmax``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import torch

from converter import torch_ops
from converter.canonicalise.clusters import Cone, cones, evaluate
from converter.graph import attributes, constant
from converter.rewriting import add_initializer, insert_before, replace

__all__ = ["fuse_normalizations"]

_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax"}
_DEFAULT_WIDTH = 24


def _allowed(node: ir.Node) -> bool:
    if node.op_type in _REDUCTIONS:
        return _over_last_axis(node)
    if node.op_type == "LayerNormalization":
        return attributes(node).get("axis", -1) == -1 and all(constant(v) is not None for v in node.inputs[1:])
    if node.op_type not in torch_ops.POINTWISE:
        return False
    constants = [a for a in (constant(v) for v in node.inputs) if a is not None]
    return all(a.size == 1 or a.size == a.shape[-1] for a in constants)


def _over_last_axis(node: ir.Node) -> bool:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if axes is None or axes.size != 1 or not attributes(node).get("keepdims", 1):
        return False
    axis = int(axes.reshape(())[()])
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def fuse_normalizations(model: ir.Model) -> list[str]:
    """Fuse decomposed LayerNorm and Softmax; returns the names of the tensors concerned."""
    graph = model.graph
    changed: list[str] = []
    for node in list(graph):
        if node.graph is not graph or not _allowed(node) or node.op_type in _REDUCTIONS or node.op_type == "LayerNormalization":
            continue
        order = {n: i for i, n in enumerate(graph)}
        for cone in cones(node.outputs[0], order, _allowed):
            if not any(n.op_type in {*_REDUCTIONS, "LayerNormalization"} for n in cone.nodes):
                continue
            new = _as_layer_norm(graph, cone) or _as_softmax(cone)
            if new is not None:
                changed.append(str(cone.output.name))
                replace(cone.output, new, reversed(cone.nodes))
                break
    return changed


def _width(cone: Cone) -> int | None:
    """Length of the last axis, from shapes or from the constants; None if nothing tells it."""
    for value in (cone.source, cone.output):
        if value.shape is not None and isinstance(value.shape[-1], int):
            return value.shape[-1]
    sizes = [a.size for n in cone.nodes for a in (constant(v) for v in n.inputs) if a is not None and a.dtype == np.float32]
    return max(sizes, default=1) if max(sizes, default=1) > 1 else None


def _probe(width: int) -> torch.Tensor:
    """Rows of several magnitudes, so that epsilon shows; [6, width], float64."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, width, generator=generator, dtype=torch.float64)
    return rows * torch.tensor([1.0, 3.0, 0.1, 0.01, 1.0, 10.0], dtype=torch.float64)[:, None] + 0.3


def _run(cone: Cone, x: torch.Tensor) -> torch.Tensor | None:
    """Evaluate the cone on [rows, width], where every reduction runs over the last axis."""
    try:
        y = evaluate(cone, x.reshape(*[1] * (_rank(cone) - 2), *x.shape))
    except (RuntimeError, IndexError):  # shapes of the constants do not fit the probe: not a normalization over the last axis
        return None
    return None if y is None or y.numel() != x.numel() else y.reshape(x.shape)


def _rank(cone: Cone) -> int:
    shape = cone.source.shape
    return max(2, len(shape)) if shape is not None else 2


def _epsilons(cone: Cone) -> Iterator[float]:
    for node in cone.nodes:
        if node.op_type == "LayerNormalization":
            yield float(attributes(node).get("epsilon", 1e-5))
        for array in (constant(v) for v in node.inputs):
            if array is not None and array.size == 1 and array.dtype == np.float32 and 0 < float(array.reshape(())[()]) <= 1e-2:
                yield float(array.reshape(())[()])
    yield 0.0


def _as_layer_norm(graph: ir.Graph, cone: Cone) -> ir.Value | None:
    if not any(n.op_type in ("ReduceMean", "LayerNormalization") for n in cone.nodes):
        return None
    width = _width(cone)
    if width is None or width < 2:
        return None
    x = _probe(width)
    y = _run(cone, x)
    if y is None or not bool(torch.isfinite(y).all()):
        return None
    for epsilon in _epsilons(cone):
        centred = x - x.mean(1, keepdim=True)
        z = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + epsilon)
        dz, dy = z - z.mean(0), y - y.mean(0)
        gamma = (dz * dy).sum(0) / dz.square().sum(0).clamp_min(1e-30)
        beta = y.mean(0) - gamma * z.mean(0)
        if bool(((gamma * z + beta - y).abs() <= 1e-6 * (1 + y.abs().max())).all()) and bool((gamma.abs() > 0).any()):
            weights = [
                add_initializer(graph, f"{cone.output.name}_{name}", v.numpy().astype(np.float32))
                for name, v in (("gamma", gamma), ("beta", beta))
            ]
            attrs = {"axis": -1, "epsilon": epsilon}
            name = f"{cone.output.name}_LayerNormalization"
            return insert_before(cone.nodes[-1], "LayerNormalization", [cone.source, *weights], attrs, name=name, like=cone.output)
    return None


def _as_softmax(cone: Cone) -> ir.Value | None:
    if not any(n.op_type == "Exp" for n in cone.nodes):
        return None
    x = _probe(_width(cone) or _DEFAULT_WIDTH)
    y = _run(cone, x)
    if y is None or not bool(((y - torch.softmax(x, 1)).abs() <= 1e-6).all()):
        return None
    return insert_before(cone.nodes[-1], "Softmax", [cone.source], {"axis": -1}, name=f"{cone.output.name}_Softmax", like=cone.output)
