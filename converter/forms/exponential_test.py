"""Exponentials of rows on codes: exact differences, numbers from 0 to 1, and one kernel for each operator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.forms.exponential import SCORE_BITS, difference_params, exponential_params
from converter.partition.bit_widths import tensor_bits
from converter.planning.validate import check_plan
from converter.quantization.parameters import QuantParams
from converter.runtime.session import Feed, open_session, run_session
from converter.testing.sketch import Planned, Sketch, emitted, kernels_of, plan_for, settings_for, shapes_of
from converter.transforms.softmax.late import make_late
from converter.transforms.transform import GraphFacts
from converter.verify.simulation import Run, simulate

T, C = 24, 8


def attention(heads: int = 1, tokens: int = T) -> ir.Model:
    s = Sketch(3)
    y = s.add("MatMul", s.input("q", heads, tokens, C), s.input("k", heads, C, tokens))
    y = s.add("MatMul", s.add("Softmax", y, axis=-1, name="soft"), s.input("v", heads, tokens, C), name="weigh")
    model = s.model(s.add("Sigmoid", y))
    return make_late(model, GraphFacts(shapes_of(model)), ("soft",))


def feed(seed: int, steep: float = 1.0) -> Feed:
    generator = np.random.default_rng(seed)
    q, k, v = (generator.standard_normal(shape).astype(np.float32) for shape in ((1, T, C), (1, C, T), (1, T, C)))
    return {"q": q * np.float32(steep), "k": k, "v": v}


def answers(planned: Planned, sample: Feed) -> list[npt.NDArray[Any]]:
    session = open_session(emitted(planned), threads=1, settings=settings_for(planned.target))
    return [*run_session(session, sample).values(), *simulate(planned.model, planned.plan, sample).values()]


def test_each_operator_becomes_a_kernel_on_codes(tmp_path: Path) -> None:
    planned = plan_for(attention(), "arm64")
    forms = {op.op_type: op.form for op in planned.plan.ops.values() if op.runs == "integer"}
    assert (forms["ReduceMax"], forms["Sub"], forms["Exp"]) == ("row_maximum", "difference", "exponential")
    kernels = kernels_of(emitted(planned), planned.target, tmp_path)
    assert (
        kernels["ReduceMax"] == kernels["Sub"] == 1 and kernels["QLinearSigmoid"] == 2 and "Softmax" not in kernels and "Exp" not in kernels
    )


@pytest.mark.parametrize("steep", [0.3, 1.0, 4.0, 40.0])
def test_the_runtime_computes_what_the_simulation_does_however_steep_the_rows_are(steep: float) -> None:
    """Scores beyond those that were seen are clipped, so that no difference leaves its 8 bits."""
    runtime, simulated = answers(plan_for(attention(), "arm64"), feed(7, steep))
    np.testing.assert_array_equal(runtime, simulated)
    assert np.isfinite(runtime).all()


@pytest.mark.parametrize(("heads", "tokens"), [(16, 64), (4, 256)])
def test_where_codes_are_cheapest_all_three_work_on_codes(heads: int, tokens: int) -> None:
    """A price of all three in integer must not meet one of a single exponential in float."""
    planned = plan_for(attention(heads, tokens), "arm64", cheapest=True)
    assert {op.runs for op in planned.plan.ops.values() if op.op_type in ("ReduceMax", "Sub", "Exp")} == {"integer"}


def test_far_below_zero_the_simulation_has_the_runtimes_own_sigmoid() -> None:
    """It is off by parts of ten thousand there, which moves codes of tables; scale and zero point are those of a trained network."""
    steep = ((torch.arange(-128, 1) - 34).float() * float(np.float32(0.17733556032180786))).reshape(1, -1)
    s = Sketch()
    model = s.model(s.add("Sigmoid", s.input("x", 1, 129)))
    (wanted,) = run_session(open_session(ir.to_proto(model), threads=1), {"x": steep.numpy()}).values()
    np.testing.assert_array_equal(Run(None, {}).sigmoid(steep), wanted)
    np.testing.assert_allclose(Run(None, None).sigmoid(steep), wanted, rtol=0, atol=1e-6)


def test_it_is_close_to_the_softmax() -> None:
    """Independent arithmetic: NumPy in float64."""
    planned = plan_for(attention(), "arm64")
    sample = feed(8)
    q, k, v = (sample[name].astype(np.float64) for name in "qkv")
    shares = np.exp(q @ k - (q @ k).max(-1, keepdims=True))
    wanted = 1.0 / (1.0 + np.exp(-(shares @ v) / shares.sum(-1, keepdims=True)))
    runtime, _ = answers(planned, sample)
    assert np.abs(runtime - wanted).max() < 0.03


def test_a_target_without_signs_keeps_them_float() -> None:
    plan = plan_for(attention(), "x86").plan
    assert {op.runs for op in plan.ops.values() if op.op_type in ("ReduceMax", "Sub", "Exp")} == {"float"}


def test_scores_have_one_bit_less_so_that_differences_fit() -> None:
    planned = plan_for(attention(), "arm64")
    (scores,) = {str(node.inputs[0].name) for node in planned.model.graph if node.op_type == "Sub" and node.inputs[0] is not None}
    assert tensor_bits(planned.model, planned.offers, 8)[scores] == SCORE_BITS
    assert tensor_bits(planned.model, planned.offers, 6)[scores] == SCORE_BITS, "no layer reads them"


@given(st.integers(-64, 63), st.integers(-64, 63), st.floats(1e-3, 1.0))
def test_every_difference_of_two_scores_is_a_code(one: int, other: int, scale: float) -> None:
    grid = difference_params(QuantParams((float(np.float32(scale)),), (5,), SCORE_BITS, True))
    assert grid.qmin <= min(one, other) - max(one, other) <= 0 and grid.zero_point == (0,)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_exponentials_lie_between_0_and_1(bits: int) -> None:
    grid = exponential_params(QuantParams((0.3,), (0,), bits, True))
    assert grid.lowest == 0.0 and grid.highest == pytest.approx(1.0) and grid.bits == bits


@pytest.mark.parametrize(("op_type", "what"), [("Exp", "must have a grid from 0 to 1"), ("Sub", "must lie on that of")])
def test_a_plan_may_not_give_them_other_grids(op_type: str, what: str) -> None:
    planned = plan_for(attention(), "arm64")
    (name,) = (str(node.outputs[0].name) for node in planned.model.graph if node.op_type == op_type)
    tensor = planned.plan.tensors[name]
    assert tensor.params is not None
    tensors = planned.plan.tensors | {name: replace(tensor, params=tensor.params.rescaled(2.0))}
    with pytest.raises(UsageError, match=what):
        check_plan(replace(planned.plan, tensors=tensors), planned.model, planned.offers, planned.target, Path("plan.json"))
