"""Changes of outputs count by their losses; small networks can afford trials on more samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from converter.calibration.observer import TensorStats
from converter.methods.judging.output_change import affordable_samples, output_change, ruins_outputs
from converter.methods.problem import Problem
from converter.quantization.parameters import QuantParams, affine_params
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, stack
from converter.sensitivity.output_loss import OutputLoss
from converter.testing.sketch import Sketch, feeds_for
from converter.torch_backend.network import network_of


@pytest.mark.parametrize(("numbers", "samples"), [(1 << 10, 1 << 14), (1 << 20, 16), (1 << 21, 8), (1 << 23, 8)])
def test_trials_have_as_many_samples_as_the_network_is_small_enough_for(numbers: int, samples: int) -> None:
    stats = TensorStats(0.0, 1.0, np.zeros(1, np.float32), (numbers // 4, 2))
    assert affordable_samples(Problem({"a": stats, "b": stats}, {}, {}, True), 8) == samples


def test_values_count_by_the_share_of_their_power_each_part_alike() -> None:
    wanted = torch.tensor([[[100.0, 0.0, 3.0, 4.0]]])
    got = torch.tensor([[[110.0, 0.0, 3.0, 5.0]]])
    parts = OutputLoss("values", axis=-1, parts=((0, 2), (2, 4)))
    assert output_change({"y": wanted}, {"y": got}, {"y": parts}) == pytest.approx((0.01 + 1 / 25) / 2)
    assert output_change({"y": wanted}, {"y": got}, {"y": OutputLoss("values")}) == pytest.approx(101 / 10025)


def test_scores_count_by_the_divergence_of_their_probabilities() -> None:
    wanted, got = torch.tensor([[[0.9, 0.1]]]).log(), torch.tensor([[[0.6, 0.4]]]).log()
    divergence = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    either = OutputLoss("either", score_weight=2.0, value_weight=0.0)
    assert output_change({"y": wanted}, {"y": got}, {"y": OutputLoss("scores")}) == pytest.approx(divergence, rel=1e-5)
    assert output_change({"y": wanted}, {"y": got}, {"y": either}) == pytest.approx(2 * divergence, rel=1e-5)


def test_what_is_infinite_has_to_stay_so_and_the_rest_is_compared() -> None:
    wanted = torch.tensor([[[-math.inf, 3.0, 4.0]]])
    loss = {"y": OutputLoss("values")}
    assert output_change({"y": wanted}, {"y": torch.tensor([[[-math.inf, 3.0, 5.0]]])}, loss) == pytest.approx(1 / 25)
    assert output_change({"y": wanted}, {"y": torch.tensor([[[-9.0, 3.0, 4.0]]])}, loss) == math.inf
    assert output_change({"y": wanted}, {"y": wanted[:, :, :2]}, loss) == math.inf
    assert output_change({"y": wanted}, {}, loss) == math.inf


@pytest.mark.parametrize(
    ("found", "ruined"),
    [
        (affine_params(-4.0, 4.0, bits=8, signed=True), False),
        (affine_params(-6.0, 6.0, bits=8, signed=True), False),  # steps half as wide again: 2.25 times the error
        (affine_params(-12.0, 12.0, bits=8, signed=True), True),  # nine times
        (affine_params(-0.1, 0.1, bits=8, signed=True), True),
    ],
)
def test_grids_that_leave_far_more_error_than_simple_ones_ruin_the_outputs(found: QuantParams, ruined: bool) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("MatMul", sketch.add("Neg", sketch.input("x", 4, 16), name="neg"), sketch.normal(16, 8), name="layer"))
    losses = {str(model.graph.outputs[0].name): OutputLoss("values")}
    context = AnalysisContext(
        network_of(model), stack(feeds_for(model, 16)), {("layer", 0): QuantizedEdge("neg.0", 1.0)}, (), (), 0, losses=losses
    )
    problem, simple = Problem({}, {}, {}, True, context=context), affine_params(-4.0, 4.0, bits=8, signed=True)
    assert ruins_outputs(problem, {"neg.0": found}, {"neg.0": simple}) == ruined
    assert not ruins_outputs(replace(problem, context=None), {"neg.0": found}, {"neg.0": simple})
