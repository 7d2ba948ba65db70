"""Search inside a bridge block: candidates are judged by the block's output, all that comes before them quantized too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from converter.methods.judging.output_error import on_grids
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import Section, Study
from converter.torch_backend.network import Hook, Network, Step, run_samples, section
from converter.torch_backend.workers import in_order

__all__ = ["search_section"]

Tensor = torch.Tensor

_SAMPLES = 8
_CANDIDATES = 4


def search_section(
    study: Study,
    block: Section,
    importance: Mapping[str, Tensor],
    ranked: Mapping[str, Sequence[QuantParams]],
    grids: Mapping[str, QuantParams],
    constants: Mapping[str, Tensor],
) -> dict[str, QuantParams]:
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
    order = {s.name: place for place, s in enumerate(s for s in study.network.steps if s.name in inside)}
    part = _steps_of(study.network, inside, block.outputs)
    known = _samples(run_samples(study.network, _samples(study.feed), wanted=part.inputs))
    targets = run_samples(part, known)
    weights = {name: importance[name][:_SAMPLES] for name in block.outputs}
    chosen = dict(grids)
    own_constants = {n: c for n, c in constants.items() if any(n in s.inputs for s in part.steps)}
    roots = _roots(study, list(order), ranked)
    values = dict(known)
    for root in roots:
        candidates = list(ranked[root][:_CANDIDATES])
        if len(candidates) == 1:
            continue
        readers = {name for (name, _), r in study.readings.items() if r.root == root and name in inside}
        first = min(order[name] for name in readers)
        values = _advance(
            part, values, [s for s in part.steps if order[s.name] < first], on_grids(study.readings, chosen, inside), own_constants
        )
        rest = section(part, block.outputs, values)
        feed = {n: values[n] for n in rest.inputs}
        hooks = [on_grids(study.readings, {**chosen, root: grid}, readers) for grid in candidates]
        results = in_order(partial(_run, rest, feed), hooks, study.workers)
        errors = [sum(float((weights[n] * (got[n] - targets[n]).square()).double().sum()) for n in block.outputs) for got in results]
        chosen[root] = candidates[min(range(len(errors)), key=errors.__getitem__)]
    return {root: chosen[root] for root in roots}


def _run(part: Network, feed: Mapping[str, Tensor], hook: Hook) -> dict[str, Tensor]:
    return run_samples(part, feed, hook=hook)


def _advance(
    part: Network, values: Mapping[str, Tensor], steps: Sequence[Step], hook: Hook, constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Run those of the steps that have not run yet; what nothing behind them reads any more is dropped."""
    done = {s.name for s in steps}
    behind = set(part.outputs).union(*(s.inputs for s in part.steps if s.name not in done))
    made = {o for s in steps for o in s.outputs}
    wanted = [n for n in behind if n in made and n not in values]
    kept = {n: v for n, v in values.items() if n in behind}
    if not wanted:
        return kept
    front = section(part, sorted(wanted), values)
    return kept | run_samples(front, {n: values[n] for n in front.inputs}, hook=hook, constants=constants)


def _steps_of(network: Network, inside: set[str], outputs: Sequence[str]) -> Network:
    made = {o for s in network.steps if s.name in inside for o in s.outputs}
    outside = {n for s in network.steps if s.name in inside for n in s.inputs if n and n not in made and n not in network.constants}
    return section(network, outputs, outside)


def _samples(feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:_SAMPLES] for name, value in feed.items()}


def _roots(study: Study, order: Sequence[str], ranked: Mapping[str, Sequence[QuantParams]]) -> list[str]:
    """Roots that the block's layers read, in the order in which they are first read."""
    found = [study.readings[name, i].root for name in order for i in (0, 1) if (name, i) in study.readings]
    return [root for root in dict.fromkeys(found) if root in ranked]
