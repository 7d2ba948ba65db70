from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter import canonicalise as module
from converter.canonicalise import TOLERANCE, canonicalise
from converter.errors import ModelError
from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.runtime.session import open_session, run_session
from converter.targets import Target
from converter.testing.models import conditional, hybrid_model
from converter.testing.rewrites import Array, Draft, assert_equal_outputs, op_types, random_feed, weights

IMAGE = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}


def canonical_form(model: onnx.ModelProto, sizes: dict[str, int] | None = None) -> onnx.ModelProto:
    """The canonical model, with what holds for every one of them checked."""
    before = model.SerializeToString()
    feed = random_feed(model, sizes)
    canonical = canonicalise(model, [feed, random_feed(model, sizes, seed=1)])
    assert model.SerializeToString() == before, "the model given was changed"
    assert canonical.error <= TOLERANCE
    assert all(r.kept for r in canonical.rewrites)
    result: onnx.ModelProto = ir.to_proto(canonical.model)
    onnx.checker.check_model(result, full_check=True)
    assert [(o.domain, o.version) for o in result.opset_import] == [("", CANONICAL_OPSET)]
    names = [n.name for n in result.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert "Constant" not in op_types(result)
    for kind in ("input", "output"):
        assert [v.SerializeToString() for v in getattr(result.graph, kind)] == [v.SerializeToString() for v in getattr(model.graph, kind)]
    assert_equal_outputs(model, result, feed, tolerance=TOLERANCE)
    return result


@pytest.fixture(scope="module")
def one_form() -> Counter[str]:
    """Operators of the canonical hybrid network."""
    return Counter(op_types(canonical_form(hybrid_model(opset=CANONICAL_OPSET))))


@pytest.mark.parametrize("opset", range(9, onnx.defs.onnx_opset_version() + 1))
def test_a_hybrid_network_of_any_opset_comes_to_one_form(opset: int, one_form: Counter[str]) -> None:
    found = Counter(op_types(canonical_form(hybrid_model(opset=opset))))
    assert found == one_form
    assert found["LayerNormalization"] == 2
    assert found["Gelu"] == found["Softmax"] == 1
    assert (found["Gemm"], found["MatMul"]) == (7, 2)  # every linear layer with its bias; scores and mixing
    assert not {"BatchNormalization", "Erf", "Pow", "Sqrt", "ReduceMean", "Div", "Sub"} & set(found)


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_open_dimensions_stay_open_and_the_model_runs_at_other_sizes(opset: int) -> None:
    model = hybrid_model(opset=opset, dynamic_batch=True, dynamic_size=True)
    result = canonical_form(model, {"n": 1, "h": 32, "w": 32})
    assert [d.dim_param or d.dim_value for d in result.graph.input[0].type.tensor_type.shape.dim] == ["n", 3, "h", "w"]
    for sizes in ({"n": 3, "h": 32, "w": 32}, {"n": 2, "h": 48, "w": 16}):
        assert_equal_outputs(model, result, random_feed(model, sizes), tolerance=TOLERANCE)


def test_an_output_that_is_declared_open_stays_open_even_if_its_size_is_known() -> None:
    draft = Draft(x=(1, 4))
    model = draft.model(draft.add("Relu", "x"))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    result = canonical_form(model)
    assert result.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_small_constants_are_initializers_too() -> None:
    draft = Draft(x=(1, 4, 6))
    shape = draft.add("Constant", value=onnx.numpy_helper.from_array(np.asarray([0, 8, 3])))
    result = canonical_form(draft.model(draft.add("Reshape", draft.add("Add", "x", draft.add("Constant", value_float=1.5)), shape)))
    assert op_types(result) == ["Add", "Reshape"]


def test_nodes_without_names_get_names() -> None:
    canonical_form(hybrid_model(named=False))


def test_nodes_that_share_a_name_are_told_apart() -> None:
    model = hybrid_model()
    for node in model.graph.node:
        node.name = "same"
    names = [n.name for n in module._read(model).graph]
    assert names[0] == "same"
    assert len(set(names)) == len(names)


def test_names_that_both_models_know_mean_the_same_numbers() -> None:
    model = hybrid_model(opset=17)
    result = canonical_form(model)
    shared = {o for n in model.graph.node for o in n.output} & {o for n in result.graph.node for o in n.output}
    assert len(shared) > len(result.graph.node) / 2
    values: list[dict[str, Array]] = []
    for proto in (model, result):
        exposed = onnx.ModelProto()
        exposed.CopyFrom(proto)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(shared - {"logits"}))
        values.append(run_session(open_session(exposed, optimise=False), IMAGE))
    for name in shared:
        before, after = values[0][name], values[1][name]
        assert np.abs(after.reshape(before.shape) - before).max() <= 1e-4 * np.abs(before).max(), name


