"""Layer normalizations whose factors and offsets the layers behind can take, all of them and to float rounding.

What stays is the plain norm: every row less its mean, over its deviation. The runtime has two kernels for that. LayerNormalization adds up
number by number; InstanceNormalization, which takes a row for the map of a channel, works on several numbers at a time and costs less
than half, but has one factor for each row, none for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.queries import attributes, constant, is_graph_output
from converter.targets import Target
from converter.targets.costs import form_costs
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Equalization, EqualizationSite

__all__ = ["NormSite", "cheaper_norms", "find_norms"]

Array = npt.NDArray[np.float64]

_RANK = 3
"""Of tokens: [batch, tokens, channels]. The tokens are the channels of an InstanceNormalization."""


@dataclass(frozen=True, eq=False)
class NormSite:
    """A LayerNormalization that can be made plain.

    Attributes:
        site: where the layers behind take what is moved, by its key tensor.
        equalization: that leaves factors of one and offsets of zero.
        power: sum of squares of the weights behind each channel, float64 [channels].
    """

    site: EqualizationSite
    equalization: Equalization
    power: Array


def find_norms(model: ir.Model, shapes: Mapping[str, tuple[int, ...]], excluded: Collection[str] = ()) -> dict[str, NormSite]:
    """All of them, by the name of the normalization.

    Args:
        model: canonical float model.
        shapes: of its float tensors, by name, as observed.
        excluded: names of nodes that stay as they are.
    """
    nodes = {str(node.name): node for node in model.graph}
    norms = {name: node for name, node in nodes.items() if node.op_type == "LayerNormalization" and _over_tokens(node)}
    result: dict[str, NormSite] = {}
    if not norms:
        return result
    for site in find_sites(model, shapes).values():
        makers = {scaling.node for scaling in site.scalings if (scaling.powers < 0).any()}
        name = next(iter(makers), "")
        if len(makers) != 1 or name not in norms or {s.node for s in site.scalings} & set(excluded):
            continue
        found = _norm_site(norms[name], site, nodes)
        if found is not None:
            result[name] = found
    return result


def cheaper_norms(model: ir.Model, shapes: Mapping[str, tuple[int, ...]], target: Target) -> set[str]:
    """Names of the LayerNormalizations that an InstanceNormalization is cheaper than, on this target."""
    return {str(node.name) for node in model.graph if node.op_type == "LayerNormalization" and _cheaper(node, shapes, target)}


def _cheaper(node: ir.Node, shapes: Mapping[str, tuple[int, ...]], target: Target) -> bool:
    shape = shapes.get(str(node.outputs[0].name))
    if shape is None or "InstanceNormalization" not in target.costs:
        return False
    size = float(math.prod(shape))
    found = {"node": 1.0, "element": size, "input": size, "row": float(math.prod(shape[:-1]))}
    return form_costs("InstanceNormalization", found, target)[0] < form_costs("LayerNormalization", found, target)[0]


def _over_tokens(node: ir.Node) -> bool:
    """Over the last of three axes, with a known number of tokens, read by others alone, and with constants of its own."""
    x, shape = node.inputs[0], node.outputs[0].shape
    if x is None or shape is None or len(shape) != _RANK or not all(isinstance(n, int) for n in shape[1:]):
        return False
    last = attributes(node).get("axis", -1) in (-1, _RANK - 1)
    alone = not is_graph_output(node.outputs[0]) and not any(output.uses() for output in node.outputs[1:])
    return last and alone and all(constant(value) is not None for value in node.inputs[1:])


def _norm_site(node: ir.Node, site: EqualizationSite, nodes: Mapping[str, ir.Node]) -> NormSite | None:
    """None if a factor is not positive, or the site lacks what it takes: a shift, or a weight behind."""
    gamma, beta = (constant(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
    own = [scaling for scaling in site.scalings if scaling.node == str(node.name) and scaling.index == 1]
    if (
        gamma is None
        or not own
        or site.inserted
        or len(gamma) != site.channels
        or not np.array_equal(own[0].channels, np.arange(len(gamma)))
    ):
        return None
    if not (gamma > 0.0).all():
        return None
    shift = () if beta is None or not beta.any() else tuple(float(b) for b in beta)
    if shift and not site.shift:
        return None
    power = np.zeros(site.channels)
    for scaling in site.scalings:
        weight = constant(nodes[scaling.node].inputs[scaling.index]) if scaling.node != str(node.name) else None
        if weight is None:
            continue
        channels = np.broadcast_to(scaling.channels, weight.shape)
        if (channels < 0).any():
            return None
        power += np.bincount(channels.reshape(-1), np.square(weight.astype(np.float64)).reshape(-1), site.channels)
    return NormSite(site, Equalization(tuple(float(g) for g in gamma), shift), power)
