from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime_tests.emulation import emulator
from runtime_tests.emulation.count import Count
from runtime_tests.emulation.emulator import Job, JobResult, Machine
from runtime_tests.emulation.environment import Environment
from runtime_tests.emulation.testing.stand_in import PER_REGION, emulate_here
from tools.arm64.count import main
from tools.arm64.per_op import NodeCount, PerOp, TypeCount, by_type, count_per_op, per_op_json

MACHINE = Machine("cortex-a53", (), "1.23.2", "2.4.6", "3.11.2")
NODES = (
    NodeCount("a", "Conv", "float32[1]", 700, None),
    NodeCount("b", "Add", "float32[1]", 40, None),
    NodeCount("c", "Conv", "float32[1]", 200, None),
    NodeCount("d", "Strange", "float32[1]", None, "it does not run alone"),
)


def test_types_are_summed_and_ordered_by_what_they_take() -> None:
    assert by_type(NODES) == [TypeCount("Conv", 2, 900), TypeCount("Add", 1, 40), TypeCount("Strange", 1, 0)]


def test_the_remainder_is_what_neither_nodes_nor_the_call_take() -> None:
    assert PerOp(Count(Path("m.onnx"), "", (1000,), MACHINE), 25, NODES).remainder == 1000 - 25 - 940


def test_every_node_of_the_optimised_graph_is_counted(model: Path, no_emulator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is what its run takes beyond a run of nothing; views are told to the guest."""
    jobs: list[list[Job]] = []

    def emulate(given: list[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
        jobs.append(given)
        results, machine = emulate_here(given, core, env)
        return [JobResult((PER_REGION * (3 if job.bound and job.inputs[0].name == "given.npz" else 1),), r.error)
                for job, r in zip(given, results, strict=True)], machine  # fmt: skip

    monkeypatch.setattr(emulator, "emulate", emulate)
    found = count_per_op(model, "cortex-a76")
    assert [node.error for node in found.nodes] == [None] * len(found.nodes)
    assert {node.instructions for node in found.nodes} == {2 * PER_REGION}
    assert {"LayerNormalization", "Softmax", "Reshape"} <= {node.op_type for node in found.nodes}
    assert found.call == PER_REGION
    whole, showing, alone = jobs
    assert [job.bound for job in (*whole, *showing)] == [False, False]
    assert [job.view for job in alone[2:]] == [node.op_type in ("Reshape", "Squeeze", "Flatten", "Unsqueeze") for node in found.nodes]


def test_the_command_prints_sums_and_remainder(model: Path, no_emulator: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--per-op", "--json", str(tmp_path / "p.json")]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("remainder", "whole model", "call of the runtime", "Softmax"))
    content = json.loads((tmp_path / "p.json").read_text())
    assert sum(each["instructions"] for each in content["nodes"]) + content["call"] + content["remainder"] == content["instructions"]
    assert sum(each["nodes"] for each in content["types"]) == len(content["nodes"])


def test_nodes_that_do_not_run_alone_stay_in_the_json() -> None:
    content = json.loads(per_op_json(PerOp(Count(Path("m.onnx"), "", (1000,), MACHINE), 25, NODES)))
    assert content["nodes"][3] == {
        **{"name": "d", "op_type": "Strange", "result": "float32[1]"},
        **{"instructions": None, "error": "it does not run alone", "reads": [], "writes": []},
    }
