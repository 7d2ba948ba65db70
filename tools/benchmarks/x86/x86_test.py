"""The table of latencies: which files there are where a tool is missing, and how ratios are printed."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from converter.errors import ModelError, UsageError
from converter.runtime.latency import LatencyRatio
from tools.benchmarks.instructions.models import Workshop
from tools.benchmarks.x86 import __main__ as command
from tools.benchmarks.x86 import measure
from tools.benchmarks.x86.measure import FLOAT, Made, files, latencies, openers


def quick(*installed: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files are named, not made; the tools that are asked for."""
    asked: list[str] = []

    def other(shop: Workshop, network: str, tool: str) -> Path:
        asked.append(tool)
        if tool == "nncf":
            raise ModelError("it cannot be made: no opset")
        return Path(f"{network}_{tool}.onnx")

    monkeypatch.setattr(measure, "find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr(measure, "float_model", lambda shop, network: Path(f"{network}.onnx"))
    monkeypatch.setattr(measure, "our_model", lambda shop, network, target, method: SimpleNamespace(path=Path(f"{network}_{target}.onnx")))
    monkeypatch.setattr(measure, "static_model", other)
    return asked


def test_without_openvino_three_files_run_and_the_rest_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = quick(monkeypatch=monkeypatch)
    rows = files(Workshop(Path(), None), "net", "x86")
    assert [name for name, made in rows.items() if made.path] == [FLOAT, "--target x86", "quantize_static, U8S8"]
    assert rows["OpenVINO"].remark == "not installed"
    assert asked == ["ort-u8s8-reduced"], "weights of 7 bits where 8 saturate"


def test_a_tool_that_fails_leaves_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = quick("openvino", "nncf", monkeypatch=monkeypatch)
    rows = files(Workshop(Path(), None), "net", "x86-vnni")
    assert asked == ["ort-u8s8", "nncf"]
    assert rows["OpenVINO, NNCF"] == Made(None, True, "it cannot be made: no opset")
    assert rows["OpenVINO, float"] == Made(Path("net.onnx"), True)


def test_a_file_that_does_not_load_is_no_reason_to_stop_but_the_float_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Path, openvino: bool, feed: object) -> measure.Run:
        if openvino:
            raise RuntimeError("Exception from x.cpp:5:\nno implementation")
        return lambda: None

    monkeypatch.setattr(measure, "_opened", opened)
    runs, remarks = openers({FLOAT: Made(Path("f"), False), "a": Made(Path("a"), True), "b": Made(None, True, "not installed")}, {})
    assert list(runs) == [FLOAT]
    assert remarks == {"a": "does not load: no implementation", "b": "not installed"}
    with pytest.raises(RuntimeError):
        openers({FLOAT: Made(Path("f"), True)}, {})


def test_a_ratio_is_float_time_over_the_files_own_time() -> None:
    found = latencies({FLOAT: lambda: sum(range(100_000)), "quick": lambda: None}, seconds=0.0, repeats=2)
    assert list(found) == ["quick"] and len(found["quick"]) == 2
    assert found["quick"][0].ratio > 2
    with pytest.raises(UsageError, match="no float model"):
        latencies({"quick": lambda: None}, seconds=0.0, repeats=1)


def test_the_table_gives_the_median_of_the_measurements_and_their_whole_range() -> None:
    ratios = [LatencyRatio(1.0, 0.9, 1.2, 10), LatencyRatio(3.0, 2.0, 3.5, 10), LatencyRatio(1.5, 1.1, 1.6, 10)]
    assert command.ratio_text(ratios) == "1.50 (0.90 to 3.50)"
    text = command.markdown({"one": {"a": "1.50", "b": "2.00"}, "two": {"a": "0.90"}})
    assert text.splitlines() == ["| float time / its time | one | two |", "| --- | ---: | ---: |", "| a | 1.50 | 0.90 |", "| b | 2.00 |  |"]


def test_other_machines_are_told_where_to_go(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert command.main([]) == UsageError.exit_code
    assert "tools.device_bench" in capsys.readouterr().err


def test_a_recogniser_that_is_not_there_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    arguments = ["--networks", "recogniser", "--demo", str(tmp_path / "demo"), "--models", str(tmp_path / "models")]
    assert command.main(arguments) == 0
    told = capsys.readouterr()
    assert "left out" in told.err and "recogniser" not in told.out
