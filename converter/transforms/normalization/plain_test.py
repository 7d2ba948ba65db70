"""Layer normalizations that only normalize: the network computes the same, and only where that costs less."""

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
from converter.transforms.normalization.plain import find_plain, make_plain
from converter.transforms.normalization.transform import PlainNormalizations
from converter.transforms.transform import GraphFacts

B, T, C = 2, 6, 8
ARM64 = TARGETS["arm64"]


def normalized(s: Sketch, *, beta: bool = True, axis: int = -1) -> str:
    x = s.input("x", B, T, C)
    return s.add("LayerNormalization", x, s.normal(C), *([s.normal(C)] if beta else []), name="norm", axis=axis, epsilon=1e-3)


def flattened(s: Sketch, y: str) -> str:
    return s.add("Reshape", y, s.constant([B * T, C], np.int64))


def to_map(s: Sketch, y: str) -> str:
    """Tokens on a map of 2 x 3, channels first."""
    return s.add("Transpose", s.add("Reshape", y, s.constant([B, 2, 3, C], np.int64)), perm=[0, 3, 1, 2])


def two_layers(s: Sketch) -> str:
    y = normalized(s)
    return s.add("Add", s.add("Gemm", flattened(s, y), s.normal(C, 4)), s.add("Gemm", flattened(s, y), s.normal(C, 4)))


TAKEN: dict[str, Callable[[Sketch], str]] = {
    "gemm": lambda s: s.add("Gemm", flattened(s, normalized(s)), s.normal(C, 5), s.normal(5)),
    "gemm without bias": lambda s: s.add("Gemm", flattened(s, normalized(s)), s.normal(C, 5)),
    "gemm with turned weights": lambda s: s.add("Gemm", flattened(s, normalized(s)), s.normal(5, C), s.normal(5), transB=1),
    "matmul with a sum behind": lambda s: s.add("Add", s.add("MatMul", normalized(s), s.normal(C, 5)), s.normal(5)),
    "matmul without an offset": lambda s: s.add("MatMul", normalized(s, beta=False), s.normal(C, 5)),
    "two layers": two_layers,
    "convolution of a map": lambda s: s.conv(to_map(s, normalized(s)), C, outputs=5, size=1),
    "convolution in groups": lambda s: s.conv(to_map(s, normalized(s)), C, outputs=6, size=1, group=2),
    "padded convolution without an offset": lambda s: s.conv(to_map(s, normalized(s, beta=False)), C),
}

KEPT: dict[str, Callable[[Sketch], str]] = {
    "read by no layer": lambda s: s.add("Relu", normalized(s)),
    "read by a sum, too": lambda s: s.add("Add", y := normalized(s), s.add("MatMul", y, s.normal(C, C))),
    "no place for the offset": lambda s: s.add("Relu", s.add("MatMul", normalized(s), s.normal(C, 5))),
    "a border without the offset": lambda s: s.conv(to_map(s, normalized(s)), C),
    "more than the last axis": lambda s: s.add("MatMul", normalized_twice(s), s.normal(C, 5)),
    "the product's right side": lambda s: s.add("MatMul", s.normal(5, T), normalized(s, beta=False)),
}


def normalized_twice(s: Sketch) -> str:
    return s.add("LayerNormalization", s.input("x", B, T, C), s.normal(T, C), name="norm", axis=1)


def facts_of(model: ir.Model, excluded: tuple[str, ...] = ()) -> GraphFacts:
    return GraphFacts(shapes_of(model), frozenset(excluded))


