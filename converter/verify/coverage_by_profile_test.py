from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.runtime.session import open_session
from converter.targets import TARGETS
from converter.testing.models import make_model
from converter.testing.multiplying import MULTIPLYING
from converter.testing.sketch import MACS, Sketch, classifier, emitted, feeds_for, plan_for, settings_for
from converter.verify.coverage_by_profile import Coverage, coverage_of, macs_by_profile


def coverage(model: onnx.ModelProto, target: str = "arm64") -> Coverage:
    return coverage_of(model, feeds_for(classifier(), 1)[0], settings_for(TARGETS[target]))


@pytest.mark.parametrize("target", ["arm64", "x86"])
def test_without_its_plan_an_integer_model_is_covered_whole(target: str) -> None:
    found = coverage(emitted(plan_for(classifier(), target)), target)
    assert (found.integer_macs, found.total_macs, found.in_float) == (sum(MACS.values()), sum(MACS.values()), ())
    assert found.kernels["QLinearConv"] == 2


def test_a_float_model_has_none() -> None:
    found = coverage(ir.to_proto(classifier()))
    assert (found.percent, found.total_macs) == (0.0, sum(MACS.values()))
    assert [(product.name, product.macs) for product in found.in_float] == sorted(MACS.items(), key=lambda item: -item[1])


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("bhid, bhjd -> bhij", [(1, 2, 6, 4), (1, 2, 7, 4)], 2 * 6 * 7 * 4),
        ("...ij,jk", [(2, 3, 4, 5), (5, 6)], 2 * 3 * 4 * 5 * 6),
        ("i,j->ij", [(3,), (4,)], 12),
    ],
)
def test_an_einsum_multiplies_once_for_each_combination_of_indices(
    equation: str, shapes: list[tuple[int, ...]], macs: int, tmp_path: Path
) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Einsum", *(sketch.input(f"x{i}", *s) for i, s in enumerate(shapes)), name="sum", equation=equation))
    feed = {f"x{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    assert macs_by_profile(ir.to_proto(model), feed, tmp_path) == {"sum": macs}


@pytest.mark.parametrize("case", MULTIPLYING)
def test_it_counts_what_the_converter_counts(case: str, tmp_path: Path) -> None:
    model, macs = MULTIPLYING[case]()
    assert macs_by_profile(ir.to_proto(model), feeds_for(model, 1)[0], tmp_path) == ({"it": macs} if macs else {})


def test_what_multiplies_inside_and_is_not_counted_is_named() -> None:
    model = make_model(
        [onnx.helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["y"], "attention", domain="com.microsoft", num_heads=2)],
        [("x", onnx.TensorProto.FLOAT, [1, 4, 8])],
        [("y", onnx.TensorProto.FLOAT, [1, 4, 8])],
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert coverage_of(model, {"x": np.ones((1, 4, 8), np.float32)}, {}).uncounted == ("MultiHeadAttention",)


def test_what_the_runtime_does_not_fuse_counts_as_float_also_without_names() -> None:
    """An output between the second convolution and its Q keeps that convolution from becoming an integer kernel."""
    model = emitted(plan_for(classifier()))
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    readers = [node for node in model.graph.node if convs[1].output[0] in node.input]
    readers[0].input[0] = "exposed"
    model.graph.node.insert(list(model.graph.node).index(readers[0]), onnx.helper.make_node("Erf", convs[1].output, ["exposed"]))
    for node in model.graph.node:
        node.name = ""
    found = coverage(model)
    assert [product.macs for product in found.in_float] == [MACS["second"]]
    assert found.integer_macs == MACS["first"] + MACS["head"]


def test_operators_that_are_integer_in_the_file_itself(tmp_path: Path) -> None:
    """What the runtime made of the model, written out and validated like any other file."""
    fused = tmp_path / "fused.onnx"
    open_session(emitted(plan_for(classifier())), settings=settings_for(TARGETS["arm64"]), optimised_path=fused)
    assert "QGemm" in {node.op_type for node in onnx.load(fused).graph.node}
    found = coverage(onnx.load(fused))
    assert (found.percent, found.total_macs) == (100.0, sum(MACS.values()))
