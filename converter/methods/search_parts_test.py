"""Every part of the search changes what it is about, and nothing of that is left where it is off."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from converter.calibration.observer import collect_statistics
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.plan.records import Plan, approximations_of
from converter.planning.make import make_plan
from converter.sensitivity.context import ReconstructionBlock
from converter.testing.hybrid_plans import BY_SIZE, FEEDS, hybrid
from converter.testing.plans import equalizations_of

NAMES = [f.name for f in fields(SearchParts)]


def search(parts: SearchParts, *, block: bool = True) -> Plan:
    """The plan of the small hybrid network, by default taken for one bridge block."""
    model = hybrid(activation_bits=6)
    reconstruction_blocks = (ReconstructionBlock(tuple(str(n.name) for n in model.graph), ("logits",)),) if block else ()

    def look(model: Any) -> Any:
        return collect_statistics(model, FEEDS[:4], threads=1)

    options = Options(method="q-hyvit", bits="W6A6", parts=parts)
    return make_plan(model, look(model), look, FEEDS[:4], reconstruction_blocks, BY_SIZE, options, frozenset()).plan


def traces(plan: Plan) -> dict[str, bool]:
    """Of the parts that show in a plan: whether they do."""
    image = plan.tensors["image"].params
    assert image is not None
    return {
        "granularity": bool(equalizations_of(plan)),
        "scheme": image.zero_point != (0,),
        "bias_correction": any(op.bias for op in plan.ops.values()),
        "piecewise_linear": bool(approximations_of(plan)),
    }


@pytest.fixture(scope="module")
def whole() -> Plan:
    return search(SearchParts())


def test_all_parts_are_on_by_default(whole: Plan) -> None:
    assert all(traces(whole).values())


@pytest.mark.parametrize("name", NAMES)
def test_without_a_part_the_plan_is_another_and_shows_nothing_of_it(whole: Plan, name: str) -> None:
    plan = search(replace(SearchParts(), **{name: name == "bridge"}))
    assert plan != whole
    assert not traces(plan).get(name)


def test_with_no_part_on_scales_are_searched_and_that_is_all() -> None:
    """Weights keep their codes, and the bridge block is not looked at."""
    none = SearchParts(**dict.fromkeys(NAMES, False))
    plan = search(none)
    assert not any(traces(plan).values()) and not any(op.codes for op in plan.ops.values())
    assert plan == search(none, block=False)
