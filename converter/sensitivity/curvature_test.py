"""Probes give the loss's second derivative, rows times weights give the layer, importance is that of the places sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from converter.canonicalise import canonicalise
from converter.sensitivity.curvature import capture, obstacle_to_gradients
from converter.sensitivity.layer_samples import layer_matrix, layer_rows, layers_of, place_count
from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.probes import probe
from converter.sensitivity.pull_back import pulled_back
from converter.testing.models import hybrid_model
from converter.testing.sketch import Sketch, feeds_for
from converter.torch_backend.network import Network, Step, network_of, run_samples

SCORES = {"y": OutputLoss("scores")}
LOGITS = {"logits": OutputLoss("scores")}


def kl_hessian(scores: torch.Tensor) -> torch.Tensor:
    """Second derivative, at the float scores, of the KL divergence by the other scores; by automatic differentiation."""

    def divergence(other: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(torch.log_softmax(other, -1), torch.log_softmax(scores, -1), reduction="sum", log_target=True)

    return torch.autograd.functional.hessian(divergence, scores.clone())  # type: ignore[no-untyped-call, no-any-return]


def test_probes_average_to_the_second_derivative_of_the_divergence() -> None:
    scores = torch.tensor([2.0, 0.5, -1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    vectors = torch.stack([probe({"y": scores[None, None]}, SCORES, generator)["y"][0, 0] for _ in range(4000)])
    mean = (vectors[:, :, None] * vectors[:, None, :]).mean(0)
    torch.testing.assert_close(mean, kl_hessian(scores), atol=0.01, rtol=0)


def test_scores_that_are_probabilities_already_are_taken_as_such() -> None:
    share = torch.softmax(torch.tensor([[[2.0, 0.5, -1.0]]]), -1)
    one = probe({"y": share}, SCORES, torch.Generator().manual_seed(1))["y"]
    other = probe({"y": share.log()}, SCORES, torch.Generator().manual_seed(1))["y"]
    torch.testing.assert_close(one, other)


def test_the_squared_error_is_relative_to_the_outputs() -> None:
    y = torch.randn(3, 1, 2, 4, 4)
    small, large = (
        probe({"y": factor * y}, {"y": OutputLoss("values", powers=(factor**2,))}, torch.Generator().manual_seed(2))["y"]
        for factor in (1.0, 10.0)
    )
    torch.testing.assert_close(small, 10 * large)


def test_parts_of_other_ranges_count_alike() -> None:
    y = torch.cat([640 * torch.rand(2, 1, 4, 50), torch.rand(2, 1, 8, 50)], 2)
    powers = tuple(float(part.square().mean()) for part in torch.split(y, [4, 8], 2))
    loss = OutputLoss("values", axis=-2, parts=((0, 4), (4, 12)), powers=powers)
    v = probe({"y": y}, {"y": loss}, torch.Generator().manual_seed(2))["y"]
    for start, stop in loss.parts:
        relative = v[:, :, start:stop].square().sum() * y[:, :, start:stop].square().mean()
        assert float(relative) == pytest.approx(0.5 * 2, rel=1e-4)  # half of the loss, of two samples


def test_what_may_be_scores_or_values_counts_as_both() -> None:
    """The second derivative is the sum of both, each with its weight."""
    scores = torch.tensor([2.0, 0.5, -1.0, 0.0])
    loss = {"y": OutputLoss("either", score_weight=0.7, value_weight=0.3, powers=(float(scores.square().mean()),))}
    generator = torch.Generator().manual_seed(0)
    vectors = torch.stack([probe({"y": scores[None, None]}, loss, generator)["y"][0, 0] for _ in range(6000)])
    mean = (vectors[:, :, None] * vectors[:, None, :]).mean(0)
    expected = 0.7 * kl_hessian(scores) + 0.3 * torch.eye(4) / scores.square().sum()
    torch.testing.assert_close(mean, expected, atol=0.01, rtol=0)


def by_sample(rows: torch.Tensor, samples: int) -> torch.Tensor:
    return rows.reshape(rows.shape[0], samples, -1, rows.shape[2])


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(1, 1), (3, 3), (2, 5)]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(0, 9),
)
def test_rows_times_weights_are_the_convolution(
    kernel: tuple[int, int], groups: int, stride: int, dilation: int, pad: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    attributes = {"group": groups, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad, 0, pad, pad]}
    step = Step("conv", "Conv", ("x", "w"), ("y",), attributes)
    weight = torch.randn(8, 4 // groups, *kernel, generator=generator)
    x = torch.randn(3, 1, 4, 9, 11, generator=generator)
    y = run_samples(Network((step,), {"w": weight}, ("x",), ("y",)), {"x": x})["y"]
    rows = layer_rows(step, x, weight, None) @ layer_matrix(step, weight)
    expected = y[:, 0].flatten(2).movedim(1, 2).reshape(-1, groups, 8 // groups).transpose(0, 1)
    torch.testing.assert_close(rows, expected, atol=1e-4, rtol=1e-4)
    every = by_sample(layer_rows(step, x, weight, None), 3)
    assert place_count(step, x, weight) == every.shape[2]
    places = torch.stack([torch.randperm(every.shape[2], generator=generator)[:4] for _ in x])
    some = by_sample(layer_rows(step, x, weight, places), 3)
    assert torch.equal(some, torch.stack([every[:, i, places[i]] for i in range(3)], 1))


def test_rows_of_a_sequence_at_some_places_are_those_of_all() -> None:
    step = Step("conv", "Conv", ("x", "w"), ("y",), {"pads": [2, 1], "strides": [2], "dilations": [3]})
    x, weight = torch.randn(2, 1, 3, 20), torch.randn(5, 3, 4)
    every = by_sample(layer_rows(step, x, weight, None), 2)
    places = torch.tensor([[6, 0], [1, 3]])
    some = by_sample(layer_rows(step, x, weight, places), 2)
    assert torch.equal(some[0, 1], every[0, 1][places[1]]) and torch.equal(some[0, 0], every[0, 0][places[0]])


@pytest.mark.parametrize("transposed", [0, 1])
def test_rows_times_weights_are_the_linear_layer(transposed: int) -> None:
    weight, x = torch.randn(5, 7), torch.randn(3, 6, 7 if transposed else 5)
    step = Step("gemm", "Gemm", ("x", "w"), ("y",), {"transB": transposed})
    rows = layer_rows(step, x, weight, None) @ layer_matrix(step, weight)
    torch.testing.assert_close(rows[0], (x @ (weight.T if transposed else weight)).reshape(18, -1))


@pytest.fixture(scope="module")
def hybrid() -> tuple[Network, dict[str, torch.Tensor]]:
    image = np.random.default_rng(0).random((6, 1, 3, 32, 32), dtype=np.float32)
    network = network_of(canonicalise(hybrid_model(), [{"image": image[0]}]).model)
    return network, {"image": torch.from_numpy(image)}


def test_every_layer_is_sampled_and_its_rows_give_its_output(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    names = layers_of(network)
    samples, fisher = capture(network, names, feed, LOGITS, outputs=["logits"], rows=60, probes=2)
    assert set(samples) == set(names) and len(names) >= 12
    assert {len(s.operands) for s in samples.values()} == {1, 2}
    for sample in samples.values():
        assert (sample.left @ sample.right).shape == sample.fisher.shape
        assert bool((sample.fisher >= 0).all()) and bool((sample.fisher > 0).any())
    assert fisher["logits"].shape == (6, 1, 10)


def test_importance_at_the_scores_is_the_diagonal_of_the_second_derivative(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    _, fisher = capture(network, (), feed, LOGITS, outputs=["logits"], probes=600)
    scores = run_samples(network, feed)["logits"]
    expected = torch.stack([kl_hessian(s[0]).diagonal() for s in scores])
    torch.testing.assert_close(fisher["logits"][:, 0], expected, rtol=0.35, atol=0.01)


def test_the_same_seed_gives_the_same_samples(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    one, other, third = (capture(network, layers_of(network), feed, LOGITS, rows=30, probes=1, seed=seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(one[n].left, other[n].left) and torch.equal(one[n].fisher, other[n].fisher) for n in one)
    assert any(not torch.equal(one[n].left, third[n].left) for n in one)


def sketched(build: Callable[[Sketch, str], str], *shape: int) -> tuple[Network, dict[str, torch.Tensor]]:
    sketch = Sketch()
    model = sketch.model(build(sketch, sketch.input("x", *shape)))
    return network_of(model), {"x": torch.from_numpy(np.stack([f["x"] for f in feeds_for(model, 4)]))}


def thresholded(sketch: Sketch, x: str) -> str:
    """A convolution behind a threshold, through which no gradient passes."""
    bits = sketch.add("Cast", sketch.add("Greater", sketch.conv(x, 4), sketch.constant(0.0)), to=1)
    return sketch.conv(bits, 4)


def test_behind_what_has_no_gradient_it_begins_anew_and_in_front_all_matters_alike() -> None:
    network, feed = sketched(thresholded, 1, 4, 6, 6)
    losses = {network.outputs[0]: OutputLoss("values")}
    assert "no gradient passes" in obstacle_to_gradients(network, feed, losses)
    alone = replace(network, one_by_one=True)
    assert obstacle_to_gradients(alone, feed, losses) == ""
    samples, _ = capture(alone, layers_of(alone), feed, losses)
    front, back = samples.values()
    assert (front.blind, back.blind) == (True, False)
    assert float(front.fisher.min()) == float(front.fisher.max()) and float(
        front.fisher.sum() * (front.left @ front.right).square().mean()
    ) == (pytest.approx(1.0, rel=1e-3))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"op_type": "Softmax", "attributes": {"axis": 7}}, "operator 'Softmax': Dimension out of range"),
        ({"op_type": "Add", "inputs": ("x", "")}, "operator 'Add': unsupported operand"),
        ({"op_type": "Reshape", "inputs": ("x", "shape")}, "invalid for input of size"),
        ({"op_type": "Softmax", "attributes": {"wrong": 1}}, "operator 'Softmax' with wrong=1"),
    ],
    ids=["IndexError", "TypeError", "RuntimeError", "UnknownOperatorError"],
)
def test_what_torch_refuses_is_an_obstacle_and_says_which(refused: dict[str, Any], said: str) -> None:
    network, feed = sketched(lambda s, x: s.add("Relu", x), 2, 3)
    steps = (replace(network.steps[0], **refused),)
    network = replace(network, steps=steps, constants={"shape": torch.tensor([5, 7])})
    assert said in obstacle_to_gradients(network, feed, {network.outputs[0]: OutputLoss("values")})


def test_a_mistake_in_the_loss_is_no_obstacle() -> None:
    """It would silently cost all that gradients know, and is the caller's to mend."""
    network, feed = sketched(lambda s, x: s.add("MatMul", x, s.normal(3, 3)), 2, 3)
    damaged = OutputLoss("values", parts=((0, 3),), powers=(1.0, 2.0))
    with pytest.raises(ValueError, match="zip"):
        obstacle_to_gradients(network, feed, {network.outputs[0]: damaged})


