from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, plan_for, settings_for
from converter.verify.integer_coverage import IntegerCoverage, measure_integer_coverage


def coverage_of_sketch(model: ir.Model, folder: Path, target: str = "arm64", *, integer: Collection[str] | None = None) -> IntegerCoverage:
    planned = plan_for(model, target, integer=integer)
    feed = feeds_for(model, 1)[0]
    return measure_integer_coverage(emitted(planned), planned.plan, planned.offers, feed, settings_for(planned.target), folder)


def convs(*names: str) -> ir.Model:
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    for name in names:
        x = sketch.conv(x, 8, name=name)
    return sketch.model(x)


MACS = 8 * 36 * 72


def test_a_float_model_has_no_coverage(tmp_path: Path) -> None:
    integer_coverage = coverage_of_sketch(convs("a", "b"), tmp_path, integer=())
    assert (integer_coverage.coverage, integer_coverage.integer_macs, integer_coverage.total_macs) == (0.0, 0, 2 * MACS)
    assert [(f.name, f.op_type, f.macs) for f in integer_coverage.float_ops] == [("a", "Conv", MACS), ("b", "Conv", MACS)]
    assert {f.reason for f in integer_coverage.float_ops} == {"cheaper in float on this target, given its neighbours"}
    assert not any(k.startswith("QLinear") for k in integer_coverage.kernels)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_an_integer_model_is_covered_whole(target: str, tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.silu(sketch.conv(sketch.input("x", 1, 8, 6, 6), 8))
    x = sketch.add("Flatten", sketch.add("GlobalAveragePool", sketch.conv(x, 8, group=8)))
    x = sketch.add("Gemm", x, sketch.normal(8, 6), sketch.normal(6))
    y = sketch.add("MatMul", sketch.add("Sigmoid", x), sketch.normal(6, 6))
    integer_coverage = coverage_of_sketch(sketch.model(sketch.add("MatMul", y, sketch.input("z", 6, 3))), tmp_path, target)
    assert integer_coverage.coverage == 1.0
    assert integer_coverage.total_macs == 8 * 36 * 72 + 8 * 36 * 9 + 48 + 36 + 18
    assert {k: integer_coverage.kernels[k] for k in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")} == {
        "QLinearConv": 2, "QGemm": 1, "QLinearMatMul": 1, "MatMulIntegerToFloat": 1,
    }  # fmt: skip
    assert integer_coverage.float_ops == ()


def test_a_mixed_model_is_covered_in_part(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="small", size=1)
    x = sketch.add("Erf", sketch.conv(x, 8, name="large"), name="erf")
    integer_coverage = coverage_of_sketch(sketch.model(x), tmp_path, integer={"small"})
    small = 8 * 36 * 8
    assert integer_coverage.coverage == pytest.approx(small / (small + MACS))
    assert [(f.name, f.macs) for f in integer_coverage.float_ops] == [("large", MACS), ("erf", 0)]


def test_products_that_have_no_integer_kernel_are_told_and_count(tmp_path: Path) -> None:
    """A linear layer and a product with a constant on the left in integer, an Einsum with weights and an LSTM in float."""
    sketch = Sketch()
    x = sketch.add("MatMul", sketch.input("x", 6, 2, 8), sketch.normal(8, 8), name="linear")
    x = sketch.add("Einsum", x, sketch.normal(8, 2, 4), equation="tbi,inh->tbnh", name="heads")
    x = sketch.add("Reshape", x, sketch.constant([6, 2, 8], np.int64), name="joined")
    x = sketch.add("LSTM", x, sketch.normal(1, 12, 8), sketch.normal(1, 12, 3), hidden_size=3, name="recurrent")
    x = sketch.add("MatMul", sketch.normal(5, 2), sketch.add("Squeeze", x, sketch.constant([1], np.int64)), name="left")
    integer_coverage = coverage_of_sketch(sketch.model(x), tmp_path)
    floats = {"heads": 12 * 8 * 8, "recurrent": 12 * 12 * (8 + 3)}
    integers = 12 * 8 * 8 + 6 * 5 * 2 * 3
    assert {f.name: f.macs for f in integer_coverage.float_ops if f.macs} == floats
    assert integer_coverage.integer_macs == integers
    assert integer_coverage.coverage == pytest.approx(integers / (integers + sum(floats.values())))


@pytest.mark.parametrize(
    "names", [("conv", "conv_1", "conv_12"), ("conv_12", "conv", "conv_1"), ("conv", "conv_t", "conv_token_1"), ("a", "a/b", "a_nhwc")]
)
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_names_that_begin_with_each_other_are_told_apart(names: tuple[str, ...], target: str, tmp_path: Path) -> None:
    """Each in turn is the one in float."""
    for left_out in names:
        integer_coverage = coverage_of_sketch(convs(*names), tmp_path, target, integer=set(names) - {left_out})
        assert [f.name for f in integer_coverage.float_ops] == [left_out]
        assert integer_coverage.integer_macs == (len(names) - 1) * MACS


def test_what_the_runtime_did_not_fuse_is_told(tmp_path: Path) -> None:
    planned = plan_for(convs("conv"))
    proto = emitted(planned)
    (index,) = [i for i, n in enumerate(proto.graph.node) if n.op_type == "Conv"]
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[1].name = proto.graph.node[index].output[0]
    feed = feeds_for(planned.model, 1)[0]
    integer_coverage = measure_integer_coverage(proto, planned.plan, planned.offers, feed, settings_for(planned.target), tmp_path)
    assert integer_coverage.coverage == 0.0
    assert integer_coverage.float_ops[0].reason == "planned in integer, but the runtime did not fuse it"


def test_a_model_without_products_has_coverage_zero(tmp_path: Path) -> None:
    sketch = Sketch()
    integer_coverage = coverage_of_sketch(sketch.model(sketch.add("Sigmoid", sketch.input("x", 4))), tmp_path)
    assert (integer_coverage.coverage, integer_coverage.total_macs) == (0.0, 0)
    assert integer_coverage.kernels == {"DequantizeLinear": 1, "QLinearSigmoid": 1, "QuantizeLinear": 1}
