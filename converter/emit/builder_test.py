from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from converter.emit.builder import OUTPUT_IR_VERSION, emit
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, parity, plan_for

targets = pytest.mark.parametrize("target", TARGET_NAMES)


def makers(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {o: n for n in proto.graph.node for o in n.output}


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}


def residual_model() -> ir.Model:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="first")
    y = sketch.conv(sketch.silu(x), 8, name="second")
    return sketch.model(sketch.add("Add", sketch.add("Erf", x), y, name="sum"))


def test_every_tensor_has_one_q_and_every_reader_one_dq() -> None:
    proto = emitted(plan_for(residual_model()))
    weights = arrays(proto)
    q = Counter(n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear")
    assert set(q.values()) == {1}
    read = Counter(i for n in proto.graph.node for i in n.input)
    read.update(o.name for o in proto.graph.output)
    dq = [n for n in proto.graph.node if n.op_type == "DequantizeLinear"]
    assert all(read[n.output[0]] == 1 for n in dq)
    assert all(read[n.input[0]] == 1 for n in dq if n.input[0] in weights)


def test_no_q_or_dq_stands_inside_a_group() -> None:
    """The convolution that a Relu ends, and the two operators of an integer HardSwish, meet no more Qs than they need."""
    sketch = Sketch()
    x = sketch.add("Relu", sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="conv"), name="relu")
    proto = emitted(plan_for(sketch.model(sketch.add("HardSwish", x, name="swish"))))
    readers = {i: n for n in proto.graph.node for i in n.input}
    (conv,) = [n for n in proto.graph.node if n.op_type == "Conv"]
    behind = readers[conv.output[0]]
    assert behind.op_type == "QuantizeLinear" and not any(n.op_type == "Relu" for n in proto.graph.node)
    assert Counter(n.op_type for n in proto.graph.node if n.op_type in ("QuantizeLinear", "Add", "Mul")) == {
        "QuantizeLinear": 4,
        "Add": 1,
        "Mul": 1,
    }


def test_integer_operators_stand_between_dq_and_q() -> None:
    proto = emitted(plan_for(residual_model()))
    made = makers(proto)
    readers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node.op_type)
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Sigmoid", "Mul"):
            assert {made[i].op_type for i in node.input} == {"DequantizeLinear"}
            assert readers[node.output[0]] == ["QuantizeLinear"]


@targets
def test_constants_that_two_layers_read_are_stored_twice(target: str) -> None:
    sketch = Sketch()
    weight, bias, offset = sketch.normal(8, 8, 1, 1), sketch.normal(8), sketch.normal(8, 1, 1)
    x = sketch.add("Conv", sketch.input("x", 1, 8, 6, 6), weight, bias, name="first")
    x = sketch.add("Add", sketch.add("Add", sketch.add("Conv", x, weight, bias, name="second"), offset), offset)
    planned = plan_for(sketch.model(x), target)
    proto = emitted(planned)
    assert len([n for n, a in arrays(proto).items() if a.shape == (8, 8, 1, 1)]) == 2
    settings = {"session.x64quantprecision": "1"} if target == "x86" else None
    assert parity(planned, proto, settings=settings) == 200.0


def test_a_weight_that_a_float_operator_reads_too_stays_available() -> None:
    sketch = Sketch()
    weight = sketch.normal(8, 8)
    x = sketch.add("MatMul", sketch.input("x", 3, 8), weight, name="linear")
    planned = plan_for(sketch.model(x, sketch.add("Sub", sketch.input("y", 8, 8), weight)))
    proto = emitted(planned)
    assert {a.dtype.name for a in arrays(proto).values() if a.shape == (8, 8)} == {"int8", "float32"}
    assert parity(planned, proto) == 200.0


def test_the_interface_opset_and_metadata() -> None:
    planned = plan_for(residual_model())
    proto = emitted(planned, {"b": "2", "a": "1"})
    before = ir.to_proto(planned.model)
    assert (list(proto.graph.input), list(proto.graph.output)) == (list(before.graph.input), list(before.graph.output))
    assert {p.key: p.value for p in proto.metadata_props} == {"b": "2", "a": "1"}
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]
    assert proto.ir_version == OUTPUT_IR_VERSION == 9


