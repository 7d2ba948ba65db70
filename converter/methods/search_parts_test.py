"""Every part of the search works if it is on, does nothing if it is off, and has a place of its own in the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import onnx_ir as ir
import pytest

from converter.calibration.observer import observe
from converter.methods.q_hyvit import method as q_hyvit
from converter.methods.q_hyvit import sigmoid_search as ramp_search
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.planning.make import make_plan
from converter.sensitivity.context import Section
from converter.testing.hybrid_plans import BY_SIZE, FEEDS, hybrid

NAMES = [f.name for f in fields(SearchParts)]

Spied = dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """The arguments with which the search asks for the work of its parts."""
    found: Spied = {}

    def spy(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)
        found[name] = []

        def recorded(*arguments: Any, **named: Any) -> Any:
            found[name].append((arguments, named))
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, recorded)

    for name in (
        "choose_folds",
        "search_section",
        "activation_grids",
        "loose_grids",
        "with_room",
        "reconstruct",
        "ranked_activations",
        "ranked_again",
    ):
        spy(q_hyvit, name)
    spy(ramp_search, "_ramps")
    return found


def worked(calls: Spied) -> dict[str, bool]:
    """Which parts did something."""
    return {
        "granularity": bool(calls["choose_folds"]),
        "scheme": any(named["asymmetric"] for _, named in calls["ranked_activations"]),
        "bridge": bool(calls["search_section"]),
        "activations": bool(calls["activation_grids"]),
        "trials": any(witnesses for (_, _, _, witnesses), _ in calls["loose_grids"]),
        "room": bool(calls["with_room"]),
        "adaptive_rounding": any(named["rounding"] for _, named in calls["reconstruct"]),
        "weight_correction": any(named["correction"] for _, named in calls["reconstruct"]),
        "bias_correction": any(named["bias"] for _, named in calls["reconstruct"]),
        "ramps": bool(calls["_ramps"]),
    }


def search(parts: SearchParts) -> None:
    model = hybrid(activation_bits=6)
    block = Section(tuple(str(n.name) for n in model.graph), ("logits",))

    def look(model: ir.Model) -> Any:
        return observe(model, FEEDS[:4], threads=1)

    options = Options(method="q-hyvit", bits="W6A6", parts=parts)
    make_plan(model, look(model), look, FEEDS[:4], (block,), BY_SIZE, options, frozenset())


def test_all_parts_work_by_default(calls: Spied) -> None:
    search(SearchParts())
    assert worked(calls) == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_that_is_off_does_nothing_and_the_others_go_on(calls: Spied, name: str) -> None:
    search(replace(SearchParts(), **{name: False}))
    assert worked(calls) == {part: part != name for part in NAMES}


def test_with_no_part_on_scales_are_searched_and_that_is_all(calls: Spied) -> None:
    search(SearchParts(**dict.fromkeys(NAMES, False)))
    assert not any(worked(calls).values())
    assert calls["ranked_activations"]


def test_activations_take_three_turns(calls: Spied) -> None:
    """All grids in the first round, and the best of them in two more, for every tensor that enters a layer."""
    search(SearchParts())
    assert len(calls["ranked_again"]) == 2 * len(calls["ranked_activations"]) > 0
