"""Values that follow from shapes, and those that do not."""

from __future__ import annotations

import numpy as np

from converter.sensitivity.known_values import values_from_shapes
from converter.testing.sketch import Sketch

SHAPES = {"x": (2, 4, 6, 6)}


def test_what_follows_from_a_shape_is_evaluated() -> None:
    s = Sketch()
    batch = s.add("Gather", s.add("Shape", s.input("x", "n", 4, 6, 6)), s.constant([0], np.int64), axis=0)
    s.add("Concat", batch, s.add("Mul", batch, s.constant([3], np.int64)), s.constant([-1], np.int64), axis=0, name="target")
    assert values_from_shapes(s.model("target.0", dtype=7), SHAPES)["target.0"].tolist() == [2, 6, -1]


def test_the_shape_of_what_is_evaluated_is_known_too() -> None:
    s = Sketch()
    count = s.add("ConstantOfShape", s.add("Shape", s.input("x", "n", 4, 6, 6)))
    s.add("Size", count, name="size")
    assert values_from_shapes(s.model("size.0", dtype=7), SHAPES)["size.0"].item() == 2 * 4 * 6 * 6


def test_what_depends_on_numbers_of_an_input_is_not_known() -> None:
    s = Sketch()
    x = s.input("x", "n", 4, 6, 6)
    s.add("Add", s.add("ArgMax", x, axis=3), s.add("Gather", s.add("Shape", x, name="shape"), s.constant(0, np.int64)), name="sum")
    known = values_from_shapes(s.model("sum.0", dtype=7), SHAPES)
    assert set(known) == {"shape.0", *(name for name in known if name.startswith("gather"))} and len(known) == 2


def test_an_operator_without_a_rule_ends_nothing() -> None:
    s = Sketch()
    shape = s.add("Shape", s.input("x", "n", 4, 6, 6))
    noise = s.add("RandomNormalLike", s.add("Cast", shape, to=1, name="floats"), name="noise")
    assert set(values_from_shapes(s.model(noise), SHAPES)) == {shape, "floats.0"}
