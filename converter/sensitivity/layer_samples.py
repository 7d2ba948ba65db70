"""What a layer multiplies, as rows and matrices, and which rows of it stand for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from converter.graph.operator_sets import LAYERS
from converter.torch_backend.network import Network, Step
from converter.torch_backend.ops.layers import pad_spatial, spatial_pads

__all__ = ["DrawnRows", "LayerSample", "draw_rows", "layer_matrix", "layer_rows", "layers_of", "place_count"]

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
    if places is not None:
        picked = _patches_at(_windows(step, x, weight), places)
    else:
        columns = _columns(step, x, weight)
        rows = columns.reshape(samples, -1, columns.shape[1], columns.shape[2])  # [samples, batch, C k, positions]
        picked = rows.movedim(2, 3).reshape(samples, -1, columns.shape[1])
    groups = step.attributes.get("group", 1)
    return picked.reshape(-1, groups, picked.shape[-1] // groups).transpose(0, 1)


def place_count(step: Step, x: Tensor, weight: Tensor) -> int:
    """How many rows of a sample :func:`layer_rows` gives for all places."""
    if step.op_type != "Conv":
        return math.prod(x.shape[1:-1])
    return x.shape[1] * math.prod(_windows(step, x[:1], weight).shape[2:4])


def _spread(step: Step, x: Tensor, weight: Tensor) -> tuple[Tensor, tuple[int, ...], list[int], list[int]]:
    """A convolution's padded input, [samples * batch, C, H, W], with the kernel's height and width, strides and dilations."""
    kernel = tuple(weight.shape[2:])
    x = x.reshape(-1, *x.shape[2:])  # a batch axis of one
    strides = step.attributes.get("strides", [1] * len(kernel))
    dilations = step.attributes.get("dilations", [1] * len(kernel))
    x = pad_spatial(x, spatial_pads(x, step.attributes, kernel, strides, dilations))
    if x.ndim == 3:
        return x[:, :, None], (1, *kernel), [1, *strides], [1, *dilations]
    return x, kernel, list(strides), list(dilations)


def _columns(step: Step, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution's kernel lies over at all places, [samples * batch, C k, positions]."""
    x, kernel, strides, dilations = _spread(step, x, weight)
    if math.prod(kernel) == 1:
        return x[:, :, :: strides[0], :: strides[1]].flatten(2)
    return functional.unfold(x, kernel, dilation=tuple(dilations), stride=tuple(strides))


def _windows(step: Step, x: Tensor, weight: Tensor) -> Tensor:
    """The same as a view of the padded input, [samples, batch, height, width, C, kernel height, kernel width]."""
    samples = x.shape[0]
    x, kernel, strides, dilations = _spread(step, x, weight)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), 2):
        x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return x.movedim(1, 3).reshape(samples, -1, *x.shape[2:4], x.shape[1], *kernel)


def _patches_at(windows: Tensor, places: Tensor) -> Tensor:
    """Windows at some places of each sample, int64 [samples, P]: [samples, P, C k]. To unfold all would take as many times the memory
    as the kernel has elements.
    """
    _, _, height, width = windows.shape[:4]
    at = places.new_tensor(range(len(places)))[:, None], places // (height * width), places // width % height, places % width
    return windows[at].flatten(2)


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


@dataclass(frozen=True)
class DrawnRows:
    """Some rows of what a layer multiplies.

    Attributes:
        left: float32 [G, S, K].
        right: float32 [G, K, M].
        pick: takes the same rows of a tensor like the layer's output, the sample axis in front; gives [G, S, M].
        positions: how many rows a sample has in all.
    """

    left: Tensor
    right: Tensor
    pick: Callable[[Tensor], Tensor]
    positions: int


def draw_rows(step: Step, network: Network, values: Mapping[str, Tensor], share: int, generator: torch.Generator) -> DrawnRows:
    """Some rows of what a layer multiplies, drawn for each sample.

    Args:
        step: the layer.
        network: whose constants the weights may be.
        values: float32, of its inputs and its output, the sample axis in front.
        share: rows of a sample at most.
        generator: draws them.
    """
    x, shape = values[step.inputs[0]], values[step.outputs[0]].shape
    if step.inputs[1] in network.constants:
        weight = network.constants[step.inputs[1]]
        right = layer_matrix(step, weight)
        spatial = shape[3:] if step.op_type == "Conv" else shape[1:-1]
        batch = shape[1] if step.op_type == "Conv" else 1
        count = math.prod(spatial) * batch
        places = None
        if count > share:
            places = torch.stack([torch.randperm(count, generator=generator)[:share] for _ in range(x.shape[0])])
        left = layer_rows(step, x, weight, places)
        return DrawnRows(left, right, partial(_output_rows, step, groups=right.shape[0], places=places), count)
    y = values[step.inputs[1]]
    left, right = _matrices(x, y)
    matrices = left.shape[0] // x.shape[0]
    # whole matrices of the second operand, some rows of the first
    keep = min(matrices, max(1, share // 8))
    chosen = torch.cat([i * matrices + torch.randperm(matrices, generator=generator)[:keep] for i in range(x.shape[0])])
    lines = min(left.shape[1], max(8, share // keep))
    row = torch.randperm(left.shape[1], generator=generator)[:lines]
    size, ranks = (left.shape[1], right.shape[2]), (x.ndim, y.ndim)

    def pick(z: Tensor) -> Tensor:
        return _products(z, *ranks, *size)[chosen][:, row]

    return DrawnRows(left[chosen][:, row], right[chosen], pick, matrices * left.shape[1])


def _matrices(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two operands of a MatMul, the sample axis in front, as one matrix each of every product, broadcast as MatMul does.

    Returns:
        float32 [G, S, K] and [G, K, M]; a vector is a matrix of one row, or column.
    """
    x = x[:, None] if x.ndim == 2 else x
    y = y[..., None] if y.ndim == 2 else y
    rank = max(x.ndim, y.ndim)
    x, y = (v.reshape(v.shape[0], *[1] * (rank - v.ndim), *v.shape[1:]) for v in (x, y))
    shape = np.broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    left, right = (v.expand(*shape, *v.shape[-2:]).reshape(-1, *v.shape[-2:]) for v in (x, y))
    return left, right


def _products(z: Tensor, left_rank: int, right_rank: int, rows: int, columns: int) -> Tensor:
    """A tensor like the result, in the same order; float32 [G, S, M]."""
    if left_rank == 2:
        z = z[..., None, :] if right_rank > 2 else z[..., None]
    if right_rank == 2:
        z = z[..., None]
    return z.reshape(-1, rows, columns)
