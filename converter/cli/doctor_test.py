"""``bridgequant doctor``: what is printed and written, and how bad input ends."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import onnxruntime

from converter.doctor.kernels import KINDS
from converter.testing.command import check_refusal, names
from converter.testing.models import Run


def test_the_machine_the_runtime_and_its_kernels(run: Run) -> None:
    result = run("doctor")
    assert result.code == 0, result.err
    assert platform.machine() in result.out and f"ONNX Runtime {onnxruntime.__version__}" in result.out
    assert all(any(line.startswith(kind) for line in result.out.splitlines()) for kind in KINDS)
    assert "it fits" not in result.out


def test_a_file(run: Run, source: Path) -> None:
    result = run("doctor", source)
    assert result.code == 0 and result.out.splitlines()[-1] == "it fits"
    assert f"{source.name}: opset 17" in result.out


def test_json_holds_the_same(run: Run, source: Path, tmp_path: Path) -> None:
    assert run("doctor", source, "--json", tmp_path / "found.json", "-q").out == ""
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["file"]["fits"] is True and found["machine"]["architecture"] == platform.machine()
    assert len(found["kernels"]) == 2 * len(KINDS)


def test_bad_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    check_refusal(run("doctor", tmp_path / "none.onnx"), 3, "none.onnx")
    check_refusal(run("doctor", tmp_path / "text.onnx"), 3, "not ONNX")
    check_refusal(run("doctor", "--odd"), 2, "--odd")
    check_refusal(run("doctor", tmp_path / "text.onnx", "--json", tmp_path / "text.onnx"), 2, "same file")
    assert names(tmp_path) == ["text.onnx"]
