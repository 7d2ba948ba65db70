"""RepQ-ViT: calibrate with complex grids, run with simple ones.

Li, Xiao, Yang, Gu: RepQ-ViT, arXiv 2212.08254. What a LayerNorm gives to layers is calibrated per channel, asymmetric:
scales s and zero points z. The variation factors r1 = s / mean(s) and r2 = z - mean(z) go into the LayerNorm and the next
layers (section 3.2, eqs. 8 to 11), so that one scale and one zero point remain, with the same integers. What a softmax gives to a
product lies on a grid of powers of the root of two, written as powers of two (section 3.3, eqs. 14 to 17). All ranges are
the best of three percentiles by squared error, as in the published code.

What differs: the mean zero point is rounded, so that it can be one; weights have no zero point, as the kernels want it, and
the best percentile of their magnitudes. Where the paper has no rule, activations have one scale: in front of convolutions,
behind GroupNorm, where another operator than a softmax makes one operand of a product, and where a shift cannot be
equalized. The product behind a softmax runs in float, on numbers that lie on grids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.methods.judging.layer_readers import captured, layers_read
from converter.methods.problem import Problem, choose_by_ranges
from converter.methods.protocol import Proposal
from converter.methods.published.carry_over import completed
from converter.plan.choice import Choice
from converter.quantization.parameters import QuantParams, affine_params
from converter.transforms.equalization.site import Equalization
from converter.transforms.equalization.transform import Equalizations
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer, QuantizerSite
from converter.transforms.nonuniform.transform import NonuniformQuantization

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats

__all__ = ["channel_grids", "choose", "equalization", "log_scale", "quantizers", "variation_factors"]

_PERCENTILES = (99.9, 99.99, 99.999)
_ROWS = 4096
_SMALLEST_SHARE = 1.0 / 512
"""No channel's scale is smaller beside the largest: one that never moves would have the scale zero."""

Doubles = npt.NDArray[np.float64]


def equalization(problem: Problem) -> Proposal:
    """The variation factors of what each LayerNorm gives to layers."""
    equalizations = {}
    for name, values in _channel_values(problem).items():
        site = problem.sites.get(name)
        if site is not None and site.kind == "cross_layer" and site.shift and site.channels == values.shape[1]:
            equalizations[name] = variation_factors(*channel_grids(values, problem.bits[name]), problem.bits[name])
    return Proposal(Equalizations(equalizations) if equalizations else None)


def variation_factors(scale: Doubles, zero_point: Doubles, bits: int) -> Equalization:
    """The equalization that brings channels with scales and zero points of their own to the mean ones (eqs. 8 to 10).

    Args:
        scale: float64 [channels].
        zero_point: float64 [channels], integers, where codes go from 0 to 2^bits - 1.
        bits: of the codes.
    """
    mean = float(np.clip(np.rint(zero_point.mean()), 0, 2**bits - 1))
    return Equalization(tuple(float(s) for s in scale / scale.mean()), tuple(float(m) for m in (mean - zero_point) * scale))


def quantizers(problem: Problem) -> Proposal:
    """The grids behind softmaxes, and all others."""
    first_choice = _first_choice(problem)
    found = {
        name: _behind_softmax(problem, first_choice, quantizer_site)
        for name, quantizer_site in problem.quantizer_sites.items()
        if quantizer_site.kind == "attention"
    }
    return Proposal(NonuniformQuantization(found) if found else None, first_choice)


def choose(problem: Problem) -> Choice:
    """Answer with the first choice, or make one."""
    return completed(problem, _first_choice(problem) if problem.first_choice is None else problem.first_choice)


def _first_choice(problem: Problem) -> Choice:
    choice = choose_by_ranges(problem, _range, _magnitudes)
    tensors = dict(choice.tensors)
    equalizations = [name for t in problem.transforms if isinstance(t, Equalizations) for name in t.equalizations]
    values = _channel_values(problem) if equalizations else {}
    for name in (n for n in equalizations if n in values):
        # all channels have one grid now, but for those of which another percentile comes out best by a hair
        scale, zero_point = (float(np.median(numbers)) for numbers in channel_grids(values[name], problem.bits[name]))
        lowest, highest = tensors[name].qmin, tensors[name].qmax
        zero = int(np.clip(np.rint(zero_point) + lowest, lowest, highest))
        tensors[_owner(problem, name)] = QuantParams((float(np.float32(scale)),), (zero,), problem.bits[name], problem.signed)
    return Choice(tensors, choice.constants)


def _owner(problem: Problem, name: str) -> str:
    """The tensor whose grid it is that the layers behind a LayerNorm read."""
    quantized_edges = problem.context.quantized_edges if problem.context is not None else {}
    found = [quantized_edges[reader].owner for reader in problem.quantizer_sites[name].readers if reader in quantized_edges]
    return found[0] if found else name


