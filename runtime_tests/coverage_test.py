from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.runtime.session import open_session
from converter.testing.models import make_model
from converter.testing.multiplying import MULTIPLYING
from converter.testing.sketch import Sketch, feeds_for
from runtime_tests.coverage import coverage_of, measure_coverage, product_macs
from runtime_tests.subject import open_subject
from runtime_tests.testing.files import MACS, MakeFiles


@pytest.mark.parametrize("target", ["arm64", "x86"])
def test_without_its_plan_an_integer_model_is_covered_whole(make_files: MakeFiles, target: str) -> None:
    files = make_files(target=target)
    found = measure_coverage(open_subject(files.floats, files.int8))
    assert (found.integer_macs, found.total_macs, found.in_float) == (sum(MACS.values()), sum(MACS.values()), ())
    assert found.kernels["QLinearConv"] == 2


def test_a_float_model_has_none(make_files: MakeFiles) -> None:
    files = make_files()
    found = measure_coverage(open_subject(files.floats, files.floats))
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
    assert product_macs(ir.to_proto(model), feed, tmp_path) == {"sum": macs}


@pytest.mark.parametrize("case", MULTIPLYING)
def test_it_counts_what_the_converter_counts(case: str, tmp_path: Path) -> None:
    model, macs = MULTIPLYING[case]()
    assert product_macs(ir.to_proto(model), feeds_for(model, 1)[0], tmp_path) == ({"it": macs} if macs else {})


def test_what_multiplies_inside_and_is_not_counted_is_named() -> None:
    model = make_model(
        [onnx.helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["y"], "attention", domain="com.microsoft", num_heads=2)],
        [("x", onnx.TensorProto.FLOAT, [1, 4, 8])],
        [("y", onnx.TensorProto.FLOAT, [1, 4, 8])],
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert coverage_of(model, {"x": np.ones((1, 4, 8), np.float32)}, {}).uncounted == ("MultiHeadAttention",)


def test_what_the_runtime_does_not_fuse_counts_as_float_also_without_names(make_files: MakeFiles) -> None:
    """An output between the second convolution and its Q keeps that convolution from becoming an integer kernel."""

    def expose(model: onnx.ModelProto) -> None:
        convs = [node for node in model.graph.node if node.op_type == "Conv"]
        readers = [node for node in model.graph.node if convs[1].output[0] in node.input]
        readers[0].input[0] = "exposed"
        model.graph.node.insert(list(model.graph.node).index(readers[0]), onnx.helper.make_node("Erf", convs[1].output, ["exposed"]))
        for node in model.graph.node:
            node.name = ""

    files = make_files()
    files.edit(expose)
    found = measure_coverage(open_subject(files.floats, files.int8))
    assert [product.macs for product in found.in_float] == [MACS["second"]]
    assert found.integer_macs == MACS["first"] + MACS["head"]


def test_operators_that_are_integer_in_the_file_itself(make_files: MakeFiles) -> None:
    """What the runtime made of the model, written out and validated like any other file."""
    files = make_files()
    fused = files.int8.with_name("fused.onnx")
    open_session(files.int8, settings=open_subject(files.floats, files.int8).settings, optimised_path=fused)
    assert "QGemm" in {node.op_type for node in onnx.load(fused).graph.node}
    found = measure_coverage(open_subject(files.floats, fused))
    assert (found.percent, found.total_macs) == (100.0, sum(MACS.values()))
