"""Rounding that makes up for itself, and biases that are right on average."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise import canonicalise
from converter.methods.q_hyvit.refine import compensated_rounding, matrix_to_weight, reconstruct
from converter.methods.q_hyvit.sigmoid_search import approximation_hook
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext, context_of
from converter.sensitivity.layer_samples import layer_matrix
from converter.testing.models import hybrid_model
from converter.testing.sketch import losses_of, plan_for
from converter.torch_backend.network import run_samples
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear

Asked = tuple[AnalysisContext, dict[str, QuantParams], dict[str, QuantParams]]


def error(left: torch.Tensor, right: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> float:
    return float((left @ (codes * scale - right)).square().sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50), st.sampled_from([2, 3, 5]))
def test_the_outputs_are_nearer_than_with_the_nearest_codes(seed: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(1, 12, 12, generator=generator)
    left, right = torch.randn(1, 200, 12, generator=generator) @ mix, torch.randn(1, 12, 40, generator=generator)
    top = 2 ** (bits - 1) - 1
    scale = right.abs().amax(1, keepdim=True) / top
    nearest = torch.clamp(torch.round(right / scale), -top, top)
    codes = compensated_rounding(left, right, scale, -top, top)
    assert bool((codes == codes.round()).all()) and float(codes.abs().max()) <= top
    assert error(left, right, codes, scale) < error(left, right, nearest, scale)


def test_two_inputs_that_go_together_are_rounded_to_the_best_pair() -> None:
    """Both inputs are always equal: only the sum of the weights counts, and 0.4 + 0.4 is 1 rather than 0."""
    left = torch.ones(1, 10, 2) * torch.linspace(1, 2, 10)[None, :, None]
    right, scale = torch.tensor([[[0.4], [0.4]]]), torch.ones(1, 1, 1)
    codes = compensated_rounding(left, right, scale, -7, 7)
    pairs = [torch.tensor([[[float(a)], [float(b)]]]) for a, b in itertools.product(range(-1, 3), repeat=2)]
    assert float(codes.sum()) == 1.0
    assert error(left, right, codes, scale) == pytest.approx(min(error(left, right, p, scale) for p in pairs))


def test_inputs_that_have_nothing_to_do_with_each_other_go_to_the_nearest() -> None:
    left = torch.eye(6)[None] * 3.0
    right = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    scale = torch.full((1, 1, 4), 0.3)
    assert torch.equal(compensated_rounding(left, right, scale, -7, 7), torch.clamp(torch.round(right / scale), -7, 7))


def test_dead_inputs_are_no_obstacle() -> None:
    left = torch.randn(1, 30, 5)
    left[:, :, 2] = 0.0
    right = torch.randn(1, 5, 3)
    assert bool(torch.isfinite(compensated_rounding(left, right, torch.full((1, 1, 3), 0.2), -7, 7)).all())


@pytest.fixture(scope="module")
def context() -> Asked:
    generator = np.random.default_rng(0)
    feeds = [{"image": generator.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(8)]
    model = canonicalise(hybrid_model(), feeds[:1]).model
    plan = plan_for(model, bits=(4, 8), feeds=feeds).plan
    context = replace(context_of(model, plan, feeds, (), 0), losses=losses_of(model))
    grids = {name: tensor_plan.params for name, tensor_plan in plan.tensors.items() if tensor_plan.params is not None}
    return context, grids, {name: plan.ops[name].constants[1] for name in context.weights}


def test_every_weighted_layer_gets_codes_on_its_grid(context: Asked) -> None:
    refined = reconstruct(*context, correction=False, rounding=True, bias=False)
    shapes = {s.name: context[0].network.constants[s.inputs[1]].shape for s in context[0].network.steps if s.name in refined}
    assert set(refined) == set(context[0].weights)
    for name, layer in refined.items():
        assert layer.bias is None and layer.codes is not None
        assert layer.codes.shape == shapes[name] and int(layer.codes.abs().max()) <= 7


def test_half_of_what_a_layer_is_off_is_corrected(context: Asked) -> None:
    """The first layer reads an input that is nearly exact, so that its own weights make all the error."""
    whole, grids, weights = context
    first = whole.network.steps[0]
    assert first.op_type == "Conv"
    refined = reconstruct(whole, grids, weights, correction=False, rounding=True, bias=True)[first.name]
    assert refined.bias is not None and refined.codes is not None
    scale = torch.tensor(weights[first.name].scale).reshape(-1, 1, 1, 1)
    changed = {first.inputs[1]: refined.codes * scale, first.inputs[2]: refined.bias}
    plain = {first.inputs[1]: refined.codes * scale}
    means = [
        run_samples(whole.network, whole.feed, wanted=[first.outputs[0]], constants=c)[first.outputs[0]].mean((0, 1, 3, 4))
        for c in ({}, changed, plain)
    ]
    corrected, left = (means[1] - means[2], means[0] - means[2])
    assert float((corrected - left / 2).norm()) < 0.2 * float(left.norm())


def test_what_a_piecewise_linear_sigmoid_is_off_on_average_is_made_up_for_behind_it(context: Asked) -> None:
    whole, grids, weights = context
    sigmoid = next(step for step in whole.network.steps if step.op_type == "Sigmoid")
    approximations = {sigmoid.name: PiecewiseLinear(0.2, 0.7, 0.2, 1.0)}
    expected = run_samples(whole.network, whole.feed)["logits"]
    biases = {step.name: step.inputs[2] for step in whole.network.steps if len(step.inputs) > 2}

    def error(known: dict[str, PiecewiseLinear]) -> float:
        refined = reconstruct(whole, grids, weights, known, correction=False, rounding=False, bias=True)
        constants = {biases[name]: layer.bias for name, layer in refined.items() if layer.bias is not None}
        got = run_samples(whole.network, whole.feed, hook=approximation_hook(approximations), constants=constants)["logits"]
        return float((got - expected).square().mean())

    assert error(approximations) < 0.8 * error({})


def test_layers_behind_a_piecewise_linear_sigmoid_give_nearer_what_they_gave(context: Asked) -> None:
    """This piecewise-linear sigmoid is too low everywhere, so that what it gates comes out too small; no bias makes up for that."""
    whole, grids, weights = context
    sigmoid = next(step for step in whole.network.steps if step.op_type == "Sigmoid")
    approximations = {sigmoid.name: PiecewiseLinear(0.1, 0.3, 0.2, 0.4)}
    expected = run_samples(whole.network, whole.feed)["logits"]
    steps = {step.name: step for step in whole.network.steps}
    fine = {name: replace(grid, scale=tuple(1.2 * s / 127 * 7 for s in grid.scale), bits=8) for name, grid in weights.items()}

    def error(*, correction: bool) -> float:
        refined = reconstruct(whole, grids, fine, approximations, correction=correction, rounding=False, bias=True)
        constants = {steps[name].inputs[2]: layer.bias for name, layer in refined.items() if layer.bias is not None}
        for name, layer in refined.items():
            assert (layer.codes is not None) == correction
            if layer.codes is not None:
                step, weight = steps[name], whole.network.constants[steps[name].inputs[1]]
                codes, scale = layer_matrix(step, layer.codes.float()), torch.tensor(fine[name].scale)
                matrix = codes * scale.expand(codes.shape[0] * codes.shape[2]).reshape(codes.shape[0], 1, -1)
                constants[step.inputs[1]] = matrix_to_weight(step, matrix, weight.shape)
        got = run_samples(whole.network, whole.feed, hook=approximation_hook(approximations), constants=constants)["logits"]
        return float((got - expected).square().mean())

    assert error(correction=True) < 0.7 * error(correction=False)


def test_the_same_context_gives_the_same_codes(context: Asked) -> None:
    one, other = (reconstruct(*context, correction=True, rounding=True, bias=True) for _ in range(2))
    for name in one:
        assert torch.equal(one[name].codes, other[name].codes)  # type: ignore[arg-type]