def _behind_softmax(problem: Problem, first_choice: Choice, quantizer_site: QuantizerSite) -> NonuniformQuantizer:
    ((reader, index),) = quantizer_site.readers
    bits = problem.bits[quantizer_site.tensor]
    return NonuniformQuantizer(
        "log-sqrt2",
        bits,
        log_scale(problem.tensors[quantizer_site.tensor].sample, bits),
        partner=operand_grid(problem, first_choice, reader, index, quantizer_site),
    )


def operand_grid(problem: Problem, first_choice: Choice, reader: str, index: int, quantizer_site: QuantizerSite) -> QuantParams:
    """The grid of the other operand of a product, as it will be moved and relabelled on its way there."""
    quantized_edge = problem.context.quantized_edges.get((reader, 1 - index)) if problem.context is not None else None
    if quantized_edge is None:
        return first_choice.tensors[quantizer_site.partner]
    grid = first_choice.tensors[quantized_edge.owner]
    return grid if quantized_edge.factor == 1.0 else grid.rescaled(quantized_edge.factor)


def log_scale(sample: npt.NDArray[np.float32], bits: int) -> float:
    """What code 0 should stand for: of three percentiles, the one with the least squared error."""
    x = np.maximum(sample.astype(np.float64), 2.0**-126)
    best = (np.inf, 1.0)
    for percentile in _PERCENTILES:
        scale = max(float(np.percentile(x, percentile)), 2.0**-40)
        codes = np.rint(-2.0 * np.log2(x / scale))
        numbers = np.where(codes < 2**bits, scale * 2.0 ** (-np.clip(codes, 0, 2**bits - 1) / 2.0), 0.0)
        best = min(best, (float(np.square(numbers - x).sum()), scale))
    return float(np.float32(best[1]))


def channel_grids(values: npt.NDArray[np.float32], bits: int) -> tuple[Doubles, Doubles]:
    """Scale and zero point of each channel, codes from 0 to 2^bits - 1; the zero point may lie outside.

    Args:
        values: float32 [values, channels].
        bits: of the codes.
    """
    x = values.astype(np.float64)
    best = np.full(x.shape[1], np.inf)
    scale, zero_point = np.ones(x.shape[1]), np.zeros(x.shape[1])
    for percentile in _PERCENTILES:
        low, high = np.percentile(x, (100.0 - percentile, percentile), axis=0)
        step = (high - low) / (2**bits - 1)
        step = np.maximum(step, max(float(step.max()) * _SMALLEST_SHARE, 2.0**-40))
        zero = np.rint(-low / step)
        codes = np.clip(np.rint(x / step) + zero, 0, 2**bits - 1)
        error = np.square((codes - zero) * step - x).mean(axis=0)
        better = error < best
        best, scale, zero_point = (np.where(better, new, old) for new, old in ((error, best), (step, scale), (zero, zero_point)))
    return scale, zero_point


def _channel_values(problem: Problem) -> dict[str, npt.NDArray[np.float32]]:
    """Values of what LayerNorms give to layers, float32 [values, channels], by tensor."""
    context = problem.context
    wanted = {n: s for n, s in problem.quantizer_sites.items() if s.kind == "normalized"}
    if context is None or not wanted:
        return {}
    layers = {reader: name for name, quantizer_site in wanted.items() for reader, _ in quantizer_site.readers[:1]}
    samples, _ = captured(context, [n for n in layers_read(context) if n in layers], rows=_ROWS, probes=0)
    return {layers[n]: sample.left[0].numpy() for n, sample in samples.items() if sample.weighted and sample.left.shape[0] == 1}


def _range(stats: TensorStats, bits: int) -> tuple[float, float]:
    best: tuple[float, tuple[float, float]] = (np.inf, (stats.minimum, stats.maximum))
    for percentile in _PERCENTILES:
        low, high = (float(v) for v in np.percentile(stats.sample, (100.0 - percentile, percentile)))
        grid = affine_params(low, high, bits=bits, signed=False)
        codes = np.clip(np.rint(stats.sample / grid.scale[0]) + grid.zero_point[0], 0, grid.qmax)
        error = float(np.square((codes - grid.zero_point[0]) * grid.scale[0] - stats.sample).sum())
        best = min(best, (error, (low, high)))
    return best[1]


def _magnitudes(rows: npt.NDArray[np.float32], bits: int) -> Doubles:
    top = 2 ** (bits - 1) - 1
    best, result = np.full(len(rows), np.inf), np.zeros(len(rows))
    for percentile in _PERCENTILES:
        reach = np.percentile(np.abs(rows), percentile, axis=1)
        step = np.maximum(reach / top, 2.0**-40)[:, None]
        error = np.square(np.clip(np.rint(rows / step), -top, top) * step - rows).sum(axis=1)
        best, result = np.where(error < best, error, best), np.where(error < best, reach, result)
    return result
