from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.forms.form import SupportedForm
from converter.quantization.parameters import QuantParams
from converter.testing.sketch import Planned, Sketch, emitted, parity, plan_for


def consistent(planned: Planned) -> None:
    """Every grid that somebody needs is there and follows from where it comes from."""
    plan = planned.plan
    for node in planned.model.graph:
        op = plan.ops.get(str(node.name))
        if op is None or op.runs == "float":
            assert op is None or op.reason
            continue
        entry = planned.offers[str(node.name)]
        assert isinstance(entry, SupportedForm)
        assert set(op.constants) == set(entry.constants)
        for value in node.inputs:
            tensor_plan = plan.tensors.get(str(value.name)) if value is not None else None
            if tensor_plan is not None:
                inside = entry.form == "absorbed"
                assert (tensor_plan.params is None) == inside, value
        for output in node.outputs:
            tensor_plan = plan.tensors[str(output.name)]
            assert (tensor_plan.params is not None) == (op.writes == "codes")
            if tensor_plan.params is not None:
                assert tensor_plan.params.signed == planned.target.signed_activations
            assert (tensor_plan.kind in ("shared", "derived")) == (entry.form in ("movement", "relabel"))
            if tensor_plan.source:
                before = plan.tensors[tensor_plan.source].params
                assert before is not None
                assert tensor_plan.params == (before if tensor_plan.kind == "shared" else before.rescaled(0.5))
    for tensor in plan.tensors.values():
        assert (tensor.kind == "float") == (tensor.params is None) == bool(tensor.reason)


def mixed_model() -> ir.Model:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 8, 8), 8, name="first")
    y = sketch.silu(x)
    y = sketch.add("Relu", sketch.conv(y, 8, name="second"), name="relu")
    y = sketch.add("Mul", sketch.add("Add", y, x, name="residual"), sketch.constant(0.5), name="half")
    tokens = sketch.add(
        "Transpose", sketch.add("Reshape", y, sketch.constant([1, 8, 64], np.int64), name="flat"), perm=[0, 2, 1], name="turn"
    )
    normal = sketch.add("LayerNormalization", tokens, sketch.normal(8), name="norm")
    scores = sketch.add("MatMul", normal, sketch.add("Transpose", normal, perm=[0, 2, 1]), name="scores")
    mixed = sketch.add("MatMul", sketch.add("Softmax", scores, name="softmax"), normal, name="mixed")
    return sketch.model(sketch.add("MatMul", mixed, sketch.normal(8, 5), name="head"), y)


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("bits", [(8, 8), (6, 5)])
@pytest.mark.parametrize("cheapest", [True, False])
def test_fates_are_consistent(target: str, bits: tuple[int, int], cheapest: bool) -> None:
    consistent(plan_for(mixed_model(), target, cheapest=cheapest, bits=bits))


def test_fates_by_hand() -> None:
    plan = plan_for(mixed_model()).plan
    kinds = {name: plan.tensors[f"{name}.0"].kind for name in ("first", "second", "relu", "residual", "half", "flat", "turn", "norm")}
    assert kinds == {
        "first": "measured", "second": "float", "relu": "measured", "residual": "measured", "half": "derived", "flat": "shared",
        "turn": "shared", "norm": "measured",
    }  # fmt: skip
    assert plan.tensors["second.0"].reason == "inside a fused group"
    assert (plan.ops["second"].writes, plan.ops["relu"].writes, plan.ops["scores"].writes) == ("fused", "codes", "float")
    assert [plan.tensors[f"{name}.0"].source for name in ("half", "flat", "turn")] == ["residual.0", "half.0", "flat.0"]


@pytest.mark.parametrize(
    ("target", "grid"), [("arm64", QuantParams((2.0**-8,), (-128,), 8, True)), ("x86", QuantParams((2.0**-8,), (0,), 8, False))]
)
def test_a_sigmoid_has_the_runtimes_own_grid(target: str, grid: QuantParams) -> None:
    sketch = Sketch()
    plan = plan_for(sketch.model(sketch.add("Sigmoid", sketch.input("x", 4), name="sigmoid")), target).plan
    assert (plan.tensors["sigmoid.0"].kind, plan.tensors["sigmoid.0"].params) == ("fixed", grid)


