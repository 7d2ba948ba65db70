"""Channels whose ranges differ by orders of magnitude, and make up for it in the next layer, get ranges of one size.

One scale for a tensor leaves nothing of its small channels. Where a layer multiplies a channel by what the next one divides
it by again, both constants take the factor, as in cross-layer equalization (Nagel et al., arXiv 1906.04721, section 4.1).
Factors are powers of two, so that nothing is rounded. Ordinary spreads are left to the methods, which judge them; and so are
channels that are as good as dead, small in front and not made up for behind.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.canonicalise.standard import infer_shapes
from converter.graph.queries import constant
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Equalization, EqualizationSite

__all__ = ["even_out_channels"]

_SPREAD = 2.0**12
"""Times the smallest channel's reach that of the largest is, if a rewrite is worth it: with less, eight bits show something of both."""

_DEAD = 2.0**-8
"""Share of the largest product of a channel's constants in front and behind that a channel needs to count."""

Doubles = npt.NDArray[np.float64]


def even_out_channels(model: ir.Model) -> tuple[ir.Model, int]:
    """The model with such channels rescaled, a copy where there are any; and in how many tensors."""
    shapes = _shapes(model)
    if not shapes:
        return model, 0
    sites = {name: site for name, site in find_sites(model, shapes).items() if site.kind == "cross_layer"}
    nodes = {str(node.name): node for node in model.graph}
    equalizations = {name: equalization for name, site in sites.items() if (equalization := _fold(site, nodes)) is not None}
    if not equalizations:
        return model, 0
    try:
        return apply_equalizations(model, sites, equalizations), len(equalizations)
    except ValueError:  # a constant would leave the range of float32
        return model, 0


def _shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Shapes that follow from those of the inputs, for a batch of one where that is all that is open; none where more is."""
    proto: onnx.ModelProto = ir.to_proto(model)
    for value in proto.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = 1
        if not all(size.HasField("dim_value") for size in sizes):
            return {}
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = infer_shapes(proto)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    found = {v.name: v.type.tensor_type.shape.dim for v in values if v.type.tensor_type.HasField("shape")}
    return {name: tuple(d.dim_value for d in dims) for name, dims in found.items() if all(d.HasField("dim_value") for d in dims)}


def _fold(site: EqualizationSite, nodes: Mapping[str, ir.Node]) -> Equalization | None:
    front, behind = (_reach(site, nodes, power) for power in (-1, 1))
    alive = front * behind > _DEAD * float((front * behind).max(initial=0.0))
    if not alive.any() or front[alive].max() < _SPREAD * front[alive].min():
        return None
    shares = np.where(alive, front, front[alive].max()) / front[alive].max()
    return Equalization(tuple(float(s) for s in 2.0 ** np.round(np.log2(shares))))


def _reach(site: EqualizationSite, nodes: Mapping[str, ir.Node], power: int) -> Doubles:
    """The largest magnitude of each channel among the constants that take its factor to a power; float64 [channels]."""
    largest = np.zeros(site.channels)
    for scaling in site.scalings:
        inputs = nodes[scaling.node].inputs
        array = constant(inputs[scaling.index]) if len(inputs) > scaling.index else None
        if array is None:
            continue
        channels, powers = np.broadcast_arrays(scaling.channels, scaling.powers)
        channels, powers = (part.reshape((1,) * (array.ndim - part.ndim) + part.shape) for part in (channels, powers))
        alike = tuple(axis for axis, size in enumerate(channels.shape) if size == 1)  # without a copy of an array that may be large
        sizes = np.maximum(array.max(axis=alike, keepdims=True), -array.min(axis=alike, keepdims=True)).astype(np.float64)
        channels, powers = (np.broadcast_to(part, sizes.shape) for part in (channels, powers))
        chosen = (channels >= 0) & (powers == power)
        np.maximum.at(largest, channels[chosen], sizes[chosen])
    return largest
