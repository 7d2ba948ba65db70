"""Average pooling becomes a depthwise convolution, which has a fast integer kernel; the pooling has only a slow one.

1. ``AveragePool`` becomes a ``Conv`` whose weights are all one over the size of the window. If windows at the border
   count only what lies inside the picture, a ``Mul`` by one constant per position follows: size over count. Windows of 3 x 3 need none
   where a border of averages costs less (:mod:`converter.canonicalise.borders`).
2. ``x + a * (pool(x) - x)``, the token mixer of PoolFormer (arXiv 2111.11418, equation 4) with a factor per channel, becomes
   ``(1 - a) * x + a * pool(x)``: the factor goes into the weights, and no subtraction, which has no integer kernel, is left. Without
   a factor per position ``(1 - a) * x`` does too, in the middle of the window.

From opset 19 on the runtime's float AveragePool is a plain loop, some five times dearer than the float convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.canonicalise.borders import SMALLEST_SIDE, average_border, border_cost
from converter.graph.builder import GraphBuilder
from converter.graph.marks import AVERAGE, mark_makers
from converter.graph.queries import attributes, constant, is_float, sole_consumer
from converter.targets import Target
from converter.targets.costs import between_codes, cheaper_form, convolution_features

__all__ = ["spell_out_averages"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Mixer:
    """The nodes around a pooling in case 2, and the factor, one number per channel, float64."""

    difference: ir.Node
    scaling: ir.Node
    total: ir.Node
    factor: Array


def spell_out_averages(model: ir.Model, target: Target) -> list[str]:
    """Apply the cases above where the convolution costs less; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    return [name for node in list(model.graph) if node.op_type == "AveragePool" and (name := _spell_out(builder, node, target))]


