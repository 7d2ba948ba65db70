"""Each form runs as integer kernels, on signed and on unsigned codes, and computes what its simulation says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from converter.options import Options
from converter.pipeline import convert
from converter.plan.records import TensorPlan
from converter.quantization.parameters import QuantParams
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, kernels_of, parity, plan_for, settings_for
from converter.verify.simulation import simulate

C = 8
FLOATS = {"Concat", "MatMul", "Pad", "Relu", "FusedMatMul"}
"""Kernels that would compute in float; Pad has one name for both."""


def image(s: Sketch) -> str:
    return s.conv(s.input("x", 1, C, 6, 6), C, size=1)


def tokens(s: Sketch) -> str:
    return s.add("MatMul", s.input("x", 1, 6, C), s.normal(C, C))


NETWORKS: dict[str, tuple[Callable[[Sketch], str], str]] = {
    "concat with a class token": (lambda s: s.add("Concat", s.normal(1, 1, C, scale=0.1), tokens(s), axis=1), "QLinearConcat"),
    "relu behind a concat": (
        lambda s: s.add("Relu", s.add("Concat", x := image(s), s.conv(x, C, size=1), axis=1)),
        "Clip",
    ),
    "clip of what others read too": (
        lambda s: s.add("Add", x := image(s), s.add("Clip", x, s.constant(-0.5), s.constant(0.7))),
        "Clip",
    ),
    "product with a matrix on the left": (lambda s: s.add("MatMul", s.normal(4, 6), tokens(s)), "QLinearMatMul"),
    "product with a matrix for each head": (
        lambda s: s.add("MatMul", s.add("Reshape", tokens(s), s.constant([4, 3, 4], np.int64)), s.normal(4, 4, 5)),
        "QLinearMatMul",
    ),
    "border of zeros": (lambda s: s.add("Pad", image(s), s.constant([0, 0, 1, 2, 0, 0, 2, 1], np.int64)), "Pad"),
    "border of the map's numbers": (
        lambda s: s.add("Pad", image(s), s.constant([0, 0, 1, 2, 0, 0, 2, 1], np.int64), mode="reflect"),
        "Pad",
    ),
}


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize(("build", "kernel"), NETWORKS.values(), ids=NETWORKS)
def test_it_runs_in_integer_as_planned(build: Callable[[Sketch], str], kernel: str, target: str, tmp_path: Path) -> None:
    s = Sketch()
    y = build(s)
    # read by a layer, so that codes are wanted
    planned = plan_for(s.model(s.add("Mul", y, s.add("Sigmoid", y))), target)
    assert all(op.runs == "integer" for op in planned.plan.ops.values())
    proto = emitted(planned)
    kernels = kernels_of(proto, planned.target, tmp_path)
    assert kernels[kernel] >= 1
    assert not (FLOATS - {kernel}) & kernels.keys()
    assert parity(planned, proto) >= 100.0


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_border_of_zeros_is_the_code_of_zero(target: str) -> None:
    """Where numbers are all positive, or the zero point is no zero."""
    s = Sketch()
    x = s.add("Sigmoid", s.input("x", 1, 2, 3, 3))
    planned = plan_for(s.model(s.add("Pad", x, s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), name="border")), target)
    proto = emitted(planned)
    (node,) = [n for n in proto.graph.node if n.op_type == "Pad"]
    (border,) = [i for i in proto.graph.initializer if i.name == node.input[2]]
    params = planned.plan.tensors["border.0"].params
    assert params is not None and numpy_helper.to_array(border) == params.zero_point[0]


@pytest.mark.parametrize(
    ("target", "read", "written"),
    [
        ("arm64", (0.06946778297424316, 52), (0.008484631776809692, -79)),
        ("arm64", (0.0830402821302414, -78), (0.04619860649108887, -119)),
        ("x86", (0.04440803453326225, 164), (0.022850975394248962, 24)),
        ("x86", (0.050327494740486145, 152), (0.03767832741341319, 55)),
    ],
)
def test_every_code_of_a_hard_swish_is_as_simulated(target: str, read: tuple[float, int], written: tuple[float, int]) -> None:
    """On these grids, found by trying, a product lies so near the middle of a step that the runtime's order of factors decides."""
    s = Sketch()
    planned = plan_for(s.model(s.add("HardSwish", s.input("x", 256), name="it")), target)
    params, result = (QuantParams((scale,), (zero_point,), 8, target == "arm64") for scale, zero_point in (read, written))
    plan = replace(planned.plan, tensors={"x": TensorPlan("measured", params), "it.0": TensorPlan("measured", result)})
    feed = {"x": (np.arange(params.qmin, params.qmax + 1) - params.zero_point[0]).astype(np.float32) * np.float32(params.scale[0])}
    proto = emitted(replace(planned, plan=plan))
    (got,) = run_session(open_session(proto, threads=1, settings=settings_for(planned.target)), feed).values()
    (wanted,) = simulate(planned.model, plan, feed).values()
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_default_method_takes_a_constant_of_a_product_for_no_layer(side: str) -> None:
    """It has one scale for all, and nothing is rounded or corrected by output channel."""
    s = Sketch()
    x = s.add("Reshape", tokens(s), s.constant([1, 4, 3, 4], np.int64))
    operands = [s.normal(4, 5, 3), x] if side == "left" else [x, s.normal(4, 4, 5)]
    proto = ir.to_proto(s.model(s.add("MatMul", s.add("MatMul", *operands, name="heads"), s.normal(5 if side == "right" else 4, 6))))
    report = convert(proto, None, Options(bits="W6A6", placement="all", samples=4, threads=1))
    assert report.plan.ops["heads"].form == "product"
    assert report.verdict is not None and report.verdict.parity_db is not None and report.verdict.parity_db > 100.0
