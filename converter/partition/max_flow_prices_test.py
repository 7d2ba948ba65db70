"""Minimum cuts with the prices of real targets: none is too dear, and all are the same in every process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converter.forms.form import SupportedForm, UnsupportedForm
from converter.partition.cost_model import predict
from converter.partition.cut_graph import cut, cut_graph
from converter.partition.max_flow import minimum_cut
from converter.partition.write_assignment import write_assignment
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.targets.costs import operator_costs
from converter.testing.assignments import cost_of
from converter.testing.priced_networks import TOO_DEAR, Priced, digest, random_network


def predicted(case: Priced, integer: frozenset[str]) -> float:
    """What an assigned plan costs, by the report's own account, without the call, what is float in any case, and errors."""
    grid = QuantParams((1.0,), (0,), 8, case.target.signed_activations)
    constants = {(n, i): grid for n, e in case.offers.items() if isinstance(e, SupportedForm) for i in e.constants}
    plan = write_assignment(
        case.model, case.offers, Choice(dict.fromkeys(case.seen.tensors, grid), constants), integer, Plan("", BitWidths(), "", {}, {})
    )
    shapes = {name: stats.shape for name, stats in case.seen.tensors.items()}
    refused = [node for node in case.model.graph if isinstance(case.offers.get(str(node.name)), UnsupportedForm)]
    always = case.target.call + sum(operator_costs(node, shapes, case.target)[0] for node in refused)
    return predict(case.model, plan, case.offers, shapes, case.target).total - always


def _with_examples(test: Callable[[int], None]) -> Callable[[int], None]:
    for seed in TOO_DEAR:
        test = example(seed=seed)(test)
    return test


@_with_examples
@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_no_assignment_is_cheaper_than_that_of_the_cut_which_costs_what_the_cut_does(seed: int) -> None:
    case = random_network(seed)
    arguments = case.model, case.offers, case.seen
    free = [name for name, entry in case.offers.items() if isinstance(entry, SupportedForm)]
    assignments = (frozenset(chosen) for size in range(len(free) + 1) for chosen in itertools.combinations(free, size))
    cheapest = min(cost_of(each, *arguments, case.penalty, case.noise, case.target) for each in assignments)
    found = cut(*arguments, case.target, case.penalty, case.noise)
    value, _ = minimum_cut(cut_graph(*arguments, case.target, case.penalty, case.noise), "source", "sink")
    assert cost_of(found, *arguments, case.penalty, case.noise, case.target) == pytest.approx(cheapest, rel=1e-9)
    assert value == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize("seed", range(0, 200, 2))
def test_without_a_price_for_errors_the_cut_costs_what_is_predicted(seed: int) -> None:
    case = random_network(seed)
    value, _ = minimum_cut(cut_graph(case.model, case.offers, case.seen, case.target), "source", "sink")
    found = cut(case.model, case.offers, case.seen, case.target)
    plain = {name: replace(entry, code_form="") if isinstance(entry, SupportedForm) else entry for name, entry in case.offers.items()}
    assert predicted(replace(case, offers=plain), found) == pytest.approx(value, rel=1e-9)
    # what a layer saves in a form that only writes codes is known once it is known who reads them
    assert predicted(case, found) <= value * (1.0 + 1e-9)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_every_process_cuts_alike(hash_seed: str) -> None:
    command = [sys.executable, "-c", "from converter.testing.priced_networks import digest; print(digest())"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    root = Path(__file__).parents[2]
    other = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()
