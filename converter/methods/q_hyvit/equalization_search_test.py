"""Equalizations are taken where channels differ, from ranges that others than the judging samples gave, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.methods.judging.output_error import reconstruction_of
from converter.methods.judging.tensor_error import tensor_samples_of
from converter.methods.problem import Problem
from converter.methods.q_hyvit.equalization_search import choose_equalizations, reconstructed_tensors
from converter.plan.choice import Constant
from converter.runtime.session import Feed
from converter.sensitivity.context import AnalysisContext, QuantizedEdge, stack
from converter.sensitivity.curvature import capture
from converter.sensitivity.layer_samples import layers_of
from converter.testing.sketch import Sketch, losses_of
from converter.torch_backend.network import network_of
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Equalization

CHANNELS = 8


def two_convolutions(spread: np.ndarray, *, alone: bool = False) -> tuple[ir.Model, str]:
    """Two 1x1 convolutions; the channels between them have ranges in the given proportions, which the second undoes.

    With ``alone``, the first of these channels reads the last input only, and no other does.
    """
    generator = np.random.default_rng(0)
    first = generator.normal(size=(CHANNELS, 4, 1, 1)).astype(np.float32)
    first *= (spread / np.abs(first).sum((1, 2, 3)))[:, None, None, None]
    if alone:
        first[1:, 3], first[0, :3] = 0.0, 0.0
    second = generator.normal(size=(6, CHANNELS, 1, 1)).astype(np.float32) / spread[None, :, None, None]
    sketch = Sketch()
    x = sketch.input("image", 1, 4, 8, 8)
    middle = sketch.add("Conv", x, sketch.constant(first))
    model = sketch.model(sketch.add("Conv", middle, sketch.constant(second)))
    return model, middle


def feeds_of(count: int, seed: int, model: ir.Model) -> list[Feed]:
    generator = np.random.default_rng(seed)
    (name,) = [str(v.name) for v in model.graph.inputs]
    return [{name: generator.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(count)]


def problem_of(model: ir.Model, feeds: list[Feed], bits: int) -> Problem:
    seen = collect_statistics(model, feeds, threads=1)
    network = network_of(model)
    shapes = {n: s.shape for n, s in seen.tensors.items()}
    steps = {s.name: s for s in network.steps}
    names = [n for n in layers_of(network) if steps[n].inputs[1] in network.constants]
    quantized_edges = {(n, 0): QuantizedEdge(steps[n].inputs[0], 1.0) for n in names}
    constants = {(n, 1): Constant(network.constants[steps[n].inputs[1]].numpy(), 0, bits) for n in names}
    context = AnalysisContext(network, stack(feeds), quantized_edges, tuple(names), (), 0, losses=losses_of(model, "values"))
    return Problem(seen.tensors, constants, dict.fromkeys(seen.tensors, bits), True, find_sites(model, shapes), context=context)


def equalizations_of(spread: np.ndarray, bits: int = 8, judged_on: int = 1) -> tuple[dict[str, tuple[float, ...]], str]:
    model, middle = two_convolutions(spread)
    feeds = feeds_of(6, 0, model)
    problem = problem_of(model, feeds, bits)
    assert problem.context is not None
    others = stack(feeds_of(6, judged_on, model))
    samples, _ = capture(problem.context.network, layers_of(problem.context.network), others, problem.context.losses, seed=0)
    equalizations = choose_equalizations(problem, {n: reconstruction_of(s) for n, s in samples.items()}, problem.context.feed)
    return {name: equalization.scale for name, equalization in equalizations.items()}, middle


@pytest.mark.parametrize("bits", [8, 6])
def test_channels_of_different_ranges_get_scales_in_their_proportion(bits: int) -> None:
    spread = np.asarray([1.0, 100.0, 1.0, 30.0, 0.5, 2.0, 60.0, 1.0], np.float32)
    equalizations, middle = equalizations_of(spread, bits)
    scale = np.asarray(equalizations[middle])
    # in proportion, or in proportion to the root where that spares the weights
    slope = np.polyfit(np.log(spread), np.log(scale), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05) or slope == pytest.approx(0.5, abs=0.05)
    assert scale.max() == pytest.approx(1.0)


def test_channels_that_are_alike_are_left_alone() -> None:
    assert equalizations_of(np.ones(CHANNELS, np.float32))[0] == {}


def test_a_channel_that_is_silent_on_the_samples_of_the_ranges_is_not_cut_off() -> None:
    """It seems to need next to no range, but other samples judge, and there it speaks."""
    model, middle = two_convolutions(np.asarray([50, 100, 1, 30, 0.5, 2, 60, 1], np.float32), alone=True)
    problem = problem_of(model, feeds_of(6, 0, model), 8)
    context = problem.context
    assert context is not None
    silent = {n: v.clone() for n, v in context.feed.items()}
    for value in silent.values():
        value[:, :, 3] = 0.0  # the only input that the first channel reads
    samples, _ = capture(context.network, layers_of(context.network), context.feed, context.losses, seed=0)
    speaking, _ = capture(context.network, layers_of(context.network), silent, context.losses, seed=0)
    honest = choose_equalizations(problem, {n: reconstruction_of(s) for n, s in samples.items()}, silent)
    misled = choose_equalizations(problem, {n: reconstruction_of(s) for n, s in speaking.items()}, silent)
    kept = honest[middle].scale[0] if middle in honest else 1.0
    assert kept > 10 * misled[middle].scale[0]


def test_the_equalizations_are_numbers_of_single_precision() -> None:
    equalizations, middle = equalizations_of(np.asarray([1, 100, 1, 30, 0.5, 2, 60, 1], np.float32))
    assert all(float(np.float32(s)) == s for s in equalizations[middle])
    assert torch.tensor(equalizations[middle]).min() > 0


def witnessed(model: ir.Model, extra: dict[tuple[str, int], QuantizedEdge], *, look: bool = True) -> dict[str, tuple[float, ...]]:
    """Equalizations of a network of which more tensors than the layers' inputs are rounded."""
    feeds = feeds_of(6, 0, model)
    problem = problem_of(model, feeds, 8)
    assert problem.context is not None
    context = replace(problem.context, quantized_edges={**problem.context.quantized_edges, **extra})
    problem = replace(problem, context=context)
    others = stack(feeds_of(6, 1, model))
    samples, _ = capture(context.network, context.weights, others, context.losses, seed=0)
    tensor_samples = tensor_samples_of(context, reconstructed_tensors(problem, context), others) if look else {}
    equalizations = choose_equalizations(problem, {n: reconstruction_of(s) for n, s in samples.items()}, context.feed, tensor_samples)
    return {name: equalization.scale for name, equalization in equalizations.items()}


