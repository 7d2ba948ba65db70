"""Refine constants layer by layer, in the order in which they run, on what the quantized network before them gives.

Weights: other ones make up for inputs that are off, see :mod:`converter.methods.q_hyvit.weight_correction`.

Rounding: instead of to the nearest code, weights are rounded one input at a time, and the error of each is made up for
by those that are still to be rounded, given how the inputs go together (GPTQ, Frantar et al., arXiv 2210.17323,
section 3; the layer-wise objective is that of AdaRound, arXiv 2004.10568, eq. 13).

Bias correction: half of what a layer's outputs are off on average, see :mod:`converter.methods.q_hyvit.bias_correction`, is taken from
its bias (Nagel et al., arXiv 1906.04721, section 4.2, takes all of it). What is left, the layers behind see, and take half
of theirs. The whole fits the calibration images closer and other images less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch

from converter.methods.judging.output_error import on_grids
from converter.methods.q_hyvit.bias_correction import Places, certain_mean, channels_last, places_that_matter
from converter.methods.q_hyvit.sigmoid_search import approximation_hook
from converter.methods.q_hyvit.weight_correction import corrected_weights
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.layer_samples import layer_matrix, layer_rows, place_count
from converter.system.freed_memory import release_freed_memory
from converter.torch_backend.network import Hook, Network, Step, run_samples
from converter.torch_backend.workers import in_order
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear

__all__ = ["Refined", "compensated_rounding", "matrix_to_weight", "reconstruct"]

Tensor = torch.Tensor

_ROWS = 4096
_ROWS_A_WEIGHT = 8
_NUMBERS_IN_ROWS = 1 << 23
"""Of a layer whose groups together have more, fewer rows are taken, but no fewer than so many for each weight of an output."""

_MOST_NUMBERS = 1 << 25
"""In the tensors that are still needed, of all samples: these are held at once, and twice, of the float network too."""

_FEWEST = 8
"""Samples, however many numbers that are."""

_UNTIL_RELEASE = 1 << 27
"""Bytes of tensors that are dropped: beside them there are as many of smaller ones, between which gaps stay."""

_NUMBERS_AT_ONCE = 1 << 18
"""Weights that are rounded at once: each step writes to all that are left, and more of them would leave the cache."""

_DAMPING = 0.01
_SHARE = 0.5


@dataclass(frozen=True)
class Refined:
    """Better constants of one layer.

    Attributes:
        codes: of the weights, int8, in their shape; None to round to the nearest.
        bias: float32 [channels]; None to leave it.
    """

    codes: Tensor | None
    bias: Tensor | None


def reconstruct(
    context: AnalysisContext,
    grids: Mapping[str, QuantParams],
    weight_grids: Mapping[str, QuantParams],
    approximations: Mapping[str, PiecewiseLinear] = MappingProxyType({}),
    *,
    correction: bool,
    rounding: bool,
    bias: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Refined]:
    """Refine all weighted layers.

    Args:
        context: the network, its samples and quantized edges.
        grids: of activations that have one, by owner.
        weight_grids: of layers that run in integer, by layer.
        approximations: what some sigmoids become, by step.
        correction: correct weights for inputs that are off.
        rounding: round weights so that their errors make up for each other.
        bias: correct biases.
        progress: called with (operators done, operators in all).
    """
    network = context.network
    left = _quantized_edges(network)
    biased = [s.name for s in network.steps if s.name in weight_grids and len(s.inputs) > 2 and s.inputs[2]] if bias else []
    count = max(_FEWEST, _MOST_NUMBERS // max(1, network.live))
    context = replace(context, feed={name: value[:count] for name, value in context.feed.items()})
    places = places_that_matter(context, biased)
    real, coded = dict(context.feed), dict(context.feed)
    refined: dict[str, Refined] = {}
    dropped = 0
    on_edges, approximated = on_grids(context.quantized_edges, grids), approximation_hook(approximations)

    def quantized(step: Step, index: int, value: Tensor) -> Tensor:
        return approximated(step, index, on_edges(step, index, value))

    for number, step in enumerate(network.steps):
        progress(number, len(network.steps))
        if any(n and n not in coded and n not in network.constants for n in step.inputs):
            continue  # behind a tensor of which samples differ in shape
        codes: Tensor | None = None
        constants: dict[str, Tensor] = {}
        if step.name in weight_grids:
            inputs = (real[step.inputs[0]] if correction else None, coded[step.inputs[0]])
            read = partial(on_edges, step, 0)
            codes, constants = _weights(
                step, network, weight_grids[step.name], *inputs, read, context.seed, rounding=rounding, workers=context.workers
            )
            del inputs  # nothing may hold what is dropped below
        if any(n in coded for n in step.inputs):
            runs = [partial(_outputs, network, step, coded, quantized, constants)]
            if places or correction:
                runs.append(partial(_outputs, network, step, real, None, {}))
            _update((coded, real), runs, context.workers)
        if step.name in weight_grids:
            corrected = None
            if step.name in places:
                output = step.outputs[0]
                coded[output], off = _corrected(step, real[output], coded[output], places[step.name])
                corrected = network.constants[step.inputs[2]] + off
            refined[step.name] = Refined(codes, corrected)
        for name in step.inputs:
            left[name] -= 1
            if not left[name]:
                dropped += _bytes(real.pop(name, None)) + _bytes(coded.pop(name, None))
        if dropped > _UNTIL_RELEASE:
            release_freed_memory()
            dropped = 0
    return refined


def _update(networks: Sequence[dict[str, Tensor]], runs: Sequence[Callable[[], dict[str, Tensor]]], workers: int) -> None:
    """Put what steps give into the values of the networks that they are of, as many of the first as there are runs."""
    for values, new in zip(networks, in_order(lambda run: run(), runs, workers), strict=False):
        values.update(new)


def _bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def _outputs(
    network: Network, step: Step, values: Mapping[str, Tensor], hook: Hook | None, constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs of a step by itself."""
    inputs = tuple(n for n in dict.fromkeys(step.inputs) if n in values)
    alone = replace(network, steps=(step,), inputs=inputs, outputs=tuple(n for n in step.outputs if n))
    return run_samples(alone, {n: values[n] for n in inputs}, hook=hook, constants=constants)


