"""The network as torch functions computes what the runtime does, on one sample, on many, in sections, and backwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from converter.canonicalise import canonicalise
from converter.runtime.session import Feed, open_session, run_session
from converter.testing.models import hybrid_model, make_model
from converter.testing.sketch import Sketch, feeds_for
from converter.torch_backend.network import Network, Step, network_of, run, run_samples, sized, subnetwork


@pytest.fixture(scope="module")
def hybrid() -> tuple[Network, list[Feed], list[np.ndarray]]:
    generator = np.random.default_rng(0)
    feeds: list[Feed] = [{"image": generator.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(5)]
    source = hybrid_model()
    session = open_session(source, threads=1)
    return network_of(canonicalise(source, feeds[:1]).model), feeds, [run_session(session, f)["logits"] for f in feeds]


def stacked(feeds: list[Feed]) -> dict[str, torch.Tensor]:
    return {"image": torch.from_numpy(np.stack([f["image"] for f in feeds]))}


def test_one_sample_gives_the_runtimes_output(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, expected = hybrid
    got = run(network, {"image": torch.from_numpy(feeds[0]["image"])})["logits"].numpy()
    np.testing.assert_allclose(got, expected[0], rtol=1e-4, atol=1e-5 * np.abs(expected[0]).max())


def test_many_samples_run_at_once_though_the_graph_is_fixed_to_a_batch_of_one(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, expected = hybrid
    got = run_samples(network, stacked(feeds))["logits"].numpy()
    assert got.shape == (5, 1, 10)
    np.testing.assert_allclose(got, np.stack(expected), rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_subnetwork_goes_on_from_the_tensors_that_are_given(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, expected = hybrid
    middle = next(s for s in network.steps if s.op_type == "Softmax").outputs[0]
    rest = subnetwork(
        network, ["logits"], [s.outputs[0] for s in network.steps[: [middle in s.outputs for s in network.steps].index(True) + 1]]
    )
    assert middle in rest.inputs and "image" not in rest.inputs
    assert len(rest.steps) < len(network.steps)
    known = run_samples(network, stacked(feeds), wanted=rest.inputs)
    np.testing.assert_allclose(run_samples(rest, known)["logits"].numpy(), np.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_subnetwork_leaves_out_what_the_outputs_do_not_need(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, *_ = hybrid
    first = network.steps[0]
    assert subnetwork(network, list(first.outputs), ()).steps == (first,)


def test_the_hook_replaces_what_is_read_and_only_that(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, _ = hybrid
    last = network.steps[-1]

    def hook(step: Step, index: int, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value) if step.name == last.name and index == 0 else value

    values = run_samples(network, stacked(feeds), wanted=["logits", last.inputs[0]], hook=hook)
    bias = network.constants[last.inputs[2]]
    torch.testing.assert_close(values["logits"], bias.expand(5, 1, 10))
    assert values[last.inputs[0]].abs().max() > 0


def test_other_constants_can_be_tried(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, expected = hybrid
    bias = network.steps[-1].inputs[2]
    got = run_samples(network, stacked(feeds), constants={bias: network.constants[bias] + 1.0})["logits"].numpy()
    np.testing.assert_allclose(got - 1.0, np.stack(expected), rtol=1e-3, atol=1e-4)


def test_gradients_are_those_of_finite_differences(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, _ = hybrid
    constants = {n: c.double() if c.is_floating_point() else c for n, c in network.constants.items()}
    network = Network(network.steps, constants, network.inputs, network.outputs)
    image = stacked(feeds[:1])["image"].double().requires_grad_()
    (gradient,) = torch.autograd.grad(run_samples(network, {"image": image})["logits"].square().sum(), image)
    step = torch.zeros_like(image)
    step[0, 0, 1, 10, 11] = 1e-5
    with torch.no_grad():
        up, down = (run_samples(network, {"image": image + d})["logits"].square().sum() for d in (step, -step))
    assert float(gradient[0, 0, 1, 10, 11]) == pytest.approx(float((up - down) / 2e-5), rel=1e-4)


def test_what_torch_lacks_takes_samples_one_by_one_and_leaves_out_what_differs_in_shape() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 3, 3)
    model = sketch.model(
        sketch.add("Det", x),
        sketch.add(
            "Compress",
            x,
            sketch.add("Cast", sketch.add("Slice", sketch.add("Flatten", x), *(sketch.constant([n], np.int64) for n in (1, 2, 1))), to=9),
        ),
    )
    network = network_of(model)
    feed = {"x": torch.tensor([[[[1.0, 0, 0], [0, 2, 0], [0, 0, 3]]], [[[1.0, 1, 0], [0, 2, 0], [0, 0, 4]]]])}
    assert network.one_by_one
    values = run_samples(network, feed)
    assert {name: value.tolist() for name, value in values.items()} == {network.outputs[0]: [[6.0], [8.0]]}


def test_tensors_are_dropped_after_their_last_reader_but_not_the_wanted_ones() -> None:
    sketch = Sketch()
    x = sketch.add("Relu", sketch.input("x", 1, 2, 4, 4))
    model = sketch.model(sketch.add("Sigmoid", x))
    assert isinstance(model, ir.Model)
    network = network_of(model)
    feed = {"x": torch.from_numpy(feeds_for(model)[0]["x"])}
    values = run(network, feed, wanted=[network.steps[0].outputs[0], *network.outputs])
    torch.testing.assert_close(values[network.outputs[0]], torch.sigmoid(values[network.steps[0].outputs[0]]))


def test_shapes_that_were_computed_before_are_read_as_numbers() -> None:
    """A step by itself, or a section, may be given what a Shape has computed: the same for every sample."""
    reshape = Step("r", "Reshape", ("x", "shape"), ("y",), {})
    network = Network((reshape,), {}, ("x", "shape"), ("y",))
    x = torch.arange(24.0).reshape(2, 3, 4)
    y = run_samples(network, {"x": x, "shape": torch.tensor([[4, 3], [4, 3]])})["y"]
    torch.testing.assert_close(y, x.reshape(2, 4, 3))
    gather = Step("g", "Gather", ("shape", "one"), ("n",), {"axis": 0})
    alone = Network((gather,), {"one": torch.tensor([1])}, ("shape",), ("n",))
    assert run_samples(alone, {"shape": torch.tensor([[4, 3], [4, 3]])})["n"].tolist() == [[3], [3]]


def test_outputs_in_half_precision_are_taken_before_they_are_narrowed() -> None:
    """A gradient of 1e-9 does not exist in float16."""
    nodes = [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT16)]
    proto = make_model(nodes, [("x", TensorProto.FLOAT, [1, 2])], [("y", TensorProto.FLOAT16, [1, 2])])
    x = torch.tensor([[1.0, 2.0005]], requires_grad=True)
    y = run(network_of(ir.from_proto(proto)), {"x": x})["y"]
    assert y.dtype == torch.float32 and y.tolist() == (-x).tolist()
    (gradient,) = torch.autograd.grad((1e-9 * y).sum(), [x])
    torch.testing.assert_close(gradient, torch.full((1, 2), -1e-9), rtol=1e-6, atol=0.0)


def test_a_sized_network_knows_what_is_live_at_once() -> None:
    """Behind the second step its input is gone; the first tensor is needed to the end."""
    steps = [Step("a", "Relu", ("x",), ("a",), {}), Step("b", "Relu", ("a",), ("b",), {}), Step("c", "Relu", ("b",), ("c",), {})]
    network = Network((*steps, Step("d", "Add", ("c", "a"), ("d",), {})), {}, ("x",), ("d",))
    known = sized(network, {"x": (1, 1000), "a": (2, 3), "b": (50,), "c": (20,), "d": (1,)})
    assert (known.numbers, known.live) == (1077, 6 + 50 + 20)


def test_large_networks_run_few_samples_at_once_and_give_the_same(hybrid: tuple[Network, list[Feed], list[np.ndarray]]) -> None:
    network, feeds, _ = hybrid
    whole = run_samples(network, stacked(feeds))["logits"]
    large = replace(network, numbers=1 << 23)
    assert (network.chunk, large.most_at_once, replace(network, numbers=1 << 30).chunk) == (2, 2, 1)
    for workers in (1, 2):
        torch.testing.assert_close(run_samples(large, stacked(feeds), workers=workers)["logits"], whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_of_the_samples_are_put_together_as_torch_does_it(workers: int) -> None:
    """Also where the channels lie last in memory; what has not the shape of the first part is left out."""
    steps = (
        Step("relu", "Relu", ("x",), ("plain",), {}),
        Step("move", "Transpose", ("plain",), ("moved",), {"perm": [0, 3, 1, 2]}),
        Step("find", "NonZero", ("plain",), ("places",), {}),
    )
    network = Network(steps, {}, ("x",), ("plain", "moved", "places"), one_by_one=True, numbers=1 << 30)
    x = torch.randn(5, 1, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    found = run_samples(network, {"x": x}, workers=workers)
    parts = [run_samples(network, {"x": x[i : i + 1]}) for i in range(5)]
    assert list(found) == ["plain", "moved"]
    for name, value in found.items():
        expected = torch.cat([part[name] for part in parts])
        assert torch.equal(value, expected) and value.stride() == expected.stride()
