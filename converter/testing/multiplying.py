"""One operator each, with its multiply-accumulates by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from converter.testing.sketch import Sketch

Made = tuple[ir.Model, int]


def operator(op_type: str, *shapes: tuple[int, ...], macs: int, stored: tuple[int, ...] = (), **attributes: Any) -> Callable[[], Made]:
    """An operator on operands of these shapes, of which some are constants, by index."""

    def make() -> Made:
        s = Sketch()
        operands = [s.normal(*shape) if place in stored else s.input(f"x{place}", *shape) for place, shape in enumerate(shapes)]
        return s.model(s.add(op_type, *operands, name="it", **attributes)), macs

    return make


MULTIPLYING: Mapping[str, Callable[[], Made]] = {
    "convolution": operator("Conv", (1, 4, 6, 6), (8, 2, 3, 3), stored=(1,), group=2, macs=8 * 16 * 18),
    "convolution with computed weights": operator("Conv", (1, 4, 6, 6), (8, 4, 3, 3), macs=8 * 16 * 36),
    "deformable convolution": operator("DeformConv", (1, 4, 6, 6), (8, 4, 3, 3), (1, 18, 4, 4), stored=(1,), macs=8 * 16 * 36),
    "transposed convolution": operator("ConvTranspose", (1, 4, 5, 5), (4, 6, 2, 2), stored=(1,), strides=[2, 2], macs=100 * 24),
    "transposed, with borders cut off": operator("ConvTranspose", (1, 4, 5, 5), (4, 6, 3, 3), stored=(1,), pads=[1] * 4, macs=100 * 54),
    "transposed, in groups": operator("ConvTranspose", (1, 4, 5, 5), (4, 3, 3, 3), stored=(1,), group=2, macs=100 * 27),
    "transposed, with computed weights": operator("ConvTranspose", (1, 4, 5, 5), (4, 6, 3, 3), macs=100 * 54),
    "linear layer": operator("Gemm", (3, 4), (5, 4), stored=(1,), transB=1, macs=3 * 5 * 4),
    "linear layer of a constant": operator("Gemm", (4, 3), (4, 5), stored=(0,), transA=1, macs=3 * 5 * 4),
    "product": operator("MatMul", (2, 3, 4), (2, 4, 5), macs=2 * 3 * 4 * 5),
    "product with a matrix for each head": operator("MatMul", (2, 3, 4), (2, 4, 5), stored=(1,), macs=2 * 3 * 4 * 5),
    "product with a constant on the left": operator("MatMul", (3, 4), (2, 4, 5), stored=(0,), macs=2 * 3 * 4 * 5),
    "product with a vector": operator("MatMul", (2, 3, 4), (4,), macs=2 * 3 * 4),
    "product of a constant vector": operator("MatMul", (4,), (2, 4, 5), stored=(0,), macs=2 * 4 * 5),
    "einsum": operator("Einsum", (2, 3, 4), (2, 4, 5), equation="bij,bjk->bik", macs=2 * 3 * 4 * 5),
    "einsum with weights": operator("Einsum", (2, 3, 4), (2, 4, 5), stored=(1,), equation="bth, nhd -> btnd", macs=2 * 3 * 4 * 2 * 5),
    "einsum that broadcasts": operator("Einsum", (1, 3, 4, 5), (6, 3, 5, 7), equation="...ij,...jk", macs=6 * 3 * 4 * 5 * 7),
    "einsum that sums": operator("Einsum", (2, 3, 4), (2, 3, 4), equation="bij,bij->b", macs=2 * 3 * 4),
    "einsum of three": operator("Einsum", (3, 4), (4, 5), (5, 6), equation="ij,jk,kl->il", macs=3 * 4 * 5 * 6),
    "einsum that moves": operator("Einsum", (2, 3, 4), equation="bij->bji", macs=0),
    "LSTM": operator("LSTM", (7, 2, 4), (1, 20, 4), (1, 20, 5), stored=(1, 2), hidden_size=5, macs=7 * 2 * 20 * (4 + 5)),
    "GRU both ways": operator(
        "GRU", (7, 2, 4), (2, 15, 4), (2, 15, 5), stored=(1, 2), hidden_size=5, direction="bidirectional", macs=7 * 2 * 2 * 15 * 9
    ),
    "RNN": operator("RNN", (7, 2, 4), (1, 5, 4), (1, 5, 5), stored=(1, 2), hidden_size=5, macs=7 * 2 * 5 * 9),
    "addition": operator("Add", (2, 3), (2, 3), macs=0),
}
