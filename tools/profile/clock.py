"""What every probe takes on this machine, by the clock: the runtime's own profile of each node, run after run.

A shared machine is noisy and never too fast. So float and integer form of a probe run in turns, all probes are gone through
several times with whatever else goes on in between, and what counts is the quickest of the medians.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from converter.runtime.session import Feed, open_session
from tools.profile.probes import branches
from tools.profile.samples import Timed

__all__ = ["KERNEL_SUFFIX", "PICOSECONDS", "Clocked", "Prepared", "clocked_nodes", "first_output", "prepared", "usual_time"]

KERNEL_SUFFIX = "_kernel_time"
"""Of a node's name, in the profile's events that are about nodes that ran."""

PICOSECONDS = 1e6
"""In a microsecond, the profile's unit."""

Prepared = tuple[onnx.ModelProto, Feed, list[Timed]]
"""A graph as the runtime has optimised it, with a name for every node; its inputs; its nodes, without costs."""

Clocked = dict[str, list[float]]
"""Medians of a node's time in picoseconds, one for each time that all probes were gone through."""


def prepared(model: onnx.ModelProto, feed: Feed, settings: Mapping[str, str]) -> Prepared:
    """Let the runtime optimise a model, and name the nodes of the result by their place."""
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        path = Path(folder, "optimised.onnx")
        open_session(model, threads=1, settings=settings, optimised_path=path)
        optimised = onnx.load(path)
    names = branches([(node.input, node.output) for node in optimised.graph.node])
    nodes = []
    for place, (node, branch) in enumerate(zip(optimised.graph.node, names, strict=True)):
        nodes.append(Timed(branch, node.op_type, node.name, "", None))
        node.name = f"{branch}_{place}"
    return optimised, feed, nodes


def clocked_nodes(
    pairs: Sequence[Sequence[Prepared]], *, runs: int, rounds: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[list[list[Timed]]]:
    """Time every node.

    Args:
        pairs: for each probe the graphs that run in turns.
        runs: of each graph, at each visit.
        progress: called with (visits done, visits in all).

    Returns:
        For each probe and graph its nodes, with the quickest of the medians as cost, in picoseconds.
    """
    times: list[list[Clocked]] = [[defaultdict(list) for _ in pair] for pair in pairs]
    results: list[list[dict[str, str]]] = [[{} for _ in pair] for pair in pairs]
    for visit in range(rounds):
        for place, pair in enumerate(pairs):
            for form, (medians, shapes) in enumerate(_visit(pair, runs)):
                for name, median in medians.items():
                    times[place][form][name].append(median)
                results[place][form] |= shapes
            progress(visit * len(pairs) + place + 1, rounds * len(pairs))
    return [
        [
            [_timed(node, f"{node.branch}_{at}", clock, shapes) for at, node in enumerate(nodes)]
            for (_, _, nodes), clock, shapes in zip(pair, clocks, shapes_of, strict=True)
        ]
        for pair, clocks, shapes_of in zip(pairs, times, results, strict=True)
    ]


def _timed(node: Timed, name: str, clock: Clocked, shapes: dict[str, str]) -> Timed:
    found = clock.get(name)
    return replace(node, result=shapes.get(name, "[]"), cost=min(found) if found else None)


def _visit(pair: Sequence[Prepared], runs: int) -> list[tuple[dict[str, float], dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        sessions = [
            open_session(model, threads=1, optimise=False, profile_prefix=Path(folder, f"profile{form}"))
            for form, (model, _, _) in enumerate(pair)
        ]
        for _ in range(runs + 1):  # the first is to warm up
            for session, (_, feed, _) in zip(sessions, pair, strict=True):
                session.run(None, dict(feed))
        return [_read(json.loads(Path(session.end_profiling()).read_text())) for session in sessions]


def _read(events: Sequence[dict[str, Any]]) -> tuple[dict[str, float], dict[str, str]]:
    """The usual time of each node, and the type and shape of its first output."""
    times: dict[str, list[float]] = defaultdict(list)
    shapes = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            name = event["name"].removesuffix(KERNEL_SUFFIX)
            times[name].append(event["dur"] * PICOSECONDS)
            shapes[name] = first_output(event)
    return {name: usual_time(each) for name, each in times.items() if each[1:]}, shapes


def usual_time(times: Sequence[float]) -> float:
    """Mean of the faster half of two or more times, but for the first, which warms up.

    The clock ticks in microseconds: a mean of what is not an outlier says more than a median of whole numbers.
    """
    return statistics.fmean(sorted(times[1:])[: max(len(times) // 2, 1)])


def first_output(event: Mapping[str, Any]) -> str:
    """Type and shape of the first output of a node that ran, as ``float32[1, 64, 8, 8]``."""
    outputs: Sequence[Mapping[str, list[int]]] = event["args"].get("output_type_shape") or []
    return next((f"{kind}{shape}" for output in outputs for kind, shape in output.items()), "[]")
