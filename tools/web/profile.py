"""Reading the profiles that ONNX Runtime Web writes: the nodes that ran, and how long each took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["NodeTime", "node_times"]

_KERNEL = "_kernel_time"
_LONG = 50.0
"""Microseconds from which a tick of the clock hardly matters."""


@dataclass(frozen=True)
class NodeTime:
    """A node of the graph that the runtime made.

    Attributes:
        name: of the node.
        op_type: of it.
        result: type and shape of its first output, as ``float[1, 64, 8, 8]``.
        tensors: how many it reads and writes, constants among them.
        microseconds: the quickest of its runs but for the first, which warms up; of short ones, the mean of the faster half.
    """

    name: str
    op_type: str
    result: str
    tensors: int
    microseconds: float


def node_times(events: Sequence[Mapping[str, Any]]) -> list[NodeTime]:
    """The nodes of one profile of two or more runs, in the order of the runtime's numbers for them."""
    runs: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            runs[int(event["args"]["node_index"])].append(event)
    return [_node_time(each) for _, each in sorted(runs.items())]


def _node_time(runs: Sequence[Mapping[str, Any]]) -> NodeTime:
    about = runs[0]["args"]
    outputs: Sequence[Mapping[str, list[int]]] = about.get("output_type_shape") or []
    result = next((f"{kind}{shape}" for output in outputs for kind, shape in output.items()), "[]")
    tensors = len(outputs) + len(about.get("input_type_shape") or [])
    name = runs[0]["name"].removesuffix(_KERNEL)
    return NodeTime(name, about["op_name"], result, tensors, _usual([float(each["dur"]) for each in runs]))


def _usual(times: Sequence[float]) -> float:
    """The clock ticks in microseconds: of short times, a mean says more than the least; long ones are rarely undisturbed."""
    quick = sorted(times[1:] or times)
    return quick[0] if quick[0] >= _LONG else statistics.fmean(quick[: max(len(times) // 2, 1)])
