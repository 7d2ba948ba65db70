from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from converter.emit.file_bytes import bytes_of
from converter.planning.stored_weights import with_stored_weights
from converter.testing.sketch import Sketch, emitted, plan_for


def three_layers() -> Sketch:
    """A convolution of 16 x 8 x 3 x 3 with its bias, a linear layer of 16 x 60, and one of 60 x 10."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 4, 4), 8, outputs=16, name="conv")
    x = sketch.add("Flatten", sketch.add("GlobalAveragePool", x, name="mean"), name="flat")
    x = sketch.add("MatMul", x, sketch.normal(16, 60), name="wide")
    sketch.add("MatMul", x, sketch.normal(60, 10), name="narrow")
    return sketch


def test_each_constant_is_counted_by_hand() -> None:
    """Codes of the convolution have a byte, its scales and bias belong to the rest; the linear layers' weights have four bytes each."""
    planned = plan_for(three_layers().model("narrow.0"), integer=("conv",))
    proto = emitted(planned)
    found = bytes_of(proto, planned.plan)
    scalars = 4  # the Q of the input and of the convolution's output, and one DQ of each
    assert found.in_8_bits == 16 * 8 * 3 * 3 + 16 + scalars, "weights, and zero points"
    assert found.in_others == 4 * (16 + 16 + 16) + 4 * 16 + 4 * scalars, "codes, scales and zero points of the bias, and other scales"
    assert found.in_float == 4 * (16 * 60 + 60 * 10)
    assert found.total == proto.ByteSize() == len(proto.SerializeToString())
    assert [(each.bytes, each.operator, each.op_type) for each in found.largest] == [(3840, "wide", "MatMul"), (2400, "narrow", "MatMul")]
    assert all("cheaper in float" in each.reason for each in found.largest) and found.stored == 0


def test_stored_weights_count_as_codes() -> None:
    planned = plan_for(three_layers().model("narrow.0"), integer=())
    plain = bytes_of(emitted(planned), planned.plan)
    planned = replace(planned, plan=with_stored_weights(planned.model, planned.plan))
    proto = emitted(planned)
    found = bytes_of(proto, planned.plan)
    codes = 16 * 8 * 9 + 16 * 60 + 60 * 10
    assert (plain.in_8_bits, found.in_8_bits, found.stored) == (0, codes, 3)
    assert (plain.in_float, found.in_float) == (4 * (codes + 16), 4 * 16), "the bias is left; scales are no weights"
    assert found.largest[0].operator == "conv" and found.total == proto.ByteSize()


def test_numbers_of_other_forms_count_too() -> None:
    """Halves have two bytes, and a Constant node is a constant as well."""
    half = onnx.numpy_helper.from_array(np.zeros(10, np.float16), "half")
    node = onnx.helper.make_node("Constant", [], ["made"], value=onnx.numpy_helper.from_array(np.zeros(5, np.float32)))
    graph = onnx.helper.make_graph([node, onnx.helper.make_node("Add", ["half", "half"], ["y"], name="sum")], "g", [], [], [half])
    found = bytes_of(onnx.helper.make_model(graph), plan_for(three_layers().model("narrow.0"), integer=()).plan)
    assert found.in_float == 2 * 10 + 4 * 5 and [each.name for each in found.largest] == ["half", "made"]
    assert [each.operator for each in found.largest] == ["sum", ""] and found.largest[0].reason == ""
