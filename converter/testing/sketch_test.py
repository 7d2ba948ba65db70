from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, feeds_for


def test_a_sketch_is_a_valid_model_that_runs() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.silu(sketch.conv(sketch.input("x", 1, 4, 6, 6), 4)))
    (value,) = run_session(open_session(ir.to_proto(model), threads=1), feeds_for(model, 1)[0]).values()
    assert value.shape == (1, 4, 6, 6)
    assert np.isfinite(value).all()
