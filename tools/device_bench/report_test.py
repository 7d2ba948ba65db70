from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter.cli.report_tables import render
from runtime_tests.processes import Predictions
from tools.device_bench.answers import Answers, PlanAnswers
from tools.device_bench.bench import Found, Model, Ran, Settings
from tools.device_bench.report import MOST_NUMBERS, board_row, drift, quantile, report_json, report_table
from tools.device_bench.state import Core, State

CORES = (Core(0, 400, 1800000, 600000, "ondemand"), Core(5, 1024, 2400000, 2400000, "performance"))
FOUND = Found(
    "ssh board",
    "aarch64",
    {"python": "3.11.2", "numpy": "2.4.6", "onnxruntime": "1.32.0"},
    (5,),
    State("A|Board", "Linux 6.6", CORES, {"cpu": 40.0, "gpu": 39.0}),
    State("A|Board", "Linux 6.6", CORES, {"cpu": 51.26, "gpu": 60.0}),
    50_000_000,
    (
        Ran((4.0, 2.0, 2.0, 2.0), 90_000_000, {"y": np.zeros((1, 1, 2), np.float32)}),
        Ran((1.0, 1.0, 0.5, 0.5), 70_000_000, {"y": np.zeros((1, MOST_NUMBERS + 1), np.float32)}),
    ),
)
MODELS = [Model(Path("float.onnx")), Model(Path("int8.onnx"))]
HERE = Predictions("this machine", "ssh board", 8, 7, 0.0125)
ANSWERS = [Answers(HERE), Answers(HERE, PlanAnswers(57.5, 30.0, "a simulation of the plan"))]


@pytest.mark.parametrize(
    ("times", "p50", "p90"),
    [([3.0, 1.0, 2.0], 2.0, 3.0), (list(range(1, 11)), 5.0, 9.0), ([7.0], 7.0, 7.0)],
)
def test_a_quantile_is_one_of_the_times(times: list[float], p50: float, p90: float) -> None:
    """The k-th of n in order, k the share of n rounded up."""
    assert (quantile(times, 0.5), quantile(times, 0.9)) == (p50, p90)


def test_a_device_that_becomes_slower_drifts() -> None:
    assert drift([1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 1.5, 1.5]) == 1.5
    assert drift([2.0]) == 1.0


def test_the_json_has_figures_times_and_outputs() -> None:
    told = json.loads(report_json(FOUND, Settings(seconds=3.0), MODELS, ANSWERS))
    assert told["device"]["name"] == "A|Board" and told["device"]["onnxruntime"] == "1.32.0"
    assert told["celsius"] == {"before": {"cpu": 40.0, "gpu": 39.0}, "after": {"cpu": 51.26, "gpu": 60.0}}
    assert told["governors"] == {"before": ["performance"], "after": ["performance"]}  # of the core that was used
    floats, int8 = told["models"]
    assert (int8["p50_ms"], int8["p90_ms"], int8["memory_mb"], int8["times_ms"]) == (0.5, 1.0, 70.0, [1.0, 1.0, 0.5, 0.5])
    assert int8["ratio"] == {"ratio": 4.0, "low": 2.0, "high": 4.0, "turns": 4}  # of 4, 2, 4, 4
    assert floats["outputs"] == {"y": {"shape": [1, 1, 2], "values": [[[0.0, 0.0]]]}}
    assert int8["outputs"] == {"y": {"shape": [1, MOST_NUMBERS + 1], "values": None}}
    assert int8["answers"]["plan"] == {"parity_db": 57.5, "float_db": 30.0, "reference": "a simulation of the plan"}


def test_the_table_and_the_row_for_the_docs() -> None:
    text = render(report_table(FOUND, MODELS, ANSWERS), 160, terminal=False)
    for part in ("4.00 (2.00 to 4.00)", "7 of 8", "57.5", "cores 5; governor performance", "hottest place: 40.0 °C before, 60.0 °C after"):
        assert part in text
    cells = ["A/Board", "aarch64", "5", "performance", "40.0 °C to 60.0 °C", "1.32.0", "int8.onnx", "2.000", "0.500", "4.00"]
    assert board_row(FOUND, MODELS) == f"| {' | '.join(cells)} |"
