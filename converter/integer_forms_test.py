from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.grids import Grid, affine_grid, dequantize, quantize
from converter.integer_forms import clamp_codes, gate_grid, offset_grid

SIGNED = Grid((0.1,), (-10,), 8, True)


@pytest.mark.parametrize("signed", [True, False])
def test_the_gate_runs_from_zero_to_six(signed: bool) -> None:
    gate = gate_grid(signed=signed)
    assert (gate.lowest, gate.bits, gate.signed, gate.confined) == (0.0, 8, signed, False)
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
    grid = affine_grid(grid_low, grid_high, bits=8, signed=signed)
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    lowest, highest = clamp_codes("Clip", [low, low + width], grid)
    clamped = np.clip(x, np.float32(low), np.float32(low + width))
    np.testing.assert_array_equal(np.clip(quantize(x, grid), lowest, highest), quantize(clamped, grid))
