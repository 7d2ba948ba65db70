from __future__ import annotations

import numpy as np

from converter.methods.ranges import minmax
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams
from converter.testing.one_layer import solve


def test_activations_cover_what_was_seen() -> None:
    choice = solve(minmax.choose, [-1.0, 0.25, 3.0])
    assert choice.tensors == {"x": QuantParams((float(np.float32(4 / 255)),), (-64,), 8, True)}


def test_unsigned_codes_start_at_zero() -> None:
    assert solve(minmax.choose, [0.0, 25.5], signed=False).tensors["x"] == QuantParams((float(np.float32(0.1)),), (0,), 8, False)


def test_weights_reach_the_largest_magnitude_of_each_channel() -> None:
    grid = solve(minmax.choose, [1.0], [[1.27, -0.5], [0.2, -2.54], [0.0, 0.0]]).constants["layer", 1]
    assert grid == QuantParams((float(np.float32(0.01)), float(np.float32(0.02)), SMALLEST_SCALE), (0, 0, 0), 8, True, axis=0, narrow=True)


def test_fewer_bits_make_coarser_grids() -> None:
    choice = solve(minmax.choose, [-8.0, 7.0], [[7.0, -3.5]], bits=4, weight_bits=4)
    assert choice.tensors["x"] == QuantParams((1.0,), (0,), 4, True)
    assert choice.constants["layer", 1] == QuantParams((1.0,), (0,), 4, True, axis=0, narrow=True)
