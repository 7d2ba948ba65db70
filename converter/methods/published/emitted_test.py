"""The published methods from plan to runtime: what they lay over softmax and norms is planned, emitted and runs as simulated."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import collect_statistics
from converter.emit.builder import emit
from converter.methods.names import MethodName
from converter.options import Options
from converter.planning.make import Planned, make_plan
from converter.runtime.session import open_session, run_session
from converter.testing.hybrid_plans import BY_SIZE, FEEDS, hybrid
from converter.testing.plans import quantizers_of
from converter.testing.sketch import settings_for
from converter.verify.quality import sqnr
from converter.verify.simulation import simulate

NONUNIFORM = {
    "easyquant": set(),
    "fq-vit": {"log-int-softmax", "power-of-two"},
    "ptq4vit": {"twin"},
    "repq-vit": {"log-sqrt2"},
}
"""What each lays over what it has a grid of its own for."""


def converted(method: MethodName, bits: str, **flags: Any) -> Planned:
    model = hybrid(activation_bits=int(bits[-1]))

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, FEEDS[:8], threads=1)

    options = Options(method=method, bits=bits, **flags)
    return make_plan(model, look(model), look, FEEDS[:8], (), BY_SIZE, options, frozenset())


@pytest.mark.parametrize("bits", ["W8A8", "W6A6"])
@pytest.mark.parametrize("flags", [{"placement": "all"}, {"full": True}], ids=["all", "full"])
@pytest.mark.parametrize("method", NONUNIFORM)
def test_the_runtime_computes_what_the_plan_says(method: MethodName, flags: dict[str, Any], bits: str) -> None:
    result = converted(method, bits, **flags)
    assert {c.kind for c in quantizers_of(result.plan).values()} == NONUNIFORM[method]
    session = open_session(ir.to_proto(emit(result.model, result.plan, {})), threads=1, settings=settings_for(BY_SIZE))
    floats = open_session(ir.to_proto(result.model), threads=1)
    runs = [(run_session(session, f), simulate(result.model, result.plan, f), run_session(floats, f)) for f in FEEDS[8:]]
    ran, simulated, exact = (np.stack([run[i]["logits"] for run in runs]) for i in range(3))
    assert sqnr(simulated, ran) > 35.0  # a tie in a float kernel may round the other way, and move a few codes behind it
    assert sqnr(exact, ran) > 8.0
