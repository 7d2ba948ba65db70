"""A target file from a device: the runner's profile, what is sent and what comes back, and whether the converter takes it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.options import Options
from converter.pipeline import convert
from converter.targets import TARGETS, find_target
from runtime_tests.emulation.guest import save_tensors
from tools.device_bench import costs
from tools.device_bench.costs import main, measure_costs
from tools.device_bench.profiler import profiled
from tools.device_bench.testing.converted import Converted
from tools.device_bench.transport import local_transport
from tools.profile.probes import probes

HERE = next(name for name, target in TARGETS.items() if platform.machine() in target.architectures)
"""A target of this machine's kind."""


def test_each_model_of_a_group_is_profiled_as_often_as_asked(converted: Converted, tmp_path: Path) -> None:
    save_tensors(tmp_path / "inputs.npz", {"x": np.zeros((1, 3, 16, 16), np.float32)})
    group = {"models": [str(converted.floats), str(converted.int8)], "inputs": str(tmp_path / "inputs.npz"), "settings": {}}
    floats, int8 = profiled(group, 3, tmp_path)
    for events in (floats, int8):
        nodes = {event["args"]["node_index"] for event in events}
        assert len(events) == 3 * len(nodes)
    assert "QuantizeLinear" in {event["args"]["op_name"] for event in int8} and not list(tmp_path.glob("profile*"))


@pytest.mark.slow
def test_a_device_gives_a_target_that_the_converter_takes(converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "board.toml"
    words = [HERE, "--local", "--python", sys.executable, "--runs", "2", "--visits", "1", "--name", "board", "--out", str(out)]
    assert main(words) == 0
    target = find_target(str(out))
    assert (target.name, target.unit) == ("board", "picoseconds") and "1 visits of 2 runs" in target.fit["measured"]
    assert set(TARGETS["arm64"].costs) - set(target.costs) <= {"ColumnConvolution", "LinearConvolution", "PiecewiseLinear"}, (
        "every kind of operator has a price"
    )
    convert(converted.floats, tmp_path / "made.onnx", Options(target=str(out), samples=2))
    assert (tmp_path / "made.onnx").exists()


def test_the_quickest_visit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes 5 microseconds for each node at the first visit, and 2 at the second."""
    answers = iter((5.0, 2.0))
    real = costs._timed

    def timed(events: list[list[list[dict[str, object]]]], forms: costs.Forms) -> object:
        dur = next(answers)
        return real([[[{**event, "dur": dur} for event in profile] for profile in group] for group in events], forms)

    monkeypatch.setattr(costs, "_timed", timed)
    found = measure_costs(local_transport(), TARGETS[HERE], probes()[-2:], python=[sys.executable], runs=2, visits=2)
    assert {sample.cost for sample in found.floats} == {2e6}
    assert next(answers, None) is None


def test_a_file_that_is_no_target_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arm64", "--local", "--out", "costs.json"]) == 2
    assert "a target file ends in .toml" in capsys.readouterr().err
