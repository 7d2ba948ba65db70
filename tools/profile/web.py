"""What every probe takes in ONNX Runtime Web, by the clock in Node: the runtime's own profile of each node, run after run.

As by the clock of a machine, float and integer form of a probe run in turns, and all probes are visited several times, in a
process of their own each time. What the profile itself takes is measured first, and taken away. The graph is what the runtime itself
makes of a probe, as some of its optimisations differ from those on x86.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from converter.runtime.session import Feed
from tools.profile.clock import PICOSECONDS
from tools.profile.probes import BRANCH_LETTERS
from tools.profile.samples import Timed
from tools.web.jobs import Job
from tools.web.node import run_in_node
from tools.web.overhead import Overhead, measure_overhead
from tools.web.package import Package
from tools.web.profile import node_times

__all__ = ["profiled_nodes", "quickest", "web_nodes"]


def web_nodes(
    forms: Sequence[tuple[Sequence[onnx.ModelProto], Feed]],
    package: Package,
    *,
    runs: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[list[Timed]]]:
    """Time every node.

    Args:
        forms: for each probe the models that run in turns, and their inputs.
        package: ONNX Runtime Web.
        runs: of each model, at each visit, after one that warms up.
        rounds: visits.
        progress: called with (visits done, visits in all).

    Returns:
        For each probe and model its nodes, with the quickest of the visits as cost, in picoseconds.

    Raises:
        UsageError: there is no Node.
        ConverterError: the runtime fails.
    """
    overhead = measure_overhead(package)
    found: list[list[Timed]] = []
    for done in range(rounds):
        with tempfile.TemporaryDirectory(prefix="profile-") as folder:
            job = Job(Path(folder))
            for protos, feed in forms:
                kept = job.feed(feed)
                job.profiles([(job.model(proto), kept) for proto in protos], runs=runs + 1)
            profiles = zip(run_in_node(job, package), _branches(forms), strict=True)
            visit = [profiled_nodes(events, branch, overhead) for events, branch in profiles]
        found = [quickest(before, now) for before, now in zip(found or visit, visit, strict=True)]
        progress((done + 1) * len(forms), rounds * len(forms))
    each = iter(found)
    return [[next(each) for _ in protos] for protos, _ in forms]


def profiled_nodes(events: Sequence[Mapping[str, Any]], branch: str, overhead: Overhead) -> list[Timed]:
    """The nodes of one profile, each with its time in picoseconds.

    Args:
        events: of a profile, as the runtime writes them.
        branch: the name of the probe that was profiled.
        overhead: of the profile, which is taken away.
    """
    return [Timed(branch, node.op_type, node.name, node.result, overhead.without(node) * PICOSECONDS) for node in node_times(events)]


def quickest(before: Sequence[Timed], now: Sequence[Timed]) -> list[Timed]:
    """The lower cost of each node in two visits."""
    return [replace(one, cost=min(one.cost or 0.0, other.cost or 0.0)) for one, other in zip(before, now, strict=True)]


def _branches(forms: Sequence[tuple[Sequence[onnx.ModelProto], Feed]]) -> list[str]:
    """The probe of each model: tensors of its inputs begin with its name."""
    return [next(iter(feed))[:BRANCH_LETTERS] for protos, feed in forms for _ in protos]
