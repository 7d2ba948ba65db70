"""Times of probes from profiles that are made up, as ONNX Runtime Web writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from tools.profile import web
from tools.profile.probes import Probe, feeds, probe_model
from tools.profile.samples import Timed
from tools.profile.web import profiled_nodes, web_nodes
from tools.web.jobs import Job
from tools.web.overhead import Overhead
from tools.web.package import Package


def profile(**microseconds: int) -> list[dict[str, Any]]:
    """Three runs of nodes with one input, called by what they do."""
    args = {"input_type_shape": [{"float": [2]}], "output_type_shape": [{"float": [2]}]}
    return [
        {"cat": "Node", "name": f"{op}_kernel_time", "dur": taken, "args": {**args, "op_name": op, "node_index": str(place)}}
        for _ in range(3)
        for place, (op, taken) in enumerate(microseconds.items())
    ]


def test_what_the_profile_takes_does_not_count() -> None:
    assert profiled_nodes(profile(Sigmoid=10), "p0003", Overhead(1.0, 2.0)) == [Timed("p0003", "Sigmoid", "Sigmoid", "float[2]", 5e6)]


def test_the_quickest_visit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = [[profile(Sigmoid=30), profile(QLinearSigmoid=12)], [profile(Sigmoid=20), profile(QLinearSigmoid=15)]]
    jobs: list[Job] = []

    def run(job: Job, package: Package) -> list[list[dict[str, Any]]]:
        jobs.append(job)
        return visits[len(jobs) - 1]

    monkeypatch.setattr(web, "run_in_node", run)
    monkeypatch.setattr(web, "measure_overhead", lambda package: Overhead(2.0, 0.0))
    model = probe_model([Probe("Sigmoid", ((2,),))], first=7)
    told: list[tuple[int, int]] = []
    forms = [([ir.to_proto(model)] * 2, feeds(model))]
    package = Package(Path("absent"), "1.2.3")
    found = web_nodes(forms, package, runs=2, rounds=2, progress=lambda done, total: told.append((done, total)))
    assert [[(node.branch, node.op_type, node.cost) for node in form] for form in found[0]] == [
        [("p0007", "Sigmoid", 18e6)],
        [("p0007", "QLinearSigmoid", 10e6)],
    ]
    assert told == [(1, 2), (2, 2)]
    assert [[task["runs"] for task in job.tasks] for job in jobs] == [[3], [3]]
