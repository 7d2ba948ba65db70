"""LSTM, GRU and simple recurrent layers, one step after the other, with the activations that they have by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]

_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_COVERED = "activations direction hidden_size layout"
_IGNORED: Mapping[str, Any] = {"activation_alpha": [], "activation_beta": []}

Step = Callable[[Tensor, tuple[Tensor, ...], Tensor, Tensor], tuple[Tensor, ...]]
"""Given what the input gives to the gates [batch, gates], the states [batch, hidden], the recurrent weights and their bias,
the next states; the first one is what the layer answers."""


def _lstm_step(given: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    hidden, cell = state
    entrance, exit_, forget, new = (given + hidden @ recurrent.T + bias).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(entrance) * torch.tanh(new)
    return torch.sigmoid(exit_) * torch.tanh(cell), cell


def _gru_step(given: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """With the reset in front of the recurrent product."""
    (hidden,) = state
    width = hidden.shape[-1]
    gates = given[..., : 2 * width] + hidden @ recurrent[: 2 * width].T + bias[: 2 * width]
    update, reset = torch.sigmoid(gates).chunk(2, -1)
    new = torch.tanh(given[..., 2 * width :] + (reset * hidden) @ recurrent[2 * width :].T + bias[2 * width :])
    return ((1 - update) * new + update * hidden,)


def _late_gru_step(given: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """With the reset behind the recurrent product, as PyTorch has it."""
    (hidden,) = state
    width = hidden.shape[-1]
    product = hidden @ recurrent.T + bias
    update, reset = torch.sigmoid(given[..., : 2 * width] + product[..., : 2 * width]).chunk(2, -1)
    new = torch.tanh(given[..., 2 * width :] + reset * product[..., 2 * width :])
    return ((1 - update) * new + update * hidden,)


def _simple_step(given: Tensor, state: tuple[Tensor, ...], recurrent: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    return (torch.tanh(given + state[0] @ recurrent.T + bias),)


def _layer(op_type: str, x: Inputs, a: Attributes, step: Step, states: int) -> list[Tensor]:
    turned = a.get("layout", 0)
    data: Tensor = x[0].transpose(0, 1) if turned else x[0]
    weight, recurrent, bias = x[1], x[2], optional(x, 3)
    bias = torch.zeros(weight.shape[0], 2 * weight.shape[1], dtype=data.dtype) if bias is None else bias
    _refuse_rest(op_type, x, a, data.shape[0])
    width, batch = recurrent.shape[-1], data.shape[1]
    answers, ends = [], []
    for way in range(weight.shape[0]):
        backwards = a.get("direction", "forward") == "reverse" or way == 1
        mine, theirs = bias[way].chunk(2)
        given = data @ weight[way].T + mine
        begin = [optional(x, 5 + i) for i in range(states)]
        begin = [None if s is None else s[:, way] if turned else s[way] for s in begin]
        state = tuple(torch.zeros(batch, width, dtype=data.dtype) if s is None else s for s in begin)
        steps: list[Tensor] = []
        for moment in reversed(range(data.shape[0])) if backwards else range(data.shape[0]):
            state = step(given[moment], state, recurrent[way], theirs)
            steps.append(state[0])
        answers.append(torch.stack(steps[::-1] if backwards else steps))
        ends.append(state)
    last = [torch.stack([state[i] for state in ends], 1 if turned else 0) for i in range(states)]
    answer = torch.stack(answers, 1)  # [steps, directions, batch, hidden]
    return [answer.permute(2, 0, 1, 3) if turned else answer, *last]


def _refuse_rest(op_type: str, x: Inputs, a: Attributes, steps: int) -> None:
    lengths, peepholes = optional(x, 4), optional(x, 7)
    usual: Sequence[str] = _ACTIVATIONS[op_type]
    named = a.get("activations") or usual
    if any(name != usual[i % len(usual)] for i, name in enumerate(named)):
        raise UnknownOperatorError(f"operator '{op_type}' with activations={named}")
    if peepholes is not None:
        raise UnknownOperatorError(f"operator '{op_type}' with peepholes")
    if lengths is not None and set(integers(lengths)) != {steps}:
        raise UnknownOperatorError(f"operator '{op_type}' with sequences of different lengths")


def _gru(x: Inputs, a: Attributes) -> list[Tensor]:
    return _layer("GRU", x, a, _late_gru_step if a.get("linear_before_reset", 0) else _gru_step, 1)


TABLE: Table = {
    "GRU": Rule(_gru, f"{_COVERED} linear_before_reset", {**_IGNORED, "clip": 0.0}),
    "LSTM": Rule(lambda x, a: _layer("LSTM", x, a, _lstm_step, 2), _COVERED, {**_IGNORED, "clip": 0.0, "input_forget": 0}),
    "RNN": Rule(lambda x, a: _layer("RNN", x, a, _simple_step, 1), _COVERED, {**_IGNORED, "clip": 0.0}),
}
