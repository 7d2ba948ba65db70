"""EasyQuant: symmetric scales of weights and activations in turn, by the cosine similarity of the layer's output.

Wu, Tang, Zhao, Zhang, Fu, Zhang: EasyQuant, arXiv 2006.16669, section 3. With codes round(S x), a hundred values of S
between alpha and beta times the one by which the largest magnitude just fits, alpha = 0.5 and beta = 2, are tried; one
S of a tensor of activations, one of each output channel of the weights (as the published code has it). First the
weights' are chosen, given the activations', then the other way round, until nothing changes. A channel's S is judged by
the similarity of that channel, an activation's by that of the whole output, each the mean over the calibration samples.

What the paper does not say: products of two activations are layers too; a tensor that several layers read has one grid,
by the mean of their similarities; layers are judged on sampled rows and on float inputs, where the published code runs the
quantized network; what enters no layer gets the grid
of the largest magnitude. Convolutions, attention and linear layers are treated alike; normalizations stay float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from converter.methods.judging.layer_readers import Reader, captured, layers_read, readers_by_owner
from converter.methods.problem import Problem
from converter.methods.published.symmetric import centred_grid, choose_centred
from converter.plan.choice import Choice
from converter.sensitivity.layer_samples import LayerSample

__all__ = ["Layer", "best_reach", "best_weight_scales", "choose", "layer_of", "similarities"]

Tensor = torch.Tensor

MULTIPLIERS = np.linspace(0.5, 2.0, 100)
"""Of S; the scale of a grid is its inverse."""

_ROUNDS = 3
_ROWS = 1024
_AT_ONCE = 1 << 18
"""Numbers in one product of several candidates: more would leave the cache."""

_MOST_PRODUCTS = 1 << 23
_FEWEST_PLACES = 16
"""Rows of each sample, however large the layer."""


@dataclass(frozen=True)
class Layer:
    """A sampled layer, the samples kept apart.

    Attributes:
        left: float32 [N, G, P, K], N samples.
        right: float32 [N or 1, G, K, M].
        target: float32 [N, G, P, M], the float product.
    """

    left: Tensor
    right: Tensor
    target: Tensor


def choose(problem: Problem) -> Choice:
    """Plan with symmetric grids of greatest output similarity; of the largest magnitude where nothing is multiplied."""
    start = choose_centred(problem)
    context = problem.context
    if context is None:
        return start
    samples, _ = captured(context, layers_read(context), rows=_ROWS, probes=0)
    count = next(iter(context.feed.values())).shape[0]
    layers = {name: layer_of(sample, count) for name, sample in samples.items()}
    readers = readers_by_owner(context, samples)
    tensors, scales = dict(start.tensors), dict(start.constants)
    operands = {(name, 1): layer.right for name, layer in layers.items() if name in context.weights}

    def operand(name: str, index: int) -> Tensor:
        """As the layer will read it: on its grid, if it has one."""
        if (name, index) in operands:
            return operands[name, index]
        x = layers[name].right if index else layers[name].left
        quantized_edge = context.quantized_edges.get((name, index))
        return (
            x
            if quantized_edge is None
            else _rounded(x, tensors[quantized_edge.owner].scale[0] * quantized_edge.factor, tensors[quantized_edge.owner].bits)
        )

    for number in range(_ROUNDS):
        before = dict(tensors), dict(scales)
        for name in (n for n in context.weights if n in layers):
            bits = problem.constants[name, 1].bits
            found, operands[name, 1] = best_weight_scales(layers[name], operand(name, 0), bits)
            scales[name, 1] = replace(scales[name, 1], scale=tuple(float(s) for s in found.reshape(-1)))
        for place, (owner, users) in enumerate(readers.items()):
            problem.progress(number * len(readers) + place, _ROUNDS * len(readers))
            others = {(u.name, u.operand): operand(u.name, 1 - u.operand) for u in users}
            stats = problem.tensors[owner]
            largest = max(-stats.minimum, stats.maximum)
            reach = best_reach(users, layers, others, largest, problem.bits[owner])
            tensors[owner] = centred_grid(reach, problem.bits[owner], problem.signed)
        if before == (tensors, scales):
            break
    return Choice(tensors, scales)


def layer_of(sample: LayerSample, count: int) -> Layer:
    """Prepare a layer of which ``count`` samples were taken; a large one is judged at fewer places."""
    left, right = sample.left, sample.right
    if sample.weighted:
        left, right = left.reshape(left.shape[0], count, -1, left.shape[-1]).transpose(0, 1), right[None]
    else:
        left, right = (x.reshape(count, -1, *x.shape[1:]) for x in (left, right))
    places = max(_FEWEST_PLACES, _MOST_PRODUCTS // (count * left.shape[1] * right.shape[-2] * right.shape[-1]))
    left = left[:, :, :: max(1, -(-left.shape[2] // places))]
    return Layer(left, right, left @ right)


def similarities(got: Tensor, target: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Cosine of two tensors along some axes, counted from the last; 0 where either is zero throughout."""
    dot = (got * target).sum(axes)
    return dot / (got.square().sum(axes) * target.square().sum(axes)).sqrt().clamp(min=1e-30)