def test_half_a_gelu_that_went_into_the_next_layer_comes_back() -> None:
    draft = Draft(opset=12, x=(2, 5, 8))
    hidden = draft.add("Add", draft.add("MatMul", "x", weights(8, 16)), weights(16, seed=1))
    doubled = draft.add("Mul", hidden, draft.add("Add", draft.add("Erf", draft.add("Div", hidden, 2**0.5)), 1.0))
    output = draft.add("Add", draft.add("MatMul", doubled, weights(16, 8, seed=2)), weights(8, seed=3))
    found = op_types(canonical_form(draft.model(output)))
    assert "Gelu" in found
    assert not {"Erf", "Mul", "Div"} & set(found)


def test_constants_are_folded_wherever_they_come_from() -> None:
    draft = Draft(x=(1, 4, 6, 6))
    root = draft.add("Sqrt", draft.add("Constant", value=onnx.numpy_helper.from_array(np.asarray(2.0, np.float32))))
    plus_one = draft.add("Add", draft.add("Erf", draft.add("Div", "x", root)), draft.add("Constant", value_float=1.0))
    gelu = draft.add("Mul", draft.add("Mul", "x", plus_one), 0.5)
    scale = draft.add("Unsqueeze", draft.add("Unsqueeze", draft.constant(weights(4)), np.asarray([1])), np.asarray([2]))
    output = draft.add("Mul", draft.add("Conv", gelu, weights(4, 4, 1, 1)), scale)
    assert op_types(canonical_form(draft.model(output))) == ["Gelu", "Conv"]


def test_only_standard_operators_come_out_of_simplification() -> None:
    """Root mean square normalization and rotation by position have operators, but not in the canonical opset."""
    draft = Draft(opset=17, x=(1, 4, 6, 8))
    mean = draft.add("ReduceMean", draft.add("Pow", "x", 2.0), axes=[-1])
    y = draft.add("Mul", draft.add("Div", "x", draft.add("Sqrt", draft.add("Add", mean, 1e-6))), weights(8))
    first = draft.add("Slice", y, np.asarray([0]), np.asarray([4]), np.asarray([3]))
    second = draft.add("Slice", y, np.asarray([4]), np.asarray([8]), np.asarray([3]))
    turned = draft.add("Concat", draft.add("Neg", second), first, axis=-1)
    cosine, sine = weights(1, 1, 6, 8, seed=1), weights(1, 1, 6, 8, seed=2)
    canonical_form(draft.model(draft.add("Add", draft.add("Mul", y, cosine), draft.add("Mul", turned, sine))))


NOTHING_TO_DO: list[Callable[[Draft], str]] = [
    lambda d: d.add("Relu", "x"),
    lambda d: d.add("Identity", "x"),
    lambda d: d.add("Transpose", d.add("Conv", "x", weights(4, 4, 1, 1)), perm=[0, 2, 3, 1]),
]


@pytest.mark.parametrize("spell", NOTHING_TO_DO)
def test_a_model_in_which_nothing_changes(spell: Callable[[Draft], str]) -> None:
    draft = Draft(x=(1, 4, 6, 6))
    model = draft.model(spell(draft))
    assert op_types(canonical_form(model)) == op_types(model)


def test_an_input_that_nothing_reads_stays() -> None:
    draft = Draft(x=(1, 4), unused=(2, 2), z=(1, 4))
    canonical_form(draft.model(draft.add("Add", "z", "x")))


def test_several_outputs_one_inside_the_other() -> None:
    draft = Draft(x=(1, 4, 6, 6))
    features = draft.add("Conv", "x", weights(4, 4, 1, 1))
    gelu = draft.add("Mul", draft.add("Mul", features, draft.add("Add", draft.add("Erf", draft.add("Div", features, 2**0.5)), 1.0)), 0.5)
    scaled = draft.add("Mul", gelu, 3.0)
    assert op_types(canonical_form(draft.model(scaled, features, gelu))) == ["Conv", "Gelu", "Mul"]


