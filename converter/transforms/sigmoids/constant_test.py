"""Constant gates: what the rewritten model computes, that it needs no kernel, and that a plan carries them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.cli.report_tables import render, report_tables
from converter.errors import UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.planning.validate import apply_transforms
from converter.runtime.session import run_model
from converter.testing.plans import constant_gates_of
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, kernels_of, parity, plan_for
from converter.transforms.sigmoids.constant import apply_constant_gates, gated_product
from converter.transforms.sigmoids.transform import ConstantGates
from converter.transforms.transform import GraphFacts

CHANNELS = 8


def silu_between_convs(shrink: float = 1.0) -> ir.Model:
    s = Sketch(0)
    x = s.add("Add", s.add("Mul", s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS), s.constant(shrink)), s.normal(CHANNELS, 1, 1))
    return s.model(s.conv(s.silu(x), CHANNELS))


def sigmoid_of(model: ir.Model) -> str:
    (name,) = [str(n.name) for n in model.graph if n.op_type == "Sigmoid"]
    return name


def test_a_constant_gate_multiplies_by_one_number_and_keeps_all_other_names() -> None:
    model = silu_between_convs()
    name = sigmoid_of(model)
    changed = apply_constant_gates(model, {name: 0.5})
    assert [str(n.name) for n in changed.graph] == [str(n.name) for n in model.graph if n.name != name]
    assert [v.name for v in changed.graph.outputs] == [v.name for v in model.graph.outputs]
    assert sigmoid_of(model) == name  # the model given stays


def test_close_to_zero_half_is_what_silu_does() -> None:
    s = Sketch(0)
    model = s.model(s.silu(s.add("Mul", s.input("x", 1, CHANNELS, 6, 6), s.constant(1e-3))))
    (feed,) = feeds_for(model, 1)
    exact, constant_gate = (run_model(ir.to_proto(m), feed) for m in (model, apply_constant_gates(model, {sigmoid_of(model): 0.5})))
    for name, wanted in exact.items():
        np.testing.assert_allclose(constant_gate[name], wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_constant_gate_leaves_neither_sigmoid_nor_product_to_run(target: str, tmp_path: Path) -> None:
    model = silu_between_convs()
    planned = plan_for(apply_constant_gates(model, {sigmoid_of(model): 0.5}), target)
    proto = emitted(planned)
    assert parity(planned, proto) == 200.0
    kernels = kernels_of(proto, planned.target, tmp_path)
    before = kernels_of(emitted(plan_for(model, target)), planned.target, tmp_path)
    gone = [kind for kind in ("QLinearSigmoid", "QLinearMul", "Sigmoid", "Mul", "QuickGelu") if before[kind] != kernels[kind]]
    assert gone and not any(kernels[kind] > before[kind] for kind in before)


def test_only_a_sigmoid_that_gates_its_input_alone_has_a_product() -> None:
    s = Sketch(0)
    x, y = s.input("x", 1, CHANNELS, 6, 6), s.input("y", 1, CHANNELS, 6, 6)
    gates = [s.add("Sigmoid", x) for _ in range(4)]
    products = [s.add("Mul", x, gates[0]), s.add("Mul", y, gates[1]), s.add("Mul", x, gates[2])]
    model = s.model(*products, s.add("Add", x, gates[2]), gates[3], s.add("Mul", x, gates[3]))
    nodes = [n for n in model.graph if n.op_type == "Sigmoid"]
    found = [gated_product(node) for node in nodes]
    assert [None if node is None else node.outputs[0].name for node in found] == [products[0], None, None, None]


@pytest.mark.parametrize(
    ("name", "constant_gate", "what"),
    [("", 1.0, "not between 0 and 1"), ("", 0.0, "not between 0 and 1"), ("nobody", 0.5, "is no sigmoid")],
)
def test_a_constant_gate_that_does_not_fit_is_refused(name: str, constant_gate: float, what: str, tmp_path: Path) -> None:
    model = silu_between_convs()
    plan = plan_for(model).plan
    with pytest.raises(UsageError, match=what):
        apply_transforms(
            replace(plan, transforms=(ConstantGates({name or sigmoid_of(model): constant_gate}),)), model, GraphFacts({}), tmp_path
        )


def test_constant_gates_are_written_and_read(tmp_path: Path) -> None:
    plan = replace(plan_for(silu_between_convs()).plan, transforms=(ConstantGates({"gate": 0.48}),))
    assert plan_from_json(plan_to_json(plan), tmp_path) == plan
    with pytest.raises(UsageError, match="damaged"):
        plan_from_json(plan_to_json(plan).replace("0.48", '"half"'), tmp_path)


def dim_network(folder: Path) -> Path:
    """Two convolutions with a SiLU between them, which sees hardly anything but zero, and a classifier behind."""
    s = Sketch(0)
    x = s.add("Mul", s.conv(s.input("x", 1, CHANNELS, 24, 24), CHANNELS, bias=False), s.constant(0.01))
    pooled = s.add("Flatten", s.add("GlobalAveragePool", s.conv(s.silu(s.conv(x, CHANNELS, bias=False)), CHANNELS)))
    path = folder / "dim.onnx"
    onnx.save(ir.to_proto(s.model(pooled)), path)
    return path


@pytest.mark.usefixtures("few_turns")
def test_a_conversion_finds_constant_gates_and_its_plan_makes_the_same_file(tmp_path: Path) -> None:
    source, plan, results = dim_network(tmp_path), tmp_path / "plan.json", [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    options = Options(samples=4, threads=1)
    report = convert(source, results[0], options, plan_out=plan)
    assert list(constant_gates_of(report.plan).values()) == pytest.approx([0.5], abs=0.01)
    assert "1 constant for 1 of 1 sigmoids" in render(report_tables(report), 200, terminal=False)
    convert(source, results[1], replace(options, plan_in=plan))
    assert graph_of(results[0]) == graph_of(results[1])
    assert {n.op_type for n in onnx.load(results[0]).graph.node}.isdisjoint({"Sigmoid", "Mul"})


def graph_of(path: Path) -> bytes:
    graph: bytes = onnx.load(path).graph.SerializeToString(deterministic=True)
    return graph
