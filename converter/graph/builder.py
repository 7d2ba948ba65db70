"""A graph under construction: new nodes and constants, under names that nothing else in it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

__all__ = ["GraphBuilder", "remove_dead", "rewrite_nodes"]


class GraphBuilder:
    """Adds to a graph and takes from it.

    The names in the graph are read once. As long as a builder is in use, only it gives and frees any.

    Args:
        graph: changed in place.
        taken: further names that nothing new may have.
    """

    def __init__(self, graph: ir.Graph, taken: Iterable[str] = ()) -> None:
        self.graph = graph
        self._taken = Counter([*taken, *graph.initializers, *(str(v.name) for v in graph.inputs)])
        for node in graph:
            self._taken.update(_names(node))

    def free(self, wish: str) -> str:
        """``wish``, or ``wish_2``, ``wish_3``...: a name that no value, node or initializer has yet."""
        name, number = wish, 1
        while self._taken[name] > 0:
            number += 1
            name = f"{wish}_{number}"
        return name

    def unique(self, wish: str) -> str:
        """The same, and the name is taken from now on."""
        name = self.free(wish)
        self._taken[name] += 1
        return name

    def initializer(self, wish: str, array: npt.NDArray[Any]) -> ir.Value:
        """Add a constant, named after ``wish``."""
        name = self.unique(wish)
        tensor = ir.tensor(np.array(array, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        output: str = "",
        like: ir.Value | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        shape: ir.Shape | None = None,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Add a node at the end, or in front of or behind another.

        Args:
            op_type, inputs, attributes: as in ONNX.
            name: wish for the node.
            output: wish for its output, ``<name>_output`` by default.
            like: a tensor of the type, and unless ``shape`` is given of the shape, of the output.
            dtype: of the output without ``like``.
            shape: of the output.
            before, after: a node of the graph.

        Returns:
            the output.
        """
        node = ir.node(op_type, list(inputs), dict(attributes or {}), name=self.unique(name))
        (value,) = node.outputs
        value.name = self.unique(output or f"{name}_output")
        value.type = ir.TensorType(dtype) if like is None else like.type
        value.shape = like.shape if shape is None and like is not None else shape
        if before is not None:
            self.graph.insert_before(before, [node])
        elif after is not None:
            self.graph.insert_after(after, [node])
        else:
            self.graph.append(node)
        return value

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a value of the graph a name that is free, or will be when something else makes way."""
        self._taken[str(value.name)] -= 1
        self._taken[name] += 1
        value.name = name

    def remove(self, nodes: Sequence[ir.Node]) -> None:
        """Remove nodes that nothing reads any more.

        Raises:
            ValueError: something else does.
        """
        self.graph.remove(nodes, safe=True)
        for node in nodes:
            self._taken.subtract(_names(node))

    def replace(self, old: ir.Value, new: ir.Value, dead: Iterable[ir.Node]) -> None:
        """Let ``new`` take the place, the name and the consumers of ``old``, and remove the nodes that made ``old``.

        The tensor keeps its name, so that names in the canonical graph are names of the input file.
        """
        name = str(old.name)
        new.shape = new.shape if old.shape is None else old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self.rename(old, self.free(f"{name}_replaced"))
        self.remove(list(dict.fromkeys(dead)))
        self.rename(new, name)


def rewrite_nodes(model: ir.Model, rules: Mapping[str, Callable[[GraphBuilder, ir.Node], bool]]) -> list[str]:
    """Offer each node to the rule for its type, which says if it has changed it; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    pairs = ((node, str(node.outputs[0].name)) for node in list(model.graph) if node.op_type in rules)
    return [name for node, name in pairs if rules[node.op_type](builder, node)]


def remove_dead(model: ir.Model) -> None:
    """Drop nodes that nothing reads and initializers that no node reads."""
    common_passes.RemoveUnusedNodesPass()(model)


def _names(node: ir.Node) -> list[str]:
    return [str(node.name), *(str(output.name) for output in node.outputs)]
