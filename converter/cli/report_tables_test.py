from __future__ import annotations

import dataclasses
import json
import platform
from typing import Any

import pytest

from converter.canonicalise import Rewrite
from converter.cli import report_tables as tables
from converter.cli.report_tables import float_operator_lines, render, report_tables
from converter.emit.file_bytes import FileBytes, FloatConstant
from converter.partition.cost_model import CostEstimate
from converter.partition.policy import FOR_ACCURACY
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.report import LOW_AGREEMENT, LOW_SQNR_DB, Report, quality_warnings, report_json
from converter.runtime.latency import LatencyRatio
from converter.verify.integer_coverage import FloatOp, IntegerCoverage
from converter.verify.quality import GroupQuality, OutputQuality
from converter.verify.verdict import Verdict

KERNEL = "ONNX Runtime's CPU provider has no integer kernel for Softmax"
CHEAPER = "cheaper in float on this target, given its neighbours"


def example(**changes: Any) -> Report:
    ops = {f"/blocks.{i}/attention/with/a/long/path/MatMul": OpPlan("MatMul", "float", reason=CHEAPER) for i in range(8)}
    ops |= {
        "/stem/Conv": OpPlan("Conv", "integer", "codes", {1: QuantParams((0.1,), (0,))}),
        "/late/Conv": OpPlan("Conv", "integer", "codes"),
    }
    ops |= {"/attn/Softmax": OpPlan("Softmax", "float", reason=KERNEL)}
    products = [FloatOp(n, op.op_type, 60_000 - i, op.reason) for i, (n, op) in enumerate(ops.items()) if op.op_type == "MatMul"]
    unfused = FloatOp("/late/Conv", "Conv", 70_000, "planned in integer, but the runtime did not fuse it")
    integer_coverage = IntegerCoverage(
        {"QLinearConv": 1}, 1_500_000, 2_000_000, (unfused, *products, FloatOp("/attn/Softmax", "Softmax", 0, KERNEL))
    )
    verdict = Verdict((OutputQuality("logits", 31.84, 0.96875),), 87.0, "a simulation of the plan", integer_coverage, 8)
    plan = Plan("mse", BitWidths(), "arm64", {"x": TensorPlan("float", reason="r")}, ops)
    rewrites = (Rewrite("simplify", 11, True, 0.0), Rewrite("fuse activations", 0, True, 0.0), Rewrite("bad", 2, False, 0.1))
    report = Report(
        source="in.onnx",
        output="out.onnx",
        version="1",
        method="mse",
        bits="W8A8",
        target="arm64",
        architectures=("aarch64", "arm64"),
        placement="latency",
        predicted=159.2e6,
        predicted_float=265.4e6,
        cost_unit="instructions",
        loss="KL divergence of logits",
        calibration="images from [photos] (40 found), preprocessing imagenet: 32 for calibration, 8 held aside",
        calibration_digest="ab",
        seed=0,
        opset=(17, 20),
        ir_version=9,
        requires="onnxruntime>=1.17",
        rewrites=rewrites,
        canonical_error=2e-7,
        plan=plan,
        verdict=verdict,
        float_bytes=5_190_000,
        integer_bytes=1_900_000,
        latency=LatencyRatio(1.854, 1.7, 2.0, 50),
        notes=("noted before",),
        warnings=("mind the gap",),
    )
    return dataclasses.replace(report, **changes)


def text(report: Report, width: int = 80) -> str:
    return render(report_tables(report), width, terminal=False)


def words(report: Report) -> str:
    return " ".join(text(report).split())


def test_the_summary_says_what_matters() -> None:
    flat = words(example())
    assert "in.onnx -> out.onnx" in flat
    assert "output logits 31.8 dB SQNR, top-1 agreement 96.9%" in flat and "8 held-aside samples" in flat
    assert "75.0% of 2.0 M multiply-accumulates" in flat
    assert "5.19 MB -> 1.90 MB (37%)" in flat
    assert "float / int8 = 1.85 (1.70 to 2.00)" in flat
    assert "runs in onnxruntime>=1.17; opset 20, IR version 9" in flat
    assert "simplify 11; opset 17 -> 20" in flat and "fuse activations" not in flat
    assert "images from [photos] (40 found)" in flat
    assert "warning: mind the gap" in flat and "noted before" not in flat


