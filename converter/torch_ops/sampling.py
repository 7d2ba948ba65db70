"""Sampling of maps at computed positions."""

from __future__ import annotations

import torch
from torch.nn import functional

from converter.torch_ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers

__all__ = ["TABLE"]

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


def _grid_sample(x: Inputs, a: Attributes) -> Tensor:
    mode, border = _MODES[a.get("mode", "linear")], a.get("padding_mode", "zeros")
    if x[0].ndim != 4 and mode == "bicubic":
        raise UnknownOperatorError("operator 'GridSample' with mode=cubic in other than two dimensions")
    aligned = bool(a.get("align_corners", 0))
    return functional.grid_sample(x[0], x[1], mode=mode, padding_mode=border, align_corners=aligned)


def _affine_grid(x: Inputs, a: Attributes) -> Tensor:
    return functional.affine_grid(x[0], integers(x[1]), align_corners=bool(a.get("align_corners", 0)))


def _columns_to_image(x: Inputs, a: Attributes) -> Tensor:
    """Add up blocks where they overlap."""
    image, block = integers(x[1]), integers(x[2])
    pads = a.get("pads", [0] * 4)
    if len(image) != 2 or list(pads[:2]) != list(pads[2:]):
        raise UnknownOperatorError(f"operator 'Col2Im' with image_shape={image}, pads={pads}")
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return functional.fold(x[0], image, block, dilation=dilations, padding=pads[:2], stride=strides)


TABLE: Table = {
    "AffineGrid": Rule(_affine_grid, "align_corners"),
    "Col2Im": Rule(_columns_to_image, "dilations pads strides"),
    "Det": Rule(lambda x, _: torch.linalg.det(x[0])),
    "GridSample": Rule(_grid_sample, "align_corners mode padding_mode"),
}
