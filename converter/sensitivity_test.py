"""Probes give the loss's second derivative, rows times weights give the layer, importance is that of the places sampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from converter.canonicalise import canonicalise
from converter.conftest import hybrid_model
from converter.network import Network, Step, network_of, run_samples
from converter.sensitivity import capture, layer_matrix, layer_rows, layers_of, loss_kind, probe


def kl_hessian(scores: torch.Tensor) -> torch.Tensor:
    """Second derivative, at the float scores, of the KL divergence by the other scores; by automatic differentiation."""

    def divergence(other: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(torch.log_softmax(other, -1), torch.log_softmax(scores, -1), reduction="sum", log_target=True)

    return torch.autograd.functional.hessian(divergence, scores.clone())  # type: ignore[no-untyped-call, no-any-return]


def test_probes_average_to_the_second_derivative_of_the_divergence() -> None:
    scores = torch.tensor([2.0, 0.5, -1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    vectors = torch.stack([probe({"y": scores[None, None]}, generator)["y"][0, 0] for _ in range(4000)])
    mean = (vectors[:, :, None] * vectors[:, None, :]).mean(0)
    torch.testing.assert_close(mean, kl_hessian(scores), atol=0.01, rtol=0)


def test_scores_that_are_probabilities_already_are_taken_as_such() -> None:
    share = torch.softmax(torch.tensor([[[2.0, 0.5, -1.0]]]), -1)
    one = probe({"y": share}, torch.Generator().manual_seed(1))["y"]
    other = probe({"y": share.log()}, torch.Generator().manual_seed(1))["y"]
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 10), "KL divergence"), ((1, 40, 90), "KL divergence"), ((1, 8, 6, 6), "squared error"), ((1, 1), "squared error")],
)
def test_the_loss_follows_the_shape_of_the_output(shape: tuple[int, ...], kind: str) -> None:
    assert loss_kind(shape) == kind


def test_the_squared_error_is_relative_to_the_outputs() -> None:
    y = torch.randn(3, 1, 2, 4, 4)
    small, large = (probe({"y": v}, torch.Generator().manual_seed(2))["y"] for v in (y, 10 * y))
    torch.testing.assert_close(small, 10 * large)


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
    samples, importance = capture(network, names, feed, outputs=["logits"], rows=60, probes=2)
    assert set(samples) == set(names) and len(names) >= 12
    assert {len(s.operands) for s in samples.values()} == {1, 2}
    for sample in samples.values():
        assert (sample.left @ sample.right).shape == sample.importance.shape
        assert bool((sample.importance >= 0).all()) and bool((sample.importance > 0).any())
    assert importance["logits"].shape == (6, 1, 10)


def test_importance_at_the_scores_is_the_diagonal_of_the_second_derivative(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    _, importance = capture(network, (), feed, outputs=["logits"], probes=600)
    scores = run_samples(network, feed)["logits"]
    expected = torch.stack([kl_hessian(s[0]).diagonal() for s in scores])
    torch.testing.assert_close(importance["logits"][:, 0], expected, rtol=0.35, atol=0.01)


def test_the_same_seed_gives_the_same_samples(hybrid: tuple[Network, dict[str, torch.Tensor]]) -> None:
    network, feed = hybrid
    one, other, third = (capture(network, layers_of(network), feed, rows=30, probes=1, seed=seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(one[n].left, other[n].left) and torch.equal(one[n].importance, other[n].importance) for n in one)
    assert any(not torch.equal(one[n].left, third[n].left) for n in one)
