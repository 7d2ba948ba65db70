"""Ranges of what only activation functions read follow from what the functions do, and are checked against the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.methods.judging.output_change import divergence
from converter.methods.judging.output_error import on_grids
from converter.methods.judging.range_candidates import covering
from converter.methods.problem import Problem
from converter.methods.q_hyvit import activation_search
from converter.methods.q_hyvit.activation_search import activation_grids, activations_of
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, stack
from converter.sensitivity.curvature import pulled_back
from converter.testing.sketch import Sketch, feeds_for, losses_of
from converter.torch_backend.network import network_of, run_samples

Shape = Callable[[Sketch, str], str]

CHANNELS = 8
START = covering(-4.0, 4.0, 8, True)

SHAPES: dict[str, Shape] = {
    "silu": lambda s, x: s.silu(x),
    "gelu": lambda s, x: s.add("Gelu", x),
    "hard swish": lambda s, x: s.add("HardSwish", x),
    "spelled out": lambda s, x: s.add("Mul", x, s.add("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)),
    "with constants": lambda s, x: s.add("Mul", x, s.add("Clip", s.add("Mul", x, s.constant(0.25)), s.constant(0.0), s.constant(1.0))),
    "leaky": lambda s, x: s.add("LeakyRelu", x, alpha=0.9),
}


def network(shape: Shape, width: float = 4.0, strength: float = 30.0, seed: int = 0) -> tuple[ir.Model, str]:
    """Class scores of an activation function's results; the greater the width, the wider what the function reads."""
    s = Sketch(seed)
    x = s.add("Mul", s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS), s.constant(width), name="read")
    y = s.conv(shape(s, x), CHANNELS)
    return s.model(s.add("Flatten", s.add("GlobalAveragePool", s.add("Mul", y, s.constant(strength))))), x


def found(model: ir.Model, x: str, samples: int = 16) -> tuple[dict[str, QuantParams], AnalysisContext, tuple[float, float]]:
    feeds = feeds_for(model, samples)
    seen = collect_statistics(model, feeds, threads=1)
    problem = Problem(seen.tensors, {}, dict.fromkeys(seen.tensors, 8), True)
    readers = [n for n in model.graph if any(v is not None and v.name == x for v in n.inputs)]
    quantized_edges = {
        (str(n.name), i): QuantizedEdge(x, 1.0) for n in readers for i, v in enumerate(n.inputs) if v is not None and v.name == x
    }
    context = AnalysisContext(network_of(model), stack(feeds), quantized_edges, (), (), 0, losses=losses_of(model))
    stats = seen.tensors[x]
    return activation_grids(problem, context, {x: START}, [x]), context, (stats.minimum, stats.maximum)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_function_is_found_however_it_is_spelled(shape: Shape) -> None:
    model, x = network(shape)
    (activation,) = activations_of(network_of(model), [x])
    assert activation.source == x
    assert activation.output == next(str(n.inputs[0].name) for n in reversed(list(model.graph)) if n.op_type == "Conv" and n.inputs[0])


def test_what_something_else_reads_too_is_no_matter_of_a_function() -> None:
    for reader in ("Add", "Relu"):
        s = Sketch()
        x = s.add("Mul", s.input("x", 1, CHANNELS, 6, 6), s.constant(4.0), name="read")
        other = s.add("Relu", x) if reader == "Relu" else x
        model = s.model(s.conv(s.silu(x), CHANNELS), s.conv(other, CHANNELS))
        assert activations_of(network_of(model), [x]) == []


def test_constants_that_differ_between_channels_are_no_part_of_a_function() -> None:
    s = Sketch()
    x = s.add("Mul", s.input("x", 1, CHANNELS, 6, 6), s.constant(4.0), name="read")
    shifted = s.add("Add", x, s.normal(1, CHANNELS, 1, 1))
    model = s.model(s.conv(s.add("Relu", shifted), CHANNELS))
    assert activations_of(network_of(model), [x]) == []


