"""Softmaxes that are divided behind the product that reads them: the network computes the same, and only where that costs less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.methods.names import METHOD_NAMES, MethodName
from converter.options import Options
from converter.pipeline import convert
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.planning.registry import METHODS
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.sketch import Sketch, feeds_for, shapes_of
from converter.transforms.softmax.late import find_late, make_late
from converter.transforms.softmax.transform import LateSoftmaxes
from converter.transforms.transform import GraphFacts

B, T, C = 2, 128, 8
ARM64 = TARGETS["arm64"]
STEEP = (-8.0, 8.0)


def scores(s: Sketch) -> str:
    return s.add("MatMul", s.input("q", B, T, C), s.input("k", B, C, T), name="scores")


def attention(s: Sketch) -> str:
    return s.add("MatMul", s.add("Softmax", scores(s), axis=-1, name="soft"), s.input("v", B, T, C), name="weigh")


def read_twice(s: Sketch) -> str:
    y = s.add("Softmax", scores(s), axis=-1, name="soft")
    return s.add("Add", s.add("MatMul", y, s.input("v", B, T, C)), s.add("MatMul", y, s.input("w", B, T, C)))


KEPT: dict[str, Callable[[Sketch], str]] = {
    "over another axis": lambda s: s.add("MatMul", s.add("Softmax", scores(s), axis=1, name="soft"), s.input("v", B, T, C)),
    "read twice": read_twice,
    "the product's right side": lambda s: s.add("MatMul", s.input("v", B, C, T), s.add("Softmax", scores(s), axis=-1, name="soft")),
    "constant values": lambda s: s.add("MatMul", s.add("Softmax", scores(s), axis=-1, name="soft"), s.normal(T, C)),
    "of no product": lambda s: s.add("MatMul", s.add("Softmax", s.input("x", B, T, T), axis=-1, name="soft"), s.input("v", B, T, C)),
    "no product behind": lambda s: s.add("Relu", s.add("Softmax", scores(s), axis=-1, name="soft")),
}


def facts_of(model: ir.Model, excluded: tuple[str, ...] = ()) -> GraphFacts:
    return GraphFacts(shapes_of(model), frozenset(excluded))


def ranges_of(model: ir.Model, scores: tuple[float, float] = STEEP) -> dict[str, tuple[float, float]]:
    return {str(o.name): scores for node in model.graph for o in node.outputs}


def test_the_network_computes_the_same_and_the_model_given_is_left_as_it_is() -> None:
    s = Sketch()
    model = s.model(attention(s))
    facts = facts_of(model)
    assert find_late(model, facts, ranges_of(model), ARM64) == ("soft",)
    changed = make_late(model, facts, ("soft",))
    assert [n.op_type for n in model.graph] == ["MatMul", "Softmax", "MatMul"]
    assert [n.op_type for n in changed.graph] == ["MatMul", "ReduceMax", "Sub", "Exp", "MatMul", "MatMul", "Div"]
    for feed in feeds_for(model):
        before = run_session(open_session(ir.to_proto(model), threads=1), feed)
        after = run_session(open_session(ir.to_proto(changed), threads=1), feed)
        assert before.keys() == after.keys(), "outputs keep their names"
        for name, array in before.items():
            np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5 * np.abs(array).max())


def test_scores_may_be_scaled_behind_their_product() -> None:
    s = Sketch()
    y = s.add("Softmax", s.add("Mul", scores(s), s.constant(0.125)), axis=-1, name="soft")
    model = s.model(s.add("MatMul", y, s.input("v", B, T, C)))
    assert find_late(model, facts_of(model), ranges_of(model), ARM64) == ("soft",)


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_what_no_product_of_computed_tensors_alone_reads_stays(build: Callable[[Sketch], str]) -> None:
    s = Sketch()
    model = s.model(build(s))
    assert find_late(model, facts_of(model), ranges_of(model), ARM64) == ()
    with pytest.raises(ValueError, match="'soft' is no softmax over rows that a product of computed tensors alone reads"):
        make_late(model, facts_of(model), ("soft",))


@pytest.mark.parametrize(("low", "high", "found"), [(-1.0, 1.0, False), (-4.0, 4.0, True), (-30.0, 30.0, False)])
def test_scores_that_hardly_differ_or_differ_too_much_keep_their_softmax(low: float, high: float, found: bool) -> None:
    s = Sketch()
    model = s.model(attention(s))
    assert bool(find_late(model, facts_of(model), ranges_of(model, (low, high)), ARM64)) == found


@pytest.mark.parametrize("excluded", ["soft", "weigh"])
def test_excluded_operators_stay(excluded: str) -> None:
    s = Sketch()
    model = s.model(attention(s))
    assert find_late(model, facts_of(model, (excluded,)), ranges_of(model), ARM64) == ()


def test_the_targets_prices_decide() -> None:
    """Unsigned codes wrap around below zero; a target may know no price, or a high one."""
    s = Sketch()
    model = s.model(attention(s))
    cost = ARM64.costs["LateSoftmax"]
    dear = {**ARM64.costs, "LateSoftmax": replace(cost, integer={"element": 1e3})}
    unknown = {kind: each for kind, each in ARM64.costs.items() if kind != "LateSoftmax"}
    targets = [replace(ARM64, costs=dear), replace(ARM64, costs=unknown), replace(ARM64, signed_activations=False)]
    assert [find_late(model, facts_of(model), ranges_of(model), target) for target in targets] == [(), (), ()]


def test_methods_with_quantizers_behind_softmaxes_keep_them() -> None:
    assert {name for name in METHOD_NAMES if METHODS[name].keeps_softmaxes} == {"fq-vit", "ptq4vit", "repq-vit"}


@pytest.mark.parametrize(("method", "late"), [("mse", True), ("ptq4vit", False)])
def test_a_conversion_records_it_in_the_plan_which_can_be_used_again(method: MethodName, late: bool, tmp_path: Path) -> None:
    s = Sketch()
    x = s.add("Gemm", s.input("x", T, C), s.normal(C, C, scale=0.5), s.normal(C))
    q, k, v = (s.add("Reshape", s.add("Gemm", x, s.normal(C, C, scale=0.2)), s.constant([1, T, C], np.int64)) for _ in range(3))
    shares = s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1])), axis=-1, name="soft")
    proto = ir.to_proto(s.model(s.add("Reshape", s.add("MatMul", shares, v, name="weigh"), s.constant([T, C], np.int64))))
    report = convert(proto, None, Options(method=method, samples=4, threads=1, placement="all"))
    found = [t.late_softmaxes for t in report.plan.transforms if isinstance(t, LateSoftmaxes)]
    assert found == ([("soft",)] if late else [])
    assert report.plan.ops["soft"].form == ("exponential" if late else "")
    assert report.requires == f"onnxruntime>={'1.21' if late else '1.17'}"
    assert report.verdict is not None and report.verdict.parity_db is not None and report.verdict.parity_db > 100.0
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(report.plan))
    assert plan_from_json(path.read_text(), path) == report.plan
    again = convert(proto, None, Options(samples=4, threads=1, plan_in=path))
    assert again.plan.ops == report.plan.ops and again.plan.tensors == report.plan.tensors
