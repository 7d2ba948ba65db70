from __future__ import annotations

import onnx
import pytest

from converter.runtime import open_session
from runtime_tests.conftest import MACS, MakeFiles
from runtime_tests.coverage import measure_coverage
from runtime_tests.subject import open_subject


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
