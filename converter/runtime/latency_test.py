from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import pytest

from converter.runtime import latency, session
from converter.runtime.latency import latency_ratio
from converter.testing.sketch import Sketch, feeds_for


def convolutions(count: int) -> onnx.ModelProto:
    sketch = Sketch()
    x = sketch.input("x", 1, 32, 32, 32)
    for _ in range(count):
        x = sketch.conv(x, 32)
    return ir.to_proto(sketch.model(x))


def test_the_lighter_model_is_the_faster_one() -> None:
    heavy, light = convolutions(12), convolutions(1)
    feed = feeds_for(ir.from_proto(light), 1)[0]
    there = latency_ratio(heavy, light, feed, seconds=0.2)
    back = latency_ratio(light, heavy, feed, seconds=0.2)
    assert there.ratio > 2.0 > 0.5 > back.ratio
    assert there.low <= there.ratio <= there.high
    assert there.turns >= 5


def test_a_slow_model_is_still_run_five_times() -> None:
    model = convolutions(1)
    assert latency_ratio(model, model, feeds_for(ir.from_proto(model), 1)[0], seconds=0.0).turns == 5


def test_time_is_measured_as_on_a_device_where_threads_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_session(*arguments: Any, **flags: Any) -> Any:
        opened.append(flags["spinning"])
        return session.open_session(*arguments, **flags)

    monkeypatch.setattr(latency, "open_session", open_session)
    model = convolutions(1)
    latency_ratio(model, model, feeds_for(ir.from_proto(model), 1)[0], seconds=0.0)
    assert opened == [True, True]
