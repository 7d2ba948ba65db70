"""Search the grids of tensors that no layer reads: terms of sums, what norms, activations and poolings read.

No layer judges them. Squared gradients tell which numbers matter, but count errors as if they were independent, and those
of numbers that are cut off are not: they have one sign, and add up. So what the gradients propose is put to the test,
where they promise most: the whole network runs with that grid alone, and the outputs decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from converter.grids import Grid
from converter.methods.candidates import covering, scale_candidates, shortlist, with_moved_ends
from converter.methods.layer_error import on_grids
from converter.methods.layer_readers import Reader
from converter.methods.problem import Problem
from converter.methods.witness import Witness, grid_errors, thinned_witness, witnesses_of
from converter.network import run_samples
from converter.parallel import in_order
from converter.study import Study

__all__ = ["loose_grids"]

Tensor = torch.Tensor

_SAMPLES = 16
_TRIAL_SAMPLES = 8
_TRIALS = 8
"""Tensors whose proposals are put to the test."""

_PARTS = (0.33, 0.67)
"""Of the way to a proposal: gradients at the float network see too little harm in cutting off."""


@dataclass(frozen=True)
class _Proposal:
    """A grid for a tensor, and by how much squared gradients think that it lessens the loss."""

    root: str
    grid: Grid
    gain: float


def loose_grids(problem: Problem, study: Study, start: Mapping[str, Grid], readers: Mapping[str, Sequence[Reader]]) -> dict[str, Grid]:
    """Better grids than those given, for some tensors that no layer reads.

    Args:
        problem: for what was observed.
        study: of the network.
        start: grids by tensor.
        readers: layers by the tensor that they read.
    """
    names = [root for root in dict.fromkeys(r.root for r in study.readings.values()) if root not in readers]
    witnesses = witnesses_of(study, names, _few(study, _SAMPLES))

    def propose(item: tuple[str, Witness]) -> _Proposal:
        root, witness = item
        return _proposal(root, witness, start[root], problem.tensors[root].minimum, problem.tensors[root].maximum)

    proposals = sorted(in_order(propose, witnesses.items(), study.workers), key=lambda p: -p.gain)[:_TRIALS]
    proposals = [p for p in proposals if p.gain > 0.0]
    if not proposals:
        return {}
    feed = _few(study, _TRIAL_SAMPLES)
    expected = run_samples(study.network, feed)

    def tested(proposal: _Proposal) -> Grid:
        grids = _between(start[proposal.root], proposal.grid)
        errors = [_output_error(study, feed, expected, proposal.root, grid) for grid in grids]
        return grids[min(range(len(grids)), key=errors.__getitem__)]

    return dict(zip((p.root for p in proposals), in_order(tested, proposals, study.workers), strict=True))


def _between(start: Grid, proposal: Grid) -> list[Grid]:
    """From one grid to the other, by their ranges."""
    steps = []
    for part in _PARTS:
        low = (1.0 - part) * start.lowest + part * proposal.lowest
        high = (1.0 - part) * start.highest + part * proposal.highest
        steps.append(covering(low, high, start.bits, start.signed))
    return [start, *steps, proposal]


def _few(study: Study, count: int) -> dict[str, Tensor]:
    return {name: value[:count] for name, value in study.feed.items()}


def _proposal(root: str, witness: Witness, start: Grid, low: float, high: float) -> _Proposal:
    candidates = [start, *scale_candidates(low, high, start.bits, start.signed)]
    kept = shortlist(candidates, grid_errors(thinned_witness(witness), candidates))
    finalists = list(dict.fromkeys([start, *kept, *with_moved_ends(kept[0])]))
    errors = grid_errors(witness, finalists)
    best = int(errors.argmin())
    return _Proposal(root, finalists[best], float(errors[0] - errors[best]))


def _output_error(study: Study, feed: Mapping[str, Tensor], expected: Mapping[str, Tensor], root: str, grid: Grid) -> float:
    """Squared error of the outputs over their squares, with one tensor on a grid and all else float."""
    got = run_samples(study.network, feed, hook=on_grids(study.readings, {root: grid}))
    floats = [name for name, value in expected.items() if value.is_floating_point()]
    return sum(float((got[n] - expected[n]).double().square().sum() / expected[n].double().square().sum().clamp(min=1e-30)) for n in floats)
