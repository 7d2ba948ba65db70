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

from collections.abc import Callable, Collection, Mapping, Sequence
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
    biased = [s.name for s in network.steps if s.name in weight_grids and len(s.inputs) > 2 and s.inputs[2]] if bias else []
    count = max(_FEWEST, _MOST_NUMBERS // max(1, network.live))
    context = replace(context, feed={name: value[:count] for name, value in context.feed.items()})
    places = places_that_matter(context, biased)
    coded = dict(context.feed)
    real = dict(context.feed) if places or correction else {}
    refined: dict[str, Refined] = {}
    on_edges, approximated = on_grids(context.quantized_edges, grids), approximation_hook(approximations)

    def quantized(step: Step, index: int, value: Tensor) -> Tensor:
        return approximated(step, index, on_edges(step, index, value))

    def advance(start: int, end: int, constants: Mapping[str, Tensor]) -> int:
        """Run some steps in both networks; bytes of what was dropped then."""
        if start == end:
            return 0
        read = {*network.outputs, *(name for step in network.steps[end:] for name in step.inputs)}
        section = partial(_advance, network, network.steps[start:end], read)
        runs = [partial(section, coded, quantized, constants), *([partial(section, real, None, {})] if real else [])]
        return sum(in_order(lambda run: run(), runs, context.workers))

    done = dropped = 0
    for number, step in enumerate(network.steps):
        progress(number, len(network.steps))
        if step.name not in weight_grids and not network.one_by_one:
            continue  # runs with those around it, just before the next layer
        dropped += advance(done, number, {})
        done = number + 1
        if not _known(network, step, coded):
            continue  # behind a tensor of which samples differ in shape
        if step.name not in weight_grids:
            dropped += advance(number, done, {})
            continue
        inputs = (real[step.inputs[0]] if correction else None, coded[step.inputs[0]])
        read = partial(on_edges, step, 0)
        codes, constants = _weights(
            step, network, weight_grids[step.name], *inputs, read, context.seed, rounding=rounding, workers=context.workers
        )
        del inputs  # nothing may hold what is dropped below
        dropped += advance(number, done, constants)
        corrected = None
        if step.name in places:
            output = step.outputs[0]
            off = _off(step, real[output], coded[output], places[step.name])
            coded[output] += _along_channels(step, coded[output], off)
            corrected = network.constants[step.inputs[2]] + off
        refined[step.name] = Refined(codes, corrected)
        if dropped > _UNTIL_RELEASE:
            release_freed_memory()
            dropped = 0
    return refined


def _known(network: Network, step: Step, names: Collection[str]) -> bool:
    """Whether a step reads only tensors of these names, and constants."""
    return all(not n or n in names or n in network.constants for n in step.inputs)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _advance(
    network: Network,
    steps: Sequence[Step],
    read: Collection[str],
    values: dict[str, Tensor],
    hook: Hook | None,
    constants: Mapping[str, Tensor],
) -> int:
    """Run steps on all samples: what only they read is never there of more than a few samples at once.

    Args:
        network: that they are of.
        steps: to run, as far as what they read is known.
        read: by steps behind them; other tensors are dropped.
        values: by name, the sample axis in front; those that are read behind are put into them.
        hook: sees what is read.
        constants: to use instead of the network's own.

    Returns:
        bytes of what was dropped.
    """
    known, ready = set(values), []
    for step in steps:
        if _known(network, step, known) and known.intersection(step.inputs):
            ready.append(step)
            known.update(step.outputs)
    inputs = tuple(dict.fromkeys(n for s in ready for n in s.inputs if n in values))
    outputs = tuple(n for s in ready for n in s.outputs if n in read)
    if outputs:
        section = replace(network, steps=tuple(ready), inputs=inputs, outputs=outputs)
        values.update(run_samples(section, {n: values[n] for n in inputs}, hook=hook, constants=constants))
    return sum(_bytes(values.pop(name)) for name in [n for n in values if n not in read])


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
    asked = [partial(_rows, step, weight, coded, seed, read)] if rounding or real is not None else []
    asked += [] if real is None else [partial(_rows, step, weight, real, seed)]
    rows, real_rows, *_ = *in_order(lambda each: each(), asked, workers), None, None
    if rows is not None and real_rows is not None:
        matrix = corrected_weights(real_rows, rows, matrix, workers)
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


def _off(step: Step, real: Tensor, coded: Tensor, places: Places) -> Tensor:
    """What is to be added to a layer's bias.

    Args:
        step: the layer.
        real: its output in the float network, float32 [samples, ...].
        coded: its output in the quantized one, the same shape.
        places: where they are compared.

    Returns:
        float32 [channels].
    """
    # a division by what rounding makes zero leaves nothing to compare
    there, coded_there = (channels_last(step, x)[:, places.index] for x in (real, coded))
    errors = torch.nan_to_num(there - coded_there, 0.0, 0.0, 0.0)
    return _SHARE * certain_mean(errors, places.weights)


def _along_channels(step: Step, output: Tensor, numbers: Tensor) -> Tensor:
    """One number for each channel of a layer's output, in a shape that can be added to it."""
    axis = 2 if step.op_type == "Conv" else output.ndim - 1
    return numbers.reshape(-1, *[1] * (output.ndim - 1 - axis))


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
