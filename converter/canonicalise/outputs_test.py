from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.canonicalise import canonicalise
from converter.canonicalise.outputs import distinct_outputs, restore_outputs, set_outputs_aside
from converter.errors import ModelError
from converter.methods.names import MethodName
from converter.options import Options
from converter.pipeline import convert
from converter.runtime.session import open_session
from converter.testing.models import make_model
from converter.testing.rewrites import Array, weights
from converter.verify.quality import sqnr

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SHAPE: list[int | str | None] = [1, 4, 6, 6]
FEED = {"x": weights(1, 4, 6, 6)}
ANCHORS = weights(5, 4, seed=1)
Outputs = list[tuple[str, int, list[int | str | None] | None]]


def network(outputs: Outputs, *nodes: onnx.NodeProto, **initializers: Array) -> onnx.ModelProto:
    """Two convolutions, x to y, with ``inner`` between them; and whatever else is given."""
    constants = {"w0": weights(4, 4, 3, 3), "w1": weights(4, 4, 3, 3, seed=2), "anchors": ANCHORS, "two": np.float32(2), **initializers}
    chain = [
        helper.make_node("Conv", ["x", "w0"], ["raw"], pads=[1] * 4),
        helper.make_node("Relu", ["raw"], ["inner"]),
        helper.make_node("Conv", ["inner", "w1"], ["y"], pads=[1] * 4),
    ]
    return make_model([*nodes, *chain], [("x", FLOAT, SHAPE)], outputs, initializers={k: np.asarray(v) for k, v in constants.items()})


Y: Outputs = [("y", FLOAT, SHAPE)]
PRIORS: Outputs = [("priors", FLOAT, [5, 4])]
CASES: dict[str, onnx.ModelProto] = {
    "an initializer": network([*Y, ("anchors", FLOAT, [5, 4])]),
    "a Constant node": network([*PRIORS, *Y], helper.make_node("Constant", [], ["priors"], value=numpy_helper.from_array(ANCHORS))),
    "folded": network([*Y, *PRIORS], helper.make_node("Mul", ["anchors", "two"], ["priors"])),
    "a copy of an initializer": network([*Y, *PRIORS], helper.make_node("Identity", ["anchors"], ["priors"])),
    "a constant of open shape": network([*Y, ("priors", FLOAT, ["n", 4])], helper.make_node("Mul", ["anchors", "two"], ["priors"])),
    "the shape of the input": network([*Y, ("size", INT64, [4])], helper.make_node("Shape", ["x"], ["size"])),
    "a constant softmax": network([*Y, ("one", FLOAT, [1, 4, 6, 6])], helper.make_node("Softmax", ["x"], ["one"], axis=0)),
    "read inside too": network([*Y, ("two", FLOAT, []), ("more", FLOAT, SHAPE)], helper.make_node("Mul", ["x", "two"], ["more"])),
    "an input passed through": network([("x", FLOAT, SHAPE), *Y]),
    "a copy of an input": network([*Y, ("same", FLOAT, SHAPE)], helper.make_node("Identity", ["x"], ["same"])),
    "an output twice": network([*Y, *Y]),
    "a constant and an input twice": network(
        [("anchors", FLOAT, [5, 4]), ("x", FLOAT, SHAPE), *Y, ("anchors", FLOAT, [5, 4]), ("x", FLOAT, SHAPE)]
    ),
    "a copy of an output, twice": network([("z", FLOAT, SHAPE), *Y, ("z", FLOAT, SHAPE)], helper.make_node("Identity", ["y"], ["z"])),
    "an inner tensor": network([("inner", FLOAT, SHAPE), *Y, ("raw", FLOAT, SHAPE)]),
    "the same computed twice": network([*Y, ("z", FLOAT, SHAPE)], helper.make_node("Conv", ["inner", "w1"], ["z"], pads=[1] * 4)),
}
for case in ("a copy of an output, twice", "the same computed twice"):
    CASES[case].graph.node.append(CASES[case].graph.node.pop(0))  # it reads what the chain makes


def outputs_of(model: onnx.ModelProto) -> list[Array]:
    """In the order of the list of outputs, as often as they are in it."""
    session = open_session(model)
    result: list[Array] = [np.asarray(v) for v in session.run([o.name for o in session.get_outputs()], FEED)]
    return result


