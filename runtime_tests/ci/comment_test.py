from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import UsageError
from runtime_tests.check_results import CheckResult, broken_result, junit_xml
from runtime_tests.ci.comment import MARK, Failure, change, comment, read_failures
from runtime_tests.gates import Gate

ROOT = Path(__file__).parents[2]

GATES = [
    Gate("min_ratio_a76", "ratio_a76", 1.5, "", Path("gates.toml")),
    Gate("baseline size_mb", "size_mb", 1.01, "baseline.json, tolerance 0.01", Path("gates.toml")),
]


@pytest.mark.parametrize(
    ("name", "before", "now", "shown"),
    [
        ("top1", 91.0, 91.25, "+0.25, better"),
        ("sqnr_db", 40.0, 38.5, "-1.50, worse"),
        ("instructions_a76", 200.0, 190.0, "-5.00 %, better"),
        ("ratio_a76", 2.0, 1.9, "-5.00 %, worse"),
        ("size_mb", 1.5, 1.5, "same"),
        ("memory_mb", 100.0, 110.0, "+10.00 %"),
    ],
    ids=["points", "decibels", "fewer are better", "more are better", "same", "memory differs from day to day"],
)
def test_how_a_figure_changed(name: str, before: float, now: float, shown: str) -> None:
    assert change(name, before, now) == shown


def test_a_comment_has_a_row_for_each_figure_with_its_gates() -> None:
    lines = comment({"ratio_a76": 1.6, "size_mb": 1.2}, {"ratio_a76": 1.28, "size_mb": 1.0}, GATES, []).splitlines()
    assert lines[0] == MARK
    assert lines[-2] == "| `ratio_a76`, float over int8 instructions, cortex-a76 | 1.28 | 1.6 | +25.00 %, better | ✅ ≥ 1.5 |"
    assert lines[-1].endswith("| 1 | 1.2 | +20.00 %, worse | ❌ ≤ 1.01 (baseline.json, tolerance 0.01) |")


@pytest.mark.parametrize(
    ("figures", "failures", "verdict"),
    [
        ({"size_mb": 1.0}, [], "✅ sound, all gates kept"),
        ({"size_mb": 1.0}, [Failure("a", "low", True), Failure("b", "low", True)], "❌ 2 gates missed"),
        ({"size_mb": 1.0}, [Failure("parity", "-3 dB", False), Failure("b", "low", True)], "❌ not sound"),
        (None, [Failure("validation", "no such file", False)], "❌ not validated"),
        (None, [], "❌ not validated, see the log"),
    ],
)
def test_the_verdict(figures: dict[str, float] | None, failures: list[Failure], verdict: str) -> None:
    assert comment(figures, None, GATES, failures).splitlines()[1] == f"### int8 model: {verdict}"


def test_names_from_a_model_are_no_markup() -> None:
    text = comment(None, None, [], [Failure("parity", "at '<img src=x>`a`[b](c)|\n# title @team", False)])
    line = next(line for line in text.splitlines() if line.startswith("* "))
    assert line == "* parity: at '\\<img src=x\\>\\`a\\`\\[b\\]\\(c\\)\\| \\# title &#64;team"


def test_without_gates_none_are_said_to_be_kept() -> None:
    assert "### int8 model: ✅ sound\n" in comment({"size_mb": 1.0}, None, [], [])


def test_failures_come_from_the_junit_file(tmp_path: Path) -> None:
    results = [
        CheckResult("check", "loads"),
        CheckResult("check", "parity", failure="the runtime does not compute what it should"),
        CheckResult("gate", "min_top1", failure="top1 is 3"),
        CheckResult("check", "arm64", skipped="give --arm64"),
        broken_result(UsageError("no data", where="--data")),
    ]
    (tmp_path / "int8.xml").write_bytes(junit_xml("int8.onnx", results))
    found = read_failures(tmp_path / "int8.xml")
    assert [(each.name, each.gate) for each in found] == [("parity", False), ("min_top1", True), ("validation", False)]
    assert found[2].message == "error: no data   at: --data"


def test_a_file_that_is_no_junit_xml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "int8.xml").write_text("no XML")
    for name, said in (("int8.xml", "the file is not XML"), ("none.xml", "cannot be read")):
        with pytest.raises(UsageError, match=said):
            read_failures(tmp_path / name)


def test_commands_of_ci_start_without_a_heavy_library(tmp_path: Path) -> None:
    program = """
import sys
from runtime_tests.ci.__main__ import main
code = main(["comment", "absent.json"])
sys.exit(code or " ".join({"torch", "onnxruntime", "onnx", "onnx_ir"} & set(sys.modules)) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0 and "not validated" in ended.stdout, ended.stderr
