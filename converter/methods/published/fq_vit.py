"""FQ-ViT: power-of-two factors in front of LayerNorms, attention maps as powers of two, everything quantized.

Lin, Zhang, Sun, Li, Zhou: FQ-ViT, arXiv 2111.13824. The tensor that a LayerNorm reads has one scale and one zero point, and
each channel one of the factors 1, 2, 4, 8, the one of least squared error (Power-of-Two Factor): a QuantizeLinear with one
scale per channel, the LayerNorm itself in float. A residual connection goes on with the same rounded numbers. A softmax
whose output enters a product is computed by integer exponentials from scores on an 8-bit grid, and lands on a 4-bit grid of
powers of two (Log-Int-Softmax). Weights: min-max per output channel. Activations, by one of the paper's observers: min-max,
by which the published figures are made, percentile (99.999 %), or OMSE, the best of ninety shrunken ranges by squared error;
with zero points as in the published code. The range in front of a LayerNorm is the whole one whatever the observer.

What differs: the attention map has 4 bits whatever the width of activations is, and LayerNorm inputs and scores have 8, as
in the paper's main configuration; scores have a step of at most 1, above which the polynomial of the exponential has no
integers left; the product behind a softmax runs in float, on numbers that lie on grids. What is added in front of a LayerNorm
is not rounded before the addition, where the published code does that; a layer of which the runtime's kernel writes codes
only, such as a convolution, has a grid per tensor in front of the factors. Where the paper has no rule,
tensors have the ordinary grid of the observer: in front of convolutions and GroupNorm. Cross attention is treated like
attention; where softmax weights are multiplied element by element, the softmax stays what it is. What neither enters nor
leaves an integer operator, such as a GELU's input, has no grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from converter.methods.problem import Problem, choose_by_ranges
from converter.methods.protocol import Proposal
from converter.methods.published.carry_over import completed
from converter.methods.published.repq_vit import operand_grid
from converter.methods.ranges import minmax
from converter.plan.choice import Choice
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams, affine_params
from converter.torch_backend.network import run_samples
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer, QuantizerSite
from converter.transforms.nonuniform.transform import NonuniformQuantization

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats

__all__ = ["FACTORS", "choose", "omse_range", "percentile_range", "power_of_two_factors", "quantizers", "scores_grid", "whole_range"]

FACTORS = (1.0, 2.0, 4.0, 8.0)
"""2^a for a in 0..3 (section 3.3)."""

_ATTENTION_BITS = 4
_NORM_BITS = 8
_PERCENTILE = 99.999
_SHRINKS = 90
_LARGEST_STEP = 1.0
_ROWS = 8192
"""Rows looked at of one tensor."""


def quantizers(problem: Problem) -> Proposal:
    """The grids in front of LayerNorms and behind softmaxes, and all others."""
    first_choice = _first_choice(problem)
    found: dict[str, NonuniformQuantizer] = {}
    rows = _rows(problem, [name for name, quantizer_site in problem.quantizer_sites.items() if quantizer_site.kind == "normalization"])
    for name, quantizer_site in problem.quantizer_sites.items():
        if quantizer_site.kind == "attention" and quantizer_site.scores in first_choice.tensors:
            found[name] = _attention_map(problem, first_choice, quantizer_site)
        elif quantizer_site.kind == "normalization":
            found[name] = NonuniformQuantizer("power-of-two", params=_norm_grid(problem, name, rows.get(name)))
    return Proposal(NonuniformQuantization(found) if found else None, first_choice)


def choose(problem: Problem) -> Choice:
    """Answer with the first choice, or make one."""
    return completed(problem, _first_choice(problem) if problem.first_choice is None else problem.first_choice)


def power_of_two_factors(values: npt.NDArray[np.float32], grid: QuantParams) -> npt.NDArray[np.int64]:
    """The exponent of each channel's factor, 0 to 3, of least squared error; int64 [channels].

    Args:
        values: float32 [values, channels].
        grid: per tensor, of the whole range: that of the largest factor.
    """
    x, zero = values.astype(np.float64), grid.zero_point[0]
    errors = []
    for factor in FACTORS:
        scale = grid.scale[0] * factor / FACTORS[-1]
        codes = np.clip(np.rint(x / scale + zero), grid.qmin, grid.qmax)
        errors.append(np.square((codes - zero) * scale - x).mean(axis=0))
    return np.asarray(np.argmin(errors, axis=0), np.int64)


def omse_range(stats: TensorStats, bits: int) -> tuple[float, float]:
    """The range shrunk by i per cent, i from 0 to 89, with the least squared error on the kept sample."""
    x = stats.sample.astype(np.float64)
    best = (np.inf, (stats.minimum, stats.maximum))
    for i in range(_SHRINKS):
        low, high = stats.minimum * (1.0 - i / 100), stats.maximum * (1.0 - i / 100)
        grid = affine_params(low, high, bits=bits, signed=False)
        codes = np.clip(np.rint(x / grid.scale[0]) + grid.zero_point[0], 0, grid.qmax)
        error = float(np.square((codes - grid.zero_point[0]) * grid.scale[0] - x).sum())
        best = min(best, (error, (low, high)))
    return best[1]


def percentile_range(stats: TensorStats, bits: int) -> tuple[float, float]:
    """What all but a hundred-thousandth of the kept sample at either end lies in."""
    low, high = np.percentile(stats.sample, (100.0 - _PERCENTILE, _PERCENTILE))
    return float(low), float(high)


def whole_range(stats: TensorStats, bits: int) -> tuple[float, float]:
    """All that was seen, whatever the width."""
    return stats.minimum, stats.maximum


_RANGES = {"minmax": whole_range, "percentile": percentile_range, "omse": omse_range}


def _first_choice(problem: Problem) -> Choice:
    return choose_by_ranges(problem, _RANGES[problem.observer], minmax.magnitudes)


def _attention_map(problem: Problem, first_choice: Choice, quantizer_site: QuantizerSite) -> NonuniformQuantizer:
    ((reader, index),) = quantizer_site.readers
    low, high = _RANGES[problem.observer](problem.tensors[quantizer_site.scores], 8)
    grid = scores_grid(low, high, signed=problem.signed)
    return NonuniformQuantizer(
        "log-int-softmax", _ATTENTION_BITS, params=grid, partner=operand_grid(problem, first_choice, reader, index, quantizer_site)
    )


def scores_grid(low: float, high: float, *, signed: bool) -> QuantParams:
    """8 bits over the scores, or over the highest of them if they go too far: far below the highest, a softmax gives zero.

    A grid has a code for zero, so scores above 255 are cut off.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    reach = 255 * _LARGEST_STEP
    if high - low <= reach:
        return affine_params(low, high, bits=8, signed=signed)
    bottom = min(0.0, high - reach)  # a grid has a code for zero
    return affine_params(bottom, bottom + reach, bits=8, signed=signed)