def test_excluded_operators_and_their_clamps_stay_float() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 16, 16), 16, name="first")
    x = sketch.add("Relu", sketch.conv(x, 16, name="second"), name="relu")
    plan = plan_for(sketch.model(sketch.conv(x, 16, name="third")), cheapest=True, excluded={"second"}).plan
    assert {name: op.runs for name, op in plan.ops.items()} == {"first": "integer", "second": "float", "relu": "float", "third": "integer"}
    assert plan.ops["second"].reason == "excluded by the user"


def test_a_lone_addition_between_float_neighbours_stays_float() -> None:
    sketch = Sketch()
    x = sketch.add("Erf", sketch.input("x", 1, 64))
    plan = plan_for(sketch.model(sketch.add("Erf", sketch.add("Add", x, sketch.normal(64), name="add"))), cheapest=True).plan
    assert (plan.ops["add"].runs, plan.ops["add"].reason) == ("float", "cheaper in float on this target, given its neighbours")
    assert plan.tensors["add.0"].reason == "neither written nor read by an integer operator"


def test_a_linear_layer_writes_codes_as_soon_as_one_reader_wants_them() -> None:
    sketch = Sketch()
    x = sketch.add("MatMul", sketch.input("x", 4, 32), sketch.normal(32, 32), name="linear")
    only_float = sketch.add("Erf", x)
    model = sketch.model(only_float)
    assert plan_for(model).plan.ops["linear"].writes == "float"
    sketch = Sketch()
    x = sketch.add("MatMul", sketch.input("x", 4, 32), sketch.normal(32, 32), name="linear")
    model = sketch.model(sketch.add("Erf", x), sketch.add("Sigmoid", x))
    assert plan_for(model).plan.ops["linear"].writes == "codes"


@pytest.mark.parametrize("bits", [(8, 8), (8, 6)])
def test_everything_is_all_that_is_offered(bits: tuple[int, int]) -> None:
    planned = plan_for(mixed_model(), cheapest=True, bits=bits, placement="all")
    offered = {n for n, e in planned.offers.items() if isinstance(e, SupportedForm) and e.form != "requantize"}
    assert {n for n, op in planned.plan.ops.items() if op.runs == "integer"} >= offered
    assert len(offered) > len([1 for op in plan_for(mixed_model(), cheapest=True).plan.ops.values() if op.runs == "integer"])
    consistent(planned)
    assert parity(planned, emitted(planned)) > 30


# Copies


def copied_linear(s: Sketch, *, layer: str) -> ir.Model:
    """A linear layer that can write float numbers, a float operator and a copy behind it, and a layer behind the copy."""
    x = s.add("MatMul", s.input("x", 256, 64), s.normal(64, 64), name="linear")
    copy = s.add("Identity", x, name="copy")
    behind = s.add("MatMul", copy, s.normal(64, 64), name="layer") if layer == "integer" else s.add("Softmax", copy, name="layer")
    return s.model(s.add("Erf", x), behind)


@pytest.mark.parametrize("layer", ["integer", "float"])
def test_a_copy_alone_makes_nobody_write_codes(layer: str) -> None:
    """The copy is quantized from the float numbers that the linear layer writes for the float operator, or not at all."""
    sketch = Sketch()
    plan = plan_for(copied_linear(sketch, layer=layer), bits=(8, 6), cheapest=True).plan
    assert (plan.ops["linear"].runs, plan.ops["linear"].writes, plan.ops["copy"].runs) == ("integer", "float", "float")
    assert plan.tensors["linear.0"].kind == "float"
    assert plan.tensors["copy.0"].kind == ("measured" if layer == "integer" else "float")


@pytest.mark.parametrize("layer", ["integer", "float"])
def test_a_copy_of_codes_is_integer_if_codes_are_read(layer: str) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 16, 16), 16, name="first")
    copy = sketch.add("Identity", x, name="copy")
    behind = sketch.conv(copy, 16, name="layer") if layer == "integer" else sketch.add("Softmax", copy, name="layer")
    plan = plan_for(sketch.model(sketch.add("Erf", x), behind), bits=(8, 6), cheapest=True).plan
    assert plan.ops["first"].writes == "codes"
    assert plan.ops["copy"].runs == layer
    assert plan.tensors["copy.0"].kind == ("measured" if layer == "integer" else "float")
