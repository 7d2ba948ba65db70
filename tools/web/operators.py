"""Where the time goes: each type of operator in two models, by ONNX Runtime Web's own profile in Node."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from converter.runtime.session import Feed
from tools.web.jobs import Job
from tools.web.node import run_in_node
from tools.web.overhead import Overhead, measure_overhead
from tools.web.package import Package
from tools.web.profile import NodeTime, node_times

__all__ = ["OperatorTimes", "operator_times"]


@dataclass(frozen=True)
class OperatorTimes:
    """One type of operator in the graphs that the runtime made.

    Attributes:
        op_type: as the runtime calls it.
        floats: milliseconds of a run of the float model.
        float_nodes: how many nodes there are in it.
        integers: milliseconds of a run of the int8 model.
        integer_nodes: how many nodes there are in it.
    """

    op_type: str
    floats: float
    float_nodes: int
    integers: float
    integer_nodes: int


def operator_times(models: tuple[onnx.ModelProto, onnx.ModelProto], feed: Feed, package: Package, *, runs: int) -> list[OperatorTimes]:
    """Profile the float and the int8 model in turns, without what the profile itself takes; the dearest type of operator comes first.

    Raises:
        UsageError: there is no Node.
        ConverterError: the runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="web-") as folder:
        job = Job(Path(folder))
        kept = job.feed(feed)
        job.profiles([(job.model(model), kept) for model in models], runs=runs + 1)
        overhead = measure_overhead(package)
        floats, integers = (_by_type(node_times(events), overhead) for events in run_in_node(job, package))
    types = sorted(floats.keys() | integers.keys(), key=lambda each: -max(floats.get(each, (0.0, 0))[0], integers.get(each, (0.0, 0))[0]))
    return [OperatorTimes(each, *floats.get(each, (0.0, 0)), *integers.get(each, (0.0, 0))) for each in types]


def _by_type(nodes: Sequence[NodeTime], overhead: Overhead) -> dict[str, tuple[float, int]]:
    """Milliseconds and number of nodes of each type."""
    times: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for node in nodes:
        times[node.op_type] += overhead.without(node) / 1e3  # type: ignore[assignment]
        numbers[node.op_type] += 1
    return {op_type: (float(times[op_type]), numbers[op_type]) for op_type in numbers}
