from __future__ import annotations

import onnx_ir as ir

from converter.emit.proto import as_proto
from converter.testing.sketch import Sketch


def test_computed_tensors_have_a_shape_and_constants_are_not_described_twice() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Relu", sketch.conv(sketch.input("x", 1, 3, 8, 8), 3, name="conv")))
    whole, proto = ir.to_proto(model), as_proto(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    described = {info.name for info in proto.graph.value_info}
    assert constants and constants.isdisjoint(described) and not constants.isdisjoint(info.name for info in whole.graph.value_info)
    assert {n.output[0] for n in proto.graph.node} <= described | {o.name for o in proto.graph.output}
    assert list(proto.graph.node) == list(whole.graph.node) and list(proto.graph.initializer) == list(whole.graph.initializer)
