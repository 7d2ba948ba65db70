from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.quantization.gated_activations import QuickGelu, clamp_codes, fit_quick_gelu, gate_grid, offset_grid, sigmoid_grid
from converter.quantization.parameters import FloatArray, QuantParams, affine_params, dequantize, quantize

SIGNED = QuantParams((0.1,), (-10,), 8, True)


@pytest.mark.parametrize("signed", [True, False])
def test_the_gate_runs_from_zero_to_six(signed: bool) -> None:
    gate = gate_grid(signed=signed)
    assert (gate.lowest, gate.bits, gate.signed, gate.reduced_range) == (0.0, 8, signed, False)
    assert gate.highest == pytest.approx(6.0, rel=1e-6)
    assert gate.rescaled(1 / 6).highest == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("signed", "highest"), [(True, 127), (False, 255)])
def test_three_is_the_highest_code_of_the_offset(signed: bool, highest: int) -> None:
    grid = offset_grid(signed=signed)
    code = quantize(np.asarray(3.0, np.float32), grid)
    assert int(code[()]) == highest
    assert float(dequantize(code, grid)[()]) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize(
    ("op_type", "limits", "expected"),
    [
        ("Relu", [], (-10, 127)),
        ("Clip", [], (-128, 127)),
        ("Clip", [None, None], (-128, 127)),
        ("Clip", [0.0, 6.0], (-10, 50)),  # 6 / 0.1 - 10
        ("Clip", [-1.0], (-20, 127)),
        ("Clip", [None, 0.5], (-128, -5)),
    ],
)
def test_clamps_as_codes_by_hand(op_type: str, limits: list[float | None], expected: tuple[int, int]) -> None:
    assert clamp_codes(op_type, limits, SIGNED) == expected


@given(low=st.floats(-5, 5), width=st.floats(0, 5), grid_low=st.floats(-4, 0), grid_high=st.floats(0, 4), signed=st.booleans())
def test_clamping_codes_equals_clamping_numbers(low: float, width: float, grid_low: float, grid_high: float, signed: bool) -> None:
    grid = affine_params(grid_low, grid_high, bits=8, signed=signed)
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    lowest, highest = clamp_codes("Clip", [low, low + width], grid)
    clamped = np.clip(x, np.float32(low), np.float32(low + width))
    np.testing.assert_array_equal(np.clip(quantize(x, grid), lowest, highest), quantize(clamped, grid))


def gelu(x: FloatArray) -> FloatArray:
    return np.asarray([v * 0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x.tolist()])


@pytest.mark.parametrize("signed", [True, False])
def test_the_product_reads_the_sigmoid_with_a_scale_and_a_zero_point_of_its_own(signed: bool) -> None:
    """The same codes mean 0 to 255/256 to the sigmoid and 1.02 * (s - 5/256) to the product."""
    opened = np.asarray([0.25, 0.5, 255 / 256], np.float32)
    codes = quantize(opened, sigmoid_grid(signed=signed))
    read = dequantize(codes, QuickGelu(1.7, 1.02, 5).read_grid(signed=signed))
    np.testing.assert_allclose(read, 1.02 * (opened - 5 / 256), rtol=1e-6)


@pytest.mark.parametrize(
    ("middle", "width", "least_db"), [(0.0, 0.1, 40.0), (0.0, 0.5, 44.0), (0.0, 1.0, 42.0), (0.0, 3.0, 42.0), (-1.0, 1.0, 32.0)]
)
def test_a_fitted_gate_is_close_to_gelu_on_usual_inputs(middle: float, width: float, least_db: float) -> None:
    x = np.random.default_rng(0).normal(middle, width, 4096)
    gate, error = fit_quick_gelu(x, gelu)
    codes = np.clip(np.rint(256 / (1 + np.exp(-gate.slope * x))), 0, 255)
    left = x * gate.height * (codes - gate.base) / 256 - gelu(x)
    assert np.square(left).mean() == pytest.approx(error, rel=1e-3)
    assert 10 * math.log10(np.square(gelu(x)).mean() / error) > least_db


@given(middle=st.floats(-4, 4), width=st.floats(1e-3, 8))
def test_a_fitted_gate_is_no_worse_than_the_common_one(middle: float, width: float) -> None:
    x = np.random.default_rng(0).normal(middle, width, 256).astype(np.float32).astype(np.float64)
    gate, error = fit_quick_gelu(x, gelu)
    common = np.clip(np.rint(256 / (1 + np.exp(-float(np.float32(1.7)) * x))), 0, 255) / 256
    assert error <= np.square(x * common - gelu(x)).mean() * (1 + 1e-6)
    assert 0.5 <= gate.height <= 2.0 and 0 <= gate.base < 128


def test_a_gate_without_inputs_to_fit() -> None:
    gate, error = fit_quick_gelu(np.zeros(16), gelu)
    assert error == 0.0 and gate.height == 1.0
