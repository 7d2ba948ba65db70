"""Sampling of maps at computed positions."""

from __future__ import annotations

import torch
from torch.nn import functional

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers

__all__ = ["TABLE"]

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


def _grid_sample(x: Inputs, a: Attributes) -> Tensor:
    mode, border = _MODES[a.get("mode", "linear")], a.get("padding_mode", "zeros")
    if x[0].ndim != 4 and mode == "bicubic":
        raise UnknownOperatorError("operator 'GridSample' with mode=cubic in other than two dimensions")
    aligned = bool(a.get("align_corners", 0))
    return functional.grid_sample(x[0], x[1], mode=mode, padding_mode=border, align_corners=aligned)


def _affine_grid(x: Inputs, a: Attributes) -> Tensor:
    """Where a map's places lie in another, as shares of its sides from -1 to 1; the last axis is (x, y) or (x, y, z)."""
    sizes = integers(x[1])[2:]
    aligned = bool(a.get("align_corners", 0))
    lines = [torch.linspace(-1, 1, n) if aligned else (2 * torch.arange(n) + 1) / n - 1 for n in sizes]
    places = torch.stack([*reversed(torch.meshgrid(*lines, indexing="ij")), torch.ones(sizes)], -1).to(x[0].dtype)
    grid = places.reshape(-1, len(sizes) + 1) @ x[0].transpose(1, 2)
    return grid.reshape(x[0].shape[0], *sizes, len(sizes))


def _columns_to_image(x: Inputs, a: Attributes) -> Tensor:
    """Add up blocks where they overlap."""
    image, block = integers(x[1]), integers(x[2])
    pads = a.get("pads", [0] * 4)
    if len(image) != 2 or list(pads[:2]) != list(pads[2:]):
        raise UnknownOperatorError(f"operator 'Col2Im' with image_shape={image}, pads={pads}")
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return functional.fold(x[0], tuple(image), tuple(block), dilation=tuple(dilations), padding=tuple(pads[:2]), stride=tuple(strides))


TABLE: Table = {
    "AffineGrid": Rule(_affine_grid, "align_corners"),
    "Col2Im": Rule(_columns_to_image, "dilations pads strides"),
    "Det": Rule(lambda x, _: torch.linalg.det(x[0])),
    "GridSample": Rule(_grid_sample, "align_corners mode padding_mode"),
}
