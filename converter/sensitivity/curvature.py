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

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from converter.sensitivity.layer_samples import LayerSample, layers_of, sample_layer
from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.probes import probe
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.network import Network, Step, run, run_samples, stacked
from converter.torch_backend.workers import over_samples

__all__ = [
    "WHOLE_SAMPLES",
    "backward",
    "capture",
    "capture_values",
    "obstacle_to_gradients",
    "or_even",
    "pulled_back",
]

Tensor = torch.Tensor
T = TypeVar("T")

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
    wanted = {step.name: step for step in network.steps if step.name in set(layers)}
    if not wanted and not outputs:
        return {}, {}  # a placement may leave no layer in integer
    total = next(iter(feed.values())).shape[0]
    share = max(1, rows // total)

    def run(start: int) -> tuple[dict[str, tuple[Tensor, Tensor, Tensor, int]], dict[str, Tensor]]:
        chunk = {name: value[start : start + network.chunk] for name, value in feed.items()}
        generator = torch.Generator().manual_seed(seed + start)
        others = outputs if start < WHOLE_SAMPLES else ()
        values, fisher = backward(network, list(wanted.values()), chunk, losses, others, probes, generator)
        generator = torch.Generator().manual_seed(seed + start)
        taken = {name: sample_layer(step, network, values, fisher[step.outputs[0]], share, generator) for name, step in wanted.items()}
        return taken, {name: fisher[name] for name in others}

    done = over_samples(run, total, network.chunk, workers)
    samples = {}
    for name, step in wanted.items():
        pieces = [taken.pop(name) for taken, _ in done]  # the pieces need not outlive what is made of them
        product = step.inputs[1] not in network.constants
        axis = 0 if product else 1
        left = torch.cat([p[0] for p in pieces], axis)
        right = torch.cat([p[1] for p in pieces], 0) if product else pieces[0][1]
        operands = (step.inputs[0], step.inputs[1]) if product else (step.inputs[0],)
        fisher, blind = or_even(torch.cat([p[2] for p in pieces], axis), partial(torch.matmul, left, right))
        samples[name] = LayerSample(name, operands, left, right, fisher, pieces[0][3], blind)
    return samples, {name: torch.cat([whole[name] for _, whole in done if whole])[:WHOLE_SAMPLES] for name in outputs}


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
        left, right, part, positions = sample_layer(step, network, values, fisher, share, torch.Generator().manual_seed(seed))
        result[step.name] = LayerSample(step.name, operands, left, right, part, positions, blind=True)
    return result


def backward(
    network: Network,
    steps: Sequence[Step],
    feed: Mapping[str, Tensor],
    losses: Mapping[str, OutputLoss],
    outputs: Sequence[str],
    probes: int,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run some samples forwards, and pull probes of the outputs back.

    Args:
        network: float.
        steps: layers.
        feed: inputs with the sample axis in front.
        losses: of the network's float outputs.
        outputs: further tensors.
        probes: random vectors pulled back.
        generator: of the probes.

    Returns:
        values of what the layers read and write and of the further tensors; mean squared probes at what the layers write
        and at the further tensors, zero where no gradient comes.
    """
    read = [n for s in steps for n in s.inputs[:2] if n and n not in network.constants]
    written = list(dict.fromkeys([s.outputs[0] for s in steps] + list(outputs)))
    squares: dict[str, Tensor] = {}

    def add(name: str, gradient: Tensor) -> None:
        share = gradient.square_().div_(probes)
        squares[name] = squares[name].add_(share) if name in squares else share

    values, pulled = pulled_back(network, feed, losses, read, written, probes, generator, add)
    for _ in pulled:
        pass
    return {n: v.detach() for n, v in values.items()}, {n: squares[n] if n in squares else torch.zeros_like(values[n]) for n in written}


def pulled_back(
    network: Network,
    feed: Mapping[str, Tensor],
    losses: Mapping[str, OutputLoss],
    read: Sequence[str],
    points: Sequence[str],
    probes: int,
    generator: torch.Generator,
    take: Callable[[str, Tensor], T],
) -> tuple[dict[str, Tensor], Iterator[dict[str, T]]]:
    """Run some samples forwards, and pull one probe of the outputs after the other back to some tensors.

    An error e of a tensor changes the loss by the mean of (v . e)^2 / 2 over what the probes become there, v.

    Args:
        network: float.
        feed: inputs with the sample axis in front.
        losses: of the network's float outputs.
        read: tensors whose values are wanted.
        points: tensors at which the probes are wanted, and the values.
        probes: how many.
        generator: of the probes.
        take: what is wanted of the probe at a point, given its name and a tensor of its own; as soon as it is known, so that no two
            need be held at once.

    Returns:
        values; what was taken for each probe, by tensor, where the outputs depend on it.
    """
    wanted = list(dict.fromkeys([*read, *points, *network.outputs]))
    inputs = {n: v.clone().requires_grad_() if v.is_floating_point() else v for n, v in feed.items()}
    if network.one_by_one:
        # gradients are those of the tensors of each sample: what is stacked of them leads nowhere
        samples = [{n: v[i] for n, v in inputs.items()} for i in range(next(iter(inputs.values())).shape[0])]
        parts = [run(network, sample, wanted=wanted, cut=True) for sample in samples]
        values = stacked(parts)
    else:
        values = run_samples(network, inputs, wanted=wanted)
        parts = [values]
    scores = {n: values[n] for n in network.outputs if n in losses and n in values and values[n].requires_grad}
    reached = [n for n in points if n in values and values[n].requires_grad]

    def pull() -> Iterator[dict[str, T]]:
        taken: dict[str, T] = {}
        pieces: dict[str, dict[int, Tensor]] = {}

        def arrived(name: str, place: int, gradient: Tensor) -> None:
            # a guard against what is no number hands back gradients that are none
            sane = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
            if len(parts) > 1:
                pieces.setdefault(name, {})[place] = sane
            else:
                taken[name] = take(name, sane[None] if network.one_by_one else sane)

        handles: list[Any] = []
        for n, (place, part) in itertools.product(reached, enumerate(parts)):
            handles.append(part[n].register_hook(partial(arrived, n, place)))  # type: ignore[no-untyped-call]
        try:
            for number in range(probes if scores and reached else 0):
                vectors = probe(scores, losses, generator)
                loss = torch.stack([(torch.where(torch.isfinite(x), x, 0.0) * vectors[n]).sum() for n, x in scores.items()]).sum()
                loss.backward(retain_graph=number + 1 < probes)  # type: ignore[no-untyped-call]
                for name, found in pieces.items():
                    none = torch.zeros_like(values[name][0])
                    taken[name] = take(name, torch.stack([found.get(place, none) for place in range(len(parts))]))
                yield dict(taken)
                taken.clear()
                pieces.clear()
        finally:
            for handle in handles:  # which hold what takes, and that may hold the values
                handle.remove()

    return values, pull()


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
