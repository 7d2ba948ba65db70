"""The simulation's float operators are the runtime's own, to the last bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.runtime import open_session, run_session
from converter.runtime_kernels import runtime_kernels
from converter.simulate import simulate
from converter.sketch_test import Sketch, feeds_for


def chain(activation: str) -> ir.Model:
    """Convolutions with so many channels that the runtime rearranges their weights, an activation between them."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 12, 12), 16, outputs=32)
    return sketch.model(sketch.conv(sketch.add(activation, x), 32, outputs=16))


@pytest.mark.parametrize("activation", ["HardSwish", "HardSigmoid", "Sigmoid", "Softmax", "Relu"])
def test_a_float_network_gives_the_same_bits(activation: str) -> None:
    model = chain(activation)
    (feed,) = feeds_for(model, 1)
    session = open_session(ir.to_proto(model), threads=1)
    (expected,) = run_session(session, feed).values()
    (got,) = simulate(model, None, feed, runtime_kernels()).values()
    np.testing.assert_array_equal(got, expected)


def test_convolutions_of_equal_shape_keep_their_own_weights() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    model = sketch.model(sketch.conv(sketch.conv(x, 8, outputs=8), 8, outputs=8))
    (feed,) = feeds_for(model, 1)
    (expected,) = run_session(open_session(ir.to_proto(model), threads=1), feed).values()
    (got,) = simulate(model, None, feed, runtime_kernels()).values()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
