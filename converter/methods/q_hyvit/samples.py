"""Samples of layers and of tensors, and what lines in the place of sigmoids change, from one run of the network forwards and backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from converter.methods.judging.layer_readers import captured
from converter.methods.judging.tensor_error import PROBES, TensorSample, tensors_wish
from converter.methods.q_hyvit.sigmoid_search import changes_wish
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import layers_wish, outputs_wish
from converter.sensitivity.layer_samples import LayerSample
from converter.sensitivity.pull_back import gathered
from converter.system.freed_memory import release_freed_memory
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear, PricedApproximation

__all__ = ["captured_with_tensors"]

Tensor = torch.Tensor


def captured_with_tensors(
    context: AnalysisContext,
    layers: Sequence[str],
    tensors: Sequence[str],
    outputs: Sequence[str] = (),
    lines: Mapping[str, PiecewiseLinear] = MappingProxyType({}),
    *,
    rows: int,
    tensor_samples: int,
) -> tuple[dict[str, LayerSample], dict[str, Tensor], dict[str, TensorSample], dict[str, PricedApproximation]]:
    """What :func:`~.layer_readers.captured` and :func:`~.tensor_error.tensor_samples_of` give one after the other, to the bit; and lines.

    Args:
        context: the network, or its layers and what they read.
        layers: names of the steps to sample.
        tensors: names of those to sample.
        outputs: more tensors whose importance is wanted.
        lines: for sigmoids, of which it is wanted how they change the loss.
        rows: rows kept of each layer over all samples.
        tensor_samples: of how many samples tensors are sampled, the first ones.

    Returns:
        samples of layers; importance of the outputs; samples of tensors; the lines with what they change.
    """
    if context.values is not None:
        return (*captured(context, layers, outputs, rows=rows), {}, {})
    total = next(iter(context.feed.values())).shape[0]
    of_layers, layers_of = layers_wish(context.network, layers, context.feed, rows=rows, probes=PROBES, seed=context.seed)
    of_outputs, outputs_of = outputs_wish(outputs, probes=PROBES)
    of_tensors, tensors_of = tensors_wish(context, tensors, min(total, tensor_samples))
    of_lines, changes_of = changes_wish(context.network, lines, total, probes=PROBES)
    wishes = [of_layers, of_outputs, of_tensors, of_lines]
    if not any(wish.points for wish in wishes):
        return {}, {}, {}, {}
    parts = gathered(context.network, context.feed, context.losses, wishes, probes=PROBES, seed=context.seed, workers=context.workers)
    changes = changes_of(parts[3])
    priced = {name: PricedApproximation(shape, changes[name]) for name, shape in lines.items()}
    found = layers_of(parts[0]), outputs_of(parts[1]), tensors_of(parts[2]), priced
    release_freed_memory()  # that of the parts
    return found
