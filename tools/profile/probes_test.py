"""The probes are sound models, cover what targets have prices for, and are told apart in the graph that the runtime makes of them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.calibration.observer import CalibrationStatistics
from converter.forms.registry import WITHOUT_FORM
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS, Target
from converter.targets.costs import (
    COLUMN_CONVOLUTION_KIND,
    LINEAR_CONVOLUTION_KIND,
    PIECEWISE_LINEAR_KIND,
    TRANSPOSE_STEP_KIND,
    Shapes,
    features,
    kind_of,
    price,
)
from converter.testing.sketch import settings_for
from tools.profile.fit import fit, terms_of
from tools.profile.probes import BRANCH_LETTERS, among_codes, branches, feeds, integers, probe_model, probes, seen_in
from tools.profile.samples import Sample


@dataclass(frozen=True)
class Whole:
    """All probes in one model."""

    model: ir.Model
    seen: CalibrationStatistics

    @property
    def shapes(self) -> Shapes:
        return {name: stats.shape for name, stats in self.seen.tensors.items()}

    @property
    def measured(self) -> list[ir.Node]:
        return [node for node in self.model.graph if not str(node.name).endswith("_before")]


@pytest.fixture(scope="module")
def whole() -> Whole:
    model = probe_model(probes())
    return Whole(model, seen_in(model))


def priced(target: Target, *, integer: bool) -> set[str]:
    """Kinds that a target has prices for; but for what is no operator of a float model by itself, or has no form in integer."""
    return {kind for kind, cost in target.costs.items() if cost.integer is not None or not integer} - {
        COLUMN_CONVOLUTION_KIND,
        LINEAR_CONVOLUTION_KIND,
        PIECEWISE_LINEAR_KIND,
        TRANSPOSE_STEP_KIND,
        *(WITHOUT_FORM if integer else ()),
    }


def test_there_is_a_node_to_measure_for_each_probe_and_no_probe_twice(whole: Whole) -> None:
    assert [str(node.name) for node in whole.measured] == [f"p{place:04}" for place in range(len(probes()))]
    assert len({repr(probe) for probe in probes()}) == len(probes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_kind_with_a_price_is_probed_in_several_sizes(whole: Whole, name: str) -> None:
    sizes = defaultdict(set)
    for node in whole.measured:
        sizes[kind_of(node)].add(features(node, whole.shapes)["element"])
    assert all(len(sizes[kind]) > 1 for kind in priced(TARGETS[name], integer=False))


@pytest.mark.parametrize("name", ["arm64", "x86"])
def test_integer_probes_are_a_sound_model_of_just_the_kinds_that_have_an_integer_price(whole: Whole, name: str) -> None:
    proto, offered = integers(whole.model, whole.seen, TARGETS[name])
    onnx.checker.check_model(proto, full_check=True)
    assert {kind_of(node) for node in whole.measured if node.name in offered} == priced(TARGETS[name], integer=True)


def test_linear_layers_are_convolutions_in_a_model_of_their_own(whole: Whole) -> None:
    """By default none is, whatever the target's prices say."""
    names = {str(node.name) for node in whole.measured if kind_of(node) == "Linear"}
    half = probe_model(probes(), only=names)
    assert "Conv" not in {node.op_type for node in integers(half, seen_in(half), TARGETS["arm64"])[0].graph.node}
    proto, offered = integers(half, seen_in(half), TARGETS["arm64"], convolved=True)
    assert offered == names == {node.name for node in proto.graph.node if node.op_type == "Conv"}
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("name", ["arm64", "x86"])
def test_operators_without_a_form_stand_among_codes_so_that_the_runtime_makes_its_kernels_of_them(name: str, tmp_path: Path) -> None:
    few = [probe for op in ("Softmax", "AveragePool", "Sigmoid") for probe in probes() if probe.op_type == op][::8]
    model, path = probe_model(few), tmp_path / "optimised.onnx"
    proto, names = among_codes(model, TARGETS[name], ("Softmax", "AveragePool"))
    onnx.checker.check_model(proto, full_check=True)
    assert names == {f"p{place:04}" for place, probe in enumerate(few) if probe.op_type != "Sigmoid"} and len(names) > 1
    session = open_session(proto, threads=1, settings=settings_for(TARGETS[name]), optimised_path=path)
    fed = {value.name: feeds(model)[value.name] for value in proto.graph.input}
    assert all(np.isfinite(value).all() for value in run_session(session, fed).values())
    kernels = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QLinearSoftmax", "QLinearAveragePool"} <= kernels and not {"Softmax", "AveragePool", "QLinearSigmoid"} & kernels