def test_costs_are_told_in_both_units_where_there_are_two() -> None:
    one = words(example())
    assert "predicted 159.2 of 265.4 million instructions (0.60 of float) on arm64" in one and "cycles" not in one
    two = example(second_cost=CostEstimate("cycles", 60e6, 120e6))
    assert "60.0 of 120.0 million cycles (0.50 of float); placement goes by instructions" in words(two)
    assert json.loads(report_json(two))["second_cost"] == {"unit": "cycles", "predicted": 60e6, "predicted_float": 120e6}
    assert json.loads(report_json(example()))["second_cost"] is None


HEAD = FloatConstant("w", 5_120_000, "/head/Gemm", "Gemm", FOR_ACCURACY)
SMALL = FloatConstant("b", 5_000, "/stem/Conv", "Conv", CHEAPER)


def test_the_summary_says_where_the_bytes_are_and_how_to_save_some() -> None:
    flat = words(example(file_bytes=FileBytes(1_500_000, 5_125_000, 75_000, 300_000, 0, 3_500_000, (HEAD, SMALL))))
    assert "bytes weights in 8 bits 1.50 MB (21%), numbers in float 5.12 MB (73%)" in flat
    assert "scales and biases 75.0 kB (1%), nodes and names 300.0 kB (4%)" in flat
    assert f"in float: 5.12 MB of Gemm /head/Gemm, {FOR_ACCURACY}" in flat and "/stem/Conv, cheaper" not in flat
    assert "--prefer size would save 50%, with the weights of layers in float stored in 8 bits, and be as fast" in flat
    assert "bytes weights" not in words(example()), "a dry run writes no file"
    record = json.loads(report_json(example(file_bytes=FileBytes(3, 2, 1, 1, 0, 0, (HEAD,)))))["file_bytes"]
    assert record["in_8_bits"] == 3 and record["largest"][0]["operator"] == "/head/Gemm"


def test_with_weights_stored_in_8_bits_the_summary_says_how_many_or_that_it_saves_nothing() -> None:
    found = FileBytes(2_800_000, 10_000, 100_000, 300_000, 2, 0, (SMALL,))
    assert "among those in 8 bits 2 weights of layers that are computed in float" in words(example(file_bytes=found, prefer="size"))
    nothing = words(example(file_bytes=dataclasses.replace(found, stored=0), prefer="size"))
    assert "--prefer size saves nothing here: no layer in float has weights that would be smaller in 8 bits" in nothing
    assert "--prefer" not in words(example(file_bytes=dataclasses.replace(found, stored=0)))


def test_widths_are_told_where_something_is_narrow() -> None:
    assert "widths" not in words(example())
    plan = example().plan
    narrow = QuantParams((0.1,), (0,), 6)
    ops = {**plan.ops, "/next/Conv": OpPlan("Conv", "integer", "codes", {1: QuantParams((0.1,), (0,), 4)})}
    tensors = {
        "a": TensorPlan("measured", narrow),
        "b": TensorPlan("shared", narrow, "a"),
        "c": TensorPlan("measured", QuantParams((0.1,), (0,))),
    }
    flat = words(example(plan=plan.with_ops(tensors, ops)))
    assert "widths quantized tensors: 2 in 6 bits, 1 in 8 bits; layers' weights: 1 in 4 bits, 1 in 8 bits calibration" in flat


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_lines_fit_and_have_no_trailing_blanks(width: int) -> None:
    lines = text(example(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() and line.isascii() for line in lines)


def test_continued_lines_stay_in_their_column() -> None:
    lines = text(example()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("calibration"))
    column = lines[start].index("images")
    assert lines[start + 1].startswith(" " * column) and lines[start + 1][column] != " "


def test_operators_are_counted_by_type_with_the_reason() -> None:
    lines = [line.split(maxsplit=3) for line in text(example(), 200).splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) >= 3}
    assert rows["MatMul"] == ["0", "8", CHEAPER]
    assert rows["Conv"][:2] == ["1", "1"] and "did not fuse" in rows["Conv"][2]
    assert rows["Softmax"] == ["0", "1", "ONNX Runtime's CPU provider has no integer kernel"]


def test_the_largest_float_products_are_named() -> None:
    printed = text(example(), 120)
    assert "/late/Conv" in printed and "70.0 k" in printed
    assert "/blocks.3/attention/with/a/long/path/MatMul" in printed
    assert "/blocks.4/attention" not in printed and "and 4 more: see them with -v" in printed


