from __future__ import annotations

import pytest

from converter.errors import UsageError
from converter.partition.policy import LATENCY, Placed, Placement, added_loss, affordable, parse_placement, penalties
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latency", LATENCY),
        ("all", Placement(everything=True)),
        ("balanced:0", Placement()),
        ("balanced:0.5", Placement(price=0.5)),
        ("balanced:1e3", Placement(price=1000.0)),
    ],
)
def test_what_can_be_said(text: str, wanted: Placement) -> None:
    assert parse_placement(text) == wanted


@pytest.mark.parametrize("text", ["", "fast", "balanced", "balanced:", "balanced:-1", "balanced:nan", "balanced:inf", "all:3", "latency:1"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(UsageError, match="is not a placement"):
        parse_placement(text)


def test_penalties_by_hand() -> None:
    weight_sensitivity = {"a": 1.0, "b": 3.0, "c": 0.0}
    assert penalties(2.0, weight_sensitivity) == {"a": 2.0, "b": 6.0}
    assert penalties(0.0, weight_sensitivity) == penalties(2.0, {}) == {}


def test_what_a_plan_adds_to_the_loss_by_hand() -> None:
    """Grids of tensors that have one of their own, and integer forms; not what shares a grid, nor what runs in float."""
    grid = QuantParams((1.0,), (0,))
    tensors = {
        "read": TensorPlan("measured", grid),
        "gate": TensorPlan("fixed", grid),
        "moved": TensorPlan("shared", grid, "read"),
        "halved": TensorPlan("derived", grid, "read"),
        "plain": TensorPlan("float"),
    }
    ops = {"conv": OpPlan("Conv", "integer", "codes"), "gemm": OpPlan("Gemm", "float")}
    plan = Plan("", BitWidths(), "arm64", tensors, ops)
    activation_sensitivity = {name: 2.0**i for i, name in enumerate([*tensors, "elsewhere"])}
    assert added_loss(plan, activation_sensitivity, {"conv": 100.0, "gemm": 1000.0, "other": 1e4}) == 1.0 + 2.0 + 100.0
    assert added_loss(plan, {}, {}) == 0.0


# Placements along a curve: at a price p they cost 100 + 4 sqrt(p) and add 0.1 / sqrt(p) to the loss


def quantizer(price: float) -> Placed:
    return Placed(Plan("", BitWidths(), "", {}, {}), 100.0 + 4.0 * price**0.5, 0.1 / price**0.5 if price else 1.0)


def chosen(tolerance: float, spare: float, most: float = 1e9) -> Placed:
    return affordable(quantizer, quantizer(0.0), Placement(tolerance=tolerance, spare=spare), most)


def test_what_is_within_the_tolerance_stays_the_cheapest() -> None:
    assert chosen(1.0, 0.5) == quantizer(0.0)


def test_accuracy_is_bought_until_the_loss_is_tolerable() -> None:
    found = chosen(0.1, 0.5)
    assert found.loss == pytest.approx(0.1, rel=0.01) and found.loss <= 0.1
    assert found.cost == pytest.approx(104.0, rel=1e-3)


@pytest.mark.parametrize(("spare", "most", "limit"), [(0.08, 1e9, 108.0), (0.5, 120.0, 120.0)])
def test_but_not_for_more_than_can_be_spared(spare: float, most: float, limit: float) -> None:
    found = chosen(1e-9, spare, most)
    assert found.cost <= limit and found.cost == pytest.approx(limit, rel=2e-3)
    assert found.loss == pytest.approx(0.4 / (limit - 100.0), rel=0.02)


def test_without_anything_to_spare_nothing_is_bought() -> None:
    assert chosen(1e-9, 0.0) == quantizer(0.0)
