"""Sensitivity: how much the outputs of each layer matter to the loss, and samples of what each layer multiplies.

The loss (:mod:`converter.sensitivity.output_loss`) is the KL divergence between the outputs of the float and of a perturbed
network, read as class scores, or the squared error over the mean square of the outputs where they are no scores. Its gradient at
the float network is zero, so the objective E[dO^T H dO] (Q-HyViT, arXiv 2303.12557, eq. 5) rests on the second derivative, of which the
method takes the squared gradient for the diagonal. Here that is done without bias: the second derivative of the KL
divergence by the scores is diag(p) - p p^T, which is the mean of v v^T for v = sqrt(p) r - p (sqrt(p) . r) with random
signs r; v pulled back to a layer's output and squared is an estimate of the diagonal of the Gauss-Newton matrix there.

No gradient comes through integers, thresholds and operators that torch lacks. Behind them it begins anew; what no output depends on
by a gradient is *blind*: all its numbers matter alike, relative to their power, and nothing is known of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from converter.sensitivity.layer_samples import LayerSample, draw_rows, layers_of
from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.pull_back import Takers, Wish, gathered, mean_squares, pulled_back
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.network import Network, Step, run_samples

__all__ = [
    "WHOLE_SAMPLES",
    "capture",
    "capture_values",
    "layers_wish",
    "obstacle_to_gradients",
    "or_even",
    "outputs_wish",
]

Tensor = torch.Tensor
_Piece = tuple[Tensor, Tensor, Tensor, int]
"""Of a layer, on a few samples: left rows, right matrices, mean squared gradients of their products, places of a sample."""

WHOLE_SAMPLES = 8
"""Of which the importance of whole tensors is kept, the first ones."""

_LONGEST = 120
"""Characters of a message that goes into a report."""


def capture(
    network: Network,
    layers: Sequence[str],
    feed: Mapping[str, Tensor],
    losses: Mapping[str, OutputLoss],
    *,
    outputs: Sequence[str] = (),
    rows: int = 1024,
    probes: int = 2,
    seed: int = 0,
    workers: int = 1,
) -> tuple[dict[str, LayerSample], dict[str, Tensor]]:
    """Run the float network forwards and backwards over all samples and keep what judging needs.

    Args:
        network: float.
        layers: names of the steps to sample.
        feed: inputs with the sample axis in front.
        losses: of the network's float outputs.
        outputs: more tensors whose importance is wanted in full, on the first few samples.
        rows: rows kept of each layer over all samples.
        probes: random vectors pulled back; more make the importance less noisy.
        seed: of the probes and places.
        workers: parts of the samples that run at once.

    Returns:
        samples by layer; importance of the other tensors on :data:`WHOLE_SAMPLES` of the samples, with the sample axis in front.
    """
    wish, result = layers_wish(network, layers, feed, rows=rows, probes=probes, seed=seed)
    more, whole = outputs_wish(outputs, probes=probes)
    if not wish.points and not outputs:
        return {}, {}  # a placement may leave no layer in integer
    layer_parts, whole_parts = gathered(network, feed, losses, [wish, more], probes=probes, seed=seed, workers=workers)
    return result(layer_parts), whole(whole_parts)


def layers_wish(
    network: Network, layers: Sequence[str], feed: Mapping[str, Tensor], *, rows: int, probes: int, seed: int
) -> tuple[Wish, Callable[[list[Any]], dict[str, LayerSample]]]:
    """What is wanted of the runs for samples of layers, and what makes them of the results; arguments as for :func:`capture`."""
    wanted = {step.name: step for step in network.steps if step.name in set(layers)}
    total = next(iter(feed.values())).shape[0]
    share = max(1, rows // total)

    def begin(start: int, values: Mapping[str, Tensor]) -> tuple[Takers, Callable[[], dict[str, _Piece]]]:
        generator = torch.Generator().manual_seed(seed + start)
        drawn = {name: draw_rows(step, network, values, share, generator) for name, step in wanted.items()}
        shapes = {name: values[step.outputs[0]].shape for name, step in wanted.items()}
        takers, squares = mean_squares({wanted[name].outputs[0]: rows.pick for name, rows in drawn.items()}, probes)

        def taken() -> dict[str, _Piece]:
            return {
                name: (rows.left, rows.right, _or_zeros(squares, wanted[name].outputs[0], shapes[name], rows.pick), rows.positions)
                for name, rows in drawn.items()
            }

        return takers, taken

    def result(parts: list[dict[str, _Piece]]) -> dict[str, LayerSample]:
        return {name: _layer_sample(step, network, [part.pop(name) for part in parts]) for name, step in wanted.items()}

    read = tuple(dict.fromkeys(n for s in wanted.values() for n in s.inputs[:2] if n and n not in network.constants))
    return Wish(read, tuple(dict.fromkeys(s.outputs[0] for s in wanted.values())), total, begin), result


def outputs_wish(outputs: Sequence[str], *, probes: int) -> tuple[Wish, Callable[[list[Any]], dict[str, Tensor]]]:
    """The same for the importance of whole tensors on the first few samples."""

    def begin(start: int, values: Mapping[str, Tensor]) -> tuple[Takers, Callable[[], dict[str, Tensor]]]:
        shapes = {name: values[name].shape for name in outputs}
        takers, squares = mean_squares(dict.fromkeys(outputs, _whole), probes)
        return takers, lambda: {name: _or_zeros(squares, name, shapes[name], _whole) for name in outputs}

    def result(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([part.pop(name) for part in parts])[:WHOLE_SAMPLES] for name in outputs}

    return Wish((), tuple(dict.fromkeys(outputs)), WHOLE_SAMPLES if outputs else 0, begin), result


def _whole(gradient: Tensor) -> Tensor:
    return gradient


def _or_zeros(squares: Mapping[str, Tensor], name: str, shape: torch.Size, pick: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean squared gradients of what is picked of a tensor; zeros where none came."""
    return squares[name] if name in squares else pick(torch.zeros(()).expand(shape)).clone()