def _spell_out(builder: GraphBuilder, pool: ir.Node, target: Target) -> str:
    x, attrs, pooled = pool.inputs[0], attributes(pool), pool.outputs[0]
    window = [int(k) for k in attrs["kernel_shape"]]
    shape = x.shape if x is not None else None
    if x is None or not is_float(x) or shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return ""
    plain = attrs.get("auto_pad", "NOTSET") in ("NOTSET", "") and not attrs.get("ceil_mode", 0) and set(attrs.get("dilations", [1])) == {1}
    if not plain or math.prod(window) == 1 or not _cheaper(shape, pooled.shape, attrs, target):
        return ""
    channels, pads, strides = shape[1], list(attrs.get("pads", [0] * 4)), list(attrs.get("strides", [1, 1]))
    sides = [d for d in shape[2:] if isinstance(d, int)]
    gain = None
    if any(pads) and not attrs.get("count_include_pad", 0):
        if len(sides) != 2:
            return ""
        gain = _border_gain(sides, window, strides, pads)
    mixer = _mixer(pool, x, channels)
    factor = np.ones(channels) if mixer is None else mixer.factor
    last = pool if mixer is None else mixer.total
    name = str(pooled.name)
    weights = np.broadcast_to(factor[:, None, None, None] / math.prod(window), (channels, 1, *window)).copy()
    read = x
    if gain is not None and _fits_border(window, strides, pads, sides) and _border_pays(channels, sides, target, mixed=mixer is not None):
        read, gain, pads = average_border(builder, x, name, last), None, [0] * 4
    merged = mixer is not None and gain is None
    if merged:
        middle = [size // 2 for size in window] if read is not x else pads[:2]
        weights[:, 0, middle[0], middle[1]] += 1.0 - factor
    kernel = {"kernel_shape": window, "pads": pads, "strides": strides, "group": channels}
    weight = builder.initializer(f"{name}_weight", weights.astype(np.float32))
    new = builder.add("Conv", [read, weight], kernel, name=f"{name}_Conv", like=pooled, before=last)
    mark_makers([new], AVERAGE)
    if gain is not None:
        new = builder.add("Mul", [new, builder.initializer(f"{name}_gain", gain)], name=f"{name}_Mul", like=pooled, before=last)
    if mixer is not None and not merged:
        kept = builder.initializer(f"{name}_kept", (1.0 - factor).astype(np.float32).reshape(1, -1, 1, 1))
        rest = builder.add("Mul", [x, kept], name=f"{name}_kept_Mul", like=x, before=last)
        new = builder.add("Add", [rest, new], name=f"{name}_Add", like=last.outputs[0], before=last)
    result = last.outputs[0]
    replaced = str(result.name)
    builder.replace(result, new, [pool] if mixer is None else [mixer.total, mixer.scaling, mixer.difference, pool])
    return replaced


def _cheaper(read: ir.Shape, written: ir.Shape | None, attrs: Mapping[str, Any], target: Target) -> bool:
    """True if a depthwise convolution costs less than the pooling, of whose integer kernel no form makes use.

    Open sides count one place, and then only what grows with them.
    """
    sizes, results = ([d if isinstance(d, int) else 1 for d in (shape or (1, 1))] for shape in (read, written))
    window, size, channels = attrs["kernel_shape"], float(math.prod(results)), sizes[1]
    known = all(isinstance(d, int) for d in (*read, *(written or (None,))))
    amounts = {"node": float(known), "input": float(math.prod(sizes)), "element": size, "row": size / results[-1]}
    pool = amounts | {"window": size * math.prod(window)}
    convolution = amounts | convolution_features(results, [channels, 1, *window], {**attrs, "group": channels})
    return cheaper_form("DepthwiseConv", convolution, target) < between_codes("AveragePool", pool, target)


def _fits_border(window: Sequence[int], strides: Sequence[int], pads: Sequence[int], sides: Sequence[int]) -> bool:
    """True for means over three places by three, around each place of a map that is not too small."""
    return [*window, *strides, *pads] == [3, 3, 1, 1, 1, 1, 1, 1] and min(sides) >= SMALLEST_SIDE


def _border_pays(channels: int, sides: Sequence[int], target: Target, *, mixed: bool) -> bool:
    """True if a border costs less than a factor per position and, around a mixer, the product and the sum that are left then."""
    size = float(channels * math.prod(sides))
    product = {"node": 1.0, "element": size, "input": size}
    instead = cheaper_form("Mul", product, target)
    if mixed:
        instead += cheaper_form("Mul", product, target) + cheaper_form("Add", product | {"input": 2 * size}, target)
    height, width = sides
    return border_cost(channels, height, width, target) < instead


def _border_gain(sides: Sequence[int], window: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Array:
    """Size of the window over how much of it lies inside, [1, 1, height, width] of the output, float32."""
    shares = []
    for size, width, stride, before, after in zip(sides, window, strides, pads[:2], pads[2:], strict=True):
        starts = np.arange((size + before + after - width) // stride + 1) * stride - before
        shares.append(width / (np.minimum(starts + width, size) - np.maximum(starts, 0)))
    return np.multiply.outer(*shares).astype(np.float32)[None, None]


def _mixer(pool: ir.Node, x: ir.Value, channels: int) -> _Mixer | None:
    difference = sole_consumer(pool.outputs[0])
    if difference is None or difference.op_type != "Sub" or list(difference.inputs) != [pool.outputs[0], x]:
        return None
    scaling = sole_consumer(difference.outputs[0])
    total = sole_consumer(scaling.outputs[0]) if scaling is not None else None
    if scaling is None or scaling.op_type != "Mul" or total is None or total.op_type != "Add":
        return None
    arrays = [array for v in scaling.inputs if (array := constant(v)) is not None]
    if len(arrays) != 1 or x not in total.inputs or total.inputs[0] is total.inputs[1]:
        return None
    aligned = (1,) * (4 - arrays[0].ndim) + arrays[0].shape
    if len(aligned) != 4 or aligned[0] != 1 or aligned[1] not in (1, channels) or aligned[2:] != (1, 1):
        return None
    return _Mixer(difference, scaling, total, np.broadcast_to(arrays[0].astype(np.float64).reshape(-1), (channels,)))
