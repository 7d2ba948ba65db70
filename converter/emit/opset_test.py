"""An emitted graph in older and newer opsets: as low as it goes, the same numbers, and a clear refusal where it does not go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.emit.opset import opset_range, write_in_opset
from converter.emit.requirement import required_runtime
from converter.errors import ModelError, UsageError
from converter.options import Options
from converter.runtime.session import run_model
from converter.testing.sketch import Sketch, classifier, emitted, feeds_for, plan_for

Build = Callable[[Sketch, str], str]


def of(build: Build) -> ir.Model:
    """One operator on ``x`` [1, 4, 6, 6]."""
    s = Sketch()
    return s.model(build(s, s.input("x", 1, 4, 6, 6)))


def stamp(model: ir.Model) -> tuple[int, int]:
    return model.graph.opset_imports[""], model.ir_version


def unchanged(model: ir.Model, opset: int | None) -> onnx.ModelProto:
    """The model written in an opset, which is valid and computes the same to the last bit."""
    wanted = [run_model(ir.to_proto(model), feed, optimise=False) for feed in feeds_for(model, 2)]
    write_in_opset(model, opset)
    proto: onnx.ModelProto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    for feed, before in zip(feeds_for(model, 2), wanted, strict=True):
        after = run_model(proto, feed, optimise=False)
        assert all(np.array_equal(after[name], value) for name, value in before.items())
    return proto


@pytest.mark.parametrize(
    ("build", "lowest"),
    [
        (lambda s, x: s.add("Relu", x), (13, 7)),
        (lambda s, x: s.add("HardSwish", x), (14, 7)),
        (lambda s, x: s.add("LayerNormalization", x, s.normal(6)), (17, 8)),
        (lambda s, x: s.add("Mish", x), (18, 8)),
        (lambda s, x: s.add("Gelu", x), (20, 9)),
        (lambda s, x: s.add("ReduceMean", x, s.constant([2, 3], np.int64)), (13, 7)),
        (lambda s, x: s.add("ReduceMax", x, keepdims=0), (13, 7)),
        (lambda s, x: s.add("ReduceSum", x, s.constant([1], np.int64)), (13, 7)),
        (lambda s, x: s.add("Reshape", x, s.constant([1, 4, 36], np.int64), allowzero=0), (13, 7)),
        (lambda s, x: s.add("Reshape", x, s.constant([1, 4, 36], np.int64), allowzero=1), (14, 7)),
        (lambda s, x: s.add("Concat", *s.split("Split", x, outputs=2, axis=1, num_outputs=2), axis=3), (13, 7)),
        (lambda s, x: s.add("Resize", x, "", s.constant([1, 1, 2, 2]), mode="nearest"), (13, 7)),
        (lambda s, x: s.add("Resize", x, "", s.constant([1, 1, 0.5, 0.5]), mode="linear", antialias=1), (18, 8)),
        (lambda s, x: s.add("Pad", x, s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), (13, 7)),
        (lambda s, x: s.add("Pad", x, s.constant([1, 1, 1, 1], np.int64), "", s.constant([2, 3], np.int64)), (18, 8)),
        (lambda s, x: s.add("Pad", x, s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="wrap"), (19, 9)),
        (lambda s, x: s.add("AveragePool", x, kernel_shape=[2, 2]), (19, 9)),
    ],
)
def test_the_lowest_opset_and_ir_version_of_an_operator(build: Build, lowest: tuple[int, int]) -> None:
    model = of(build)
    unchanged(model, None)
    assert stamp(model) == lowest


def test_axes_become_an_attribute_and_their_constant_goes() -> None:
    model = of(lambda s, x: s.add("ReduceMean", x, s.constant([2, 3], np.int64)))
    write_in_opset(model)
    (node,) = model.graph
    assert (len(node.inputs), list(node.attributes["axes"].as_ints()), dict(model.graph.initializers)) == (1, [2, 3], {})


def test_a_constant_that_another_node_reads_stays() -> None:
    s = Sketch()
    x, axes = s.input("x", 1, 4, 6, 6), s.constant([2, 3], np.int64)
    model = s.model(s.add("ReduceMean", x, axes), s.add("ReduceSum", x, axes))
    unchanged(model, None)
    assert list(model.graph.initializers) == [axes]


def test_the_whole_graph_has_the_opset_of_its_newest_operator() -> None:
    model = of(lambda s, x: s.add("LayerNormalization", s.add("HardSwish", x), s.normal(6)))
    unchanged(model, None)
    assert stamp(model) == (17, 8)


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("opset", [13, 16, 19, 20, 21, 22])
def test_a_quantized_network_computes_the_same_in_every_opset(target: str, opset: int) -> None:
    model = ir.from_proto(emitted(plan_for(classifier(), target)))
    proto = unchanged(model, opset)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]
    assert sum(n.op_type == "QuantizeLinear" for n in proto.graph.node) > 2


@pytest.mark.parametrize(("opset", "bound"), [(19, "20 or newer"), (13, "20 or newer")])
def test_an_opset_without_the_operator_is_refused(opset: int, bound: str) -> None:
    model = of(lambda s, x: s.add("Relu", s.add("Gelu", x, name="mlp/act")))
    with pytest.raises(ModelError) as caught:
        write_in_opset(model, opset)
    assert f"cannot be written in opset {opset}: its Gelu needs {bound}" in str(caught.value)
    assert caught.value.where == "node 'mlp/act'" and stamp(model)[0] == 20


def test_an_operator_that_was_redefined_is_no_newer_one() -> None:
    s = Sketch()
    grid = s.constant(s.generator.uniform(-1, 1, (1, 5, 5, 2)))
    model = s.model(s.add("GridSample", s.input("x", 1, 4, 6, 6), grid, mode="linear"))
    assert [opset_range(n) for n in model.graph] == [(20, 22)]


@pytest.mark.parametrize("opset", [12, 23, 0, -1])
def test_opsets_that_no_result_is_written_in(opset: int) -> None:
    with pytest.raises(UsageError, match=f"cannot be written in opset {opset}"):
        Options(opset=opset)


@pytest.mark.parametrize(
    ("target", "opset", "requirement"), [("arm64", 13, "1.17"), ("x86", 13, "1.19"), ("x86", 20, "1.19"), ("x86", 21, "1.20")]
)
def test_unsigned_activations_need_a_newer_runtime(target: str, opset: int, requirement: str) -> None:
    model = ir.from_proto(emitted(plan_for(classifier(), target)))
    write_in_opset(model, opset)
    assert required_runtime(ir.to_proto(model)) == f"onnxruntime>={requirement}"


@pytest.mark.parametrize(("opset", "requirement"), [(13, ">=1.17"), (20, ">=1.17"), (21, ">=1.20"), (22, ">=1.21")])
def test_what_an_opset_needs_of_the_runtime(opset: int, requirement: str) -> None:
    model = of(lambda s, x: s.add("Relu", x))
    write_in_opset(model, opset)
    assert required_runtime(ir.to_proto(model)) == f"onnxruntime{requirement}"
