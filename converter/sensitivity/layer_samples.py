"""What a layer multiplies, as rows and matrices, and which rows of it stand for all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from converter.graph.operator_sets import LAYERS
from converter.torch_backend.network import Network, Step
from converter.torch_backend.ops.layers import pad_spatial, spatial_pads

__all__ = ["LayerSample", "layer_matrix", "layer_rows", "layers_of", "sample_layer"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class LayerSample:
    """A layer as matrix products at sampled places: ``left[g] @ right[g]`` for every g.

    Attributes:
        name: of the operator.
        operands: names of the activations it reads: one for a weighted layer, two for a product.
        left: float32 [G, S, K], rows of the first operand; G: groups of a convolution, or sampled matrices of a product.
        right: float32 [G, K, M], weights without bias, or the second operand.
        fisher: float32 [G, S, M], mean squared gradient of the loss by the product.
        positions: number of places the S rows stand for, per sample.
        blind: the importance is even, as no gradient came here.
    """

    name: str
    operands: tuple[str, ...]
    left: Tensor
    right: Tensor
    fisher: Tensor
    positions: int
    blind: bool = False

    @property
    def weighted(self) -> bool:
        """True for a layer with constant weights."""
        return len(self.operands) == 1


def layers_of(network: Network) -> tuple[str, ...]:
    """Names of the steps that multiply a computed matrix with constant weights, or two computed matrices."""
    return tuple(s.name for s in network.steps if _is_layer(s, network))


def _is_layer(step: Step, network: Network) -> bool:
    if step.op_type not in LAYERS or step.inputs[0] in network.constants:
        return False
    weight = network.constants.get(step.inputs[1])
    if weight is None:
        return step.op_type == "MatMul"
    return weight.ndim in (3, 4) if step.op_type == "Conv" else weight.ndim == 2 and not step.attributes.get("transA", 0)


def layer_matrix(step: Step, weight: Tensor) -> Tensor:
    """Weights as float32 [G, K, M]."""
    if step.op_type == "Conv":
        groups = step.attributes.get("group", 1)
        return weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)
    return (weight.T if step.attributes.get("transB", 0) else weight)[None]


def layer_rows(step: Step, x: Tensor, weight: Tensor, places: Tensor | None) -> Tensor:
    """Input of a weighted layer as the rows that its weights multiply.

    Args:
        step: the layer.
        x: float32, the operand with the sample axis in front.
        weight: for the kernel's shape.
        places: int64 [samples, P], which output positions of each sample; None for all.

    Returns:
        float32 [G, samples * P, K].
    """
    samples = x.shape[0]
    if step.op_type != "Conv":
        rows = x.reshape(samples, -1, x.shape[-1])
        return _pick(rows, places).reshape(1, -1, x.shape[-1])
    groups, kernel = step.attributes.get("group", 1), tuple(weight.shape[2:])
    x = x.reshape(-1, *x.shape[2:])  # a batch axis of one
    strides = step.attributes.get("strides", [1] * len(kernel))
    dilations = step.attributes.get("dilations", [1] * len(kernel))
    x = pad_spatial(x, spatial_pads(x, step.attributes, kernel, strides, dilations))
    if x.ndim == 3:
        x, kernel, strides, dilations = x[:, :, None], (1, *kernel), [1, *strides], [1, *dilations]
    if math.prod(kernel) == 1:
        columns = x[:, :, :: strides[0], :: strides[1]].flatten(2)
    else:
        columns = functional.unfold(x, kernel, dilation=tuple(dilations), stride=tuple(strides))
    rows = columns.reshape(samples, -1, columns.shape[1], columns.shape[2])  # [samples, batch, C k, positions]
    rows = rows.movedim(2, 3).reshape(samples, -1, columns.shape[1])
    picked = _pick(rows, places).reshape(-1, groups, columns.shape[1] // groups)
    return picked.transpose(0, 1)


def _output_rows(step: Step, y: Tensor, groups: int, places: Tensor | None) -> Tensor:
    """Output of a weighted layer at the same places; float32 [G, samples * P, M]."""
    samples = y.shape[0]
    if step.op_type == "Conv":
        channels = y.shape[2]
        rows = y.reshape(samples, y.shape[1], channels, -1).movedim(2, 3).reshape(samples, -1, channels)
    else:
        rows = y.reshape(samples, -1, y.shape[-1])
    picked = _pick(rows, places)
    return picked.reshape(-1, groups, picked.shape[-1] // groups).transpose(0, 1)


def _pick(rows: Tensor, places: Tensor | None) -> Tensor:
    return rows if places is None else torch.gather(rows, 1, places[:, :, None].expand(-1, -1, rows.shape[2]))


def sample_layer(
    step: Step, network: Network, values: Mapping[str, Tensor], fisher: Tensor, share: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Some rows of what a layer multiplies, drawn for each sample.

    Args:
        step: the layer.
        network: whose constants the weights may be.
        values: float32, of its inputs, the sample axis in front.
        fisher: squared gradients at its output, like it; float32 [samples, ...].
        share: rows of a sample at most.
        generator: draws them.

    Returns:
        left rows, right matrices, the squared gradients of their products, and how many rows a sample has in all.
    """
    x = values[step.inputs[0]]
    if step.inputs[1] in network.constants:
        weight = network.constants[step.inputs[1]]
        right = layer_matrix(step, weight)
        spatial = fisher.shape[3:] if step.op_type == "Conv" else fisher.shape[1:-1]
        batch = fisher.shape[1] if step.op_type == "Conv" else 1
        count = math.prod(spatial) * batch
        places = None
        if count > share:
            places = torch.stack([torch.randperm(count, generator=generator)[:share] for _ in range(x.shape[0])])
        left = layer_rows(step, x, weight, places)
        return left, right, _output_rows(step, fisher, right.shape[0], places), count
    left, right, weights = _matrices(x, values[step.inputs[1]], fisher)
    matrices = left.shape[0] // x.shape[0]
    # whole matrices of the second operand, some rows of the first
    keep = min(matrices, max(1, share // 8))
    chosen = torch.cat([i * matrices + torch.randperm(matrices, generator=generator)[:keep] for i in range(x.shape[0])])
    lines = min(left.shape[1], max(8, share // keep))
    row = torch.randperm(left.shape[1], generator=generator)[:lines]
    return left[chosen][:, row], right[chosen], weights[chosen][:, row], matrices * left.shape[1]


def _matrices(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two operands and the result of a MatMul, the sample axis in front, as one matrix each of every product, broadcast as MatMul does.

    Returns:
        float32 [G, S, K], [G, K, M] and [G, S, M]; a vector is a matrix of one row, or column.
    """
    if x.ndim == 2:
        x, z = x[:, None], z[..., None, :] if y.ndim > 2 else z[..., None]
    if y.ndim == 2:
        y, z = y[..., None], z[..., None]
    rank = max(x.ndim, y.ndim)
    x, y = (v.reshape(v.shape[0], *[1] * (rank - v.ndim), *v.shape[1:]) for v in (x, y))
    shape = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    left, right = (v.expand(*shape, *v.shape[-2:]).reshape(-1, *v.shape[-2:]) for v in (x, y))
    return left, right, z.reshape(-1, left.shape[-2], right.shape[-1])
