"""Figures of a planned network, against arithmetic of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from converter.diagnosis import diagnose as tested
from converter.diagnosis.accumulate import decibels
from converter.diagnosis.diagnose import MOST_SAMPLES, diagnose
from converter.diagnosis.json_record import diagnosis_record
from converter.diagnosis.records import Diagnosis
from converter.forms.form import SupportedForm
from converter.planning.stored_weights import with_stored_weights
from converter.runtime.session import open_session, run_session
from converter.targets.costs import operator_costs
from converter.testing.sketch import Planned, Sketch, classifier, emitted, feeds_for, plan_for, settings_for
from converter.torch_backend.ops import UnknownOperatorError


def diagnosed(
    planned: Planned, samples: int = 2, tensors: Mapping[str, float] | None = None, weights: Mapping[str, float] | None = None
) -> Diagnosis:
    feeds = feeds_for(planned.model, samples, seed=99)
    return diagnose(
        planned.model,
        planned.plan,
        planned.offers,
        planned.seen.tensors,
        feeds,
        planned.target,
        tensor_sensitivity=tensors or {},
        operator_sensitivity=weights or {},
    )


@pytest.fixture(scope="module")
def planned() -> Planned:
    return plan_for(classifier())


def test_the_input_is_rounded_and_clipped_as_its_grid_says(planned: Planned) -> None:
    first = diagnosed(planned).tensors[0]
    params = planned.plan.tensors["x"].params
    assert params is not None and (first.name, first.operator, first.op_type) == ("x", "", "Input")
    x = np.stack([feed["x"] for feed in feeds_for(planned.model, 2, seed=99)]).astype(np.float64)
    codes = np.rint(x / params.scale[0]) + params.zero_point[0]
    rounded = (np.clip(codes, -128, 127) - params.zero_point[0]) * params.scale[0]
    assert first.local_db == pytest.approx(10 * math.log10(np.sum(x**2) / np.sum((x - rounded) ** 2)), abs=1e-3)
    assert first.accumulated_db == pytest.approx(first.local_db, abs=1e-3), "nothing stands before it"
    assert first.clipped == np.mean((codes < -128) | (codes > 127))
    assert first.histogram is not None
    counts, _ = np.histogram(x, len(first.histogram.counts), (first.histogram.low, first.histogram.high))
    assert first.histogram.counts == tuple(counts)
    assert sum(counts) + first.histogram.below + first.histogram.above == x.size


def test_the_accumulated_ratio_of_an_output_is_that_of_the_emitted_model(planned: Planned) -> None:
    last = diagnosed(planned).tensors[-2]
    assert last.operator == "head" and last.runs == "integer" and last.kind == "float", "the runtime's product gives numbers"
    settings = settings_for(planned.target)
    sessions = [open_session(proto, threads=1, settings=settings) for proto in (ir.to_proto(planned.model), emitted(planned))]
    feeds = feeds_for(planned.model, 2, seed=99)
    exact, other = (np.stack([run_session(s, f)[last.name] for f in feeds]).astype(np.float64) for s in sessions)
    assert last.accumulated_db == pytest.approx(decibels(np.sum(exact**2), np.sum((exact - other) ** 2)), abs=0.01)


def test_tensors_stand_in_graph_order_weights_behind_what_their_operator_computes(planned: Planned) -> None:
    order = [(t.op_type, t.kind) for t in diagnosed(planned).tensors]
    assert order[:4] == [("Input", "measured"), ("Conv", "measured"), ("Conv", "weight"), ("Sigmoid", "fixed")]


def test_costs_are_the_targets_and_those_of_the_integer_form(planned: Planned) -> None:
    found = {t.operator: t for t in diagnosed(planned).tensors if t.kind != "weight"}
    for node in planned.model.graph:
        shapes = {name: stats.shape for name, stats in planned.seen.tensors.items()}
        entry = planned.offers[str(node.name)]
        tensor = found[str(node.name)]
        assert tensor.float_cost == operator_costs(node, shapes, planned.target)[0]
        assert tensor.integer_cost == (entry.integer_cost if isinstance(entry, SupportedForm) else None)


def test_weights_that_are_stored_in_8_bits_and_read_in_float_are_listed_too() -> None:
    sketch = Sketch()
    planned = plan_for(sketch.model(sketch.add("MatMul", sketch.input("x", 1, 64), sketch.normal(64, 32), name="layer")), integer=())
    planned = replace(planned, plan=with_stored_weights(planned.model, planned.plan))
    found = diagnosed(planned)
    weight = next(t for t in found.tensors if t.kind == "weight")
    assert (weight.operator, weight.runs) == ("layer", "float") and weight.reason.startswith("stored in 8 bits, but read in float")
    assert weight.local_db is not None and 38.0 < weight.local_db < 46.0, "127 steps up to the largest of 64 normal numbers"
    output = next(t for t in found.tensors if t.name == "layer.0")
    assert output.accumulated_db is not None and 30.0 < output.accumulated_db < 50.0, "which is all that its output loses"


def test_weights_are_rounded_per_channel(planned: Planned) -> None:
    weight = next(t for t in diagnosed(planned).tensors if t.kind == "weight" and t.operator == "first")
    exact = next(np.asarray(n.inputs[1].const_value).astype(np.float64) for n in planned.model.graph if n.name == "first")  # type: ignore[union-attr]
    steps = np.abs(exact).max((1, 2, 3), keepdims=True) / 127
    noise = np.sum((exact - np.rint(exact / steps) * steps) ** 2)
    assert weight.params is not None and weight.params.axis == 0
    assert weight.local_db == pytest.approx(10 * math.log10(np.sum(exact**2) / noise), abs=0.01)
    assert weight.clipped == 0.0 and weight.accumulated_db is None


def test_sensitivities_are_passed_on_and_rank_the_worst(planned: Planned) -> None:
    found = diagnosed(planned, tensors={"x": 0.25, "first.0": 0.125}, weights={"head": 0.5})
    assert {t.name: t.sensitivity for t in found.tensors if t.sensitivity is not None and t.kind != "weight"} == {
        "x": 0.25,
        "first.0": 0.125,
    }
    assert [t.operator for t in found.tensors if t.kind == "weight" and t.sensitivity == 0.5] == ["head"]
    assert [a.tensor for a in found.worst][1:] == ["x", "first.0"]


def test_float_tensors_have_a_reason_and_no_grid() -> None:
    planned = plan_for(classifier(), integer=["second"])
    found = {t.name: t for t in diagnosed(planned).tensors}["first.0"]
    assert (found.kind, found.params, found.local_db, found.clipped, found.runs) == ("float", None, None, None, "float")
    assert found.reason and found.histogram is not None


def test_few_samples_are_enough(planned: Planned) -> None:
    assert diagnosed(planned, 2).samples == 2
    assert diagnosed(planned, MOST_SAMPLES + 3).samples == MOST_SAMPLES


def test_a_network_that_cannot_be_simulated_is_described_without_figures(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> object:
        raise UnknownOperatorError("a rule for Odd")

    monkeypatch.setattr(tested, "side_by_side", fails)
    found = diagnosed(planned)
    assert found.samples == 0 and "a rule for Odd" in found.note
    assert {t.accumulated_db for t in found.tensors} == {None}
    assert [t.kind for t in found.tensors][:2] == ["measured", "measured"]


def test_whether_a_scale_per_channel_can_be_folded_is_told() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 3, 8, 8), 3, outputs=8, name="first")
    model = sketch.model(sketch.conv(sketch.add("Relu", x, name="act"), 8, name="second"))
    found = {t.name: t.equalization for t in diagnosed(plan_for(model)).tensors if t.kind != "weight"}
    assert found == {"x": "impossible", "first.0": "possible", "act.0": "possible", "second.0": "impossible"}


def test_the_record_for_json_holds_every_figure_and_the_ends_of_grids(planned: Planned) -> None:
    found = diagnosed(planned)
    record = json.loads(json.dumps(diagnosis_record(found)))
    assert len(record["tensors"]) == len(found.tensors)
    first = record["tensors"][0]
    params = found.tensors[0].params
    assert params is not None and found.tensors[0].histogram is not None
    assert first["params"]["lowest"] == params.lowest and first["params"]["highest"] == params.highest
    assert first["histogram"]["counts"] == list(found.tensors[0].histogram.counts)
    assert "lowest" not in next(t for t in record["tensors"] if t["kind"] == "weight")["params"]


def test_the_same_figures_every_time(planned: Planned) -> None:
    assert diagnosed(planned) == diagnosed(replace(planned))
