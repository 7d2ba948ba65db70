from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import Array, check_operator, floats

STEPS, BATCH, INPUTS, HIDDEN = 5, 2, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
WAYS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def layer(op_type: str, direction: str, *, bias: bool = True, states: bool = False) -> list[Array | None]:
    """Sequence, weights, recurrent weights, biases, and states to begin with."""
    ways, rows = WAYS[direction], GATES[op_type] * HIDDEN
    inputs: list[Array | None] = [floats(STEPS, BATCH, INPUTS), floats(ways, rows, INPUTS, seed=1), floats(ways, rows, HIDDEN, seed=2)]
    inputs += [floats(ways, 2 * rows, seed=3) if bias else None]
    if states:
        inputs += [None, *[floats(ways, BATCH, HIDDEN, seed=4 + i) for i in range(2 if op_type == "LSTM" else 1)]]
    return inputs


def outputs(op_type: str) -> int:
    return 3 if op_type == "LSTM" else 2


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", WAYS)
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers(op_type: str, direction: str, states: bool, bias: bool) -> None:
    inputs = layer(op_type, direction, bias=bias, states=states)
    check_operator(op_type, inputs, outputs(op_type), hidden_size=HIDDEN, direction=direction)


@pytest.mark.parametrize("direction", WAYS)
def test_a_gru_that_resets_behind_the_product(direction: str) -> None:
    check_operator("GRU", layer("GRU", direction, states=True), 2, hidden_size=HIDDEN, direction=direction, linear_before_reset=1)


def test_sequences_all_of_full_length_and_activations_by_name() -> None:
    lengths = np.full(BATCH, STEPS, np.int32)
    check_operator("RNN", [*layer("RNN", "forward"), lengths], 2, hidden_size=HIDDEN, activations=["Tanh"])
    check_operator(
        "LSTM",
        [*layer("LSTM", "bidirectional"), lengths],
        3,
        hidden_size=HIDDEN,
        direction="bidirectional",
        activations=["Sigmoid", "Tanh", "Tanh"] * 2,
    )


def test_batch_in_front_is_the_same_layer_turned() -> None:
    """The runtime has no kernel for it."""
    tensors = [torch.from_numpy(a) for a in layer("LSTM", "bidirectional") if a is not None]
    plain = torch_ops.apply("LSTM", tensors, {"direction": "bidirectional"})
    turned = torch_ops.apply("LSTM", [tensors[0].transpose(0, 1), *tensors[1:]], {"direction": "bidirectional", "layout": 1})
    torch.testing.assert_close(turned[0], plain[0].permute(2, 0, 1, 3))
    for state, right in zip(turned[1:], plain[1:], strict=True):
        torch.testing.assert_close(state, right.transpose(0, 1))


@pytest.mark.parametrize(
    ("more", "attrs", "named"),
    [
        ([], {"activations": ["Sigmoid", "Relu", "Tanh"]}, "Relu"),
        ([], {"clip": 3.0}, "clip=3"),
        ([torch.tensor([5, 3])], {}, "different lengths"),
        ([None, None, None, torch.zeros(1, 12)], {}, "peepholes"),
    ],
)
def test_what_is_not_covered_is_named(more: list[Any], attrs: dict[str, Any], named: str) -> None:
    tensors = [torch.from_numpy(a) for a in layer("LSTM", "forward") if a is not None]
    with pytest.raises(torch_ops.UnknownOperatorError, match=named):
        torch_ops.apply("LSTM", [*tensors, *more], attrs)
