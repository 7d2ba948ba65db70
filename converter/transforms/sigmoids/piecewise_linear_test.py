"""Piecewise-linear sigmoids: the numbers, where they may stand, and that they run as planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import UsageError
from converter.forms.form import SupportedForm
from converter.partition.sigmoid_forms import find_sigmoid_sites, piecewise_linear_forms
from converter.partition.write_assignment import write_assignment
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.planning.validate import adopt_plan, check_plan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams, affine_params, dequantize, quantize
from converter.targets import Cost
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, kernels_of, parity, plan_for
from converter.transforms.sigmoids.piecewise_linear import (
    PiecewiseLinear,
    approximation,
    approximation_params,
    clip_limits,
    fit_constant_gate,
    fit_piecewise_linear,
    gating_error,
)

CHANNELS = 8
WIDE = PiecewiseLinear(0.19, 0.5, 0.03, 0.97)


def silu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x / (1.0 + np.exp(-x))
    return result


def test_a_piecewise_linear_sigmoid_by_hand() -> None:
    x = np.asarray([-10.0, -2.0, 0.0, 1.0, 10.0])
    assert np.allclose(approximation(x, PiecewiseLinear(0.25, 0.5, 0.1, 0.9)), [0.1, 0.1, 0.5, 0.75, 0.9])


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-0.5, 1.5), (0.0, 2.0), (-1.0, 3.0)])
def test_a_fitted_piecewise_linear_sigmoid_leaves_little_of_silus_power_and_beats_hard_swish(mean: float, deviation: float) -> None:
    x = np.random.default_rng(0).normal(mean, deviation, 4096)
    power, hard = np.square(silu(x)).mean(), x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)
    left = np.square(x * approximation(x, fit_piecewise_linear(x)) - silu(x)).mean()
    assert left < 0.004 * power
    assert left < 0.7 * np.square(hard - silu(x)).mean()


def test_a_constant_gate_by_hand() -> None:
    """Weights are squares: (1 * sigmoid(1) + 4 * sigmoid(-2)) / 5."""
    x = np.asarray([1.0, -2.0, 0.0])
    constant_gate = fit_constant_gate(x)
    height = (0.7310586 + 4.0 * 0.1192029) / 5.0
    assert constant_gate.is_constant and np.allclose([constant_gate.offset, constant_gate.low, constant_gate.high], height)
    wanted = np.asarray([0.7310586, -0.2384058])
    assert gating_error(x, constant_gate) == pytest.approx(np.square([height, -2.0 * height] - wanted).sum() / np.square(wanted).sum())
    assert gating_error(np.zeros(3), fit_constant_gate(np.zeros(3))) == 0.0


@pytest.mark.parametrize("x", [50.0, -200.0])
def test_a_constant_gate_of_a_sigmoid_at_its_end_is_still_between_zero_and_one(x: float) -> None:
    assert 0.0 < fit_constant_gate(np.full(4, x)).low < 1.0


@given(deviation=st.floats(0.001, 5.0), nudge=st.floats(-0.1, 0.1))
def test_no_other_constant_gate_is_closer_to_silu(deviation: float, nudge: float) -> None:
    x = np.random.default_rng(0).normal(0.0, deviation, 512)
    best = fit_constant_gate(x)
    assert gating_error(x, best) <= gating_error(x, PiecewiseLinear(0.0, *[best.offset + nudge] * 3)) + 1e-9


@given(low=st.floats(-20.0, -3.0), high=st.floats(3.0, 20.0), signed=st.booleans())
def test_clamped_codes_on_its_grid_are_the_piecewise_linear_sigmoid(low: float, high: float, signed: bool) -> None:
    """To half a step for the offset, and half a step for the ends."""
    grid = affine_params(low, high, bits=8, signed=signed)
    made = approximation_params(grid, WIDE)
    assert made is not None
    codes = quantize(np.linspace(low, high, 300).astype(np.float32), grid)
    got = dequantize(np.clip(codes, *clip_limits(made, WIDE)).astype(made.dtype), made)
    assert np.abs(got - approximation(dequantize(codes, grid), WIDE)).max() <= 1.01 * made.scale[0]


def test_there_is_no_grid_where_the_zero_of_the_line_lies_beyond_the_codes() -> None:
    assert approximation_params(QuantParams((0.004,), (0,)), WIDE) is None  # the line is zero at -2.6, the lowest code is -0.5


def gated(target: str) -> Planned:
    s = Sketch(0)
    x = s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS)
    x = s.add("Add", s.add("Mul", x, s.constant(4.0)), s.normal(CHANNELS, 1, 1))
    return plan_for(s.model(s.conv(s.silu(x), CHANNELS)), target)


def approximated(planned: Planned) -> Planned:
    """The same plan with piecewise-linear sigmoids wherever there is a site."""
    shapes = {name: stats.shape for name, stats in planned.seen.tensors.items()}
    sites = find_sigmoid_sites(planned.model, planned.offers, shapes, planned.target)
    offers = planned.offers | piecewise_linear_forms(planned.model, planned.offers, dict.fromkeys(sites, WIDE), shapes, planned.target)
    grids = {name: tensor_plan.params for name, tensor_plan in planned.plan.tensors.items() if tensor_plan.params is not None}
    constants = {(name, index): grid for name, op in planned.plan.ops.items() for index, grid in op.constants.items()}
    integer = frozenset(name for name, op in planned.plan.ops.items() if op.runs == "integer")
    empty = Plan("minmax", BitWidths(), planned.target.name, {}, {})
    return replace(planned, offers=offers, plan=write_assignment(planned.model, offers, Choice(grids, constants), integer, empty))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_a_piecewise_linear_sigmoid_runs_as_planned_and_needs_no_table(target: str, tmp_path: Path) -> None:
    planned = approximated(gated(target))
    assert [op.coefficients for op in planned.plan.ops.values() if op.op_type == "Sigmoid"] == [(0.19, 0.5, 0.03, 0.97)]
    proto = emitted(planned)
    assert parity(planned, proto) == 200.0
    kernels = kernels_of(proto, planned.target, tmp_path)
    assert (
        "QLinearSigmoid" not in kernels
        and kernels["QLinearMul"] == kernels_of(emitted(gated(target)), planned.target, tmp_path)["QLinearMul"]
    )


def test_sites_are_sigmoids_that_gate_what_they_read() -> None:
    s = Sketch(0)
    x = s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS)
    y = s.conv(x, CHANNELS)
    gates = [s.add("Sigmoid", x), s.add("Sigmoid", y), s.add("Sigmoid", x)]
    model = s.model(s.add("Mul", x, gates[0]), s.add("Mul", x, gates[1]), s.add("Add", x, gates[2]))
    planned = plan_for(model)
    shapes = {name: stats.shape for name, stats in planned.seen.tensors.items()}
    costs = {"Sigmoid": Cost({"element": 8.0}, {"element": 4.0}), "PiecewiseLinear": Cost({"element": 8.0}, {"element": 0.45})}
    offers = {n: replace(o, integer_cost=4.0 * CHANNELS * 36) if isinstance(o, SupportedForm) else o for n, o in planned.offers.items()}
    sites = find_sigmoid_sites(model, offers, shapes, replace(planned.target, costs=costs))
    assert [site.read for site in sites.values()] == [x]
    (site,) = sites.values()
    assert site.saved == pytest.approx((4.0 - 0.45) * CHANNELS * 36)


def test_a_plan_piecewise_linear_sigmoid_offers_is_written_read_and_checked(tmp_path: Path) -> None:
    planned = approximated(gated("arm64"))
    read = adopt_plan(plan_from_json(plan_to_json(planned.plan), tmp_path), ())
    assert read == planned.plan
    check_plan(read, planned.model, planned.offers, planned.target, tmp_path)


NONSENSE = [
    ((0.19, 0.5, 0.03), "is a slope"),
    ((3.0, 0.5, 0.0, 1.0), "is a slope"),
    ((0.19, 0.5, 0.9, 0.1), "is a slope"),
    ((0.3, 0.5, 0.03, 0.97), "must have the grid"),
]


@pytest.mark.parametrize(("gate", "what"), NONSENSE)
def test_a_piecewise_linear_sigmoid_that_makes_no_sense_is_refused(gate: tuple[float, ...], what: str, tmp_path: Path) -> None:
    planned = approximated(gated("arm64"))
    ops = {name: replace(op, coefficients=gate) if op.op_type == "Sigmoid" else op for name, op in planned.plan.ops.items()}
    with pytest.raises(UsageError, match=what):
        check_plan(planned.plan.with_ops(planned.plan.tensors, ops), planned.model, planned.offers, planned.target, tmp_path)
