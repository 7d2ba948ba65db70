"""Spreads that two layers make and undo are evened out, exactly; what counts for nothing is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.canonicalise.folding.spread_channels import even_out_channels
from converter.testing.rewrites import Array, Draft, outputs_of, random_feed, weights

CHANNELS = 8
SPREAD = np.logspace(-6, 3, CHANNELS).astype(np.float32)


def two_layers(front: Array, behind: Array, batch: str | int = 1) -> onnx.ModelProto:
    draft = Draft(x=(batch, 3, 6, 6))
    first, second = weights(CHANNELS, 3, 3, 3) * front[:, None, None, None], weights(4, CHANNELS, 1, 1, seed=1) * behind[:, None, None]
    x = draft.add("Relu", draft.add("Conv", "x", first, weights(CHANNELS, seed=2) * front, pads=[1] * 4))
    return draft.model(draft.add("Conv", x, second))


def evened(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int, Array]:
    """The model with channels evened out, in how many tensors, and the reach of each channel of the first layer's weights."""
    result, count = even_out_channels(ir.from_proto(model))
    proto: onnx.ModelProto = ir.to_proto(result)
    first = next(n for n in proto.graph.node if n.op_type == "Conv")
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    return proto, count, np.abs(stored[first.input[1]]).max((1, 2, 3))


@pytest.mark.parametrize("batch", [1, "n"])
def test_channels_get_ranges_of_one_size_and_the_outputs_stay_to_the_last_bits(batch: str | int) -> None:
    model = two_layers(SPREAD, 1 / SPREAD, batch)
    result, count, reach = evened(model)
    assert count == 1 and reach.max() < 4 * reach.min()
    (before,), (after,) = (outputs_of(m, random_feed(model)).values() for m in (model, result))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6 * np.abs(before).max())


@pytest.mark.parametrize(
    ("front", "behind"),
    [(SPREAD, np.ones(CHANNELS)), (np.ones(CHANNELS), np.ones(CHANNELS)), (np.logspace(0, 2, CHANNELS), np.logspace(0, -2, CHANNELS))],
    ids=["as good as dead", "alike", "ordinary spread"],
)
def test_what_counts_for_nothing_or_differs_little_is_left_alone(front: Array, behind: Array) -> None:
    model = two_layers(front.astype(np.float32), behind.astype(np.float32))
    result, count, _ = evened(model)
    assert count == 0
    assert result.SerializeToString() == ir.to_proto(ir.from_proto(model)).SerializeToString()


def test_a_tensor_that_is_an_output_keeps_its_numbers() -> None:
    model = two_layers(SPREAD, 1 / SPREAD)
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(relu.output[0]))
    assert even_out_channels(ir.from_proto(model))[1] == 0
