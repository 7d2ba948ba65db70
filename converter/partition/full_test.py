"""Full quantization: what cannot run in integer reads and writes codes all the same, and runs as planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.forms.form import UnsupportedForm
from converter.plan.records import OpPlan
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.planning.validate import adopt_plan, check_plan
from converter.runtime.session import open_session, run_session
from converter.testing.narrow_networks import CHANNELS, IN_FLOAT, STEPS, codes_stay_in_their_grids, networks
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, feeds_for, parity, plan_for, settings_for
from converter.verify.integer_coverage import measure_integer_coverage
from converter.verify.simulation import simulate

FAR = 1000.0


def attention(bits: tuple[int, int] = (8, 8), target: str = "arm64", excluded: tuple[str, ...] = ()) -> Planned:
    s = Sketch(0)
    x = s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS)
    return plan_for(s.model(s.conv(IN_FLOAT["attention"](s, x, x), CHANNELS)), target, bits=bits, excluded=excluded, full=True)


def of_type(planned: Planned, op_type: str) -> dict[str, OpPlan]:
    return {name: op for name, op in planned.plan.ops.items() if op.op_type == op_type}


def ends_of(planned: Planned, name: str) -> tuple[str, str]:
    """What an operator reads first and what it writes."""
    (node,) = [n for n in planned.model.graph if n.name == name]
    assert node.inputs[0] is not None
    return str(node.inputs[0].name), str(node.outputs[0].name)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_softmax_and_norms_stand_between_grids(target: str) -> None:
    planned = attention(target=target)
    for op_type in ("Softmax", "LayerNormalization"):
        ((name, op),) = of_type(planned, op_type).items()
        assert (op.runs, op.writes) == ("fake-quantized", "codes")
        assert all(planned.plan.tensors[end].params is not None for end in ends_of(planned, name))
    assert all(op.runs != "float" for op in planned.plan.ops.values())


def test_every_float_operator_reads_only_dequantized_numbers_and_is_read_as_codes_only() -> None:
    proto = emitted(attention())
    made = {o: n for n in proto.graph.node for o in n.output}
    for node in proto.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization"):
            assert made[node.input[0]].op_type == "DequantizeLinear"
            (reader,) = [n for n in proto.graph.node if node.output[0] in n.input]
            if reader.op_type == "Max":  # the barrier that keeps the runtime's own integer Softmax away
                (reader,) = [n for n in proto.graph.node if reader.output[0] in n.input]
            assert reader.op_type == "QuantizeLinear"


def test_the_runtimes_own_integer_softmax_is_not_taken(tmp_path: Path) -> None:
    planned = attention()
    integer_coverage = measure_integer_coverage(
        emitted(planned), planned.plan, planned.offers, feeds_for(planned.model, 1)[0], settings_for(planned.target), tmp_path
    )
    assert "Softmax" in integer_coverage.kernels and "QLinearSoftmax" not in integer_coverage.kernels
    assert integer_coverage.coverage == 1.0


@pytest.mark.parametrize("target", TARGET_NAMES)
@given(network=networks({**STEPS, **IN_FLOAT}), bits=st.tuples(st.integers(4, 8), st.integers(4, 8)))
@settings(max_examples=25, deadline=None)
def test_a_fully_quantized_network_runs_as_planned(target: str, network: tuple[Sketch, tuple[str, ...]], bits: tuple[int, int]) -> None:
    """A tie in a float kernel may round the other way; such a code may move a few others, but no operator is off."""
    planned = plan_for(network[0].model(*network[1]), target, bits=bits, full=True)
    assert parity(planned, emitted(planned)) > 35.0


@pytest.mark.parametrize("bits", [(8, 8), (8, 5)])
def test_no_code_leaves_its_grid(bits: tuple[int, int]) -> None:
    codes_stay_in_their_grids(attention(bits), bits[1], optimise=True, seed=0)


def test_what_the_user_excludes_stays_float_on_both_sides() -> None:
    name = next(iter(of_type(attention(), "LayerNormalization")))
    planned = attention(excluded=(name,))
    assert planned.plan.ops[name] == OpPlan("LayerNormalization", "float", reason="excluded by the user")
    feed = feeds_for(planned.model, 1)[0]
    got = run_session(open_session(emitted(planned), threads=1, settings=settings_for(planned.target)), feed)
    assert all(np.allclose(value, got[output], atol=1e-2) for output, value in simulate(planned.model, planned.plan, feed).items())


def test_a_plan_in_full_is_written_read_and_adopted(tmp_path: Path) -> None:
    planned = attention()
    read = plan_from_json(plan_to_json(planned.plan), tmp_path)
    assert read == planned.plan
    check_plan(adopt_plan(read, ()), planned.model, planned.offers, planned.target, tmp_path)


def test_an_operator_with_an_integer_form_cannot_be_fake_quantized(tmp_path: Path) -> None:
    planned = attention()
    name = next(iter(of_type(planned, "Conv")))
    edited = {**planned.plan.ops, name: OpPlan("Conv", "fake-quantized", "codes")}
    with pytest.raises(UsageError, match=f"operator '{name}' cannot be fake-quantized"):
        check_plan(planned.plan.with_ops(planned.plan.tensors, edited), planned.model, planned.offers, planned.target, tmp_path)


def test_a_fake_quantized_operator_needs_grids_on_both_sides(tmp_path: Path) -> None:
    planned = attention()
    name = next(iter(of_type(planned, "Softmax")))
    for end in ends_of(planned, name):
        tensors = {t: tensor_plan for t, tensor_plan in planned.plan.tensors.items() if t != end}
        with pytest.raises(UsageError, match=f"tensor '{end}' has no grid"):
            check_plan(replace(planned.plan, tensors=tensors), planned.model, planned.offers, planned.target, tmp_path)


def test_a_mask_that_drowns_the_scores_is_never_quantized() -> None:
    s = Sketch(0)
    mask = s.constant(np.where(np.eye(6) > 0, 0.0, -1e9).astype(np.float32))
    planned = plan_for(s.model(s.conv(s.add("Add", s.input("x", 1, CHANNELS, 6, 6), mask), CHANNELS)), full=True)
    ((name, op),) = of_type(planned, "Add").items()
    entry = planned.offers[name]
    assert op.runs == "float" and isinstance(entry, UnsupportedForm) and entry.final
