"""Constants that a plan prescribes instead of leaving them to rounding to the nearest: codes of weights, and biases.

In a plan, codes stand as text: base64 of the zlib-compressed int8 numbers in C order.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.queries import constant
from converter.plan.records import OpPlan, Plan
from converter.quantization.parameters import QuantParams, fake_quantize, quantize

__all__ = ["bias_of", "codes_from_text", "codes_to_text", "stored_numbers", "weight_codes"]


def codes_to_text(codes: npt.NDArray[np.int8]) -> str:
    """Pack codes, int8 of any shape."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(codes, np.int8).tobytes(), 9)).decode("ascii")


def codes_from_text(text: str, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Unpack codes.

    Raises:
        ValueError: not such a text, or not as many numbers as the shape has.
    """
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the codes cannot be unpacked: {error}") from None
    if len(raw) != int(np.prod(shape)):
        raise ValueError(f"{len(raw)} codes for the shape {list(shape)}")
    return np.frombuffer(raw, np.int8).reshape(shape)


def weight_codes(op: OpPlan, index: int, array: npt.NDArray[Any], grid: QuantParams) -> npt.NDArray[np.int8 | np.uint8]:
    """Codes of a constant operand: those of the plan, or the nearest.

    Args:
        op: plan of the operator.
        index: of the operand.
        array: float32.
        grid: on which it is stored. Channels where it is not the plan's own get the nearest codes.
    """
    nearest = quantize(array, grid)
    if index != 1 or not op.codes:
        return nearest
    planned = op.constants[index]
    codes = codes_from_text(op.codes, array.shape)
    kept, _ = planned.per_channel(array.ndim)
    now, _ = grid.per_channel(array.ndim)
    return np.where(kept == now, codes, nearest).astype(grid.dtype)


def stored_numbers(plan: Plan | None, value: ir.Value) -> npt.NDArray[Any] | None:
    """What a float operator reads of a constant: its numbers, or those of the codes that it is stored as; None for what is computed."""
    array, grid = constant(value), None if plan is None else plan.stored.get(str(value.name))
    return array if array is None or grid is None else fake_quantize(array, grid)


def bias_of(op: OpPlan, array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """The bias of a layer: that of the plan, or its own; float32 [channels] or None."""
    return np.asarray(op.bias, np.float32) if op.bias and array is not None else array