def test_without_a_float_input_gradients_reach_the_layers_all_the_same() -> None:
    def build(sketch: Sketch, x: str) -> str:
        return sketch.conv(sketch.add("Relu", sketch.conv(sketch.add("Cast", sketch.add("Cast", x, to=7), to=1), 4)), 4)

    network, feed = sketched(build, 1, 4, 6, 6)
    samples, _ = capture(replace(network, one_by_one=True), layers_of(network), feed, {network.outputs[0]: OutputLoss("values")})
    assert [s.blind for s in samples.values()] == [False, False]


def test_samples_one_by_one_have_the_gradients_of_samples_together(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    points = [s.outputs[0] for s in network.steps if s.name in layers_of(network)]
    together, alone = (
        next(pulled_back(each, feed, LOGITS, (), points, 1, torch.Generator().manual_seed(3), lambda name, gradient: gradient)[1])
        for each in (network, replace(network, one_by_one=True))
    )
    assert set(together) == set(alone) == set(points)
    for name in points:
        torch.testing.assert_close(alone[name], together[name], rtol=1e-3, atol=1e-6)


def test_what_torch_lacks_the_runtime_computes() -> None:
    def build(sketch: Sketch, x: str) -> str:
        return sketch.add(
            "CenterCropPad", sketch.add("MatMul", x, sketch.constant(np.eye(3) + 0.1)), sketch.constant([3], np.int64), axes=[1]
        )

    network, feed = sketched(build, 1, 5, 3)
    assert network.one_by_one
    losses = {network.outputs[0]: OutputLoss("values")}
    values, _ = pulled_back(network, feed, losses, network.outputs, (), 0, torch.Generator(), lambda name, gradient: gradient)
    expected = (feed["x"] @ (torch.eye(3) + 0.1))[:, :, 1:4]
    torch.testing.assert_close(values[network.outputs[0]].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3, 4, 5), (2, 3, 5, 6)),
        ((1, 4, 5), (2, 3, 5, 6)),
        ((2, 3, 4, 5), (3, 5, 6)),
        ((2, 4, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((5,), (5, 2)),
    ],
    ids=str,
)
def test_products_are_sampled_as_matmul_pairs_their_operands(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Rows times the matrix of the same product give what MatMul gives, whatever the ranks."""
    sketch = Sketch()
    a, b = sketch.input("a", *left), sketch.input("b", *right)
    model = sketch.model(sketch.add("MatMul", a, b))
    network = network_of(model)
    feed = {n: torch.randn(4, *shape) for n, shape in {"a": left, "b": right}.items()}
    (sample,) = capture(network, layers_of(network), feed, {network.outputs[0]: OutputLoss("values")}, rows=10**6)[0].values()
    products = (sample.left @ sample.right).flatten().sort().values
    expected = run_samples(network, feed)[network.outputs[0]].flatten().sort().values
    torch.testing.assert_close(products, expected, rtol=1e-4, atol=1e-5)
    assert not sample.blind and sample.fisher.shape == (sample.left @ sample.right).shape
