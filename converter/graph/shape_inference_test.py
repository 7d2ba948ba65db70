from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converter.errors import ModelError
from converter.graph.shape_inference import infer_shapes, without_weights
from converter.testing.models import make_model


def test_an_operator_without_an_opset_is_named() -> None:
    node = helper.make_node("Wobble", ["x"], ["y"], domain="nobody.imports.this")
    with pytest.raises(ModelError, match=r"nobody\.imports\.this"):
        infer_shapes(make_model([node], [("x", 1, [1])], [("y", 1, [1])]))


@pytest.mark.parametrize("size", [4, 4096])
def test_large_weights_are_not_handed_over_and_come_back(size: int) -> None:
    weight = np.arange(size, dtype=np.float32)
    model = make_model([helper.make_node("Add", ["x", "w"], ["y"])], [("x", 1, [size])], [("y", 1, [size])], initializers={"w": weight})
    seen: list[tuple[int, list[str]]] = []

    def call(given: onnx.ModelProto) -> onnx.ModelProto:
        seen.append((given.ByteSize(), [i.name for i in given.graph.input]))
        return given

    result = without_weights(call, model)
    assert seen[0][0] < 1000 and seen[0][1] == (["x", "w"] if size > 1024 else ["x"])
    assert [i.name for i in result.graph.input] == ["x"]
    assert np.array_equal(numpy_helper.to_array(result.graph.initializer[0]), weight)
