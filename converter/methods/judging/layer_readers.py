"""Which layers read which tensors through grids, and samples of them: what every search by layer output starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from converter.sensitivity.context import AnalysisContext, QuantizedEdge
from converter.sensitivity.curvature import capture, capture_values
from converter.sensitivity.layer_samples import LayerSample, layers_of

__all__ = ["Reader", "captured", "layers_read", "readers_by_owner"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Reader:
    """A layer that reads a tensor.

    Attributes:
        name: of the operator.
        operand: 0 or 1.
        quantized_edge: through which grid.
    """

    name: str
    operand: int
    quantized_edge: QuantizedEdge


def layers_read(context: AnalysisContext) -> list[str]:
    """Names of the layers that read a tensor through a grid, in order; not those of which samples differ in shape."""
    steps = {step.name: step for step in context.network.steps}
    return [
        n for n in layers_of(context.network) if _of_layer(context, n) and context.unsteady.isdisjoint(steps[n].inputs + steps[n].outputs)
    ]


def readers_by_owner(context: AnalysisContext, samples: Mapping[str, LayerSample]) -> dict[str, list[Reader]]:
    """The sampled layers that read each tensor, by the tensor whose grid it is."""
    result: dict[str, list[Reader]] = {}
    for name in samples:
        for reader in _of_layer(context, name):
            result.setdefault(reader.quantized_edge.owner, []).append(reader)
    return result


def captured(
    context: AnalysisContext, layers: Sequence[str], outputs: Sequence[str] = (), *, rows: int = 1024, probes: int = 2
) -> tuple[dict[str, LayerSample], dict[str, Tensor]]:
    """Samples of layers; importance of other tensors. Without probes, and where nothing can be differentiated, no gradients.

    Args:
        context: the network, or its layers and what they read.
        layers: names of the steps to sample.
        outputs: more tensors whose importance is wanted.
        rows: rows kept of each layer over all samples.
        probes: random vectors pulled back for the importance.
    """
    if context.values is not None:
        return capture_values(context.network, layers, context.values, rows=rows, seed=context.seed), {}
    return capture(
        context.network,
        layers,
        context.feed,
        context.losses,
        outputs=outputs,
        rows=rows,
        probes=probes,
        seed=context.seed,
        workers=context.workers,
    )


def _of_layer(context: AnalysisContext, name: str) -> list[Reader]:
    return [Reader(name, i, context.quantized_edges[name, i]) for i in (0, 1) if (name, i) in context.quantized_edges]