def test_float_probes_are_a_sound_model_whose_names_tell_the_branch(whole: Whole) -> None:
    proto = ir.to_proto(whole.model)
    onnx.checker.check_model(proto, full_check=True)
    for node in proto.graph.node:
        names = {name[:BRANCH_LETTERS] for name in (node.name, *node.input, *node.output) if name}
        assert names == {node.name[:BRANCH_LETTERS]}


def test_the_sizes_tell_all_prices_apart(whole: Whole) -> None:
    """Whatever prices made the costs, they are found again: no two amounts grow together from probe to probe."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for node in whole.measured:
        found[kind_of(node)].append(features(node, whole.shapes))
    for kind, amounts in found.items():
        for integer in (False, True):
            terms = [term for term in terms_of(kind, integer=integer) if any(term in each for each in amounts)]
            # each price adds about as much as the others, so that none is lost among them
            prices = {term: 1e6 / statistics.fmean(each.get(term, 0.0) for each in amounts) for term in terms}
            made = fit([Sample(kind, each, price(prices, each)) for each in amounts], terms, floor=1.0)
            assert made.prices == pytest.approx(prices, rel=1e-3), (kind, integer)
            assert made.samples >= len(terms)


def test_the_layer_before_a_clamp_is_also_probed_without_it() -> None:
    clamped = [probe for probe in probes() if probe.behind]
    assert Counter(probe.behind for probe in clamped) == {"Relu": 3, "Clip": 3}
    assert all(replace(probe, behind="") in probes() for probe in clamped)


def test_a_branch_has_the_same_names_alone_and_among_others() -> None:
    some = probes()[::40]
    alone, chosen = probe_model(some[3:4], first=3), probe_model(some, only={"p0003"})
    assert [n.name for n in alone.graph] == [n.name for n in chosen.graph] == ["p0003"]
    assert [v.name for v in alone.graph.inputs] == [v.name for v in chosen.graph.inputs]
    assert feeds(alone).keys() < feeds(probe_model(some)).keys()


def test_probes_compute_numbers() -> None:
    model = probe_model(probes()[::5])
    for name, value in run_session(open_session(ir.to_proto(model), threads=1), feeds(model)).items():
        assert value.size > 0 and np.isfinite(value).all(), name


@pytest.mark.parametrize("form", ["float", "integer"])
def test_every_node_that_the_runtime_makes_has_the_branch_whose_inputs_it_works_on(whole: Whole, form: str, tmp_path: Path) -> None:
    proto = ir.to_proto(whole.model) if form == "float" else integers(whole.model, whole.seen, TARGETS["arm64"])[0]
    path = tmp_path / "optimised.onnx"
    open_session(proto, threads=1, settings=settings_for(TARGETS["arm64"]), optimised_path=path)
    graph = onnx.load(path).graph
    # by what reaches a node from the model's inputs, not by the names of what lies between
    reached = {value.name: {value.name[:BRANCH_LETTERS]} for value in graph.input}
    expected = []
    for node in graph.node:
        met = set().union(*(reached.get(name, set()) for name in node.input))
        reached |= dict.fromkeys(node.output, met)
        expected.append(met)
    assert [{name} for name in branches([(node.input, node.output) for node in graph.node])] == expected


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_branch_is_followed_through_names_that_say_nothing(lengths: Sequence[int], random: Random) -> None:
    """Chains side by side in any order; only their inputs are named, and all read a constant that is called after the first."""
    places = [place for place, length in enumerate(lengths) for _ in range(length)]
    random.shuffle(places)
    last = [f"p{place:04}_x0" for place in range(len(lengths))]
    nodes = []
    for step, place in enumerate(places):
        nodes.append(((last[place], "p0000_c0"), (f"token_{step}",)))
        last[place] = f"token_{step}"
    assert branches(nodes) == [f"p{place:04}" for place in places]


@pytest.mark.parametrize("name", ["", "x", "p12", "pool_1", "q0001_x0", "p 001"])
def test_other_names_tell_no_branch(name: str) -> None:
    assert branches([((name,), ("token",))]) == [""]
