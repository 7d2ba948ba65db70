"""Find where grids that are not uniform can stand: behind a softmax or a GELU, in front of a layer normalization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import onnx_ir as ir

from converter.graph.operator_sets import LAYERS
from converter.graph.queries import attributes, constant, data_inputs
from converter.transforms.nonuniform.marks import source_of
from converter.transforms.nonuniform.quantizer import QuantizerSite

__all__ = ["find_quantizer_sites"]


def find_quantizer_sites(model: ir.Model, excluded: Collection[str] = ()) -> dict[str, QuantizerSite]:
    """Find all quantizer sites, by the name of the tensor that is read, in the order of the readers.

    Args:
        model: canonical float model.
        excluded: names of nodes that the user keeps as they are.
    """
    quantizer_sites: dict[str, QuantizerSite] = {}
    for node in model.graph:
        if str(node.name) in excluded:
            continue
        for index, value in data_inputs(node):
            quantizer_site = _quantizer_site(node, index, value)
            if quantizer_site is not None:
                name = quantizer_site.tensor
                quantizer_sites[name] = quantizer_site if name not in quantizer_sites else _joined(quantizer_sites[name], quantizer_site)
    # a softmax that more than one product reads, itself or moved, has no one range of sums
    products = Counter(
        quantizer_site.scores
        for quantizer_site in quantizer_sites.values()
        if quantizer_site.kind == "attention"
        for _ in quantizer_site.readers
    )
    return {
        name: quantizer_site
        for name, quantizer_site in quantizer_sites.items()
        if quantizer_site.kind != "attention" or products[quantizer_site.scores] == 1
    }


def _quantizer_site(node: ir.Node, index: int, value: ir.Value) -> QuantizerSite | None:
    name, reader = str(value.name), ((str(node.name), index),)
    if node.op_type == "LayerNormalization" and index == 0:
        rank = len(value.shape) if value.shape is not None else 0
        whole = attributes(node).get("axis", -1) in (-1, rank - 1) and constant(node.inputs[1]) is not None
        return QuantizerSite("normalization", name, reader) if whole and rank else None
    if node.op_type not in LAYERS or index > 1:
        return None
    source = source_of(value)
    other = node.inputs[1 - index]
    weighted = index == 0 and constant(other) is not None
    if source is None or other is None:
        return None
    if source.op_type == "Gelu" and weighted:
        return QuantizerSite("gelu", name, reader)
    if source.op_type == "LayerNormalization" and weighted:
        return QuantizerSite("normalized", name, reader)
    if (
        source.op_type == "Softmax"
        and _over_last_axis(source)
        and constant(other) is None
        and node.op_type == "MatMul"
        and other is not value
    ):
        scores = source.inputs[0]
        return QuantizerSite("attention", name, reader, str(other.name), "" if scores is None else str(scores.name))
    return None


def _over_last_axis(softmax: ir.Node) -> bool:
    shape = softmax.outputs[0].shape
    return attributes(softmax).get("axis", -1) in (-1, *([len(shape) - 1] if shape is not None else []))


def _joined(one: QuantizerSite, other: QuantizerSite) -> QuantizerSite:
    """Both readers; the first of two kinds, which have the same tensor only if something else than layers reads it."""
    if one.kind != other.kind:
        return one
    return QuantizerSite(one.kind, one.tensor, one.readers + other.readers, one.partner, one.scores)
