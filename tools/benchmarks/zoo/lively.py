"""Random weights with which every branch of a network matters, and normalisations that have seen images.

As they are initialised, networks hide much of what quantization can break: layer scales of 1e-5 and projections of zeros switch
branches off, positions of 0.02 make no difference, and BatchNorm's statistics are those of nothing.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

__all__ = ["enliven"]

_FAINT = 0.11
"""Values of parameters that are all below this were meant to start from nothing; layer scales are 0.1 at most."""


def enliven(module: nn.Module, images: torch.Tensor) -> None:
    """Draw weights that matter, and measure BatchNorm's statistics; the module is left in evaluation mode.

    Args:
        module: takes the images; drawn with torch's global generator.
        images: float32 [N, 3, H, W].
    """
    module.eval()
    with torch.no_grad():
        layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, _ConvNd))]
        for layer in layers:
            _redraw_weight(layer.weight)
        drawn = {id(layer.weight) for layer in layers}
        for name, parameter in module.named_parameters():
            if id(parameter) not in drawn:
                _redraw(name, parameter)
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = None  # the mean over all batches
        for batch in torch.chunk(images, 2) if norms else ():
            module(batch)
    module.eval()


def _redraw_weight(weight: torch.Tensor) -> None:
    """Weights as large as keep a signal's power, where they are less than half that."""
    usual = math.prod(weight.shape[1:]) ** -0.5
    if float(weight.std()) < usual / 2:
        weight.normal_(std=usual)


def _redraw(name: str, parameter: nn.Parameter) -> None:
    """Parameters that are all alike, or faint."""
    low, high = float(parameter.min()), float(parameter.max())
    faint = max(abs(low), abs(high)) < _FAINT
    if parameter.ndim == 2 and "weight" in name.rpartition(".")[2] and "embed" not in name:
        _redraw_weight(parameter)  # of attention or of a recurrence
    elif parameter.ndim >= 2 and math.prod(parameter.shape) > max(parameter.shape) and faint:
        parameter.normal_(std=0.5)  # tokens, positions, tables of biases
    elif low == high == 1.0:
        parameter.uniform_(0.7, 1.3)
    elif faint and low == high and (low or name.endswith(("weight", "gamma", "scale"))):
        parameter.uniform_(0.3, 1.0)  # layer scales, and scales that start from zero
    elif faint:
        parameter.uniform_(-0.2, 0.2)
