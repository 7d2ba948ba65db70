"""Profiles by hand, in the spelling of ONNX Runtime Web."""

from __future__ import annotations

from typing import Any

from tools.web.profile import NodeTime, node_times


def event(index: int, name: str, op: str, duration: int, reads: int = 1) -> dict[str, Any]:
    shapes = {"input_type_shape": [{"float": [1, 8]}] * reads, "output_type_shape": [{"float": [1, 8]}]}
    args = {"node_index": str(index), "op_name": op, "provider": "CPUExecutionProvider", **shapes}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": args}


SESSION = {"cat": "Session", "name": "model_run", "dur": 1000, "args": {}}


def test_a_node_takes_the_mean_of_the_faster_half_of_its_runs_but_for_the_first() -> None:
    durations = (900, 10, 14, 50, 12, 70)
    events = [e for d in durations for e in (SESSION, event(3, "b", "Add", d, reads=2), event(1, "a", "Sigmoid", 5))]
    assert node_times(events) == [NodeTime("a", "Sigmoid", "float[1, 8]", 2, 5.0), NodeTime("b", "Add", "float[1, 8]", 3, 12.0)]


def test_of_long_runs_the_quickest_counts() -> None:
    (node,) = node_times([event(0, "a", "Conv", d) for d in (10, 900, 70, 400)])
    assert node.microseconds == 70.0


def test_nodes_of_one_name_are_told_apart_by_their_number() -> None:
    assert [node.microseconds for node in node_times([event(i, "", "Relu", i) for i in (4, 2, 4, 2)])] == [2.0, 4.0]
