"""Equalizations that need a Q with one scale per channel: found where float is written in any case, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import collect_statistics
from converter.emit.builder import emit
from converter.methods.names import MethodName
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.planning.make import Planned, make_plan
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from converter.testing.plans import equalizations_of
from converter.testing.sketch import Sketch, feeds_for, settings_for
from converter.verify.quality import sqnr

CHANNELS = 16
SPREAD = np.geomspace(0.05, 5.0, CHANNELS)


def uneven() -> tuple[ir.Model, str]:
    """A GELU whose channels' ranges differ a hundredfold and count alike, which no constant in front of it could mend; its output."""
    s = Sketch(0)
    x = s.conv(s.input("x", 1, CHANNELS, 8, 8), CHANNELS, size=1, group=CHANNELS, bias=False)
    spread = s.add("Gelu", s.add("Mul", x, s.constant(10.0 * SPREAD.reshape(CHANNELS, 1, 1))), name="gelu")
    weights = s.constant(np.random.default_rng(1).normal(size=(CHANNELS, 1, 3, 3)) / SPREAD[:, None, None, None])
    mixed = s.conv(s.add("Conv", spread, weights, group=CHANNELS, pads=[1, 1, 1, 1]), CHANNELS, size=1)
    return s.model(s.add("Flatten", s.add("GlobalAveragePool", s.add("Relu", mixed)))), spread


def planned(model: ir.Model, method: MethodName, excluded: tuple[str, ...] = (), **changes: Any) -> Planned:
    feeds = feeds_for(model, 8)

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, feeds, threads=1)

    options = Options(method=method, placement="all", parts=SearchParts(piecewise_linear=False), **changes)
    return make_plan(model, look(model), look, feeds, (), TARGETS["arm64"], options, frozenset(excluded))


def quality(model: ir.Model, result: Planned) -> float:
    """SQNR of the emitted model against the float one on other samples."""
    floats = open_session(ir.to_proto(model), threads=1)
    session = open_session(ir.to_proto(emit(result.model, result.plan, {})), threads=1, settings=settings_for(TARGETS["arm64"]))
    feeds = feeds_for(model, 8, seed=7)
    pairs = [[next(iter(run_session(s, feed).values())) for s in (floats, session)] for feed in feeds]
    return sqnr(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))


def test_behind_a_float_operator_channels_get_scales_of_their_own() -> None:
    model, tensor = uneven()
    result = planned(model, "q-hyvit", excluded=("gelu",))
    assert list(equalizations_of(result.plan)) == [tensor]
    scales = np.log(equalizations_of(result.plan)[tensor].scale)
    assert np.corrcoef(scales, np.log(SPREAD))[0, 1] > 0.7
    emitted = ir.to_proto(emit(result.model, result.plan, {}))
    sizes = {i.name: list(i.dims) for i in emitted.graph.initializer}
    assert [sizes[n.input[1]] for n in emitted.graph.node if n.op_type == "QuantizeLinear" and sizes[n.input[1]]] == [[CHANNELS]]
    assert quality(model, result) > quality(model, planned(model, "mse", excluded=("gelu",))) + 6.0


@pytest.mark.parametrize("case", ["an integer operator", "a full quantization"])
def test_what_writes_codes_gets_none(case: str) -> None:
    model, tensor = uneven()
    full = case == "a full quantization"
    result = planned(model, "q-hyvit", excluded=("gelu",) if full else (), full=full)
    assert tensor not in equalizations_of(result.plan)