@pytest.mark.parametrize("name", ["silu", "gelu", "hard swish", "spelled out", "with constants"])
def test_what_a_function_hardly_tells_apart_is_cut_off_and_the_other_end_stays(name: str) -> None:
    model, x = network(SHAPES[name])
    grids, _, (low, high) = found(model, x)
    assert low < -10.0
    assert 0.05 * low > grids[x].lowest > 0.7 * low
    assert grids[x].highest > 0.7 * high


def test_nothing_is_cut_off_that_a_function_tells_apart() -> None:
    model, x = network(SHAPES["leaky"])
    grids, _, (low, high) = found(model, x)
    assert grids[x].lowest < 0.6 * low
    assert grids[x].highest > 0.6 * high


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_the_scores_change_less_than_on_the_range_and_on_the_grid_of_least_plain_error(name: str) -> None:
    """By the network as it runs with that grid alone; the mean over networks."""
    ratios = []
    for seed in range(6):
        model, x = network(SHAPES[name], strength=3.0, seed=seed)
        grids, context, (low, high) = found(model, x, samples=32)
        values = run_samples(context.network, context.feed, wanted=[x])[x].numpy()
        ranges = [covering(a * low, b * high, 8, True) for a in np.linspace(0.5, 1.0, 6) for b in np.linspace(0.5, 1.0, 6)]
        plainest = min(ranges, key=lambda g: float(np.square(fake_quantize(values, g) - values).sum()))
        ratios.append(changed(context, x, grids[x]) / min(changed(context, x, covering(low, high, 8, True)), changed(context, x, plainest)))
    assert np.mean(ratios) < 0.75


def changed(context: AnalysisContext, x: str, grid: QuantParams) -> float:
    """Divergence of the scores with one tensor on a grid."""
    (plain,) = run_samples(context.network, context.feed).values()
    (got,) = run_samples(context.network, context.feed, hook=on_grids(context.quantized_edges, {x: grid})).values()
    return divergence(plain, got)


def test_the_answer_does_not_depend_on_the_number_of_workers() -> None:
    model, x = network(SHAPES["silu"])
    feeds = feeds_for(model, 8)
    seen = collect_statistics(model, feeds, threads=1)
    problem = Problem(seen.tensors, {}, dict.fromkeys(seen.tensors, 8), True)
    context = AnalysisContext(network_of(model), stack(feeds), {}, (), (), 0, losses=losses_of(model))
    assert activation_grids(problem, context, {x: START}, [x]) == activation_grids(problem, replace(context, workers=3), {x: START}, [x])


def test_there_are_none_where_nothing_can_be_differentiated_or_nothing_varies() -> None:
    model, x = network(SHAPES["silu"])
    feeds = feeds_for(model, 4)
    context = AnalysisContext(network_of(model), stack(feeds), {}, (), (), 0, losses=losses_of(model))
    seen = collect_statistics(model, feeds, threads=1)
    problem = Problem(seen.tensors, {}, dict.fromkeys(seen.tensors, 8), True)
    assert activation_grids(problem, replace(context, values={}), {x: START}, [x]) == {}
    still = replace(problem, tensors={x: replace(seen.tensors[x], minimum=1.0, maximum=1.0)})
    assert activation_grids(still, context, {x: START}, [x]) == {}
    assert activation_grids(problem, context, {x: START}, []) == {}


def test_gradients_that_are_no_numbers_leave_the_grid_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*arguments: Any) -> Any:
        given: list[Any] = list(arguments)
        given[-1] = lambda name, gradient: arguments[-1](name, torch.full_like(gradient, torch.nan))
        return pulled_back(*given)

    monkeypatch.setattr(activation_search, "pulled_back", nothing)
    model, x = network(SHAPES["silu"])
    assert found(model, x)[0].get(x, START) == START


@pytest.mark.parametrize(("part", "kept"), [(1.0, True), (0.05, False)])
def test_grids_with_which_the_network_answers_worse_are_dropped(monkeypatch: pytest.MonkeyPatch, part: float, kept: bool) -> None:
    """Whatever the gradients told: behind a saturated softmax they vanish."""
    proposal = covering(part * START.lowest, part * START.highest, 8, True)
    monkeypatch.setattr(activation_search, "_best", lambda *_: proposal)
    model, x = network(SHAPES["silu"])
    assert found(model, x)[0] == ({x: proposal} if kept else {})
