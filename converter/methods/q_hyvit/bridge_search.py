"""Search inside a bridge block: candidates are judged by the block's output, all that comes before them quantized too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from converter.methods.judging.output_error import on_grids
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext, ReconstructionBlock
from converter.sensitivity.curvature import WHOLE_SAMPLES
from converter.torch_backend.network import Hook, Network, Step, run_samples, subnetwork
from converter.torch_backend.workers import in_order

__all__ = ["search_block"]

Tensor = torch.Tensor

_CANDIDATES = 4


def search_block(
    context: AnalysisContext,
    block: ReconstructionBlock,
    fisher: Mapping[str, Tensor],
    ranked: Mapping[str, Sequence[QuantParams]],
    grids: Mapping[str, QuantParams],
    constants: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor] | None = None,
) -> dict[str, QuantParams]:
    """Choose among the best grids of each activation that the block's layers read.

    Args:
        context: the network and its quantized edges.
        block: steps and outputs.
        fisher: squared gradients at the outputs, the sample axis in front.
        ranked: grids by owner, best for the layers first.
        grids: of all owners, as they are now.
        constants: quantized weights by name.

    Returns:
        the grids of the owners that the block's layers read.
    """
    inside = set(block.steps)
    order = {s.name: place for place, s in enumerate(s for s in context.network.steps if s.name in inside)}
    part = _steps_of(context.network, inside, block.outputs)
    known = run_samples(context.network, _samples(context.feed), wanted=part.inputs, workers=context.workers)
    targets = run_samples(part, known, workers=context.workers)
    weights = {name: fisher[name][:WHOLE_SAMPLES] for name in block.outputs}
    chosen = dict(grids)
    own_constants = {n: c for n, c in constants.items() if any(n in s.inputs for s in part.steps)}
    owners = _owners(context, list(order), ranked)
    values = dict(known)
    for owner in owners:
        candidates = list(ranked[owner][:_CANDIDATES])
        if len(candidates) == 1:
            continue
        readers = {name for (name, _), r in context.quantized_edges.items() if r.owner == owner and name in inside}
        first = min(order[name] for name in readers)
        values = _advance(
            part, values, [s for s in part.steps if order[s.name] < first], on_grids(context.quantized_edges, chosen, inside), own_constants
        )
        rest = subnetwork(part, block.outputs, values)
        feed = {n: values[n] for n in rest.inputs}
        hooks = [on_grids(context.quantized_edges, {**chosen, owner: grid}, readers) for grid in candidates]
        results = list(in_order(partial(_run, rest, feed), hooks, context.workers))
        errors = [sum(float((weights[n] * (got[n] - targets[n]).square()).double().sum()) for n in block.outputs) for got in results]
        if vectors is not None:
            errors = [e + _together(vectors, {n: got[n] - targets[n] for n in block.outputs}) for e, got in zip(errors, results, strict=True)]
        chosen[owner] = candidates[min(range(len(errors)), key=errors.__getitem__)]
    return {owner: chosen[owner] for owner in owners}


def _together(vectors: Mapping[str, Tensor], errors: Mapping[str, Tensor]) -> float:
    """Low rank: mean over probes of (v . e)^2, a sample each; FIMA-Q."""
    sums = torch.stack([(vectors[n].flatten(2).double() * e.flatten(1).double()).sum(2) for n, e in errors.items()]).sum(0)
    return float(sums.square().mean(0).sum())


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
    front = subnetwork(part, sorted(wanted), values)
    return kept | run_samples(front, {n: values[n] for n in front.inputs}, hook=hook, constants=constants)


def _steps_of(network: Network, inside: set[str], outputs: Sequence[str]) -> Network:
    made = {o for s in network.steps if s.name in inside for o in s.outputs}
    outside = {n for s in network.steps if s.name in inside for n in s.inputs if n and n not in made and n not in network.constants}
    return subnetwork(network, outputs, outside)


def _samples(feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:WHOLE_SAMPLES] for name, value in feed.items()}


def _owners(context: AnalysisContext, order: Sequence[str], ranked: Mapping[str, Sequence[QuantParams]]) -> list[str]:
    """Owners that the block's layers read, in the order in which they are first read."""
    found = [context.quantized_edges[name, i].owner for name in order for i in (0, 1) if (name, i) in context.quantized_edges]
    return [owner for owner in dict.fromkeys(found) if owner in ranked]
