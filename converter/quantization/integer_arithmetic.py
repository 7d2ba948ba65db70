"""Integer kernels step by step: codes in, int32 sums, float32 multipliers, codes out. Pure torch.

The runtime's kernels add products of codes in int32 and bring the sum to the output's grid with one float32
multiplication. Doing the same, in the same precision, is what makes a simulation agree to the code: a simulation
in real numbers rounds some values at the middle of a step to the other side, and deep networks amplify that.

Codes here are centred: the zero point is already subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from converter.quantization.parameters import QuantParams

__all__ = ["add", "centred", "global_average", "multiply", "requantize", "sum_of_products"]

Tensor = torch.Tensor

_EXACT_IN_FLOAT32 = 2**24


def centred(x: Tensor, grid: QuantParams) -> Tensor:
    """Centred codes of a tensor that lies on the grid already; float32, same shape."""
    scale, _ = grid.per_channel(x.ndim)
    return torch.round(x / torch.from_numpy(scale))


def sum_of_products(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, largest: float) -> Tensor:
    """Run a linear kernel on codes without rounding; float64 integers.

    Args:
        kernel: convolution or matrix product of two tensors.
        x: centred codes.
        w: centred codes.
        largest: no partial sum exceeds it; below 2^24 float32 is exact, and much faster.
    """
    if largest < _EXACT_IN_FLOAT32:
        return kernel(x.float(), w.float()).double()
    return kernel(x.double(), w.double())


def requantize(sums: Tensor, multiplier: Tensor, out: QuantParams | None, scale: Tensor) -> Tensor:
    """Sums to the output's grid, or to real numbers.

    Args:
        sums: integers, float64.
        multiplier: float32, scale of the sums over that of the output; broadcasts against ``sums``.
        out: per-tensor grid of the output; None to write real numbers.
        scale: float32, scale of the sums, used when there is no output grid.

    Returns:
        real numbers, float32.
    """
    rounded = sums.to(torch.float32)
    if out is None:
        return rounded * scale
    codes = torch.round(rounded * multiplier)
    zero = out.zero_point[0]
    return torch.clamp(codes, out.qmin - zero, out.qmax - zero) * float(np.float32(out.scale[0]))


def multiply(a: Tensor, b: Tensor, grids: tuple[QuantParams, QuantParams], out: QuantParams) -> Tensor:
    """Product of two tensors of centred codes on the output's grid; real numbers, float32."""
    ratio = np.float32(np.float32(grids[0].scale[0]) * np.float32(grids[1].scale[0])) / np.float32(out.scale[0])
    codes = torch.round(a * b * float(ratio) + out.zero_point[0])
    return (torch.clamp(codes, out.qmin, out.qmax) - out.zero_point[0]) * float(np.float32(out.scale[0]))


def add(a: Tensor, b: Tensor, grids: tuple[QuantParams, QuantParams], out: QuantParams) -> Tensor:
    """Sum of two tensors of centred codes on the output's grid; real numbers, float32.

    The runtime's kernel starts from the three zero points' share and adds one operand, then the other, each in a fused
    multiply-add on codes that are not centred. The order matters: where the exact sum lies at the middle of a step,
    rounding errors decide.
    """
    (za, zb, zc), step = (np.float32(g.zero_point[0]) for g in (*grids, out)), np.float32(out.scale[0])
    ratio_a, ratio_b = (np.float32(g.scale[0]) / step for g in grids)
    zero_points = zc - _fused(ratio_a, za, np.float32(ratio_b * zb))
    with_b = _fused(b + float(zb), ratio_b, zero_points)
    codes = torch.round(_fused(a + float(za), ratio_a, with_b))
    return (torch.clamp(codes, out.qmin, out.qmax) - out.zero_point[0]) * float(step)


def global_average(x: Tensor, grid: QuantParams, out: QuantParams) -> Tensor:
    """Mean over all but the first two axes of a tensor of centred codes, on the output's grid; real numbers, float32."""
    axes = tuple(range(2, x.ndim))
    count = np.float32(np.prod([x.shape[i] for i in axes]))
    multiplier = np.float32(grid.scale[0]) / (np.float32(out.scale[0]) * count)
    sums = x.double().sum(dim=axes, keepdim=True)
    return requantize(sums, torch.tensor(multiplier), out, torch.tensor(0.0))


def _fused(x: Any, y: Any, z: Any) -> Any:
    """The sum x * y + z of float32 numbers, rounded once: in float64 the product is exact."""
    wide = (v.double() if isinstance(v, Tensor) else float(v) for v in (x, y, z))
    total = next(wide) * next(wide) + next(wide)
    return total.float() if isinstance(total, Tensor) else np.float32(total)
