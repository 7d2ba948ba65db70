"""One run forwards and backwards over the samples, for all that is wanted of it: values, and the loss's gradients at some tensors.

What is wanted is taken as soon as it is known, and as little of it as is wanted, so that no tensor is held longer than the run
itself needs it: all of those of a large network together take gigabytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.probes import probe
from converter.torch_backend.network import Network, run, run_samples, stacked
from converter.torch_backend.workers import over_samples

__all__ = ["Takers", "Wish", "finite", "gathered", "mean_squares", "pulled_back"]

Tensor = torch.Tensor
T = TypeVar("T")

Takers = Mapping[str, Callable[[Tensor], None]]
"""What takes the gradient at a tensor, by the tensor's name, once for each probe. It must not change the gradient."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants of the runs.

    Attributes:
        read: names of tensors whose values are wanted.
        points: names of tensors whose values and gradients are wanted.
        samples: of how many samples, the first ones.
        begin: given the number of the first of a few samples and the values, takes what it wants of them; returns what takes the
            gradients, and what gives the result once all are taken.
    """

    read: tuple[str, ...]
    points: tuple[str, ...]
    samples: int
    begin: Callable[[int, Mapping[str, Tensor]], tuple[Takers, Callable[[], Any]]]


def gathered(
    network: Network,
    feed: Mapping[str, Tensor],
    losses: Mapping[str, OutputLoss],
    wishes: Sequence[Wish],
    *,
    probes: int,
    seed: int,
    workers: int = 1,
) -> list[list[Any]]:
    """Run all samples forwards and backwards, a few at once.

    Args:
        network: float.
        feed: inputs with the sample axis in front.
        losses: of the network's float outputs.
        wishes: what is wanted. The first samples run before all others.
        probes: random vectors pulled back.
        seed: of the probes.
        workers: parts of the samples that run at once.

    Returns:
        for each wish its results, in the order of the samples.
    """
    total, chunk = next(iter(feed.values())).shape[0], network.chunk

    def run_few(start: int) -> list[tuple[Any, ...]]:
        few = {name: value[start : start + chunk] for name, value in feed.items()}
        open_wishes = [wish if start < wish.samples else None for wish in wishes]
        return _gathered_few(network, few, losses, open_wishes, start, probes, torch.Generator().manual_seed(seed + start))

    done = [run_few(0), *over_samples(lambda start: run_few(chunk + start), total - chunk, chunk, workers)]
    return [[result for few in done for result in few[number]] for number in range(len(wishes))]


def _gathered_few(
    network: Network,
    feed: Mapping[str, Tensor],
    losses: Mapping[str, OutputLoss],
    wishes: Sequence[Wish | None],
    start: int,
    probes: int,
    generator: torch.Generator,
) -> list[tuple[Any, ...]]:
    """For each wish its result, or nothing."""
    takers: dict[str, list[Callable[[Tensor], None]]] = {}
    asked = [wish for wish in wishes if wish is not None]
    if not asked:
        return [() for _ in wishes]
    read = list(dict.fromkeys(name for wish in asked for name in wish.read))
    points = list(dict.fromkeys(name for wish in asked for name in wish.points))

    def take(name: str, gradient: Tensor) -> None:
        for each in takers.get(name, ()):
            each(gradient)

    values, pulled = pulled_back(network, feed, losses, read, points, probes, generator, take)
    values = {name: value.detach() for name, value in values.items()}
    results: list[Callable[[], Any] | None] = []
    for wish in wishes:
        if wish is None:
            results.append(None)
            continue
        mine, result = wish.begin(start, values)
        for name, each in mine.items():
            takers.setdefault(name, []).append(each)
        results.append(result)
    del values  # the run backwards holds those that it needs
    for _ in pulled:
        pass
    return [() if result is None else (result(),) for result in results]


def finite(gradient: Tensor) -> Tensor:
    """A copy with zeros for what is no number: a guard against that in a model hands back gradients that are none."""
    return torch.nan_to_num(gradient, 0.0, 0.0, 0.0)


def mean_squares(picks: Mapping[str, Callable[[Tensor], Tensor]], probes: int) -> tuple[Takers, Mapping[str, Tensor]]:
    """What sums up squared gradients over probes, and their means so far, by tensor; those that no gradient reached are missing.

    Args:
        picks: what is wanted of the gradient at a tensor.
        probes: how many there will be.
    """
    means: dict[str, Tensor] = {}

    def add(name: str, gradient: Tensor) -> None:
        share = finite(picks[name](gradient)).square_().div_(probes)
        means[name] = means[name].add_(share) if name in means else share

    return {name: partial(add, name) for name in picks}, means


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
        take: what is wanted of the probe at a point, given its name and the gradient, in which there may be what is no number; as soon
            as it is known, so that no two need be held at once. It must not change the gradient.

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
    reached = {n: values[n].shape for n in points if n in values and values[n].requires_grad}
    number_of_parts = len(parts)
    taken: dict[str, T] = {}
    pieces: dict[str, dict[int, Tensor]] = {}

    def arrived(name: str, place: int, gradient: Tensor) -> None:
        if number_of_parts > 1:
            pieces.setdefault(name, {})[place] = gradient
        else:
            taken[name] = take(name, gradient[None] if network.one_by_one else gradient)

    handles: list[Any] = []
    for n, (place, part) in itertools.product(reached, enumerate(parts)):
        handles.append(part[n].register_hook(partial(arrived, n, place)))  # type: ignore[no-untyped-call]

    def pull() -> Iterator[dict[str, T]]:
        # must not hold the values, most of which the run backwards does not need
        try:
            for number in range(probes if scores and reached else 0):
                vectors = probe(scores, losses, generator)
                loss = torch.stack([(torch.where(torch.isfinite(x), x, 0.0) * vectors[n]).sum() for n, x in scores.items()]).sum()
                loss.backward(retain_graph=number + 1 < probes)  # type: ignore[no-untyped-call]
                for name, found in pieces.items():
                    none = torch.zeros(reached[name][1:])
                    taken[name] = take(name, torch.stack([found.get(place, none) for place in range(number_of_parts)]))
                yield dict(taken)
                taken.clear()
                pieces.clear()
        finally:
            for handle in handles:  # which hold what takes
                handle.remove()

    return values, pull()
