"""Integer kernels step by step: codes in, int32 sums, float32 multipliers, codes out. Pure torch.

The runtime's kernels add products of codes in int32 and bring the sum to the output's grid with one float32
multiplication. Doing the same, in the same precision, is what makes a simulation agree to the code: a simulation
in real numbers rounds some values at the middle of a step to the other side, and deep networks amplify that.

Codes here are centred: the zero point is already subtracted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from converter.grids import Grid

__all__ = ["add", "centred", "multiply", "requantize", "sum_of_products"]

Tensor = torch.Tensor

_EXACT_IN_FLOAT32 = 2**24


def centred(x: Tensor, grid: Grid) -> Tensor:
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


def requantize(sums: Tensor, multiplier: Tensor, out: Grid | None, scale: Tensor) -> Tensor:
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
    return torch.clamp(codes, out.qmin - zero, out.qmax - zero) * np.float32(out.scale[0])


def multiply(a: Tensor, b: Tensor, grids: tuple[Grid, Grid], out: Grid) -> Tensor:
    """Product of two tensors of centred codes on the output's grid; real numbers, float32."""
    ratio = np.float32(np.float32(grids[0].scale[0]) * np.float32(grids[1].scale[0])) / np.float32(out.scale[0])
    codes = torch.round(a * b * float(ratio) + out.zero_point[0])
    return (torch.clamp(codes, out.qmin, out.qmax) - out.zero_point[0]) * np.float32(out.scale[0])


def add(a: Tensor, b: Tensor, grids: tuple[Grid, Grid], out: Grid) -> Tensor:
    """Sum of two tensors of centred codes on the output's grid; real numbers, float32."""
    ratios = [np.float32(g.scale[0]) / np.float32(out.scale[0]) for g in grids]
    codes = torch.round(a * float(ratios[0]) + b * float(ratios[1]) + out.zero_point[0])
    return (torch.clamp(codes, out.qmin, out.qmax) - out.zero_point[0]) * np.float32(out.scale[0])
