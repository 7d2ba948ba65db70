"""What gradients propose for tensors that no layer reads is taken only where the outputs agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.methods.judging.range_candidates import covering
from converter.methods.judging.tensor_error import tensor_samples_of
from converter.methods.problem import Problem
from converter.methods.q_hyvit.output_trials import unread_params
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, stack
from converter.testing.sketch import Sketch, feeds_for, losses_of
from converter.torch_backend.network import network_of

BITS = 6


def scored(gain: np.ndarray) -> tuple[ir.Model, str]:
    """Scores of eight numbers, each with a gain, through a tensor that a sum reads and no layer."""
    sketch = Sketch()
    stream = sketch.add("Mul", sketch.input("x", 1, 8), sketch.constant(np.ones(8)), name="stream")
    moved = sketch.add("Add", stream, sketch.constant(np.zeros(8) + 0.1), name="moved")
    return sketch.model(sketch.add("Mul", moved, sketch.constant(gain), name="scores")), stream


def context_of(model: ir.Model, stream: str, feeds: list[dict[str, np.ndarray]]) -> AnalysisContext:
    return AnalysisContext(
        network_of(model), stack(feeds), {("moved", 0): QuantizedEdge(stream, 1.0)}, (), (), 0, losses=losses_of(model, "values")
    )


def searched(gain: np.ndarray, loud: float, start: QuantParams) -> tuple[QuantParams, np.ndarray, np.ndarray]:
    """The grid found for numbers of which the first is so many times as large; what it and the first grid leave of errors."""
    model, stream = scored(gain)
    feeds = feeds_for(model, 16)
    for feed in feeds:
        feed["x"][:, 0] *= loud
    seen = collect_statistics(model, feeds, threads=1)
    problem = Problem(seen.tensors, {}, dict.fromkeys(seen.tensors, BITS), True)
    context = context_of(model, stream, feeds)
    found = unread_params(problem, context, {stream: start}, tensor_samples_of(context, [stream], context.feed))
    grid = found.get(stream, start)
    numbers = np.concatenate([f["x"] for f in feeds])
    errors = [np.square((fake_quantize(numbers, g) - numbers) * gain).sum() for g in (grid, start)]
    return grid, errors[0], errors[1]


@pytest.mark.parametrize("loud", [1.0, 30.0])
def test_what_is_found_is_never_worse_on_the_outputs(loud: float) -> None:
    for gain in (np.ones(8), np.asarray([0.01] + [1.0] * 7), np.asarray([3.0] + [1.0] * 7)):
        _, after, before = searched(gain.astype(np.float32), loud, covering(-3.0 * loud, 3.0 * loud, BITS, True))
        assert after <= 1.05 * before


def test_large_numbers_that_do_not_matter_are_cut_off_for_the_others() -> None:
    gain = np.asarray([0.001] + [1.0] * 7, np.float32)
    grid, after, before = searched(gain, 50.0, covering(-150.0, 150.0, BITS, True))
    assert grid.highest < 30.0
    assert after < 0.1 * before


def test_nothing_is_changed_where_nothing_can_be_differentiated() -> None:
    model, stream = scored(np.ones(8))
    feeds = feeds_for(model, 4)
    seen = collect_statistics(model, feeds, threads=1)
    problem = Problem(seen.tensors, {}, dict.fromkeys(seen.tensors, BITS), True)
    context = replace(context_of(model, stream, feeds), values={stream: torch.zeros(4, 1, 8)})
    assert unread_params(problem, context, {stream: covering(-9, 9, BITS, True)}, tensor_samples_of(context, [stream], context.feed)) == {}
