from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from converter.canonicalise.standard import infer_shapes, refuse_control_flow, simplify, to_canonical_opset
from converter.errors import ModelError
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.testing.models import conditional, hybrid_model
from converter.testing.rewrites import Array, Draft, assert_equal_outputs, op_types, outputs_of, random_feed, weights

NEWEST = onnx.defs.onnx_opset_version()


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the canonical opset, and no operator in it that the opset does not have."""
    before = model.SerializeToString()
    result = to_canonical_opset(model)
    assert model.SerializeToString() == before, "the model given was changed"
    assert [(o.domain, o.version) for o in result.opset_import] == [("", CANONICAL_OPSET)]
    onnx.checker.check_model(result, full_check=True)
    for node in result.graph.node:
        assert node.domain == ""
        assert onnx.defs.has(node.op_type, max_inclusive_version=CANONICAL_OPSET)
    return result


@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
def test_a_hybrid_network_of_any_opset(opset: int) -> None:
    model = hybrid_model(opset=opset)
    assert_equal_outputs(model, converted(model), {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)})


def swish(draft: Draft) -> str:
    return draft.add("Swish", "x")


def swish_with_alpha(draft: Draft) -> str:
    return draft.add("Swish", "x", alpha=1.5)


def group_normalization(draft: Draft) -> str:
    return draft.add("GroupNormalization", "x", weights(4), weights(4, seed=1), num_groups=2)


def rms_normalization(draft: Draft) -> str:
    return draft.add("RMSNormalization", "x", weights(8), axis=-1)


def large_rms_normalization(draft: Draft) -> str:
    return draft.add("RMSNormalization", draft.add("MatMul", "x", weights(8, 2048)), weights(2048))


def attention(draft: Draft) -> str:
    return draft.add("Attention", "x", "x", "x", scale=0.3)


def attention_with_heads(draft: Draft) -> str:
    tokens = draft.add("Reshape", "x", np.asarray([0, 32, 8]))
    return draft.add("Attention", tokens, tokens, tokens, q_num_heads=2, kv_num_heads=2)


def global_max_pool(draft: Draft) -> str:
    return draft.add("Add", draft.add("GlobalMaxPool", "x"), draft.add("GlobalAveragePool", "x"))


YOUNGER: list[tuple[Callable[[Draft], str], int]] = [
    (swish, 24),
    (swish_with_alpha, 24),
    (group_normalization, 21),
    (rms_normalization, 23),
    (large_rms_normalization, 23),
    (attention, 23),
    (attention_with_heads, 23),
    (global_max_pool, 22),
]


@pytest.mark.parametrize(("spell", "opset"), [(s, o) for s, first in YOUNGER for o in range(first, NEWEST + 1)])
def test_younger_operators_become_their_definitions(spell: Callable[[Draft], str], opset: int) -> None:
    draft = Draft(opset=opset, x=(2, 4, 8, 8))
    output = spell(draft)
    graph = helper.make_graph(
        draft.nodes,
        "younger",
        [helper.make_tensor_value_info("x", 1, draft.inputs["x"])],
        [helper.make_tensor_value_info(output, 1, [None] * (3 if spell is attention_with_heads else 4))],
        [onnx.numpy_helper.from_array(a, n) for n, a in draft.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    feed = random_feed(model)
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    got = outputs_of(converted(model), feed)[output]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def test_group_normalization_of_opset_18_scales_each_group() -> None:
    draft = Draft(opset=18, x=(2, 4, 3, 3))
    output = draft.add("GroupNormalization", "x", weights(2), weights(2, seed=1), num_groups=2, epsilon=1e-3)
    graph = helper.make_graph(
        draft.nodes,
        "old",
        [helper.make_tensor_value_info("x", 1, (2, 4, 3, 3))],
        [helper.make_tensor_value_info(output, 1, (2, 4, 3, 3))],
        [onnx.numpy_helper.from_array(a, n) for n, a in draft.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert_equal_outputs(model, to_canonical_opset(model), random_feed(model))
    assert "GroupNormalization" not in op_types(to_canonical_opset(model))


def resized(opset: int, mode: str, height: float, width: float) -> onnx.ModelProto:
    draft = Draft(opset=opset, x=(1, 2, 5, 6))
    return draft.model(draft.add("Upsample" if opset == 9 else "Resize", "x", np.asarray([1, 1, height, width], np.float32), mode=mode))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factors", [(2.0, 3.0), (1.5, 2.5)], ids=str)
@pytest.mark.parametrize("opset", [9, 10])
def test_old_resize_counts_from_the_corner(opset: int, mode: str, factors: tuple[float, float]) -> None:
    model = resized(opset, mode, *factors)
    assert_equal_outputs(model, converted(model), random_feed(model))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_resize_may_shrink(mode: str) -> None:
    model = resized(10, mode, 0.5, 0.4)
    assert_equal_outputs(model, converted(model), random_feed(model))


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_softmax_over_the_last_axis_needs_no_reshaping(opset: int) -> None:
    draft = Draft(opset=opset, x=(2, 3, 4, 5))
    model = draft.model(draft.add("Softmax", "x", axis=3))
    assert op_types(converted(model)) == ["Softmax"]


def test_softmax_over_several_axes_keeps_its_meaning() -> None:
    draft = Draft(opset=11, x=(2, 3, 4, 5))
    model = draft.model(draft.add("Softmax", "x", axis=2))
    assert_equal_outputs(model, converted(model), random_feed(model))


@pytest.mark.parametrize("opset", [9, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, 1, 2, 3])
def test_old_hardmax_chooses_one_of_all_that_follows_its_axis(opset: int, axis: int | None) -> None:
    draft = Draft(opset=opset, x=("n", 3, 4, 5))
    draft.add("Relu", "x", name="Hardmax_1_out_shape")
    model = draft.model(draft.add("Hardmax", "x") if axis is None else draft.add("Hardmax", "x", axis=axis))
    result = converted(model)
    assert_equal_outputs(model, result, random_feed(model))
    chosen = outputs_of(result, random_feed(model))["Hardmax_1_out"].sum()
    rows = 2 * math.prod((3, 4, 5)[: (axis if axis is not None else 1 if opset < 13 else 3) - 1])
    assert chosen == (rows if opset < 13 else 2 * 3 * 4 * 5 // (3, 4, 5)[axis - 1 if axis is not None else 2])


@pytest.mark.parametrize("opset", [12, 17])
def test_an_import_that_nobody_knows_is_no_hindrance(opset: int) -> None:
    draft = Draft(opset=opset, x=(2, 3))
    model = draft.model(draft.add("Relu", "x"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert_equal_outputs(model, to_canonical_opset(model), random_feed(model))


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("opset", [9, CANONICAL_OPSET])
def test_weights_that_are_listed_as_inputs_become_constants(ir_version: int, opset: int) -> None:
    model = hybrid_model(opset=opset)
    model.ir_version = ir_version
    model.graph.input.extend(helper.make_tensor_value_info(i.name, i.data_type, list(i.dims)) for i in model.graph.initializer)
    result = converted(model)
    assert [i.name for i in result.graph.input] == ["image"]
    assert result.ir_version >= 4


def test_open_dimensions_stay_open() -> None:
    draft = Draft(opset=11, x=("batch", 3, "height", "width"))
    model = converted(draft.model(draft.add("Relu", "x")))
    for value in (*model.graph.input, *model.graph.output):
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]


def refused(model: onnx.ModelProto) -> ModelError:
    with pytest.raises(ModelError) as caught:
        to_canonical_opset(model)
    assert caught.value.hint
    return caught.value


def test_a_younger_operator_without_definition_is_named() -> None:
    draft = Draft(opset=26, x=(2, 3))
    error = refused(draft.model(draft.add("CumProd", "x", np.asarray(1, np.int64), name="/block/CumProd")))
    assert "'CumProd'" in error.what
    assert error.where == "node '/block/CumProd'"


def test_what_the_converter_has_no_way_back_for_is_named() -> None:
    draft = Draft(opset=28, x=(2, 3))
    error = refused(draft.model(draft.add("Mod", draft.add("Relu", "x"), 2.0, name="/block/Mod")))
    assert f"opset {CANONICAL_OPSET}" in error.what
    assert error.where == "node '/block/Mod' (Mod)"


def test_control_flow_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="'If' holds a graph") as caught:
        refuse_control_flow(ir.from_proto(converted(conditional(constant=False))))
    assert caught.value.where == "node '/choice/If'"
    assert caught.value.hint


def test_control_flow_that_simplifies_away_is_not_refused() -> None:
    model = conditional(constant=True)
    simplified = simplify(converted(model))
    refuse_control_flow(ir.from_proto(simplified))
    assert_equal_outputs(model, simplified, random_feed(model))


def test_simplification_folds_constants(capfd: pytest.CaptureFixture[str]) -> None:
    draft = Draft(x=(2, 3))
    total = draft.add("Add", draft.add("Mul", 2.0, 3.0), 1.0)
    assert op_types(simplify(draft.model(draft.add("Mul", "x", total)))) == ["Mul"]
    assert capfd.readouterr().out == ""


def test_what_onnxsim_prints_is_not_seen(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def chatty(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        os.write(2, b"WARNING: failed to run an op")
        return model, True

    monkeypatch.setattr("onnxsim.simplify", chatty)
    simplify(hybrid_model())
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_failure_of_onnxsim_is_the_model_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("Graph output 'y' is not an output of any node")

    monkeypatch.setattr("onnxsim.simplify", failing)
    with pytest.raises(ModelError, match="Graph output 'y'"):
        simplify(hybrid_model())


def test_shape_inference_sees_through_shape_arithmetic_and_leaves_weights_alone() -> None:
    draft = Draft(x=("n", 4, 8))
    table: Array = weights(8, 2048)
    y = draft.add("MatMul", draft.add("Reshape", "x", draft.add("Shape", "x")), table)
    model = draft.model(y)
    model.graph.ClearField("value_info")
    result = infer_shapes(model)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.graph.value_info}
    assert shapes["Reshape_1_out"] == ["n", 4, 8]
    assert [v.name for v in result.graph.input] == ["x"]
    assert {i.name: i.raw_data for i in result.graph.initializer} == {i.name: i.raw_data for i in model.graph.initializer}


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("opset", [9, 10])
def test_old_pads_may_state_a_number_that_they_do_not_need(opset: int, mode: str) -> None:
    draft = Draft(opset=opset, x=("n", 3, 5, 5))
    model = draft.model(draft.add("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode=mode, value=0.5))
    result = converted(model)
    assert_equal_outputs(model, result, random_feed(model))
    assert [a.name for a in result.graph.node[-1].attribute if a.name != "mode"] == []
    simplify(result)
