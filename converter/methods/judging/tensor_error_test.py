"""Tensors judged at themselves: importance by hand, errors by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from converter.methods.judging.tensor_error import TensorSample, grid_errors, tensor_samples_of, thinned_sample
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.sensitivity.context import AnalysisContext, stack
from converter.sensitivity.output_loss import OutputLoss
from converter.testing.sketch import Sketch
from converter.torch_backend.network import network_of

GRIDS = [QuantParams((0.1,), (3,), 8, True), QuantParams((0.25,), (-20,), 8, True), QuantParams((0.02,), (0,), 8, True)]


def witness_of(values: torch.Tensor, fisher: torch.Tensor | None = None) -> TensorSample:
    return TensorSample(torch.arange(values.shape[1]), values, torch.ones_like(values) if fisher is None else fisher)


def test_the_importance_is_the_squared_slope_of_the_loss() -> None:
    """One output y = sum(w x): its loss (dy)^2 / power has the second derivative w^2 / power at each x."""
    sketch = Sketch()
    x = sketch.input("x", 1, 6)
    middle = sketch.add("Mul", x, sketch.constant(2.0), name="middle")
    weight = np.asarray([[1.0], [-2.0], [0.5], [0.0], [3.0], [1.0]], np.float32)
    model = sketch.model(sketch.add("MatMul", middle, sketch.constant(weight)))
    inputs = np.random.default_rng(0).normal(size=(3, 1, 6)).astype(np.float32)
    feed = stack([{"x": one} for one in inputs])
    context = AnalysisContext(
        network_of(model), feed, {}, (), (), 0, losses={str(model.graph.outputs[0].name): OutputLoss("values", powers=(0.25,))}
    )
    (tensor_sample,) = tensor_samples_of(context, ["middle.0"], feed).values()
    order = tensor_sample.places.numpy()
    np.testing.assert_allclose(tensor_sample.values.numpy(), 2.0 * inputs[:, 0, order], rtol=1e-6)
    np.testing.assert_allclose(tensor_sample.fisher.numpy(), np.broadcast_to(np.square(weight[order, 0]) / 0.25 / 3, (3, 6)), rtol=1e-5)


def test_errors_are_those_of_rounding_number_by_number() -> None:
    generator = torch.Generator().manual_seed(0)
    values, fisher = 8 * torch.randn(3, 50, generator=generator), torch.rand(3, 50, generator=generator)
    errors = grid_errors(witness_of(values, fisher), GRIDS)
    for error, grid in zip(errors, GRIDS, strict=True):
        rounded = fake_quantize(values.numpy(), grid)
        assert float(error) == pytest.approx(float((fisher.numpy() * np.square(rounded - values.numpy())).sum()), rel=1e-5)


def test_thinning_takes_other_places_of_each_sample() -> None:
    values = torch.zeros(16, 1152)
    values[:, 5] = 1.0
    thin = thinned_sample(witness_of(values))
    assert 0 < float(thin.values.sum()) < 16
    assert float(thin.fisher.sum()) == pytest.approx(float(values.numel()), rel=0.01)


def test_a_network_that_cannot_be_differentiated_has_no_witnesses() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Relu", sketch.input("x", 1, 6), name="relu"))
    context = AnalysisContext(network_of(model), {}, {}, (), (), 0, values={})
    assert tensor_samples_of(context, ["relu.0"], {"x": torch.zeros(2, 1, 6)}) == {}
