from __future__ import annotations

import pytest

from converter.offers import _OFFERS, _SLOW
from converter.targets import TARGETS, Target

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@targets
def test_every_operator_that_is_offered_has_a_cost(target: Target) -> None:
    # a copy costs a DQ and a Q, which are priced apart
    assert set(_OFFERS) - _SLOW - {"Identity"} <= {*target.costs, "Gemm", "MatMul"}
    assert {"DepthwiseConv", "Linear", "MatMul"} <= set(target.costs)


@targets
def test_costs_are_sane(target: Target) -> None:
    for cost in target.costs.values():
        assert min(cost.float_element, cost.integer_element, cost.float_mac, cost.integer_mac) >= 0
        assert cost.float_element + cost.float_mac > 0, "an operator that costs nothing in float would never run in integer"


@targets
def test_a_q_costs_no_less_than_a_dq(target: Target) -> None:
    """The placement's minimum cut relies on it."""
    assert target.quantize_element >= target.dequantize_element > 0


def test_the_facts_about_types() -> None:
    assert TARGETS["arm64"].signed_activations and not TARGETS["x86"].signed_activations
    assert {t.depthwise_weight_bits for t in TARGETS.values()} == {8}


def test_weights_that_do_not_saturate_by_hand() -> None:
    """In 16 bits, 2 x 255 x 63 = 32130 and 2 x 127 x 127 = 32258 fit below 32768; 2 x 255 x 127 = 64770 does not."""
    assert [TARGETS["x86"].dense_weight_bits(a) for a in (8, 7, 6, 5, 4)] == [7, 8, 8, 8, 8]
    assert [TARGETS["arm64"].dense_weight_bits(a) for a in (8, 4)] == [8, 8]


def test_names_agree_with_keys() -> None:
    assert {name: target.name for name, target in TARGETS.items()} == {name: name for name in TARGETS}
