"""What is said of two models, with ONNX Runtime here in the place of the one that browsers run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.runtime.session import run_model
from tools.web import compare
from tools.web.compare import Agreement, agreement, main
from tools.web.jobs import Job, read_outputs
from tools.web.package import FOLDER_VARIABLE, Package


def test_answers_are_indices_of_the_largest_number_along_the_last_axis() -> None:
    wanted = [{"y": np.array([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])}, {"y": np.array([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])}]
    got = [{"y": np.array([[1.5, 2.5, 0.0], [3.0, 0.0, 0.0]])}, {"y": np.array([[1.0, 2.0, 0.0], [0.0, 4.0, 0.0]])}]
    assert agreement(wanted, got) == Agreement(2, 1, 1.0)
    assert agreement(wanted, wanted) == Agreement(2, 2, 0.0)


def test_integers_are_answers_themselves() -> None:
    assert agreement([{"y": np.array([3, 4])}], [{"y": np.array([3, 5])}]) == Agreement(1, 0, 0.25)


def stand_in(milliseconds: tuple[float, float]) -> Callable[[Job, Package], None]:
    """Performs a job here; each model takes as long as said."""

    def perform(job: Job, package: Package) -> None:
        job.write()
        results = [
            [[ms] * task["turns"] for ms in milliseconds] if task["kind"] == "latencies" else outputs(job, task) for task in job.tasks
        ]
        (job.folder / "results.json").write_text(json.dumps(results))

    return perform


def outputs(job: Job, task: dict[str, Any]) -> list[dict[str, Any]]:
    model = onnx.load_from_string((job.folder / str(task["model"])).read_bytes())
    found = []
    for place, feed in enumerate(read_outputs(task["feeds"], job.folder)):
        (y,) = run_model(model, feed).values()
        name = f"{task['results']}_{place}"
        (job.folder / name).write_bytes(y.tobytes())
        found.append({"y": {"type": y.dtype.name, "dims": list(y.shape), "file": name}})
    return found


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models with one input, and a package that is nothing but a version."""
    package = tmp_path / "node_modules" / "onnxruntime-web"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    paths = [tmp_path / f"{name}.onnx" for name in ("float", "int8")]
    for path in paths:
        onnx.save(model, path)
    return [str(path) for path in paths]


def test_a_table_shows_both_places(models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compare, "ENGINES", {"node": stand_in((3.0, 2.0)), "chromium": stand_in((2.0, 2.0))})
    assert main([*models, "--samples", "4", "--at-least", "1"]) == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines() if line[0] == "│"]
    assert rows == [
        ["node", "float", "4 of 4", "0.0e+00", "1", "1"],
        ["node", "int8", "4 of 4", "0.0e+00", "1.50 (1.50 to 1.50)", "1.50"],
        ["chromium", "float", "4 of 4", "0.0e+00", "1", "1"],
        ["chromium", "int8", "4 of 4", "0.0e+00", "1.00 (1.00 to 1.00)", "1.00"],
    ]


def test_a_ratio_that_is_missed_ends_with_code_6(
    models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "ENGINES", {"node": stand_in((3.0, 2.0)), "chromium": stand_in((2.0, 2.0))})
    assert main([*models, "--samples", "2", "--at-least", "1.2"]) == 6
    assert capsys.readouterr().err.splitlines()[0] == "error: in chromium float's time over int8's is 1.00, 1.2 were asked for"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--at-least", "-1"], "-1 is no ratio of times"),
        (["--samples", "0"], "--samples must be at least 1, not 0"),
        (["--turns", "2"], "--turns must be at least 5, not 2"),
        (["--web", "absent"], "there is no onnxruntime-web in this folder"),
    ],
)
def test_mistakes_are_told_in_three_lines(models: list[str], words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*models, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {what}" and len(lines) <= 3


def test_without_a_folder_the_command_says_how_to_get_one(
    models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert main(models) == 2
    assert "python -m tools.web.setup FOLDER" in capsys.readouterr().err