def test_a_tensor_in_front_of_the_one_that_layers_read_is_not_spread() -> None:
    """Behind max(x, 0.001 x) some channels are quiet, and matter, that are loud in front, where a grid is too."""
    generator = np.random.default_rng(0)
    quiet = np.arange(CHANNELS) < 4
    sketch = Sketch()
    x = sketch.input("image", 1, 4, 8, 8)
    weight = sketch.constant(generator.normal(size=(CHANNELS, 4, 1, 1)))
    front = sketch.add("Conv", x, weight, sketch.constant(np.where(quiet, -40.0, 0.0)), name="front")
    small = sketch.add("Mul", front, sketch.constant(0.001), name="small")
    behind = sketch.add("Max", front, small, name="behind")
    last = generator.normal(size=(6, CHANNELS, 1, 1)) * np.where(quiet, 30.0, 1.0)[:, None, None]
    model = sketch.model(sketch.add("Conv", behind, sketch.constant(last), name="last"))
    extra = {("small", 0): QuantizedEdge(front, 1.0), ("behind", 0): QuantizedEdge(front, 1.0)}
    blind, looking = (witnessed(model, extra, look=look).get(behind, (1.0,) * CHANNELS) for look in (False, True))
    assert max(blind[:4]) < 0.15
    assert min(looking[:4]) > 3 * max(blind[:4])


