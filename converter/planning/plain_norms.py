"""Which norms become plain: those of which 8 bits are as good for the layers behind without the factors as with them, nearly so.

Without factors all channels have the same variance, but an outlier in one widens the range of all. What that adds to the error of the
layers behind is told by ranges: a uniform error of range / 255 in each channel, times the weights that it meets. It is compared with that
of a scale for each channel, which equalization could choose there and never does better than.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from converter.calibration.observer import values_of
from converter.options import Options
from converter.runtime.session import Feed
from converter.transforms.plain_norms.sites import Array, NormSite

__all__ = ["error_ratio", "harmless_norms", "may_be_plain"]

_MOST = 4.0
"""Times the error of a scale for each channel: one bit of eight."""

_SAMPLES = 8

_AS_PUBLISHED = frozenset({"easyquant", "fq-vit", "ptq4vit", "repq-vit"})
"""Methods that get the norms as they are, since they treat those in ways of their own."""

_BITS = 8
"""With fewer, activations need all that equalization can do for them."""


def may_be_plain(options: Options) -> bool:
    """Whether a conversion may change norms at all."""
    return options.method not in _AS_PUBLISHED and options.widths.activations >= _BITS


def harmless_norms(model: ir.Model, sites: Mapping[str, NormSite], feeds: Sequence[Feed]) -> tuple[str, ...]:
    """Names of the normalizations that may become plain, in graph order.

    Args:
        model: canonical float model.
        sites: where they could, by name.
        feeds: calibration samples.
    """
    outputs = {str(node.name): str(node.outputs[0].name) for node in model.graph if str(node.name) in sites}
    values = values_of(model, feeds[:_SAMPLES], list(outputs.values()), threads=1) if outputs else {}
    return tuple(name for name, output in outputs.items() if error_ratio(values[output].astype(np.float64), sites[name]) <= _MOST)


def error_ratio(y: Array, norm: NormSite) -> float:
    """Expected squared error of the layers behind a plain norm on a grid, over that with a scale for each channel.

    Args:
        y: what the normalization gives, [..., channels].
        norm: its factors, offsets and weights behind.
    """
    gamma = np.asarray(norm.equalization.scale)
    beta = np.asarray(norm.equalization.shift or np.zeros(len(gamma)))
    plain = (y.reshape(-1, len(gamma)) - beta) / gamma
    ranges = np.maximum(plain.max(0), 0.0) - np.minimum(plain.min(0), 0.0)
    whole = max(plain.max(initial=0.0), 0.0) - min(plain.min(initial=0.0), 0.0)
    power = norm.power * np.square(gamma)
    each = float(np.square(ranges) @ power)
    return float(np.square(whole) * power.sum()) / each if each > 0.0 else 1.0
