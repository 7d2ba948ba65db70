"""What the runtime's profile adds to the times that it tells.

While a node's time is taken, ONNX Runtime writes down the types and shapes of all that the node reads and writes. In WebAssembly that takes
longer than many a small operator. Here it is measured on chains of such operators: the time of each node by the profile, and by the clock
without a profile. What is between them grows with the number of tensors.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import nnls

from tools.web.jobs import Job
from tools.web.node import run_in_node
from tools.web.package import Package
from tools.web.profile import NodeTime, node_times

__all__ = ["Overhead", "fit_overhead", "measure_overhead"]

_OPSET, _IR = 20, 9
_SHORT, _LONG = 2, 202
_CONSTANTS = (1, 2, 3, 5, 7)
_SIZE = 8
_WARM, _TURNS = 20, 60


@dataclass(frozen=True)
class Overhead:
    """What a profile adds to the time of a node, in microseconds: ``node``, and ``tensor`` for each that it reads or writes."""

    node: float = 0.0
    tensor: float = 0.0

    def without(self, time: NodeTime) -> float:
        """The time of a node as it is without a profile, in microseconds."""
        return max(time.microseconds - self.node - self.tensor * time.tensors, 0.0)


def fit_overhead(tensors: Sequence[int], added: Sequence[float]) -> Overhead:
    """The line through what was added to nodes, in microseconds, by the number of their tensors; none of its two numbers is negative."""
    node, tensor = nnls(np.array([[1.0, each] for each in tensors]), np.array(added))[0]
    return Overhead(float(node), float(tensor))


def measure_overhead(package: Package) -> Overhead:
    """Measure it in Node.

    Raises:
        UsageError: there is no Node.
        ConverterError: the runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        job = Job(Path(folder))
        feed = job.feed({"x": np.linspace(-1.0, 1.0, _SIZE, dtype=np.float32)})
        for constants in _CONSTANTS:
            short, long = (job.model(_chain(length, constants)) for length in (_SHORT, _LONG))
            job.latencies([short, long], feed, warm=_WARM, turns=_TURNS)
            job.profiles([(long, feed)], runs=_TURNS)
        profiles = [node_times(events) for events in run_in_node(job, package)]
        clocked = [_each_node(*times) for times in job.results()[::2]]
    told = [float(np.median([node.microseconds for node in nodes])) for nodes in profiles]
    return fit_overhead([constants + 2 for constants in _CONSTANTS], [one - other for one, other in zip(told, clocked, strict=True)])


def _each_node(short: Sequence[float], long: Sequence[float]) -> float:
    """Microseconds of a node of a long chain, from milliseconds of runs of a short one and of the long one."""
    quick = [float(np.quantile(times, 0.25)) for times in (short, long)]
    return (quick[1] - quick[0]) * 1e3 / (_LONG - _SHORT)


def _chain(length: int, constants: int) -> onnx.ModelProto:
    """Maxima and minima in turns of what comes in and of so many constants."""
    names = [f"c{place}" for place in range(constants)]
    made = ["x", *(f"v{place}" for place in range(length))]
    nodes = [
        helper.make_node("Max" if place % 2 else "Min", [one, *names], [other])
        for place, (one, other) in enumerate(itertools.pairwise(made))
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [_SIZE]) for name in ("x", made[-1])]
    kept = [numpy_helper.from_array(np.full(_SIZE, place, np.float32), name) for place, name in enumerate(names)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