def test_operands_of_a_product_share_their_ranges_between_them() -> None:
    """Channels that are loud in one operand and quiet in the other: the factor that makes both alike is free."""
    generator = np.random.default_rng(0)
    loud = np.asarray([100.0, 1.0, 30.0, 1.0, 3.0, 1.0, 10.0, 1.0], np.float32)
    sketch = Sketch()
    x = sketch.add("Reshape", sketch.input("image", 1, 4, 8, 8), sketch.constant([1, 4, 64], np.int64), name="tokens")
    x = sketch.add("Transpose", x, perm=[0, 2, 1], name="turned")
    query = sketch.add("MatMul", x, sketch.constant(generator.normal(size=(4, CHANNELS)) * loud), name="query")
    key = sketch.add("MatMul", x, sketch.constant(generator.normal(size=(4, CHANNELS)) / loud), name="key")
    turned = sketch.add("Transpose", key, perm=[0, 2, 1], name="key_turned")
    product = sketch.add("MatMul", query, turned, name="product")
    model = sketch.model(sketch.add("Softmax", product, axis=-1))
    extra = {("product", 0): QuantizedEdge(query, 1.0), ("product", 1): QuantizedEdge(key, 1.0), ("key_turned", 0): QuantizedEdge(key, 1.0)}
    scale = np.asarray(witnessed(model, extra)[query])
    slope = np.polyfit(np.log(loud), np.log(scale), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.15)


def pooled_equalizations(samples: int, loud: np.ndarray, bias: np.ndarray) -> list[Equalization]:
    """Equalizations of what is pooled to one number a channel, with channels that are as loud as given, which the last layer undoes."""
    generator = np.random.default_rng(1)
    sketch = Sketch()
    first = generator.normal(size=(CHANNELS, 4, 1, 1)) * loud[:, None, None, None]
    x = sketch.add("Conv", sketch.input("image", 1, 4, 8, 8), sketch.constant(first), sketch.constant(bias))
    pooled = sketch.add("Flatten", sketch.add("GlobalAveragePool", x))
    last = sketch.constant(generator.normal(size=(CHANNELS, 6)) / loud[:, None])
    model = sketch.model(sketch.add("Gemm", pooled, last, sketch.constant(np.zeros(6))))
    problem = problem_of(model, feeds_of(samples, 0, model), 8)
    context = problem.context
    assert context is not None
    problem = replace(problem, constants={k: replace(c, axis=1) if c.array.ndim == 2 else c for k, c in problem.constants.items()})
    captured, _ = capture(context.network, layers_of(context.network), stack(feeds_of(6, 1, model)), context.losses, seed=0)
    return list(choose_equalizations(problem, {n: reconstruction_of(s) for n, s in captured.items()}, context.feed).values())


@pytest.mark.parametrize(("samples", "shifted"), [(6, False), (40, True)])
def test_ranges_of_a_few_numbers_are_not_moved_to_zero(samples: int, shifted: bool) -> None:
    """Each channel lies elsewhere, far from zero; a few images do not show how far it spreads."""
    bias = 50.0 * np.random.default_rng(1).standard_normal(CHANNELS)
    assert any(equalization.shift for equalization in pooled_equalizations(samples, np.ones(CHANNELS), bias)) == shifted


@pytest.mark.parametrize(("samples", "power"), [(6, 0.5), (40, 1.0)])
def test_ranges_of_a_few_numbers_are_followed_halfway(samples: int, power: float) -> None:
    """What follows them closely has no room left for other images, in no channel."""
    loud = np.asarray([100.0, 1.0, 30.0, 1.0, 3.0, 1.0, 10.0, 1.0])
    (equalization,) = pooled_equalizations(samples, loud, np.zeros(CHANNELS))
    assert np.polyfit(np.log(loud), np.log(equalization.scale), 1)[0] == pytest.approx(power, abs=0.1)