@pytest.mark.parametrize("build", TAKEN.values(), ids=TAKEN)
def test_layers_take_in_factor_and_offset_and_the_network_computes_the_same(build: Callable[[Sketch], str]) -> None:
    s = Sketch()
    model = s.model(build(s))
    facts = facts_of(model)
    assert find_plain(model, facts, ARM64) == ("norm",)
    changed = make_plain(model, facts, ("norm",))
    assert [n.op_type for n in model.graph].count("LayerNormalization") == 1, "the model given is left as it is"
    norm = next(n for n in changed.graph if n.name == "norm")
    ones, zeros = (np.asarray(v.const_value) for v in norm.inputs[1:] if v is not None)
    assert norm.op_type == "InstanceNormalization" and (ones == 1.0).all() and (zeros == 0.0).all() and ones.shape == zeros.shape == (T,)
    for feed in feeds_for(model):
        (before,) = run_session(open_session(ir.to_proto(model), threads=1), feed).values()
        (after,) = run_session(open_session(ir.to_proto(changed), threads=1), feed).values()
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_what_no_layer_can_take_in_stays(build: Callable[[Sketch], str]) -> None:
    s = Sketch()
    model = s.model(build(s))
    assert find_plain(model, facts_of(model), ARM64) == ()
    with pytest.raises(ValueError, match="'norm' is no layer normalization whose factor and offset layers take in"):
        make_plain(model, facts_of(model), ("norm",))


def test_weights_that_float32_cannot_hold_stay() -> None:
    s = Sketch()
    y = s.add("LayerNormalization", s.input("x", B, T, C), s.constant(np.full(C, 1e30)), name="norm")
    model = s.model(s.add("MatMul", y, s.constant(np.full((C, 3), 1e20))))
    assert find_plain(model, facts_of(model), ARM64) == ()


def test_excluded_operators_and_layers_stay() -> None:
    s = Sketch()
    model = s.model(s.add("Gemm", flattened(s, normalized(s)), s.normal(C, 5), s.normal(5), name="layer"))
    assert [find_plain(model, facts_of(model, (name,)), ARM64) for name in ("norm", "layer", "other")] == [(), (), ("norm",)]


def test_the_targets_prices_decide() -> None:
    """A group costs so much that an InstanceNormalization is dearer, or none is known."""
    s = Sketch()
    model = s.model(TAKEN["gemm"](s))
    cost = ARM64.costs["InstanceNormalization"]
    dear = {**ARM64.costs, "InstanceNormalization": replace(cost, float={**cost.float, "group": 1e4})}
    unknown = {**ARM64.costs, "InstanceNormalization": replace(cost, float={"element": 1e-3})}
    assert [find_plain(model, facts_of(model), replace(ARM64, costs=costs)) for costs in (dear, unknown)] == [(), ()]
    assert find_plain(model, facts_of(model), TARGETS["x86"]) == (), "not measured"


def test_methods_that_change_factors_themselves_keep_them() -> None:
    assert {name for name in METHOD_NAMES if METHODS[name].keeps_normalizations} == {"fq-vit", "repq-vit"}


@pytest.mark.parametrize(("method", "plain"), [("mse", True), ("repq-vit", False)])
def test_a_conversion_records_it_in_the_plan_which_can_be_used_again(method: MethodName, plain: bool, tmp_path: Path) -> None:
    s = Sketch()
    x = s.add("Add", s.add("Gemm", flattened(s, normalized(s)), s.normal(C, 16), s.normal(16)), s.constant(0.1))
    proto = ir.to_proto(s.model(s.add("Gemm", s.silu(x), s.normal(16, 4), s.normal(4))))
    report = convert(proto, None, Options(method=method, samples=4, threads=1, placement="all"))
    found = [t.plain_normalizations for t in report.plan.transforms if isinstance(t, PlainNormalizations)]
    assert found == ([("norm",)] if plain else [])
    assert report.plan.ops["norm"].op_type == ("InstanceNormalization" if plain else "LayerNormalization")
    assert report.verdict is not None and report.verdict.parity_db is not None and report.verdict.parity_db > 100.0
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(report.plan))
    assert plan_from_json(path.read_text(), path) == report.plan
    again = convert(proto, None, Options(samples=4, threads=1, plan_in=path))
    assert again.plan == report.plan
    assert again.predicted_float == report.predicted_float