def test_an_operator_too_young_for_the_runtime_is_proven_on_its_definition() -> None:
    draft = Draft(opset=onnx.defs.onnx_opset_version(), x=(1, 4))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Swish", ["x"], ["y"], name="act")],
        "young",
        [onnx.helper.make_tensor_value_info("x", 1, (1, 4))],
        [onnx.helper.make_tensor_value_info("y", 1, (1, 4))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", draft.opset)], ir_version=10)
    with pytest.raises(ModelError):
        open_session(model)
    canonical = canonicalise(model, [random_feed(model)])
    assert [n.op_type for n in canonical.model.graph] == ["Sigmoid", "Mul"]
    assert canonical.model.graph[-1].outputs[0].name == "y"


# Refusals.


def test_control_flow_is_refused() -> None:
    model = conditional(constant=False)
    with pytest.raises(ModelError, match="'If'") as caught:
        canonicalise(model, [random_feed(model)])
    assert caught.value.where == "node '/choice/If'"


def test_control_flow_that_simplifies_away_is_not_refused() -> None:
    assert op_types(canonical_form(conditional(constant=True))) == ["Relu"]


def test_a_model_that_the_runtime_does_not_run_is_refused() -> None:
    draft = Draft(x=("n", "m"))
    model = draft.model(draft.add("Reshape", "x", np.asarray([5, -1])))
    with pytest.raises(ModelError, match="cannot run"):
        canonicalise(model, [{"x": np.zeros((1, 4), np.float32)}])


def test_a_conversion_that_changes_the_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(x=(1, 4))
    wrong = draft.model(draft.add("Neg", "x", name="y"))
    monkeypatch.setattr(module, "to_canonical_opset", lambda model: wrong)
    right = Draft(x=(1, 4))
    model = right.model(right.add("Abs", "x", name="y"))
    with pytest.raises(ModelError, match=f"to opset {CANONICAL_OPSET} changes its outputs") as caught:
        canonicalise(model, [random_feed(model)])
    assert caught.value.hint


# The proof.


def spoil(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    """A wrong rewrite: every bias of a convolution grows by a tenth."""
    count = 0
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) > 2:
            bias = node.inputs[2]
            assert bias is not None
            assert bias.const_value is not None
            node.replace_input_with(
                2, GraphBuilder(model.graph).initializer(f"{bias.name}_spoilt", bias.const_value.numpy() + np.float32(0.1))
            )
            count += 1
    return model, count


def break_apart(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    """A rewrite after which the model does not load."""
    for node in model.graph:
        if node.op_type == "Gemm":
            node.op_type = "Nonsense"
    return model, 1


def use_an_operator_of_the_runtime(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    """A rewrite that computes the same, but not in standard ONNX."""
    for node in model.graph:
        if node.op_type == "Gelu":
            node.domain = "com.microsoft"
            node.attributes.clear()
            model.opset_imports["com.microsoft"] = 1
    return model, 1


@pytest.mark.parametrize(
    ("wrong", "behind"),
    [
        (break_apart, "fold constants"),
        (spoil, "fold factors and offsets"),
        (break_apart, "simplify"),
        (spoil, "fold what that uncovered"),
        (use_an_operator_of_the_runtime, "tidy spellings"),
    ],
)
def test_a_wrong_rewrite_is_undone_and_the_others_stay(monkeypatch: pytest.MonkeyPatch, wrong: module.Step, behind: str) -> None:
    steps: dict[str, module.Step] = {}
    for name, step in module._STEPS.items():
        steps[name] = step
        if name == behind:
            steps["the wrong one"] = wrong
    model = hybrid_model(opset=17)
    clean = canonicalise(model, [IMAGE])
    monkeypatch.setattr(module, "_STEPS", steps)
    canonical = canonicalise(model, [IMAGE])
    assert {r.name: r.kept for r in canonical.rewrites} == {name: name != "the wrong one" for name in steps}
    undone = next(r for r in canonical.rewrites if not r.kept)
    assert undone.error > TOLERANCE
    assert undone.count > 0
    assert canonical.error <= TOLERANCE
    assert Counter(n.op_type for n in canonical.model.graph) == Counter(n.op_type for n in clean.model.graph)
    assert_equal_outputs(model, ir.to_proto(canonical.model), IMAGE, tolerance=TOLERANCE)


def test_integer_outputs_are_proven_too(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(x=(2, 8))
    model = draft.model(draft.add("ArgMax", draft.add("Gemm", "x", weights(8, 8), weights(8)), axis=1))

    def reverse(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
        node = next(n for n in model.graph if n.op_type == "ArgMax")
        node.op_type = "ArgMin"
        return model, 1

    monkeypatch.setattr(module, "_STEPS", {**module._STEPS, "reverse": reverse})
    canonical = canonicalise(model, [random_feed(model)])
    assert [r.name for r in canonical.rewrites if not r.kept] == ["reverse"]


def test_probabilities_near_zero_do_not_undo_a_rewrite() -> None:
    """The runtime's Sigmoid is exact to 1e-7 of one, which is a good part of an output that is nowhere above 1e-4."""
    draft = Draft(x=(1, 8, 12, 12))
    y = draft.add("Conv", "x", 0.1 * weights(8, 8, 3, 3))
    y = draft.add("BatchNormalization", y, *[weights(8, seed=s, low=0.5, high=1.5) for s in range(4)])
    y = draft.add("Conv", y, 0.05 * weights(1, 8, 3, 3, seed=5))
    y = draft.add("BatchNormalization", y, *[np.asarray([v], np.float32) for v in (1, -12, 0, 1)])
    model = draft.model(draft.add("Sigmoid", y))
    feed = random_feed(model)
    canonical = canonicalise(model, [feed])
    assert all(r.kept for r in canonical.rewrites)
    assert [n.op_type for n in canonical.model.graph] == ["Conv", "Conv", "Sigmoid"]


def test_the_same_bytes_in_every_process() -> None:
    program = """
import sys
import numpy, onnx, onnx_ir
from converter.canonicalise import canonicalise
feed = {"image": numpy.ones((1, 3, 32, 32), numpy.float32)}
model = canonicalise(onnx.load_from_string(sys.stdin.buffer.read()), [feed]).model
sys.stdout.buffer.write(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
"""
    model = hybrid_model(opset=11)
    here = ir.to_proto(canonicalise(model, [{"image": np.ones((1, 3, 32, 32), np.float32)}]).model)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        input=model.SerializeToString(),
        capture_output=True,
        check=True,
    )
    assert run.stdout == here.SerializeToString(deterministic=True)


def drop_guards(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    """A rewrite that is right wherever nothing is below the limit."""
    clips = [n for n in model.graph if n.op_type == "Clip"]
    for node in clips:
        node.op_type = "Relu"
        node.resize_inputs(1)
    return model, len(clips)


def test_a_rewrite_that_loses_a_guard_is_undone_although_no_sample_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(x=(1, 4, 6))
    length = draft.add("ReduceL2", "x", np.asarray([-1], np.int64))
    model = draft.model(draft.add("Div", "x", draft.add("Clip", length, 1e-6)))
    monkeypatch.setattr(module, "_STEPS", {**module._STEPS, "drop guards": drop_guards})
    canonical = canonicalise(model, [random_feed(model)])
    assert [(r.name, r.edge) for r in canonical.rewrites if not r.kept] == [("drop guards", "inputs of zero")]
    (sentence,) = module.undone(canonical)
    assert sentence.startswith("rewrite 'drop guards' was left out, because it leaves outputs infinite or missing on inputs of zero")
    zeros = {"x": np.zeros((1, 4, 6), np.float32)}
    assert not run_session(open_session(ir.to_proto(canonical.model)), zeros)[model.graph.output[0].name].any()


def lp_norm(draft: Draft) -> str:
    return draft.add("Div", "x", draft.add("Clip", draft.add("ReduceL2", "x", np.asarray([1], np.int64)), 1e-6))


def generalised_mean(draft: Draft) -> str:
    cubes = draft.add("Pow", draft.add("Clip", "x", 1e-6), 3.0)
    return draft.add("Pow", draft.add("ReduceMean", cubes, np.asarray([2, 3], np.int64)), 1 / 3)


GUARDED: list[Callable[[Draft], str]] = [
    lp_norm,
    generalised_mean,
    lambda d: d.add("Reciprocal", d.add("Sqrt", d.add("Clip", "x", 1e-8))),
    lambda d: d.add("Log", d.add("Max", "x", 1e-7)),
    lambda d: d.add("Log", d.add("Add", d.add("Sigmoid", d.add("Mul", "x", -30.0)), 1e-8)),
    lambda d: d.add("Log", d.add("Clip", d.add("Softmax", d.add("Mul", "x", 50.0)), 1e-7, 1.0)),
]


@pytest.mark.parametrize("spell", GUARDED)
def test_what_keeps_a_quotient_or_a_logarithm_finite_is_still_there(spell: Callable[[Draft], str]) -> None:
    draft = Draft(x=(1, 4, 6, 6))
    model = draft.model(spell(draft))
    result = canonical_form(model)
    for factor in (0.0, 1e-9, -1.0, -1e3, 1e3):
        assert_equal_outputs(model, result, {"x": factor * weights(1, 4, 6, 6)}, tolerance=TOLERANCE)
