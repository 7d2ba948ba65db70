"""One run for layers and tensors gives what two runs give, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from converter.canonicalise import canonicalise
from converter.methods.judging.layer_readers import captured
from converter.methods.judging.tensor_error import tensor_samples_of
from converter.methods.q_hyvit.samples import captured_with_tensors
from converter.methods.q_hyvit.sigmoid_search import loss_changes
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.layer_samples import layers_of
from converter.sensitivity.output_loss import OutputLoss
from converter.testing.models import hybrid_model
from converter.torch_backend.network import network_of
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear


def test_one_run_gives_the_samples_of_two() -> None:
    """Layers on seven samples, tensors on the first four of them, some of which are outputs of layers too."""
    images = np.random.default_rng(0).random((7, 1, 3, 32, 32), dtype=np.float32)
    network = network_of(canonicalise(hybrid_model(), [{"image": images[0]}]).model)
    losses = {"logits": OutputLoss("scores")}
    context = AnalysisContext(network, {"image": torch.from_numpy(images)}, {}, (), (), 3, workers=2, losses=losses)
    layers = layers_of(network)
    tensors = [step.outputs[0] for step in network.steps if step.name in layers[::3]] + ["image"]
    both = captured_with_tensors(context, layers, tensors, ["logits"], rows=40, tensor_samples=4)
    samples, whole = captured(context, layers, ["logits"], rows=40)
    seen = tensor_samples_of(context, tensors, {"image": context.feed["image"][:4]})
    assert list(both[0]) == list(samples) and list(both[2]) == list(seen)
    for name, sample in samples.items():
        for field in ("left", "right", "fisher"):
            assert torch.equal(getattr(both[0][name], field), getattr(sample, field))
    assert torch.equal(both[1]["logits"], whole["logits"]) and bool((whole["logits"] > 0).any())
    for name, tensor in seen.items():
        assert torch.equal(both[2][name].values, tensor.values) and torch.equal(both[2][name].fisher, tensor.fisher)
        assert tensor.values.shape[0] == 4 and bool((tensor.fisher > 0).any())


def test_the_same_run_tells_what_lines_change() -> None:
    """As a run for them alone does; half as many random vectors, and twice as many samples."""
    images = np.random.default_rng(0).random((8, 1, 3, 32, 32), dtype=np.float32)
    network = network_of(canonicalise(hybrid_model(), [{"image": images[0]}]).model)
    context = AnalysisContext(network, {"image": torch.from_numpy(images)}, {}, (), (), 3, losses={"logits": OutputLoss("scores")})
    lines = {step.name: PiecewiseLinear(0.2, 0.5, 0.0, 1.0) for step in network.steps if step.op_type == "Sigmoid"}
    *_, priced = captured_with_tensors(context, layers_of(network), (), (), lines, rows=40, tensor_samples=4)
    alone = loss_changes(context, lines)
    assert lines and {name: each.shape for name, each in priced.items()} == lines
    for name, each in priced.items():
        assert each.change == pytest.approx(alone[name], rel=0.5) and each.change > 0.0
