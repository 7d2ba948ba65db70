"""The matrix of importers: what each cell says, with stand-ins for packages that are not installed here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from converter.errors import UsageError
from converter.load.files import write_files
from converter.testing.sketch import classifier, emitted, feeds_for, plan_for
from runtime_tests.emulation.inputs import Samples
from runtime_tests.model_pair import stacked
from tools.importers.__main__ import main, markdown
from tools.importers.matrix import Cell, compared, complaint, reference_outputs, run_importer

OPENCV = """
import os, sys
import numpy as np
import onnxruntime

class dnn:
    @staticmethod
    def readNetFromONNX(path):
        {load}
        return Net(path)

class Net:
    def __init__(self, path):
        self.session, self.feed = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), {{}}

    def setInput(self, value, name):
        self.feed[name] = value

    def forward(self, names):
        {run}
        return self.session.run(names, self.feed)
"""
"""What the importer of that name calls, made of ONNX Runtime."""


def stand_in(folder: Path, load: str = "", run: str = "") -> Path:
    """A folder with a package that does something before it loads or runs."""
    (folder / "cv2.py").write_text(OPENCV.format(load=load or "pass", run=run or "pass"))
    return folder


@pytest.fixture
def floats(tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    write_files({path: ir.to_proto(classifier()).SerializeToString()})
    return path


def samples() -> Samples:
    return stacked(tuple(feeds_for(classifier(), 3)))


def in_opencv(path: Path, packages: Path | None, seconds: float = 60.0) -> Cell:
    wanted = reference_outputs(path, samples(), {})
    return run_importer("OpenCV", path, samples(), wanted, packages=packages, seconds=seconds, megabytes=4000.0)


def test_an_importer_that_computes_what_onnx_runtime_does(floats: Path, tmp_path: Path) -> None:
    cell = in_opencv(floats, stand_in(tmp_path))
    assert cell.state == "done" and cell.right and cell.predictions == 3 and cell.decibels > 100


def test_an_importer_that_computes_something_else(floats: Path, tmp_path: Path) -> None:
    cell = in_opencv(floats, stand_in(tmp_path, run="return [-value for value in self.session.run(names, self.feed)]"))
    assert cell.state == "done" and not cell.right and cell.text == "WRONG: 0 of 3 (0%) the same, -6 dB"


def test_a_file_that_does_not_load(floats: Path, tmp_path: Path) -> None:
    assert in_opencv(floats, stand_in(tmp_path, load="raise TypeError('no Max here\\nat line 1')")).text == (
        "does not load: TypeError: no Max here"
    )


def test_an_importer_that_crashes_takes_nobody_with_it(floats: Path, tmp_path: Path) -> None:
    packages = stand_in(tmp_path, load="sys.stderr.write('terminate called\\n'); sys.stderr.flush(); os.abort()")
    assert in_opencv(floats, packages).text == "ended by SIGABRT: terminate called"


def test_an_importer_that_is_not_installed(floats: Path) -> None:
    assert in_opencv(floats, None).text == "not installed"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ValueError: no such operator\nat node 3", "ValueError: no such operator"),
        ("RuntimeError: Exception from src/core.cpp:54:\nCheck 'ok' failed at src/x.hpp:117:\nNo implementation.\n", "No implementation."),
        ("error: OpenCV(5) /io/opencv/dnn/net.cpp:4: failed", "error: OpenCV(5) net.cpp:4: failed"),
        ("", "no message"),
    ],
)
def test_a_complaint_is_the_first_line_that_says_something(text: str, line: str) -> None:
    assert complaint(text) == line


def scores(*rows: list[float]) -> list[npt.NDArray[Any]]:
    return [np.array(rows, np.float32)[:, None]]


def test_outputs_are_compared_by_predictions_and_decibels() -> None:
    wanted = scores([1, 2, 10], [9, 0, 1])
    assert math.isinf(compared("", wanted, wanted).decibels)
    cell = compared("", wanted, scores([1, 2, 9], [0, 1, 0]))
    assert (cell.predictions, cell.equal) == (2, 1)
    assert cell.decibels == pytest.approx(20 * math.log10(10 / 9))
    assert compared("", wanted, scores([1, math.nan, 10], [9, 0, 1])).decibels == -math.inf
    assert compared("", wanted, scores([1, 2], [3, 4])).text == "does not run: outputs have shapes (2, 1, 2) instead of (2, 1, 3)"


def test_the_table_names_versions_and_says_what_is_missing() -> None:
    rows = {"A": [Cell("1.2", "done", "", 30, 30, 41.6), Cell("1.2", "load", "no | kernel")], "B": [Cell("", "missing")] * 2}
    assert markdown(["float", "arm64"], rows).splitlines()[2:] == [
        "| A (1.2) | 30 of 30 (100%) the same, 42 dB | does not load: no   kernel |",
        "| B | not installed | not installed |",
    ]


def test_wrong_flags_are_told(floats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(floats), str(floats)]
    assert main([*files, "--importers", "Caffe"]) == UsageError.exit_code
    assert main([*files, "--packages", str(tmp_path / "absent")]) == UsageError.exit_code
    told = capsys.readouterr().err
    assert "there is no importer 'Caffe'" in told and "there is no such folder" in told


@pytest.mark.slow
def test_onnx_reference_reads_what_is_written_for_opset_21(floats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no QuantizeLinear of an opset before 19."""
    old, new = floats.with_name("old.onnx"), floats.with_name("new.onnx")
    model = emitted(plan_for(classifier(), "arm64"))
    model.opset_import[0].version, model.ir_version = 17, 8
    write_files({old: model.SerializeToString()})
    model.opset_import[0].version, model.ir_version = 21, 10
    write_files({new: model.SerializeToString()})
    assert main([str(floats), str(old), str(new), "--limit", "2", "--importers", "onnx.reference"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split(" | ")
    assert "(100%) the same" in row[1]
    assert "does not load" in row[2] and "No implementation for operator" in row[2]
    assert "(100%) the same" in row[3]
