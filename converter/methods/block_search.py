"""Search inside a bridge block: candidates are judged by the block's output, all that comes before them quantized too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from converter.grids import Grid
from converter.methods.layer_error import on_grid
from converter.network import Hook, Network, Step, run_samples, section
from converter.study import Reading, Section, Study

__all__ = ["search_section"]

Tensor = torch.Tensor

_SAMPLES = 8
_CANDIDATES = 4


def search_section(
    study: Study,
    block: Section,
    importance: Mapping[str, Tensor],
    ranked: Mapping[str, Sequence[Grid]],
    grids: Mapping[str, Grid],
    constants: Mapping[str, Tensor],
) -> dict[str, Grid]:
    """Choose among the best grids of each activation that the block's layers read.

    Args:
        study: the network and its readings.
        block: steps and outputs.
        importance: squared gradients at the outputs, the sample axis in front.
        ranked: grids by root tensor, best for the layers first.
        grids: of all roots, as they are now.
        constants: quantized weights by name.

    Returns:
        the grids of the roots that the block's layers read.
    """
    inside = set(block.steps)
    order = [s.name for s in study.network.steps if s.name in inside]
    part = _steps_of(study.network, inside, block.outputs)
    known = _samples(run_samples(study.network, _samples(study.feed), wanted=part.inputs))
    targets = run_samples(part, known)
    weights = {name: importance[name][:_SAMPLES] for name in block.outputs}
    chosen = dict(grids)
    own_constants = {n: c for n, c in constants.items() if any(n in s.inputs for s in part.steps)}
    roots = _roots(study, order, ranked)
    for root in roots:
        candidates = list(ranked[root][:_CANDIDATES])
        if len(candidates) == 1:
            continue
        readers = [k for k, r in study.readings.items() if r.root == root and k[0] in inside]
        first = min(order.index(name) for name, _ in readers)
        before = set(order[:first])
        made = {o for s in part.steps if s.name in before for o in s.outputs}
        rest = section(part, block.outputs, made | set(part.inputs))
        front = section(part, [n for n in rest.inputs if n in made], part.inputs)
        values = {n: known[n] for n in rest.inputs if n in known}
        if front.outputs:
            feed = {n: known[n] for n in front.inputs}
            values |= run_samples(front, feed, hook=_hook(study.readings, chosen, before), constants=own_constants)
        errors = []
        for grid in candidates:
            hook = _hook(study.readings, {**chosen, root: grid}, {name for name, _ in readers})
            got = run_samples(rest, values, hook=hook)
            errors.append(sum(float((weights[n] * (got[n] - targets[n]).square()).double().sum()) for n in block.outputs))
        chosen[root] = candidates[min(range(len(errors)), key=errors.__getitem__)]
    return {root: chosen[root] for root in roots}


def _steps_of(network: Network, inside: set[str], outputs: Sequence[str]) -> Network:
    made = {o for s in network.steps if s.name in inside for o in s.outputs}
    outside = {n for s in network.steps if s.name in inside for n in s.inputs if n and n not in made and n not in network.constants}
    return section(network, outputs, outside)


def _samples(feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:_SAMPLES] for name, value in feed.items()}


def _roots(study: Study, order: Sequence[str], ranked: Mapping[str, Sequence[Grid]]) -> list[str]:
    """Roots that the block's layers read, in the order in which they are first read."""
    found = [study.readings[name, i].root for name in order for i in (0, 1) if (name, i) in study.readings]
    return [root for root in dict.fromkeys(found) if root in ranked]


def _hook(readings: Mapping[tuple[str, int], Reading], grids: Mapping[str, Grid], quantized: set[str]) -> Hook:
    """Put the grids in the way of some steps' readings."""

    def hook(step: Step, index: int, value: Tensor) -> Tensor:
        reading = readings.get((step.name, index))
        if reading is None or step.name not in quantized or reading.root not in grids:
            return value
        return on_grid(value, grids[reading.root], reading.factor)

    return hook
