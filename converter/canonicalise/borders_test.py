"""Borders of averages: with one, a mean over three by three is the mean over what lies inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.averages import spell_out_averages
from converter.canonicalise.borders import SMALLEST_SIDE, average_border, border_cost
from converter.canonicalise.folding.layers import Array
from converter.forms.movement import passed_input
from converter.graph.builder import GraphBuilder
from converter.graph.marks import AVERAGE, BORDER
from converter.targets import find_target
from converter.testing.rewrites import Draft, outputs_of, weights
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, kernels_of, parity, plan_for


def bordered(x: Array) -> Array:
    """A map with its border, as the runtime computes it."""
    draft = Draft(x=x.shape)
    model: ir.Model = ir.from_proto(draft.model(draft.add("Identity", "x")))
    (identity,) = model.graph
    value = average_border(GraphBuilder(model.graph), model.graph.inputs[0], "x", identity)
    identity.replace_input_with(0, value)
    (output,) = model.graph.outputs
    output.shape = value.shape
    proto: onnx.ModelProto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return outputs_of(proto, {"x": x})[str(output.name)]


def test_a_border_by_hand() -> None:
    rows = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    got = bordered(rows)[0, 0]
    assert np.array_equal(got[1:-1, 1:-1], rows[0, 0])
    assert np.array_equal(got[0], [2 + 0.5, 2, 3, 4, 5, 4 + 0.5])
    assert np.array_equal(got[:, -1], [4.5, 2.5, 6.5, 10.5, 14.5, 12.5])


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(SMALLEST_SIDE, 9), st.integers(SMALLEST_SIDE, 9)), st.integers(0, 99))
def test_a_mean_over_nine_of_a_bordered_map_is_the_mean_over_what_lies_inside(shape: tuple[int, ...], seed: int) -> None:
    x = weights(*shape, seed=seed)
    draft = Draft(x=shape)
    inside = outputs_of(draft.model(draft.add("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])), {"x": x})
    windows = np.lib.stride_tricks.sliding_window_view(bordered(x).astype(np.float64), (3, 3), axis=(2, 3))
    (wanted,) = inside.values()
    np.testing.assert_allclose(windows.mean(axis=(4, 5)), wanted, rtol=0, atol=1e-6)


def test_a_border_costs_more_on_a_larger_map_but_less_for_each_number() -> None:
    target = find_target("arm64")
    small, large = border_cost(8, 8, 8, target), border_cost(32, 28, 28, target)
    assert small < large and large / (32 * 28 * 28) < small / (8 * 8 * 8)


def mixed(target: str, bits: tuple[int, int] = (8, 8)) -> Planned:
    """A token mixer between two layers, with a border."""
    s = Sketch(0)
    x = s.conv(s.input("x", 1, 32, 28, 28), 32)
    pooled = s.add("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    difference = s.add("Mul", s.add("Sub", pooled, x), s.constant(np.linspace(0.2, 0.9, 32).reshape(32, 1, 1)))
    model = s.model(s.conv(s.add("Add", x, difference), 32))
    spell_out_averages(model, find_target("arm64"))
    return plan_for(model, target, bits=bits)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_bordered_map_keeps_its_grid_and_runs_as_planned(target: str, tmp_path: Path) -> None:
    planned = mixed(target)
    proto = emitted(planned)
    joins = [node for node in planned.model.graph if BORDER in node.metadata_props]
    assert len(joins) == 2
    for join in joins:
        after, before = (planned.plan.tensors[str(value.name)] for value in (join.outputs[0], passed_input(join)))
        assert after.kind == "shared" and after.params == before.params
    assert parity(planned, proto) == 200.0
    kernels = kernels_of(proto, planned.target, tmp_path)
    assert kernels["QLinearConv"] == 3 and not {"QLinearMul", "Conv", "Mul"} & set(kernels)


def test_what_is_averaged_and_the_weights_of_averages_have_8_bits_whatever_layers_have() -> None:
    """Through the middle of the window goes the stream itself."""
    planned = mixed("arm64", (4, 4))
    (average,) = [node for node in planned.model.graph if AVERAGE in node.metadata_props]
    read = planned.plan.tensors[str(passed_input(average).name)].params
    assert planned.plan.ops[str(average.name)].constants[1].bits == 8
    assert read is not None and read.bits == 8
    layers = [op for op in planned.plan.ops.values() if op.form == "weighted"]
    assert [op.constants[1].bits for op in layers] == [4, 8, 4]