@pytest.mark.parametrize("method", ["minmax", "q-hyvit"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("few_turns")
def test_a_conversion_keeps_outputs_that_need_no_computing(name: str, method: MethodName, tmp_path: Path) -> None:
    source, result, data = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "calib.npz"
    source.write_bytes(CASES[name].SerializeToString())
    np.savez(data, x=np.concatenate([FEED["x"] * s for s in (1.0, -1.0, 1.0, -1.0)]))
    report = convert(source, result, Options(calib=data, method=method, samples=2, threads=1, placement="all"))
    before, after = CASES[name], onnx.load(result)
    assert [o.SerializeToString() for o in after.graph.output] == [o.SerializeToString() for o in before.graph.output]
    assert report.verdict is not None
    assert {o.name for o in report.verdict.outputs} == {o.name for o in before.graph.output}
    computed = {"y", "z", "inner", "raw", "more", "same"}
    for output, right, value in zip(before.graph.output, outputs_of(before), outputs_of(after), strict=True):
        if output.name in computed:
            assert sqnr(right, value) > 25
        else:
            np.testing.assert_array_equal(value, right)
            assert value.dtype == right.dtype


def test_the_canonical_model_has_only_outputs_that_are_computed_each_once() -> None:
    model = network(
        [*Y, ("anchors", FLOAT, [5, 4]), *PRIORS, ("x", FLOAT, SHAPE), *Y], helper.make_node("Mul", ["anchors", "two"], ["priors"])
    )
    canonical = canonicalise(model, [FEED])
    assert [o.name for o in canonical.model.graph.outputs] == ["y"]
    assert set(canonical.constants) == {"anchors", "priors"}
    np.testing.assert_array_equal(canonical.constants["priors"], 2 * ANCHORS)
    assert not {"anchors", "priors"} & set(canonical.model.graph.initializers)


def test_chance_is_no_constant() -> None:
    random = helper.make_node("RandomNormal", [], ["noise"], shape=[5, 4])
    proto = network([*Y, ("sum", FLOAT, [5, 4])], random, helper.make_node("Add", ["noise", "anchors"], ["sum"]))
    model: ir.Model = ir.from_proto(proto)
    assert set_outputs_aside(model, {}) == {}
    assert [o.name for o in model.graph.outputs] == ["y", "sum"]


@pytest.mark.parametrize("outputs", [[("anchors", FLOAT, [5, 4])], [("x", FLOAT, SHAPE)], [("x", FLOAT, SHAPE), *PRIORS]])
def test_a_model_that_computes_no_output_is_refused(outputs: Outputs) -> None:
    model = network(outputs, helper.make_node("Mul", ["anchors", "two"], ["priors"]))
    with pytest.raises(ModelError, match="no output depends on what the model computes") as caught:
        canonicalise(model, [FEED])
    assert caught.value.hint


def test_the_model_is_not_copied_if_its_outputs_are_distinct() -> None:
    model = network([*Y])
    assert distinct_outputs(model) is model
    twice = network([("inner", FLOAT, SHAPE), *Y, *Y, ("inner", FLOAT, SHAPE)])
    assert [o.name for o in distinct_outputs(twice).graph.output] == ["inner", "y"]
    assert len(twice.graph.output) == 4


@pytest.mark.parametrize("taken", ["node", "initializer"])
def test_a_tensor_that_has_taken_the_name_of_a_constant_output_makes_way(taken: str) -> None:
    source = network([*Y, *PRIORS], helper.make_node("Mul", ["anchors", "two"], ["priors"]))
    emitted = network([*Y], priors=np.zeros((4,), np.float32)) if taken == "initializer" else network([*Y])
    if taken == "node":
        emitted.graph.node[0].output[0] = emitted.graph.node[1].input[0] = "priors"
    else:
        emitted.graph.node[0].input.append("priors")
    expected = outputs_of(emitted)[0]
    model: ir.Model = ir.from_proto(emitted)
    restore_outputs(model, source, {"priors": 2 * ANCHORS})
    y, priors = outputs_of(ir.to_proto(model))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(priors, 2 * ANCHORS)
