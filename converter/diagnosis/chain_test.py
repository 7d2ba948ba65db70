"""The network as a chain of bridge blocks and what lies between."""

from __future__ import annotations

from converter.diagnosis.chain import chain_of
from converter.diagnosis.records import Segment
from converter.sensitivity.bridge_blocks import Block
from converter.testing.sketch import Sketch, shapes_of


def test_what_lies_between_bridge_blocks_is_split_where_the_maps_change_their_size() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 3, 16, 16), 3, name="stem")
    x = sketch.add("Relu", x, name="act")
    x = sketch.conv(x, 3, strides=[2, 2], name="down")
    x = sketch.add("Sigmoid", x, name="inside")
    x = sketch.add("Tanh", x, name="inside too")
    x = sketch.add("GlobalAveragePool", x, name="pool")
    model = sketch.model(sketch.add("Flatten", x, name="flat"))
    block = Block("round trip", ("inside", "inside too"), (), (), (8, 8))
    assert chain_of(model, [block], shapes_of(model)) == (
        Segment("", (16, 16), ("stem", "act")),
        Segment("", (8, 8), ("down",)),
        Segment("round trip", (8, 8), ("inside", "inside too")),
        Segment("", None, ("pool", "flat")),
    )


def test_operators_of_integers_and_constants_are_left_out() -> None:
    sketch = Sketch()
    x = sketch.input("x", 2, 3)
    sketch.add("Shape", x, name="sizes")
    model = sketch.model(sketch.add("Relu", x, name="act"))
    assert [s.operators for s in chain_of(model, [], shapes_of(model))] == [("act",)]


def test_tensors_of_heads_and_tokens_and_those_with_their_channels_last_are_no_maps() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 4, 8, 8), 4, name="layer")
    x = sketch.add("Transpose", x, perm=[0, 2, 3, 1], name="channels last")
    model = sketch.model(sketch.add("Relu", x, name="act"))
    assert [(s.size, s.operators) for s in chain_of(model, [], shapes_of(model))] == [((8, 8), ("layer", "channels last", "act"))]