def _quantized_edges(network: Network) -> dict[str, int]:
    count = dict.fromkeys(network.outputs, 1)
    for step in network.steps:
        for name in step.inputs:
            count[name] = count.get(name, 0) + 1
    return count


def _weights(
    step: Step,
    network: Network,
    grid: QuantParams,
    real: Tensor | None,
    coded: Tensor,
    read: Callable[[Tensor], Tensor],
    seed: int,
    *,
    rounding: bool,
    workers: int,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Codes, int8 in the weight's shape, if they are chosen anew; the weight on its grid, by name.

    Args:
        step: the layer.
        network: that it is part of.
        grid: of the weights.
        real: what the layer reads in the float network; None to keep the weights as they are.
        coded: what is there in the quantized one.
        read: makes of that what the layer reads.
        seed: for the choice of rows.
        rounding: let the errors of rounding make up for each other.
        workers: how many things may be computed at once.
    """
    weight = network.constants[step.inputs[1]]
    matrix = layer_matrix(step, weight)
    scale = torch.tensor(grid.scale, dtype=torch.float32).expand(matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], 1, -1)
    rows = None if real is None and not rounding else _rows(step, weight, coded, seed, read)
    if rows is not None and real is not None:
        matrix = corrected_weights(_rows(step, weight, real, seed), rows, matrix, workers)
    if rows is not None and rounding:
        codes = compensated_rounding(rows.flatten(1, 2), matrix, scale, grid.qmin, grid.qmax, workers)
    else:
        codes = torch.clamp(torch.round(matrix / scale), grid.qmin, grid.qmax)
    stored = None if rows is None else matrix_to_weight(step, codes, weight.shape).to(torch.int8)
    return stored, {step.inputs[1]: matrix_to_weight(step, codes * scale, weight.shape)}


def _rows(step: Step, weight: Tensor, x: Tensor, seed: int, read: Callable[[Tensor], Tensor] = lambda sample: sample) -> Tensor:
    """Rows of a layer's input as it is read, as many of each sample, the same ones for the same seed; float32 [G, samples, P, K]."""
    groups, inputs, _ = layer_matrix(step, weight).shape
    wanted = max(1, min(_ROWS, max(_ROWS_A_WEIGHT * inputs, _NUMBERS_IN_ROWS // (groups * inputs))) // x.shape[0])
    generator = torch.Generator().manual_seed(seed)
    parts, count = [], place_count(step, x, weight)
    for sample in torch.split(x, 1):  # one by one: the rows of all places of all samples take gigabytes
        places = torch.randperm(count, generator=generator)[None, :wanted] if count > wanted else None
        parts.append(layer_rows(step, read(sample), weight, places))
    return torch.stack(parts, 1)


def _corrected(step: Step, real: Tensor, coded: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """What a layer gives once its bias is corrected, and what that adds to its bias.

    Args:
        step: the layer.
        real: its output in the float network, float32 [samples, ...].
        coded: its output in the quantized one, the same shape.
        places: where they are compared.

    Returns:
        the corrected output, and float32 [channels].
    """
    # a division by what rounding makes zero leaves nothing to compare
    there, coded_there = (channels_last(step, x)[:, places.index] for x in (real, coded))
    errors = torch.nan_to_num(there - coded_there, 0.0, 0.0, 0.0)
    off = _SHARE * certain_mean(errors, places.weights)
    axis = 2 if step.op_type == "Conv" else real.ndim - 1
    return coded + off.reshape(-1, *[1] * (real.ndim - 1 - axis)), off


def matrix_to_weight(step: Step, matrix: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of :func:`converter.sensitivity.curvature.layer_matrix`: float32 [G, K, M] to a weight's shape."""
    if step.op_type == "Conv":
        return matrix.transpose(1, 2).reshape(shape)
    return matrix[0].T.contiguous() if step.attributes.get("transB", 0) else matrix[0]


def compensated_rounding(left: Tensor, right: Tensor, scale: Tensor, lowest: int, highest: int, workers: int = 1) -> Tensor:
    """Codes of weights, each rounded so that it makes up for the errors of those before it.

    Args:
        left: rows that the weights multiply, float32 [G, S, K].
        right: weights, float32 [G, K, M].
        scale: of the output channels, float32 [G, 1, M].
        lowest: code.
        highest: code.
        workers: parts of the output channels that are rounded at once; each channel by itself comes out the same.

    Returns:
        integers, float32 [G, K, M].
    """
    inputs = right.shape[1]
    rows = left.double()
    moment = rows.transpose(1, 2) @ rows
    diagonal = moment.diagonal(dim1=1, dim2=2)
    damping = _DAMPING * diagonal.mean(1, keepdim=True).expand(-1, inputs) + 1e-9
    # the inputs that matter most come first, while there is most left to make up with
    order = torch.argsort(diagonal, dim=1, descending=True, stable=True)
    moment = moment + torch.diag_embed(damping)
    moment = torch.gather(torch.gather(moment, 1, order[:, :, None].expand_as(moment)), 2, order[:, None, :].expand_as(moment))
    upper = torch.linalg.cholesky(torch.linalg.inv(moment), upper=True)
    ordered = order[:, :, None].expand(-1, -1, right.shape[2])
    weights = torch.gather((right / scale).double(), 1, ordered)
    parts = torch.split(weights, max(1, _NUMBERS_AT_ONCE // (weights.shape[0] * inputs)), 2)
    codes = torch.cat(list(in_order(lambda part: _rounded_in_turn(part.clone(), upper, lowest, highest), parts, workers)), 2)
    return torch.empty_like(codes).scatter_(1, ordered, codes).float()


def _rounded_in_turn(weights: Tensor, upper: Tensor, lowest: int, highest: int) -> Tensor:
    """Round weights input by input, and make up for the error of each by those behind it.

    Args:
        weights: in steps, float64 [G, K, M]; is written to.
        upper: how the inputs go together, float64 [G, K, K].
        lowest: code.
        highest: code.

    Returns:
        integers, the same shape.
    """
    codes = torch.empty_like(weights)
    for k in range(weights.shape[1]):
        codes[:, k] = torch.clamp(torch.round(weights[:, k]), lowest, highest)
        error = (weights[:, k] - codes[:, k]) / upper[:, k, k, None]
        weights[:, k + 1 :] -= upper[:, k, k + 1 :, None] * error[:, None]
    return codes
