"""Two runs at once give what each gives alone, and hold few tensors at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.diagnosis import side_by_side as tested
from converter.diagnosis.side_by_side import side_by_side
from converter.testing.sketch import Sketch, classifier, feeds_for, plan_for
from converter.verify.simulation import Run, simulate_all


def test_tensors_are_those_of_the_simulation_inputs_first() -> None:
    planned = plan_for(classifier())
    feed = feeds_for(planned.model)[0]
    exact, quantized = simulate_all(planned.model, None, feed), simulate_all(planned.model, planned.plan, feed)
    found = {name: (mine, other) for name, mine, other in side_by_side(planned.model, planned.plan, feed)}
    assert next(iter(found)) == "x"
    assert set(found) == {"x", *(str(o.name) for node in planned.model.graph for o in node.outputs)}
    for name, (mine, other) in found.items():
        assert np.array_equal(mine, exact[name])
        if planned.plan.ops.get(name.removesuffix(".0")) is not None and planned.plan.ops[name.removesuffix(".0")].writes == "codes":
            assert other is not None and np.array_equal(other, quantized[name])


def test_an_input_is_seen_as_its_readers_see_it() -> None:
    planned = plan_for(classifier())
    feed = feeds_for(planned.model)[0]
    _, exact, other = next(iter(side_by_side(planned.model, planned.plan, feed)))
    params = planned.plan.tensors["x"].params
    assert params is not None and other is not None
    assert np.array_equal(exact, feed["x"])
    assert np.allclose(other, np.clip(feed["x"], params.lowest, params.highest), atol=params.scale[0] / 2 + 1e-6)


def test_what_lies_within_a_fused_group_is_not_compared() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Relu", sketch.conv(sketch.input("x", 1, 3, 8, 8), 3, name="layer"), name="act"))
    planned = plan_for(model)
    assert planned.plan.ops["layer"].writes == "fused"
    found = {name: other for name, _, other in side_by_side(model, planned.plan, feeds_for(model)[0])}
    assert found["layer.0"] is None and found["act.0"] is not None


def test_tensors_are_let_go_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    class Watched(Run):
        def one_by_one(self, nodes: Any) -> None:
            super().one_by_one(nodes)
            held.append(sum(not value.is_initializer() for value in self.made))

    sketch = Sketch()
    x = sketch.input("x", 1, 4, 4, 4)
    for _ in range(30):
        x = sketch.add("Relu", x)
    model = sketch.model(x)
    planned = plan_for(model)
    monkeypatch.setattr(tested, "Run", Watched)
    assert len(list(side_by_side(model, planned.plan, feeds_for(model)[0]))) == 31
    assert max(held) <= 4, "of 31 tensors"
