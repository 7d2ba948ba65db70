"""Which sigmoids become ramps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from converter.grids import affine_grid
from converter.methods.problem import Choice, Problem
from converter.methods.ramp_search import choose_ramps, divergence, error_share
from converter.network import network_of
from converter.observe import observe
from converter.ramps import RampSite
from converter.search_parts import SearchParts
from converter.sketch_test import Sketch, feeds_for
from converter.study import Study, stack

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
    study = Study(network_of(model), stack(feeds), {}, (), (), 0)
    named = {gates[site.read]: site for site in sites.values()}
    grids = {site.read: affine_grid(-8.0, 8.0, bits=8, signed=True) for site in sites.values()}
    return Problem(seen.tensors, {}, {}, True, ramp_sites=named, study=study), Choice(grids, {})


def test_all_sigmoids_become_ramps_where_the_scores_hardly_move() -> None:
    asked, choice = problem(0.01)
    assert list(choose_ramps(asked, choice)) == list(asked.ramp_sites)


def test_where_inputs_are_small_ramps_are_level() -> None:
    asked, choice = problem(0.01, width=0.02)
    grids = Choice({name: affine_grid(-0.2, 0.2, bits=8, signed=True) for name in choice.tensors}, {})
    ramps = choose_ramps(asked, grids)
    assert list(ramps) == list(asked.ramp_sites)
    assert all(shape.is_level and 0.45 < shape.offset < 0.55 for shape in ramps.values())
    assert not any(shape.is_level for shape in choose_ramps(*problem(0.01)).values())


def test_none_becomes_one_where_the_scores_move() -> None:
    assert choose_ramps(*problem(100.0)) == {}


def test_the_dearest_come_first_and_no_more_than_the_scores_bear() -> None:
    """Some strength in between leaves room for some; the more room, the more ramps, always the dearest."""
    found = []
    for strength in np.geomspace(0.05, 50.0, 12):
        asked, choice = problem(float(strength))
        ramps = choose_ramps(asked, choice)
        assert list(ramps) == list(asked.ramp_sites)[: len(ramps)]
        found.append(len(ramps))
    assert found == sorted(found, reverse=True) and set(found) & {1, 2}


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
        choice = Choice({name: affine_grid(-0.5, 0.5, bits=8, signed=True) for name in choice.tensors}, {})
    assert choose_ramps(changed, choice) == {}


def test_the_difference_of_scores_is_their_divergence_and_of_maps_their_squared_error() -> None:
    a, b = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0.5, 1.0, 1.0]]])
    p, q = (np.exp(x.numpy().ravel()) / np.exp(x.numpy()).sum() for x in (a, b))
    assert divergence(a, b) == pytest.approx(float((p * np.log(p / q)).sum()))
    x, y = torch.full((2, 1, 3, 4, 4), 2.0), torch.full((2, 1, 3, 4, 4), 2.2)
    assert error_share(x, y) == pytest.approx(0.01, rel=1e-4)
