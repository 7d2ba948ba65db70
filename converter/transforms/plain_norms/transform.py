"""Plain norms as a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.queries import attributes, constant
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.plain_norms.sites import find_norms
from converter.transforms.transform import GraphFacts

__all__ = ["PlainNorms"]

_EPSILON = 1e-5
"""What a LayerNormalization adds to the variance unless it says otherwise."""


@dataclass(frozen=True)
class PlainNorms:
    """Plain norms as a transform: factors and offsets go to the layers behind, and an InstanceNormalization over each row is left.

    Attributes:
        plain_norms: names of LayerNormalizations.
    """

    key: ClassVar[str] = "plain_norms"

    plain_norms: tuple[str, ...]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        sites = find_norms(model, facts.shapes, facts.excluded)
        for name in self.plain_norms:
            if name not in sites:
                raise ValueError(f"operator '{name}' is no normalization whose factors and offsets layers can take")
        chosen = {name: sites[name] for name in dict.fromkeys(self.plain_norms)}
        by_tensor = {each.site.tensor: each for each in chosen.values()}
        result = apply_equalizations(
            model, {name: each.site for name, each in by_tensor.items()}, {name: each.equalization for name, each in by_tensor.items()}
        )
        builder = GraphBuilder(result.graph)
        for node in list(result.graph):
            if str(node.name) in chosen:
                _write(builder, node)
        return result


def _write(builder: GraphBuilder, node: ir.Node) -> None:
    """The same over the rows of [batch, tokens, channels], in the place and under the name of the node."""
    x, output = node.inputs[0], node.outputs[0]
    gamma = constant(node.inputs[1])
    shape = output.shape
    assert x is not None and shape is not None and gamma is not None and (gamma == 1.0).all()
    tokens, name = shape[1], str(node.name)
    assert isinstance(tokens, int)
    fills = {"ones": np.ones(tokens, np.float32), "zeros": np.zeros(tokens, np.float32)}
    operands = [builder.initializer(f"{name}_{what}", array) for what, array in fills.items()]
    attrs = {"epsilon": float(attributes(node).get("epsilon", _EPSILON))}
    new = builder.add("InstanceNormalization", [x, *operands], attrs, name=f"{name}_plain", like=output, before=node)
    maker = new.producer()
    builder.replace(output, new, [node])
    assert maker is not None
    maker.name = name