def test_without_float_products_there_is_no_list_of_them() -> None:
    report = example()
    assert report.verdict is not None
    integer_coverage = dataclasses.replace(report.verdict.integer_coverage, float_ops=())
    assert "products in float" not in text(example(verdict=dataclasses.replace(report.verdict, integer_coverage=integer_coverage)))


def test_several_outputs_and_long_names() -> None:
    report = example()
    assert report.verdict is not None
    outputs = (OutputQuality("a", 10.0, None), OutputQuality("a_very_long_output_name_of_a_detector", 20.0, None))
    flat = words(example(verdict=dataclasses.replace(report.verdict, outputs=outputs, samples=1)))
    assert "output a 10.0 dB SQNR output a_very_long_output_name_of_a_detector: 20.0 dB SQNR" in flat
    assert "each on 1 held-aside sample " in flat


def verdict_of(*outputs: OutputQuality, **changes: Any) -> Verdict:
    verdict = example().verdict
    assert verdict is not None
    return dataclasses.replace(verdict, outputs=outputs, **changes)


def test_integers_are_told_by_how_many_are_equal() -> None:
    verdict = verdict_of(OutputQuality("labels", None, 0.875), parity_db=None, parity_agreement=1.0)
    flat = words(example(verdict=verdict))
    assert "output labels 87.5% of integers equal against float" in flat
    assert "parity 100.0% of integers equal against a simulation of the plan" in flat
    both = dataclasses.replace(verdict, parity_db=87.0)
    assert "parity 87 dB, 100.0% of integers equal against" in words(example(verdict=both))
    record = json.loads(report_json(example(verdict=verdict)))
    assert record["parity_db"] is None and record["parity_agreement"] == 1.0
    assert record["outputs"][0]["sqnr_db"] is None and record["outputs"][0]["agreement"] == 0.875


def test_matched_rows_and_outputs_without_a_value_are_told() -> None:
    outputs = (
        OutputQuality("boxes", 20.0, None, rows_matched=True, rows_unmatched=3),
        OutputQuality("masks", None, None, rows_matched=True),
    )
    flat = words(example(verdict=verdict_of(*outputs, parity_db=None)))
    assert "output boxes 20.0 dB SQNR, rows matched, 3 without a partner" in flat
    assert "output masks no value on any sample, rows matched" in flat
    assert "parity no value to compare against" in flat


def test_groups_of_channels_have_a_line_each() -> None:
    groups = (GroupQuality(1, 0, 4, 30.0), GroupQuality(1, 4, 9, 0.0, "zero"))
    verdict = verdict_of(OutputQuality("y", 29.0, None, groups))
    flat = words(example(verdict=verdict))
    assert "channels 0..3: 30.0 dB SQNR channels 4..8: 0.0 dB SQNR, all zero" in flat
    found = json.loads(report_json(example(verdict=verdict)))["outputs"][0]["groups"]
    assert found[1] == {"axis": 1, "start": 4, "stop": 9, "sqnr_db": 0.0, "collapsed": "zero"}


@pytest.mark.parametrize(
    ("output", "warned"),
    [
        (OutputQuality("y", LOW_SQNR_DB, None), ""),
        (OutputQuality("y", 14.9, None), "output 'y' is far from float: 14.9 dB SQNR; check"),
        (OutputQuality("y", None, LOW_AGREEMENT), ""),
        (OutputQuality("y", None, 0.89), "output 'y' holds the same integers as float at 89.0% of its places only; check"),
        (OutputQuality("y", None, 0.2, integers_db=30.0), ""),
        (OutputQuality("y", None, 0.2, integers_db=10.0), "output 'y' holds the same integers as float at 20.0% of its places only"),
        (OutputQuality("y", None, None), ""),  # empty by its shape
        (OutputQuality("y", None, None, rows_matched=True), "output 'y' holds no value on any held-aside sample"),
        (
            OutputQuality("y", 48.0, None, (GroupQuality(1, 4, 84, 0.0, "zero"),)),
            "channels 4..83 of output 'y' are far from float: 0.0 dB SQNR (all zero), perhaps",
        ),
        (OutputQuality("y", 48.0, None, (GroupQuality(1, 4, 5, 3.0),)), "channel 4 of output 'y' is far from float: 3.0 dB SQNR, perhaps"),
        (OutputQuality("y", 48.0, None, (GroupQuality(1, 0, 4, 15.0), GroupQuality(1, 4, 5, None))), ""),
    ],
)
def test_there_is_a_warning_for_what_is_far_from_float(output: OutputQuality, warned: str) -> None:
    warnings = quality_warnings(verdict_of(output))
    assert len(warnings) == bool(warned)
    assert all(w.startswith(warned) for w in warnings)