def best_weight_scales(layer: Layer, left: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The scale of each output channel that gives its output the greatest mean similarity.

    Args:
        layer: with constant weights.
        left: its rows on their grid, like ``layer.left``.
        bits: of the weights.

    Returns:
        scales, float32 [G, M]; weights on their grids, float32 [1, G, K, M].
    """
    top = 2 ** (bits - 1) - 1
    largest = layer.right.abs().amax(2, keepdim=True).clamp(min=1e-12) / top
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for multiplier in _from_one(MULTIPLIERS):
        scale = largest / float(multiplier)
        rounded = _rounded(layer.right, scale, bits, narrow=True)
        value = similarities(left @ rounded, layer.target, (-2,)).mean(0)[None, :, None]
        if best is None:
            best = value, scale, rounded
            continue
        better = value > best[0]
        best = tuple(torch.where(better, new, old) for new, old in zip((value, scale, rounded), best, strict=True))  # type: ignore[assignment]
    assert best is not None
    return best[1][0, :, 0], best[2]


def best_reach(
    readers: Sequence[Reader], layers: Mapping[str, Layer], others: Mapping[tuple[str, int], Tensor], largest: float, bits: int
) -> float:
    """What the highest code of a tensor's grid should stand for: the greatest similarity, summed over the layers that read it.

    Args:
        readers: all layers that read it.
        layers: by name.
        others: what each multiplies the tensor with, by (layer, operand of the tensor).
        largest: magnitude observed.
        bits: of the tensor.
    """
    multipliers = _from_one(MULTIPLIERS)
    total = torch.zeros(len(multipliers), dtype=torch.float64)
    top = 2 ** (bits - 1) - 1
    for reader in readers:
        layer, other = layers[reader.name], others[reader.name, reader.operand]
        x = layer.right if reader.operand else layer.left
        step = max(1, _AT_ONCE // max(x.numel(), layer.target.numel()))
        for start in range(0, len(multipliers), step):
            scale = torch.tensor(largest / top / multipliers[start : start + step] * reader.quantized_edge.factor, dtype=torch.float32)
            rounded = _rounded(x, scale.clamp(min=1e-12).reshape(-1, 1, 1, 1, 1), bits)
            got = other @ rounded if reader.operand else rounded @ other
            total[start : start + step] += similarities(got, layer.target, (-3, -2, -1)).mean(1).double()
    return float(largest / multipliers[int(total.argmax())])


def _from_one(multipliers: np.ndarray) -> np.ndarray:
    """With the plain one first, so that it wins where nothing is better."""
    return np.concatenate([[1.0], multipliers])


def _rounded(x: Tensor, scale: Tensor | float, bits: int, *, narrow: bool = False) -> Tensor:
    half = 2 ** (bits - 1)
    return torch.clamp(torch.round(x / scale), int(narrow) - half, half - 1) * scale