def test_emission_leaves_the_canonical_model_alone_and_is_reproducible() -> None:
    planned = plan_for(residual_model())
    before = ir.to_proto(planned.model).SerializeToString(deterministic=True)
    first, second = (ir.to_proto(emit(planned.model, planned.plan, {})).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert ir.to_proto(planned.model).SerializeToString(deterministic=True) == before


def test_names_of_the_model_are_kept_apart_from_new_ones() -> None:
    """Tensors and nodes that are called what the emitter would like to call its own."""
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    a = sketch.conv(x, 8, name="x_QuantizeLinear")
    b = sketch.conv(a, 8, name="x_x_QuantizeLinear_DequantizeLinear")
    c = sketch.conv(b, 8, name="x_scale")
    planned = plan_for(sketch.model(c, a))
    proto = emitted(planned)
    names = (
        [o for n in proto.graph.node for o in n.output] + [i.name for i in proto.graph.initializer] + [i.name for i in proto.graph.input]
    )
    assert len(set(names)) == len(names)
    assert len({n.name for n in proto.graph.node}) == len(proto.graph.node)
    assert parity(planned, proto) == 200.0


@pytest.mark.parametrize("last", ["relabel", "absorbed", "movement", "hardswish", "float behind codes"])
@targets
def test_outputs_of_every_kind_keep_their_names(last: str, target: str) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8)
    y = {
        "relabel": lambda: sketch.add("Mul", x, sketch.constant(0.25), name="last"),
        "absorbed": lambda: sketch.add("Relu", x, name="last"),
        "movement": lambda: sketch.add("Transpose", x, name="last"),
        "hardswish": lambda: sketch.add("HardSwish", x, name="last"),
        "float behind codes": lambda: sketch.add("Abs", x, name="last"),
    }[last]()
    planned = plan_for(sketch.model(y), target)
    proto = emitted(planned)
    assert [o.name for o in proto.graph.output] == ["last.0"]
    assert parity(planned, proto) == 200.0


def test_a_constant_as_model_output() -> None:
    sketch = Sketch()
    sketch.input("x", 3)
    model = sketch.model(sketch.add("Sigmoid", "x"), sketch.normal(2))
    proto = emitted(plan_for(model))
    (name,) = [o.name for o in proto.graph.output if o.name.startswith("constant")]
    got = run_session(open_session(proto, threads=1), feeds_for(model, 1)[0])[name]
    np.testing.assert_array_equal(got, arrays(proto)[name])


def test_integer_inputs_and_shape_arithmetic_pass_through() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, name="conv")
    shape = sketch.add("Concat", sketch.add("Shape", x, end=2), sketch.constant([-1], np.int64), axis=0)
    planned = plan_for(sketch.model(sketch.add("Reshape", x, shape, name="flat")))
    assert planned.plan.ops["flat"].runs == "integer"
    assert parity(planned, emitted(planned)) == 200.0


def test_weights_that_nobody_reads_any_more_are_dropped() -> None:
    proto = emitted(plan_for(residual_model()))
    used = {i for n in proto.graph.node for i in n.input}
    assert set(arrays(proto)) <= used
    assert not any(a.dtype == np.float32 and a.size > 8 for a in arrays(proto).values()), "a float weight was left in the file"


def test_weights_are_symmetric_per_output_channel_with_exact_bias_scales() -> None:
    sketch = Sketch()
    proto = emitted(plan_for(sketch.model(sketch.conv(sketch.input("x", 1, 8, 6, 6), 8, outputs=12))))
    stored, made = arrays(proto), makers(proto)
    (conv,) = [n for n in proto.graph.node if n.op_type == "Conv"]
    x, weight, bias = ([stored.get(name) for name in made[value].input] for value in conv.input)
    assert x[1] is not None and weight[1] is not None and weight[0] is not None and bias[0] is not None and bias[1] is not None
    assert weight[0].dtype == np.int8 and weight[0].min() >= -127
    assert weight[1].shape == (12,) and weight[2] is not None and not weight[2].any()
    assert bias[0].dtype == np.int32
    np.testing.assert_array_equal(bias[1], np.float32(x[1]) * weight[1])