def test_a_dry_run_has_no_results() -> None:
    flat = words(example(output="", verdict=None, latency=None, integer_bytes=0, warnings=()))
    assert "dry run" in flat and "SQNR" not in flat and "latency" not in flat and "MatMul 0 8" in flat


def test_what_is_float_for_accuracy_is_counted_with_how_to_have_it_faster() -> None:
    assert "float for accuracy" not in words(example())
    plan = example().plan
    ops = plan.ops | {"/attn/Softmax": OpPlan("Softmax", "float", reason=FOR_ACCURACY)}
    assert "1 operator that would be faster in integer is float for accuracy" in words(example(plan=dataclasses.replace(plan, ops=ops)))


@pytest.mark.parametrize(
    ("machine", "ratio", "slow", "away"), [("aarch64", 0.8, True, False), ("x86_64", 0.8, False, True), ("aarch64", 1.2, False, False)]
)
def test_latency_is_judged_on_the_target_only(monkeypatch: pytest.MonkeyPatch, machine: str, ratio: float, slow: bool, away: bool) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    flat = words(example(latency=LatencyRatio(ratio, ratio, ratio, 9)))
    assert ("slower than float" in flat) == slow
    assert ("measure on arm64" in flat) == away


def test_a_latency_that_was_not_measured_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    why = "not measured: the file is for arm64, this machine is x86_64 (--latency compares here)"
    unmeasured = example(latency=None)
    assert f"latency {why}" in words(unmeasured)
    assert json.loads(report_json(unmeasured))["latency_not_measured"] == why
    assert json.loads(report_json(example()))["latency_not_measured"] == ""


def test_verbose_lines_group_by_type_and_reason() -> None:
    report = example()
    assert report.verdict is not None
    lines = float_operator_lines(report)
    assert lines[:2] == ["Conv in float, 1: planned in integer, but the runtime did not fuse it", "  /late/Conv (70.0 k MACs)"]
    assert "MatMul in float, 8: " + CHEAPER in lines and "  /attn/Softmax" in lines
    assert len(lines) == 3 + 10
    planned = float_operator_lines(example(verdict=None))
    assert "  /attn/Softmax" in planned and "  /late/Conv" not in planned


@pytest.mark.parametrize(("number", "printed"), [(0, "0"), (999, "999"), (1000, "1.0 k"), (442_500, "442.5 k"), (407_400_000, "407.4 M")])
def test_counts(number: int, printed: str) -> None:
    assert tables._count(number) == printed


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" in render(report_tables(example()), 80, terminal=True)
    assert "\x1b[" not in text(example())


def test_json_has_everything_and_is_strict() -> None:
    record = json.loads(report_json(example(canonical_error=float("inf"))), parse_constant=lambda name: pytest.fail(name))
    assert record["canonical_error"] is None
    (output,) = record["outputs"]
    assert {name: output[name] for name in ("name", "sqnr_db", "agreement")} == {"name": "logits", "sqnr_db": 31.84, "agreement": 0.96875}
    assert output["groups"] == [] and not output["rows_matched"] and output["rows_unmatched"] == 0 and output["integers_db"] is None
    assert record["parity_db"] == 87.0 and record["parity_agreement"] is None
    assert record["integer_macs"] == 1_500_000 and record["total_macs"] == 2_000_000 and record["integer_coverage"] == 0.75
    assert record["operators"]["/stem/Conv"] == {"op_type": "Conv", "runs": "integer", "reason": ""}
    assert len(record["float_operators"]) == 10 and record["latency_ratio"]["machine"] == platform.machine()
    assert record["notes"] == ["noted before"] and record["warnings"] == ["mind the gap"]
    assert json.loads(report_json(example(verdict=None, latency=None)))["latency_ratio"] is None