def _layer_sample(step: Step, network: Network, pieces: Sequence[_Piece]) -> LayerSample:
    product = step.inputs[1] not in network.constants
    axis = 0 if product else 1
    left = torch.cat([p[0] for p in pieces], axis)
    right = torch.cat([p[1] for p in pieces], 0) if product else pieces[0][1]
    operands = (step.inputs[0], step.inputs[1]) if product else (step.inputs[0],)
    fisher, blind = or_even(torch.cat([p[2] for p in pieces], axis), partial(torch.matmul, left, right))
    return LayerSample(step.name, operands, left, right, fisher, pieces[0][3], blind)


def or_even(fisher: Tensor, values: Callable[[], Tensor]) -> tuple[Tensor, bool]:
    """The importance of some values; where there is none at all, one over the sum of their squares, and true; same shape."""
    if bool((fisher > 0.0).any()):
        return fisher, False
    return torch.full_like(fisher, 1.0 / max(float(values().square().sum()), 1e-12)), True


def capture_values(
    network: Network, layers: Sequence[str], values: Mapping[str, Tensor], *, rows: int = 1024, seed: int = 0
) -> dict[str, LayerSample]:
    """Sample layers whose operands are known, where nothing can be differentiated: all outputs of a layer matter alike.

    Args:
        network: holds the layers.
        layers: names of the steps to sample.
        values: their operands, the sample axis in front.
        rows: rows kept of each layer over all samples.
        seed: of the places.
    """
    wanted = set(layers)
    result = {}
    for step in (s for s in network.steps if s.name in wanted):
        operands = tuple(n for n in step.inputs[:2] if n not in network.constants)
        feed = {n: values[n] for n in operands}
        output = run_samples(replace(network, steps=(step,), inputs=operands, outputs=step.outputs[:1]), feed)[step.outputs[0]]
        fisher, _ = or_even(torch.zeros_like(output), partial(torch.clone, output))
        share = max(1, rows // output.shape[0])
        known = {**values, step.outputs[0]: output}
        rows_drawn = draw_rows(step, network, known, share, torch.Generator().manual_seed(seed))
        part = rows_drawn.pick(fisher)
        result[step.name] = LayerSample(step.name, operands, rows_drawn.left, rows_drawn.right, part, rows_drawn.positions, blind=True)
    return result


def obstacle_to_gradients(network: Network, feed: Mapping[str, Tensor], losses: Mapping[str, OutputLoss]) -> str:
    """Why a network cannot be run forwards and backwards as it is to be run; empty if it can.

    Args:
        network: says whether samples run one by one. If not, a layer that gradients do not reach from the inputs is an obstacle.
        feed: inputs with the sample axis in front, of which the first few are tried.
        losses: of the network's float outputs.
    """
    layers = [s.outputs[0] for s in network.steps if s.name in set(layers_of(network))]
    few = {name: value[: network.chunk] for name, value in feed.items()}
    try:
        values, pulled = pulled_back(network, few, losses, (), layers, 1, torch.Generator().manual_seed(0), lambda name, gradient: None)
        next(pulled, None)
    except (torch_ops.UnknownOperatorError, RuntimeError) as error:
        # torch cannot map, run or differentiate something; a mistake in what is done with it would be another error
        return next(iter(str(error).splitlines()), type(error).__name__)[:_LONGEST]
    cut = [name for name in layers if not values[name].requires_grad]
    return f"no gradient passes '{cut[0]}'" if cut and not network.one_by_one else ""
