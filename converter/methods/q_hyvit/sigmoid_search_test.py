"""Which sigmoids become piecewise-linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.methods.judging.output_change import divergence, error_share
from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.methods.q_hyvit import sigmoid_search
from converter.methods.q_hyvit.sigmoid_search import approximation_hook, choose_approximations, loss_changes
from converter.methods.search_parts import SearchParts
from converter.plan.choice import Choice
from converter.quantization.parameters import affine_params
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, stack
from converter.testing.sketch import Sketch, feeds_for, losses_of
from converter.torch_backend.network import network_of, run_samples
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear, PricedApproximation, SigmoidSite

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
        sites[y] = SigmoidSite(x, 100.0 - number, 200.0 - number)
        x = y
    pooled = s.add("Flatten", s.add("GlobalAveragePool", s.add("Mul", x, s.constant(strength))))
    model = s.model(pooled if classes else x)
    gates = {str(n.inputs[0].name): str(n.name) for n in model.graph if n.op_type == "Sigmoid" and n.inputs[0] is not None}
    feeds = feeds_for(model, 8)
    seen = collect_statistics(model, feeds, threads=1)
    context = AnalysisContext(network_of(model), stack(feeds), {}, (), (), 0, losses=losses_of(model, "scores" if classes else "values"))
    named = {gates[site.read]: site for site in sites.values()}
    grids = {site.read: affine_params(-8.0, 8.0, bits=8, signed=True) for site in sites.values()}
    return Problem(seen.tensors, {}, {}, True, sigmoid_sites=named, context=context), Choice(grids, {})


def test_all_sigmoids_become_piecewise_linear_where_the_scores_hardly_move() -> None:
    asked, choice = problem(0.01)
    assert set(choose_approximations(asked, choice)) == set(asked.sigmoid_sites)


def test_where_inputs_are_small_piecewise_linear_sigmoids_are_constants() -> None:
    asked, choice = problem(0.01, width=0.02)
    grids = Choice({name: affine_params(-0.2, 0.2, bits=8, signed=True) for name in choice.tensors}, {})
    approximations = choose_approximations(asked, grids)
    assert set(approximations) == set(asked.sigmoid_sites)
    assert all(approximation.shape.is_constant and 0.45 < approximation.shape.offset < 0.55 for approximation in approximations.values())
    assert not any(approximation.shape.is_constant for approximation in choose_approximations(*problem(0.01)).values())


def test_none_becomes_one_where_the_scores_move() -> None:
    assert choose_approximations(*problem(100.0)) == {}


@pytest.mark.parametrize(("reach", "all_of_them"), [(4.0, False), (256.0, True)])
def test_values_change_no_more_by_piecewise_linear_sigmoids_than_by_grids(reach: float, all_of_them: bool) -> None:
    """Behind an input on a fine grid some lines would be most of the error, behind one on a coarse grid they are the least of it."""
    asked, choice = problem(1.0, classes=False, width=1.0)
    assert asked.context is not None
    network, feed, first = asked.context.network, asked.context.feed, asked.context.network.steps[0]
    context = replace(asked.context, quantized_edges={(first.name, 0): QuantizedEdge("x", 1.0)})
    choice = Choice({**choice.tensors, "x": affine_params(-reach, reach, bits=8, signed=True)}, {})
    approximations = choose_approximations(replace(asked, context=context), choice)
    hooks = (None, approximation_hook(shapes(approximations)), on_grids(context.quantized_edges, choice.tensors))
    (plain,), (approximated,), (rounded,) = (run_samples(network, feed, hook=hook).values() for hook in hooks)
    assert error_share(plain, approximated) <= error_share(plain, rounded)
    assert (len(approximations) == GATES) == all_of_them


def approximations_in_order(asked: Problem, choice: Choice) -> list[str]:
    """All that can be had, in the order in which they would be taken."""
    return list(choose_approximations(replace(asked, context=quiet(asked)), choice))


def shapes(approximations: Mapping[str, PricedApproximation]) -> dict[str, PiecewiseLinear]:
    return {name: approximation.shape for name, approximation in approximations.items()}


def quiet(asked: Problem) -> AnalysisContext:
    """The same network with scores so small that every piecewise-linear sigmoid is harmless. What they change keeps its proportions."""
    context = asked.context
    assert context is not None
    last = next(s for s in reversed(context.network.steps) if s.op_type == "Mul" and any(n in context.network.constants for n in s.inputs))
    (name,) = [n for n in last.inputs if n in context.network.constants]
    constants = {**context.network.constants, name: context.network.constants[name] * 0.01}
    return replace(context, network=replace(context.network, constants=constants))


def test_no_more_become_piecewise_linear_than_the_scores_bear_and_the_best_bargains_come_first() -> None:
    """Some strength in between leaves room for some; the more room, the more piecewise-linear sigmoids, always the same first."""
    found = []
    order = approximations_in_order(*problem(1.0))
    for strength in np.geomspace(0.05, 50.0, 12):
        asked, choice = problem(float(strength))
        approximations = choose_approximations(asked, choice)
        assert list(approximations) == order[: len(approximations)]
        found.append(len(approximations))
    assert found == sorted(found, reverse=True) and set(found) & {1, 2}


@pytest.mark.parametrize("dear", range(GATES))
def test_a_piecewise_linear_sigmoid_that_saves_far_more_comes_first(dear: int) -> None:
    asked, choice = problem(1.0)
    names = list(asked.sigmoid_sites)
    sites = {name: replace(site, saved=1e6 if name == names[dear] else 1.0) for name, site in asked.sigmoid_sites.items()}
    assert approximations_in_order(replace(asked, sigmoid_sites=sites), choice)[0] == names[dear]


def test_of_piecewise_linear_sigmoids_that_save_about_as_much_the_most_harmful_comes_last_even_if_it_saves_most() -> None:
    asked, choice = problem(1.0)
    assert asked.context is not None
    told = loss_changes(asked.context, shapes(choose_approximations(replace(asked, context=quiet(asked)), choice)))
    worst = max(told, key=lambda name: told[name])
    sites = {name: replace(site, saved=1.01 if name == worst else 1.0) for name, site in asked.sigmoid_sites.items()}
    assert approximations_in_order(replace(asked, sigmoid_sites=sites), choice)[-1] == worst


def test_every_piecewise_linear_sigmoid_comes_with_what_it_changes() -> None:
    asked, choice = problem(0.01)
    assert asked.context is not None
    approximations = choose_approximations(asked, choice)
    assert {name: approximation.change for name, approximation in approximations.items()} == loss_changes(
        asked.context, shapes(approximations)
    )


def test_lines_that_are_known_are_not_looked_for_again() -> None:
    asked, choice = problem(0.01)
    line = PiecewiseLinear(0.2, 0.5, 0.0, 1.0)
    known = {name: PricedApproximation(line, 10.0**place) for place, name in enumerate(asked.sigmoid_sites)}
    found = choose_approximations(replace(asked, context=quiet(asked)), replace(choice, lines=known))
    assert list(found) == list(known)[: len(found)] and found
    assert all(found[name] == known[name] for name in found)


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_looking_after_few_samples_gives_what_looking_after_all_does(
    monkeypatch: pytest.MonkeyPatch, strength: float, classes: bool
) -> None:
    found = []
    for few in (1, 3, 16):
        monkeypatch.setattr(sigmoid_search, "_FEW", few)
        found.append(choose_approximations(*problem(strength, classes=classes)))
    assert found[0] == found[1] == found[2]


def test_what_a_piecewise_linear_sigmoid_changes_is_told_without_running_it() -> None:
    """To second order, from a few random vectors: near the divergence that is found when the piecewise-linear sigmoid is there."""
    asked, choice = problem(1.0)
    context = asked.context
    assert context is not None
    approximations = shapes(choose_approximations(replace(asked, context=quiet(asked)), choice))
    (plain,) = run_samples(context.network, context.feed).values()
    told = loss_changes(context, approximations)
    assert set(told) == set(asked.sigmoid_sites)
    for name, shape in approximations.items():
        (got,) = run_samples(context.network, context.feed, hook=approximation_hook({name: shape})).values()
        assert told[name] == pytest.approx(divergence(plain, got), rel=0.5)
        assert told[name] > 0.0


@pytest.mark.parametrize("why", ["switched off", "no context", "no network", "no grid"])
def test_no_piecewise_linear_sigmoids_without_what_they_need(why: str) -> None:
    asked, choice = problem(0.01)
    assert asked.context is not None
    changed = {
        "switched off": replace(asked, parts=SearchParts(piecewise_linear=False)),
        "no context": replace(asked, context=None),
        "no network": replace(asked, context=replace(asked.context, values={})),
        "no grid": asked,
    }[why]
    if why == "no grid":  # a grid that ends before the line is zero
        choice = Choice({name: affine_params(-0.5, 0.5, bits=8, signed=True) for name in choice.tensors}, {})
    assert choose_approximations(changed, choice) == {}


def test_the_difference_of_scores_is_their_divergence_and_of_maps_their_squared_error() -> None:
    a, b = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.5, 1.0, 1.0]]])
    p, q = (np.exp(x.numpy().ravel()) / np.exp(x.numpy()).sum() for x in (a, b))
    assert divergence(a, b) == pytest.approx(float((p * np.log(p / q)).sum()))
    x, y = torch.full((2, 1, 3, 4, 4), 2.0), torch.full((2, 1, 3, 4, 4), 2.2)
    assert error_share(x, y) == pytest.approx(0.01, rel=1e-4)