def _rows(problem: Problem, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Rows of tensors, of all samples, float32 [values, channels]; nothing where the network cannot be run as a whole."""
    context = problem.context
    if context is None or context.values is not None or not names:
        return {}
    count = next(iter(context.feed.values())).shape[0]
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    with torch.no_grad():
        for sample in range(count):  # one by one: the streams of all samples together take gigabytes
            values = run_samples(context.network, {name: value[sample : sample + 1] for name, value in context.feed.items()}, wanted=names)
            for name, value in values.items():
                rows = value.reshape(-1, value.shape[-1])
                parts[name].append(rows[:: max(1, len(rows) * count // _ROWS)].numpy())
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _norm_grid(problem: Problem, name: str, values: npt.NDArray[np.float32] | None) -> QuantParams:
    """The scale of the whole range for every channel's largest factor; that factor throughout where no values are known."""
    stats = problem.tensors[name]
    whole = affine_params(stats.minimum, stats.maximum, bits=_NORM_BITS, signed=problem.signed)
    channels = stats.shape[-1]
    exponents = np.full(channels, len(FACTORS) - 1) if values is None else power_of_two_factors(values, whole)
    scales = np.maximum(whole.scale[0] / FACTORS[-1] * 2.0**exponents, SMALLEST_SCALE)
    scale = tuple(float(np.float32(s)) for s in scales)
    return QuantParams(scale, whole.zero_point * channels, _NORM_BITS, problem.signed, axis=len(stats.shape) - 1)
