"""Samples of layers and of tensors, from one run of the network forwards and backwards for both."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from converter.methods.judging.layer_readers import captured
from converter.methods.judging.tensor_error import PROBES, TensorSample, tensors_wish
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import layers_wish, outputs_wish
from converter.sensitivity.layer_samples import LayerSample
from converter.sensitivity.pull_back import gathered
from converter.system.freed_memory import release_freed_memory

__all__ = ["captured_with_tensors"]

Tensor = torch.Tensor


def captured_with_tensors(
    context: AnalysisContext, layers: Sequence[str], tensors: Sequence[str], outputs: Sequence[str] = (), *, rows: int, tensor_samples: int
) -> tuple[dict[str, LayerSample], dict[str, Tensor], dict[str, TensorSample]]:
    """What :func:`~.layer_readers.captured` and :func:`~.tensor_error.tensor_samples_of` give one after the other, to the bit.

    Args:
        context: the network, or its layers and what they read.
        layers: names of the steps to sample.
        tensors: names of those to sample.
        outputs: more tensors whose importance is wanted.
        rows: rows kept of each layer over all samples.
        tensor_samples: of how many samples tensors are sampled, the first ones.

    Returns:
        samples of layers; importance of the outputs; samples of tensors.
    """
    if context.values is not None:
        return (*captured(context, layers, outputs, rows=rows), {})
    total = next(iter(context.feed.values())).shape[0]
    of_layers, layers_of = layers_wish(context.network, layers, context.feed, rows=rows, probes=PROBES, seed=context.seed)
    of_outputs, outputs_of = outputs_wish(outputs, probes=PROBES)
    of_tensors, tensors_of = tensors_wish(context, tensors, min(total, tensor_samples))
    wishes = [of_layers, of_outputs, of_tensors]
    if not any(wish.points for wish in wishes):
        return {}, {}, {}
    parts = gathered(context.network, context.feed, context.losses, wishes, probes=PROBES, seed=context.seed, workers=context.workers)
    found = layers_of(parts[0]), outputs_of(parts[1]), tensors_of(parts[2])
    release_freed_memory()  # that of the parts
    return found
