"""EfficientFormer v1 (arXiv 2206.01191) from timm, for any image size.

timm builds the attention's position biases for the 7 x 7 map of a 224 pixel image, whatever size is asked for. Here
they are rebuilt for the map that the given size leads to.
"""

from __future__ import annotations

import timm
from timm.models.efficientformer import Attention
from torch import nn

__all__ = ["create_efficientformer"]

_BUILT_IN_RESOLUTION = 7
_HALVINGS = 5


def create_efficientformer(name: str, *, classes: int, size: int) -> nn.Module:
    """Build a network with untrained weights.

    At the sizes that lead to a 7 x 7 map (193 to 224 pixels) the network, and so its state dict, is timm's.

    Args:
        name: ``efficientformer_l1``, ``_l3`` or ``_l7``.
        classes: width of both classifiers.
        size: height and width of the images, in pixels.
    """
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    resolution = size
    for _ in range(_HALVINGS):
        resolution = (resolution + 1) // 2  # a padded 3 x 3 convolution of stride 2 rounds up
    if resolution != _BUILT_IN_RESOLUTION:
        for module in model.modules():
            if isinstance(module, Attention):
                _set_resolution(module, resolution)
    return model


def _set_resolution(attention: Attention, resolution: int) -> None:
    """Replace the bias table, which starts at zero, and the index into it; the projections stay."""
    sized = Attention(attention.qkv.in_features, attention.key_dim, attention.num_heads, attention.attn_ratio, resolution)
    attention.attention_biases = sized.attention_biases
    attention.register_buffer("attention_bias_idxs", sized.attention_bias_idxs)
