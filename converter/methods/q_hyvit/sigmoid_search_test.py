"""Which sigmoids become ramps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from converter.calibration.observer import observe
from converter.methods.judging.output_change import divergence, error_share
from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.methods.q_hyvit.sigmoid_search import choose_ramps, loss_changes, ramp_hook
from converter.methods.search_parts import SearchParts
from converter.plan.choice import Choice
from converter.quantization.parameters import affine_params
from converter.sensitivity.context import Reading, Study, stack
from converter.testing.sketch import Sketch, feeds_for, losses_of
from converter.torch_backend.network import network_of, run_samples
from converter.transforms.sigmoids.piecewise_linear import PricedRamp, Ramp, RampSite

CHANNELS = 8
GATES = 3


def problem(strength: float, *, classes: bool = True, width: float = 2.0) -> tuple[Problem, Choice]:
    """Three SiLUs in a row of a network whose scores are the larger, the greater the strength; the first is the dearest.

    The greater the width, the wider what they read.
    """
    s = Sketch(0)
    x = s.input("x", 1, CHANNELS, 6, 6)
    sites = {}
    for number in range(GATES):
        x = s.add("Mul", s.conv(x, CHANNELS), s.constant(width))
        y = s.silu(x)
        sites[y] = RampSite(x, 100.0 - number, 200.0 - number)
        x = y
    pooled = s.add("Flatten", s.add("GlobalAveragePool", s.add("Mul", x, s.constant(strength))))
    model = s.model(pooled if classes else x)
    gates = {str(n.inputs[0].name): str(n.name) for n in model.graph if n.op_type == "Sigmoid" and n.inputs[0] is not None}
    feeds = feeds_for(model, 8)
    seen = observe(model, feeds, threads=1)
    study = Study(network_of(model), stack(feeds), {}, (), (), 0, losses=losses_of(model, "scores" if classes else "values"))
    named = {gates[site.read]: site for site in sites.values()}
    grids = {site.read: affine_params(-8.0, 8.0, bits=8, signed=True) for site in sites.values()}
    return Problem(seen.tensors, {}, {}, True, ramp_sites=named, study=study), Choice(grids, {})


def test_all_sigmoids_become_ramps_where_the_scores_hardly_move() -> None:
    asked, choice = problem(0.01)
    assert set(choose_ramps(asked, choice)) == set(asked.ramp_sites)


def test_where_inputs_are_small_ramps_are_level() -> None:
    asked, choice = problem(0.01, width=0.02)
    grids = Choice({name: affine_params(-0.2, 0.2, bits=8, signed=True) for name in choice.tensors}, {})
    ramps = choose_ramps(asked, grids)
    assert set(ramps) == set(asked.ramp_sites)
    assert all(ramp.shape.is_level and 0.45 < ramp.shape.offset < 0.55 for ramp in ramps.values())
    assert not any(ramp.shape.is_level for ramp in choose_ramps(*problem(0.01)).values())


def test_none_becomes_one_where_the_scores_move() -> None:
    assert choose_ramps(*problem(100.0)) == {}


@pytest.mark.parametrize(("reach", "all_of_them"), [(4.0, False), (256.0, True)])
def test_values_change_no_more_by_ramps_than_by_grids(reach: float, all_of_them: bool) -> None:
    """Behind an input on a fine grid some ramps would be most of the error, behind one on a coarse grid they are the least of it."""
    asked, choice = problem(1.0, classes=False, width=1.0)
    assert asked.study is not None
    network, feed, first = asked.study.network, asked.study.feed, asked.study.network.steps[0]
    study = replace(asked.study, readings={(first.name, 0): Reading("x", 1.0)})
    choice = Choice({**choice.tensors, "x": affine_params(-reach, reach, bits=8, signed=True)}, {})
    ramps = choose_ramps(replace(asked, study=study), choice)
    hooks = (None, ramp_hook(shapes(ramps)), on_grids(study.readings, choice.tensors))
    (plain,), (ramped,), (rounded,) = (run_samples(network, feed, hook=hook).values() for hook in hooks)
    assert error_share(plain, ramped) <= error_share(plain, rounded)
    assert (len(ramps) == GATES) == all_of_them


def ramps_in_order(asked: Problem, choice: Choice) -> list[str]:
    """All that can be had, in the order in which they would be taken."""
    return list(choose_ramps(replace(asked, study=quiet(asked)), choice))


def shapes(ramps: Mapping[str, PricedRamp]) -> dict[str, Ramp]:
    return {name: ramp.shape for name, ramp in ramps.items()}


def quiet(asked: Problem) -> Study:
    """The same network with scores so small that every ramp is harmless. What they change keeps its proportions."""
    study = asked.study
    assert study is not None
    last = next(s for s in reversed(study.network.steps) if s.op_type == "Mul" and any(n in study.network.constants for n in s.inputs))
    (name,) = [n for n in last.inputs if n in study.network.constants]
    constants = {**study.network.constants, name: study.network.constants[name] * 0.01}
    return replace(study, network=replace(study.network, constants=constants))


def test_no_more_become_ramps_than_the_scores_bear_and_the_best_bargains_come_first() -> None:
    """Some strength in between leaves room for some; the more room, the more ramps, always the same first."""
    found = []
    order = ramps_in_order(*problem(1.0))
    for strength in np.geomspace(0.05, 50.0, 12):
        asked, choice = problem(float(strength))
        ramps = choose_ramps(asked, choice)
        assert list(ramps) == order[: len(ramps)]
        found.append(len(ramps))
    assert found == sorted(found, reverse=True) and set(found) & {1, 2}


@pytest.mark.parametrize("dear", range(GATES))
def test_a_ramp_that_saves_far_more_comes_first(dear: int) -> None:
    asked, choice = problem(1.0)
    names = list(asked.ramp_sites)
    sites = {name: replace(site, saved=1e6 if name == names[dear] else 1.0) for name, site in asked.ramp_sites.items()}
    assert ramps_in_order(replace(asked, ramp_sites=sites), choice)[0] == names[dear]


def test_of_ramps_that_save_about_as_much_the_most_harmful_comes_last_even_if_it_saves_most() -> None:
    asked, choice = problem(1.0)
    assert asked.study is not None
    told = loss_changes(asked.study, shapes(choose_ramps(replace(asked, study=quiet(asked)), choice)))
    worst = max(told, key=lambda name: told[name])
    sites = {name: replace(site, saved=1.01 if name == worst else 1.0) for name, site in asked.ramp_sites.items()}
    assert ramps_in_order(replace(asked, ramp_sites=sites), choice)[-1] == worst


def test_every_ramp_comes_with_what_it_changes() -> None:
    asked, choice = problem(0.01)
    assert asked.study is not None
    ramps = choose_ramps(asked, choice)
    assert {name: ramp.change for name, ramp in ramps.items()} == loss_changes(asked.study, shapes(ramps))


def test_what_a_ramp_changes_is_told_without_running_it() -> None:
    """To second order, from a few random vectors: near the divergence that is found when the ramp is there."""
    asked, choice = problem(1.0)
    study = asked.study
    assert study is not None
    ramps = shapes(choose_ramps(replace(asked, study=quiet(asked)), choice))
    (plain,) = run_samples(study.network, study.feed).values()
    told = loss_changes(study, ramps)
    assert set(told) == set(asked.ramp_sites)
    for name, shape in ramps.items():
        (got,) = run_samples(study.network, study.feed, hook=ramp_hook({name: shape})).values()
        assert told[name] == pytest.approx(divergence(plain, got), rel=0.5)
        assert told[name] > 0.0


@pytest.mark.parametrize("why", ["switched off", "no study", "no network", "no grid"])
def test_no_ramps_without_what_they_need(why: str) -> None:
    asked, choice = problem(0.01)
    assert asked.study is not None
    changed = {
        "switched off": replace(asked, parts=SearchParts(ramps=False)),
        "no study": replace(asked, study=None),
        "no network": replace(asked, study=replace(asked.study, values={})),
        "no grid": asked,
    }[why]
    if why == "no grid":  # a grid that ends before the line is zero
        choice = Choice({name: affine_params(-0.5, 0.5, bits=8, signed=True) for name in choice.tensors}, {})
    assert choose_ramps(changed, choice) == {}


def test_the_difference_of_scores_is_their_divergence_and_of_maps_their_squared_error() -> None:
    a, b = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.5, 1.0, 1.0]]])
    p, q = (np.exp(x.numpy().ravel()) / np.exp(x.numpy()).sum() for x in (a, b))
    assert divergence(a, b) == pytest.approx(float((p * np.log(p / q)).sum()))
    x, y = torch.full((2, 1, 3, 4, 4), 2.0), torch.full((2, 1, 3, 4, 4), 2.2)
    assert error_share(x, y) == pytest.approx(0.01, rel=1e-4)
